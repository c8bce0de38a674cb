"""The samples under deploy/ are what their tools expect, and start the service as its command line is."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from peterrec.cli.main import app

DEPLOY = Path(__file__).parents[3] / "deploy"
KUBERNETES = "1.30"


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return content


def check_command(words: list[str]) -> dict[str, Any]:
    """Return the options that `peterrec serve ...` would have; a mistake in them is an error."""
    assert words[:2] == ["peterrec", "serve"]
    verb: Any = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return dict(verb.make_context("serve", words[2:]).params)


def test_the_manifests_follow_the_schemas_of_kubernetes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        validator = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for manifest in manifests():
        validator.validate(manifest, KUBERNETES, strict=True)
    broken = manifests()[-1] | {"spec": {"minAvailables": 1}}
    with pytest.raises(validator.ValidationError):
        validator.validate(broken, KUBERNETES, strict=True)


def test_the_manifests_fit_each_other_and_the_command_line() -> None:
    by_kind = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests()}
    pod = by_kind["Deployment", "peterrec"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    options = check_command(container["args"])
    assert (options["registry"], options["port"]) == ("store", container["ports"][0]["containerPort"])
    assert options["store"] == "redis://peterrec-redis:6379/0"
    assert ("Service", "peterrec-redis") in by_kind
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["bundles"] == options["bundle_root"]
    assert set(mounts) == {volume["name"] for volume in pod["spec"]["volumes"]}
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert all(("PersistentVolumeClaim", claim) in by_kind for claim in claims)
    for kind in ("Service", "PodDisruptionBudget"):
        selector = by_kind[kind, "peterrec"]["spec"]["selector"]
        assert pod["metadata"]["labels"].items() >= selector.get("matchLabels", selector).items()


def test_the_compose_file_fits_the_proxy_and_the_command_line() -> None:
    content = compose()
    services, sample = content["services"], (DEPLOY / "nginx-replicas.conf").read_text()
    replicas = {
        name: check_command(shlex.split(service["command"])) for name, service in services.items() if "replica" in name
    }
    assert len(replicas) == 2
    for name, options in replicas.items():
        assert f"server 127.0.0.1:{options['port']}" in sample
        assert (options["registry"], options["bundle_root"]) == ("store", "/bundles")
        volumes = [volume.split(":") for volume in services[name]["volumes"]]
        assert {options["state"], options["bundle_root"]} <= {volume[1] for volume in volumes}
        assert {volume[0] for volume in volumes if not volume[0].startswith(".")} <= set(content["volumes"])
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
    assert "--appendfsync always" in services["redis"]["command"]
