"""`inspect`: what a folder is, or plainly that it is nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import tiny_bundle, tiny_pretrained, write_corpus
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.artifacts.inspection import inspect
from peterrec.errors import ArtifactError, FormatVersionError

MAIN = {"corpus": "manifest.json", "backbone": "config.json", "bundle": "adapter_config.json"}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    pretrained = tiny_pretrained()
    save_backbone(tmp_path / "backbone", pretrained, config_yaml="seed: 0\n")
    save_bundle(tmp_path / "bundle", tiny_bundle(pretrained))
    write_corpus(tmp_path / "corpus", users=7)
    return {kind: tmp_path / kind for kind in MAIN}


@pytest.mark.parametrize("kind", MAIN)
def test_an_artifact_tells_what_its_description_holds(folders, kind):
    path = folders[kind]
    description = inspect(str(path))
    assert description["kind"] == kind
    assert description["path"] == str(path)
    assert description["bytes"] == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    described = json.loads((path / MAIN[kind]).read_text())
    assert {key: description[key] for key in described} == described
    json.dumps(description, allow_nan=False)


def test_the_numbers_people_look_for(folders):
    assert inspect(folders["corpus"])["users"] == 7
    assert inspect(folders["backbone"])["training"]["metrics"] == {"mrr@10": 0.25}
    bundle = inspect(folders["bundle"])
    assert bundle["metrics"]["valid"] == {"accuracy": 0.5}
    assert bundle["trainable_fraction"] == bundle["trainable_params"] / 1000


@pytest.mark.parametrize("kind", MAIN)
def test_another_version_is_refused(folders, kind):
    path = folders[kind] / MAIN[kind]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 9}))
    with pytest.raises(FormatVersionError, match="format version 9"):
        inspect(folders[kind])


@pytest.mark.parametrize("kind", MAIN)
def test_a_damaged_description_is_named(folders, kind):
    path = folders[kind] / MAIN[kind]
    path.write_text(path.read_text()[:-10])
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        inspect(folders[kind])
    assert caught.value.path == path


def test_a_bundle_without_its_metrics_is_damaged(folders):
    (folders["bundle"] / "metrics.json").unlink()
    with pytest.raises(ArtifactError, match=r"metrics\.json: is missing"):
        inspect(folders["bundle"])


def test_what_is_no_artifact(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for path in (tmp_path / "nothing", tmp_path / "file", tmp_path / "empty", ".", "..", "", "/"):
        with pytest.raises(ArtifactError, match="is no artifact of peterrec"):
            inspect(path)


def test_the_description_of_another_program_is_no_backbone(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(ArtifactError, match="is no artifact of peterrec; a backbone is wanted"):
        inspect(tmp_path)


def test_an_unfinished_run_is_called_that(tmp_path):
    (tmp_path / "b.training").mkdir()
    with pytest.raises(ArtifactError, match="is not finished") as caught:
        inspect(tmp_path / "b")
    assert "--resume" in caught.value.remedy
