"""A backbone folder: bit for bit the same after loading, refused if anything in it is not what was saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import file_size_limit, tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec._version import __version__
from peterrec.artifacts.backbone_io import PretrainedBackbone, load_backbone, save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.errors import ArtifactError, FingerprintError, FormatVersionError, StorageError

FILES = ["README.md", "catalogue.parquet", "config.json", "model.safetensors"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def saved(path: Path, **settings: Any) -> PretrainedBackbone:
    pretrained = tiny_pretrained(**settings)
    save_backbone(path, pretrained)
    return pretrained


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("integers", [True, False])
def test_everything_comes_back(tmp_path, tie, integers):
    catalogue = tiny_catalogue(integers=integers)
    settings = {"unknown": "unk", "max_length": 4, "training": {"curve": [{"epoch": 0.0, "loss": 1 / 3}], "seed": 2}}
    pretrained = saved(tmp_path / "b", catalogue=catalogue, backbone={"tie_weights": tie, "norm_eps": 1e-4}, **settings)
    read = load_backbone(tmp_path / "b")
    assert (read.max_length, read.unknown, read.training) == (4, "unk", settings["training"])
    assert read.network.backbone.config == pretrained.network.backbone.config
    assert read.catalogue.ids.equals(catalogue.ids)
    assert read.catalogue.counts.tolist() == catalogue.counts.tolist()
    assert read.fingerprint == pretrained.fingerprint
    for name, tensor in pretrained.network.state_dict().items():
        assert torch.equal(read.network.state_dict()[name], tensor), name
    tokens = torch.tensor([[4, 5, 0], [9, 15, 3]])
    with torch.no_grad():
        assert torch.equal(read.network.backbone(tokens), pretrained.network.backbone(tokens))


def test_the_folder_is_as_documented(tmp_path):
    pretrained = saved(tmp_path / "b")
    assert names(tmp_path) == ["b"]
    assert names(tmp_path / "b") == FILES
    meta = json.loads((tmp_path / "b" / "config.json").read_text())
    assert (meta["kind"], meta["format_version"], meta["peterrec_version"]) == ("backbone", 2, __version__)
    assert (meta["items"], meta["max_length"], meta["unknown"]) == (12, 6, "skip")
    assert meta["parameters"] == sum(parameter.numel() for parameter in pretrained.network.parameters())
    assert (meta["fingerprint"], meta["catalogue_fingerprint"]) == (
        pretrained.fingerprint,
        pretrained.catalogue.fingerprint,
    )
    assert meta["backbone"]["dilations"] == [1, 2]


def test_settings_are_kept_beside_it_if_given(tmp_path):
    save_backbone(tmp_path / "b", tiny_pretrained(), config_yaml="seed: 0\n")
    assert names(tmp_path / "b") == sorted([*FILES, "config.yaml"])
    assert (tmp_path / "b" / "config.yaml").read_text() == "seed: 0\n"


def test_an_old_one_is_replaced_only_if_asked(tmp_path):
    old = saved(tmp_path / "b", seed=1)
    new = tiny_pretrained(seed=2)
    with pytest.raises(ArtifactError, match="already exists"):
        save_backbone(tmp_path / "b", new)
    assert load_backbone(tmp_path / "b").fingerprint == old.fingerprint
    save_backbone(tmp_path / "b", new, overwrite=True)
    assert load_backbone(tmp_path / "b").fingerprint == new.fingerprint
    assert names(tmp_path) == ["b"]


@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_no_half_backbone(tmp_path, before):
    old = saved(tmp_path / "b") if before else None
    large = tiny_pretrained(tiny_catalogue(2000), seed=1)
    with pytest.raises(StorageError, match="the disk is full"), file_size_limit(20_000):
        save_backbone(tmp_path / "b", large, overwrite=True)
    assert names(tmp_path) == (["b"] if before else [])
    if old is not None:
        assert load_backbone(tmp_path / "b").fingerprint == old.fingerprint


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("step", ["write_json", "write_tensors", "backbone_card", "Catalogue.write"])
def test_a_stop_at_any_step_leaves_no_half_backbone(tmp_path, monkeypatch, stop, step):
    def stopping(*args: object, **kwargs: object) -> None:
        raise stop

    monkeypatch.setattr(f"peterrec.artifacts.backbone_io.{step}", stopping)
    with pytest.raises(stop):
        save_backbone(tmp_path / "b", tiny_pretrained())
    assert names(tmp_path) == []


# ---------------------------------------------------------------- refused


def test_files_of_another_backbone_are_refused_with_both_fingerprints(tmp_path):
    pretrained, other_pretrained = saved(tmp_path / "b"), saved(tmp_path / "other", seed=1)
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "b")
    with pytest.raises(FingerprintError, match="the fingerprint of its tensors") as caught:
        load_backbone(tmp_path / "b")
    assert pretrained.fingerprint[:12] in caught.value.message
    assert other_pretrained.fingerprint[:12] in caught.value.message
    assert caught.value.path == tmp_path / "b"


def test_another_catalogue_of_the_same_size_is_refused_with_both_fingerprints(tmp_path):
    pretrained = saved(tmp_path / "b")
    other_catalogue = tiny_catalogue(integers=True)
    other_catalogue.write(tmp_path / "b" / "catalogue.parquet")
    with pytest.raises(FingerprintError, match="the fingerprint of its catalogue") as caught:
        load_backbone(tmp_path / "b")
    assert pretrained.catalogue.fingerprint[:12] in caught.value.message
    assert other_catalogue.fingerprint[:12] in caught.value.message


def test_tensors_of_another_shape_do_not_fit(tmp_path):
    saved(tmp_path / "b")
    saved(tmp_path / "other", catalogue=tiny_catalogue(13))
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "b")
    with pytest.raises(ArtifactError, match="do not fit its configuration"):
        load_backbone(tmp_path / "b")


def test_another_format_version_or_kind_is_refused(tmp_path):
    pretrained = saved(tmp_path / "b")
    edit(tmp_path / "b" / "config.json", format_version=1)
    with pytest.raises(FormatVersionError, match=r"format version 1; .*\n.*make the artifact again"):
        load_backbone(tmp_path / "b")
    edit(tmp_path / "b" / "config.json", format_version=2, kind="corpus")
    with pytest.raises(ArtifactError, match="is a corpus; a backbone is wanted"):
        load_backbone(tmp_path / "b")
    save_bundle(tmp_path / "bundle", tiny_bundle(pretrained))
    with pytest.raises(ArtifactError, match="is a bundle; a backbone is wanted"):
        load_backbone(tmp_path / "bundle")
    with pytest.raises(ArtifactError, match="is missing"):
        load_backbone(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "catalogue.parquet"])
@pytest.mark.parametrize("fraction", [None, 0.0, 0.5, 0.99], ids=["missing", "empty", "half", "most"])
def test_a_truncated_file_is_named(tmp_path, name, fraction):
    saved(tmp_path / "b")
    path = tmp_path / "b" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * (fraction or 0))])
    if fraction is None:
        path.unlink()
    with pytest.raises(ArtifactError) as caught:
        load_backbone(tmp_path / "b")
    assert caught.value.path == path
    assert caught.value.remedy


@pytest.mark.parametrize("key", ["backbone", "items", "max_length", "unknown", "training", "fingerprint"])
def test_a_description_that_lacks_a_key_is_damaged(tmp_path, key):
    saved(tmp_path / "b")
    path = tmp_path / "b" / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    with pytest.raises(ArtifactError, match=f"lacks the key '{key}'"):
        load_backbone(tmp_path / "b")


@pytest.mark.parametrize(
    "changes", [{"items": "many"}, {"items": None}, {"items": 13}, {"backbone": {"channels": 0}}, {"backbone": None}]
)
def test_a_changed_description_is_damaged(tmp_path, changes):
    saved(tmp_path / "b")
    edit(tmp_path / "b" / "config.json", **changes)
    with pytest.raises(ArtifactError):
        load_backbone(tmp_path / "b")
