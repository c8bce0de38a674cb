"""What a push changes on the Hub: one commit with the artifact's files and its card, or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from hub_server import TOKEN, Hub, serve_hub
from peterrec import push
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.errors import ArtifactError, ConfigError, HubError, PeterRecError
from peterrec.model import UserModel

huggingface_hub = pytest.importorskip("huggingface_hub")
# Of huggingface_hub, where it sends a large file to its HTTP client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
PRETRAINED = tiny_pretrained()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as server:
        yield server


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    save_backbone(tmp_path / "backbone", PRETRAINED, config_yaml="epochs: 1\n")
    return tmp_path / "backbone"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "bundle", tiny_bundle(PRETRAINED))
    return tmp_path / "bundle"


def owner(hub: Hub) -> dict[str, Any]:
    return {"endpoint": hub.address, "token": TOKEN}


def tree(hub: Hub, repo_id: str = "org/model") -> dict[str, bytes]:
    repository = hub.repositories[repo_id]
    return repository.trees[repository.refs["main"]]


def card(hub: Hub, path: str = "README.md") -> Any:
    return huggingface_hub.ModelCard(tree(hub)[path].decode())


def test_a_push_is_one_commit_of_the_files(hub: Hub, backbone: Path, bundle: Path) -> None:
    (backbone / "notes.txt").write_text("not of the artifact")
    commit = push(backbone, "org/model", **owner(hub))
    assert hub.repositories["org/model"].refs["main"] == commit
    files = ["README.md", "catalogue.parquet", "config.json", "config.yaml", "model.safetensors"]
    assert sorted(tree(hub)) == [".gitattributes", *files]
    assert len(hub.repositories["org/model"].trees) == 2
    push(bundle, "org/model", subfolder="age", message="The age of users", **owner(hub))
    names = ["adapter_config.json", "adapter_model.safetensors", "labels.json", "metrics.json", "README.md"]
    assert set(tree(hub)) == {".gitattributes", *files, *(f"age/{name}" for name in names)}
    assert push(backbone, "org/model", **owner(hub)) == hub.repositories["org/model"].refs["main"]
    assert len(hub.repositories["org/model"].trees) == 3, "nothing is new"


def test_files_that_an_artifact_no_longer_has_are_removed(hub: Hub, tmp_path: Path, bundle: Path) -> None:
    push(bundle, "org/model", **owner(hub))
    assert "labels.json" in tree(hub)
    save_bundle(tmp_path / "shop", tiny_bundle(PRETRAINED, targets=tiny_catalogue(5, first=0)))
    push(tmp_path / "shop", "org/model", **owner(hub))
    assert "targets.parquet" in tree(hub)
    assert "labels.json" not in tree(hub)


@pytest.mark.parametrize("path", ["/lfs/", "/api/models/org/model/commit", "/api/models/org/model/preupload"])
def test_a_push_that_breaks_off_changes_nothing(hub: Hub, backbone: Path, path: str) -> None:
    first = push(backbone, "org/model", **owner(hub))
    before = dict(tree(hub))
    hub.fault = lambda method, place: 403 if place.startswith(path) else None
    another = UserModel(tiny_pretrained(seed=1), "cpu")
    with pytest.raises(HubError, match=r"hf://org/model: .*refuses access \(403\)"):
        another.push_to_hub("org/model", **owner(hub))
    assert (hub.repositories["org/model"].refs["main"], tree(hub)) == (first, before)
    assert another.repo_id is None
    hub.fault = lambda method, place: None
    another.push_to_hub("org/model", **owner(hub))
    assert json.loads(tree(hub)["config.json"])["fingerprint"] == another.fingerprint


def test_a_repository_that_changed_meanwhile_is_left_alone(hub: Hub, backbone: Path) -> None:
    push(backbone, "org/model", **owner(hub))

    def somebody_else(method: str, path: str) -> int | None:
        if "/preupload/" in path:
            hub.repositories["org/model"].commit(tree(hub) | {"notes.md": b"!"})
        return None

    hub.fault = somebody_else
    with pytest.raises(HubError, match="somebody else changed the repository meanwhile"):
        UserModel(tiny_pretrained(seed=1), "cpu").push_to_hub("org/model", **owner(hub))
    assert json.loads(tree(hub)["config.json"])["fingerprint"] == PRETRAINED.fingerprint


def test_the_card_keeps_what_its_owner_said(hub: Hub, bundle: Path) -> None:
    push(bundle, "org/model", license="mit", datasets=["org/data"], base_model="org/backbone", **owner(hub))
    statements = {"license": "mit", "datasets": ["org/data"], "base_model": "org/backbone"}
    assert card(hub).data.to_dict().items() >= statements.items()
    for options in ({"license": "cc-by-4.0"}, {}):
        push(bundle, "org/model", **options, **owner(hub))
        assert card(hub).data.to_dict().items() >= (statements | {"license": "cc-by-4.0"}).items()
    assert 'from_pretrained("org/backbone")' in card(hub).text
    assert 'load_bundle("org/model", name="age")' in card(hub).text


def test_text_that_was_written_into_the_folder_is_published(hub: Hub, bundle: Path) -> None:
    (bundle / "README.md").write_text(
        "---\nlicense: mit\nlanguage: en\n---\n\n# Ages of our readers\n", encoding="utf-8"
    )
    push(bundle, "org/model", datasets=["org/data"], **owner(hub))
    assert card(hub).text.strip() == "# Ages of our readers"
    fields = card(hub).data.to_dict()
    assert fields.items() >= {"license": "mit", "language": "en", "datasets": ["org/data"]}.items()
    assert fields["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5


def test_the_base_model_is_where_the_backbone_is(hub: Hub, tmp_path: Path) -> None:
    model = UserModel(PRETRAINED, "cpu")
    model.add_bundle(tiny_bundle(PRETRAINED))
    model.push_to_hub("org/backbone", **owner(hub))
    model.push_to_hub("org/model", bundle="age", **owner(hub))
    assert card(hub).data.base_model == "org/backbone"


def test_mistakes_are_refused_before_anything_is_written(
    hub: Hub, backbone: Path, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "joint").mkdir()
    (tmp_path / "joint" / "joint.json").write_text("{}")
    damaged = tmp_path / "damaged"
    save_bundle(damaged, tiny_bundle(PRETRAINED, seed=1))
    (damaged / "adapter_model.safetensors").write_bytes((bundle / "adapter_model.safetensors").read_bytes())
    mistakes: list[tuple[Path, dict[str, Any], type[PeterRecError], str]] = [
        (tmp_path, {}, ArtifactError, "is no backbone and no bundle"),
        (tmp_path / "joint", {}, ArtifactError, "joint training"),
        (damaged, {}, ArtifactError, "the fingerprint of its tensors"),
        (backbone, {"base_model": "org/a"}, ConfigError, "base_model is of bundles"),
        (bundle, {"subfolder": "../x"}, ConfigError, "no folder of a repository"),
    ]
    for path, options, error, problem in mistakes:
        with pytest.raises(error, match=problem) as caught:
            push(path, "org/model", **options, **owner(hub))
        assert caught.value.remedy
    with pytest.raises(ConfigError, match="'model' is no repository"):
        push(backbone, "model", **owner(hub))
    assert (hub.repositories, hub.requests) == ({}, [])


def test_what_the_hub_refuses(hub: Hub, backbone: Path, bundle: Path) -> None:
    push(backbone, "org/model", **owner(hub))
    before = dict(tree(hub))
    with pytest.raises(ConfigError, match="a backbone is there, which a bundle must not be mixed with"):
        push(bundle, "org/model", **owner(hub))
    with pytest.raises(ConfigError, match="was there before, and it is public"):
        push(backbone, "org/model", private=True, **owner(hub))
    with pytest.raises(HubError, match=r'"license" must be one of apache-2.0') as caught:
        push(backbone, "org/model", license="none of these", **owner(hub))
    assert "refuses it (400)" in str(caught.value)
    with pytest.raises(HubError, match=r"refuses access \(40[13]\)") as caught:
        push(backbone, "org/model", endpoint=hub.address, token="hf_stranger")
    assert "hf_stranger" not in str(caught.value)
    assert tree(hub) == before


def test_a_branch(hub: Hub, backbone: Path) -> None:
    first = push(backbone, "org/model", **owner(hub))
    second = UserModel(tiny_pretrained(seed=1), "cpu").push_to_hub("org/model", revision="next", **owner(hub))
    assert hub.repositories["org/model"].refs == {"main": first, "next": second}


def settings_of(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """Settings of a process of its own that has the owner's token."""
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
    return os.environ | settings | {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}


@pytest.mark.slow
def test_a_push_that_is_killed_changes_nothing(hub: Hub, backbone: Path, tmp_path: Path) -> None:
    push(backbone, "org/model", **owner(hub))
    before, uploading, killed = dict(tree(hub)), threading.Event(), threading.Event()

    def hold_uploads(method: str, path: str) -> int | None:
        if not path.startswith("/lfs/"):
            return None
        uploading.set()
        killed.wait(60)
        return 403

    hub.fault = hold_uploads
    save_backbone(tmp_path / "newer", tiny_pretrained(seed=1))
    command = [sys.executable, "-m", "peterrec", "push", str(tmp_path / "newer"), "org/model"]
    with subprocess.Popen(command, env=settings_of(hub, tmp_path)) as process:
        assert uploading.wait(120)
        process.kill()
    killed.set()
    assert tree(hub) == before
    hub.fault = lambda method, path: None
    push(tmp_path / "newer", "org/model", **owner(hub))
    assert tree(hub)["model.safetensors"] == (tmp_path / "newer" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_verb_and_those_that_read(hub: Hub, backbone: Path, bundle: Path, tmp_path: Path) -> None:
    def peterrec(*arguments: str) -> subprocess.CompletedProcess[str]:
        process = [sys.executable, "-m", "peterrec", *arguments]
        return subprocess.run(process, env=settings_of(hub, tmp_path), capture_output=True, text=True, check=False)

    pushed = peterrec("push", str(backbone), "org/model", "--license", "mit", "--private")
    place = pushed.stderr.split()[-1]
    assert place == f"hf://org/model@{hub.repositories['org/model'].refs['main']}", pushed.stderr
    assert hub.repositories["org/model"].private
    assert peterrec("push", str(bundle), "org/model", "--subfolder", "age", "-q").returncode == 0
    (tmp_path / "asked.jsonl").write_text('{"user": "a", "items": ["item-1", "item-3"]}\n')
    question = str(tmp_path / "asked.jsonl")
    answers = peterrec("predict", place, "hf://org/model/age", question, "-q")
    assert answers.stdout == peterrec("predict", str(backbone), str(bundle), question, "-q").stdout != ""
    requests = len(hub.requests)
    mistaken = peterrec("predict", "org/model", "hf://org/model/age", question)
    assert (mistaken.returncode, len(hub.requests)) == (2, requests), "a plain name is a folder, and nobody is asked"
    assert "org/model/config.json: is missing" in mistaken.stderr
