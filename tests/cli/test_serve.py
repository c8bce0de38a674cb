"""`peterrec serve`: mistakes are named before anything listens or is written."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.cli import serve as verb
from peterrec.cli.main import execute
from peterrec.config import ServeConfig
from peterrec.errors import ConfigError
from peterrec.serving.http import serve as service
from peterrec.serving.http.serve import parse_bundles


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    pretrained = tiny_pretrained()
    save_backbone(folder / "base", pretrained)
    save_bundle(folder / "age", tiny_bundle(pretrained))
    save_bundle(folder / "foreign", tiny_bundle(tiny_pretrained(seed=5)))
    shutil.copytree(folder / "age", folder / "corrupt")
    tensors = folder / "corrupt" / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bundle", "age={}/foreign"], "was made for another backbone"),
        (["--bundle", "age={}/corrupt"], "adapter_model.safetensors"),
        (["--bundle", "{}/none"], "is missing"),
        (["--bundle", "age={}/age", "--bundle", "{}/age"], "two bundles are named 'age'"),
        (["--bundle", "a/b={}/age"], "no name of a bundle"),
        (["--host", "0.0.0.0"], "without keys the service listens only on a loopback address"),
        (["--keys", "{}/none.yaml"], "none.yaml"),
        (["--titles", "{}/none.csv"], "none.csv"),
        (["--store", "postgres://x"], "names no store"),
        (["--port", "70000"], "port"),
        (["-s", "limits.queue=0"], "limits.queue"),
        (["-s", "limits.nothing=1"], "limits.nothing"),
    ],
    ids=range(12),
)
def test_a_mistake_is_named(
    artifacts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(service, "run", lambda *_: pytest.fail("it listens"))
    arguments = [option.format(artifacts) for option in options]
    state = tmp_path / "state"
    port = [] if "--port" in options else ["--port", "0"]
    assert execute(["serve", str(artifacts / "base"), "--state", str(state), *port, *arguments]) == 2
    out = capsys.readouterr()
    assert message in out.err
    assert "What to do:" in out.err
    assert not state.exists(), "something was left behind"


def test_a_port_that_is_taken(artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert execute(["serve", str(artifacts / "base"), "--port", port, "--state", str(tmp_path / "state")]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_without_the_extra_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(verb, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    assert execute(["serve", "base"]) == 2
    stderr = capsys.readouterr().err
    assert "pip install 'peterrec[serve]'" in stderr
    assert "uvicorn" in stderr


def test_options_count_more_than_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(service, "serve", lambda *arguments: calls.append(arguments))
    file = tmp_path / "serve.yaml"
    file.write_text("port: 1\nhost: localhost\nlimits: {k: 5}\n")
    line = ["serve", "base", "-b", "age=x", "-b", "y", "-c", str(file), "--port", "2", "-s", "limits.queue=7"]
    assert execute(line) == 0
    backbone, bundles, config, _ = calls[0]
    assert (backbone, bundles) == ("base", ["age=x", "y"])
    assert (config.port, config.host, config.limits.k, config.limits.queue) == (2, "localhost", 5, 7)
    assert config.bundle_root == ServeConfig().bundle_root


def test_a_bundle_has_its_tasks_name_unless_it_is_given_one(artifacts: Path, tmp_path: Path) -> None:
    age = str(artifacts / "age")
    assert parse_bundles([age, f"other={age}"]) == {"age": age, "other": age}
    odd = tmp_path / "a=b"
    shutil.copytree(age, odd)
    assert parse_bundles([str(odd)]) == {"age": str(odd)}
    assert parse_bundles([f"x={odd}"]) == {"x": str(odd)}
    for name in ("", "a b", "-a", "a\n", "x" * 201):
        with pytest.raises(ConfigError, match="no name of a bundle"):
            parse_bundles([f"{name}={age}"]) if name else parse_bundles([f"a b={age}"])
