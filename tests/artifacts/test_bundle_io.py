"""A bundle folder: bit for bit the same after loading, and refused on anything but its own backbone and catalogue."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import CLASSES, file_size_limit, tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import Bundle, load_bundle, save_bundle
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.data.catalogue import Catalogue
from peterrec.errors import ArtifactError, FingerprintError, FormatVersionError, StorageError
from peterrec.nn.backbone import Backbone
from peterrec.nn.heads import ItemHead
from peterrec.nn.readout import represent

PRETRAINED = tiny_pretrained()
OWNER = PRETRAINED.identity
BACKBONE = PRETRAINED.network.backbone
TARGETS = tiny_catalogue(5, first=0)
MAKERS = {
    "patch": lambda: tiny_bundle(PRETRAINED),
    "head": lambda: tiny_bundle(PRETRAINED, strategy="head"),
    "ranking": lambda: tiny_bundle(PRETRAINED, targets=TARGETS),
    "ranking, head": lambda: tiny_bundle(PRETRAINED, targets=TARGETS, strategy="head"),
    "attention": lambda: tiny_bundle(PRETRAINED, readout="attention"),
    "one piece a block": lambda: tiny_bundle(
        PRETRAINED, patch_config=PatchConfig(bottleneck=0.5, per_block=1, position="pre_act", activation="gelu")
    ),
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load(path: Path) -> Bundle:
    return load_bundle(path, BACKBONE, OWNER)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "age", tiny_bundle(PRETRAINED))
    return tmp_path / "age"


@pytest.fixture
def ranking(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "shop", tiny_bundle(PRETRAINED, targets=TARGETS))
    return tmp_path / "shop"


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("maker", MAKERS)
def test_everything_comes_back(tmp_path, maker):
    saved = MAKERS[maker]()
    save_bundle(tmp_path / "b", saved)
    read = load(tmp_path / "b")
    fields = (
        "name",
        "kind",
        "strategy",
        "patch_config",
        "class_names",
        "max_length",
        "all_params",
        "trained",
        "metrics",
    )
    for name in fields:
        assert getattr(read, name) == getattr(saved, name), name
    assert (read.backbone_fingerprint, read.catalogue_fingerprint) == OWNER[:2]
    assert (read.patch is None) == (saved.patch is None) == (saved.strategy == "head")
    assert type(read.head) is type(saved.head)
    assert read.tensors().keys() == saved.tensors().keys()
    for name, tensor in saved.tensors().items():
        assert torch.equal(read.tensors()[name], tensor), name
    if saved.targets is not None:
        assert read.targets.ids.equals(saved.targets.ids)
        assert read.targets.first == 0
    tokens = torch.tensor([[4, 5, 8], [9, 15, 3]])
    with torch.no_grad():
        scores = [
            bundle.head(represent(BACKBONE, tokens, bundle.patch, bundle.readout, bundle.readout_module))
            for bundle in (saved, read)
        ]
        assert torch.equal(*scores)


@pytest.mark.parametrize(("maker", "outputs"), [("patch", "labels.json"), ("ranking", "targets.parquet")])
def test_the_folder_is_as_documented(tmp_path, maker, outputs):
    bundle = MAKERS[maker]()
    save_bundle(tmp_path / "b", bundle, config_yaml="seed: 0\n")
    expected = ["README.md", "adapter_config.json", "adapter_model.safetensors", "config.yaml", "metrics.json", outputs]
    assert names(tmp_path / "b") == sorted(expected)
    meta = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    assert (meta["kind"], meta["format_version"], meta["kind_of_task"]) == ("bundle", 2, bundle.kind)
    assert (meta["backbone_fingerprint"], meta["catalogue_fingerprint"]) == OWNER[:2]
    assert meta["outputs"] == (3 if maker == "patch" else 5)
    assert meta["trainable_params"] == bundle.patch_params + bundle.head_params == bundle.trainable_params
    assert meta["trainable_fraction"] == bundle.trainable_params / 1000
    assert {name.partition(".")[0] for name in bundle.tensors()} == {"patch", "head"}


def test_parameters_are_counted():
    bundle = MAKERS["patch"]()
    assert bundle.patch_params == 4 * (8 * 3 + 3 + 3 * 8 + 8), "two blocks, two sites each, bottleneck 3"
    assert bundle.head_params == 3 * 8 + 3
    assert MAKERS["head"]().patch_params == 0


@pytest.mark.parametrize("names", [("b", "a"), ("ä, ö", 'a "b"\n', ""), tuple("abcdefghijk")], ids=repr)
def test_class_names_keep_their_order_and_letters(tmp_path, names):
    save_bundle(tmp_path / "b", tiny_bundle(PRETRAINED, class_names=names))
    assert load(tmp_path / "b").class_names == names


def test_an_old_one_is_replaced_only_if_asked(tmp_path, classes):
    with pytest.raises(ArtifactError, match="already exists"):
        save_bundle(classes, MAKERS["ranking"]())
    assert load(classes).kind == "classification"
    save_bundle(classes, MAKERS["ranking"](), overwrite=True)
    assert load(classes).kind == "ranking"
    assert "labels.json" not in names(classes)
    assert names(tmp_path) == ["age"]


def test_a_full_disk_leaves_no_half_bundle(tmp_path, classes):
    large = tiny_bundle(PRETRAINED, targets=tiny_catalogue(2000, first=0))
    for path in (classes, tmp_path / "new"):
        with pytest.raises(StorageError, match="the disk is full"), file_size_limit(20_000):
            save_bundle(path, large, overwrite=True)
    assert names(tmp_path) == ["age"]
    assert load(classes).class_names == CLASSES


@pytest.mark.parametrize("step", ["write_json", "write_tensors", "bundle_card", "Catalogue.write"])
def test_a_stop_at_any_step_leaves_no_half_bundle(tmp_path, monkeypatch, step):
    def stopping(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"peterrec.artifacts.bundle_io.{step}", stopping)
    with pytest.raises(KeyboardInterrupt):
        save_bundle(tmp_path / "b", MAKERS["ranking"]())
    assert names(tmp_path) == []


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("owner", "part"),
    [
        (OWNER._replace(fingerprint=tiny_pretrained(seed=1).fingerprint), "backbone"),
        (OWNER._replace(catalogue_fingerprint=TARGETS.fingerprint), "catalogue"),
    ],
)
def test_another_backbone_or_catalogue_is_refused_with_both_fingerprints(classes, owner, part):
    with pytest.raises(FingerprintError, match=f"was made for another {part}") as caught:
        load_bundle(classes, BACKBONE, owner)
    which = ["backbone", "catalogue"].index(part)
    assert owner[which][:12] in caught.value.message
    assert OWNER[which][:12] in caught.value.message
    assert caught.value.path == classes


def test_the_wrong_backbone_is_said_before_anything_of_its_shape(classes):
    wide = Backbone(BackboneConfig(channels=32, kernel_size=5, dilations=(1,)), 3)
    with pytest.raises(FingerprintError):
        load_bundle(classes, wide, OWNER._replace(fingerprint="0" * 64))


def test_another_format_version_or_kind_is_refused(tmp_path, classes):
    edit(classes / "adapter_config.json", format_version=1)
    with pytest.raises(FormatVersionError, match=r"format version 1; .*\n.*make the artifact again"):
        load(classes)
    save_backbone(tmp_path / "backbone", PRETRAINED)
    with pytest.raises(ArtifactError, match="is a backbone; a bundle is wanted"):
        load(tmp_path / "backbone")
    edit(classes / "adapter_config.json", format_version=2, kind="backbone")
    with pytest.raises(ArtifactError, match="is a backbone; a bundle is wanted"):
        load(classes)


def test_tensors_of_another_bundle_are_refused_with_both_fingerprints(tmp_path, classes):
    save_bundle(tmp_path / "other", tiny_bundle(PRETRAINED, seed=1))
    shutil.copy(tmp_path / "other" / "adapter_model.safetensors", classes)
    prints = [json.loads((tmp_path / b / "adapter_config.json").read_text())["fingerprint"] for b in ("age", "other")]
    with pytest.raises(ArtifactError, match="the fingerprint of its tensors") as caught:
        load(classes)
    assert type(caught.value) is ArtifactError  # it is of this backbone
    assert all(fingerprint[:12] in caught.value.message for fingerprint in prints)


@pytest.mark.parametrize(
    "edited", [["old", "young", "older"], ["young", "old"], ["young", "old", "oldest"], [*CLASSES, "x"], []]
)
def test_edited_labels_are_refused_with_both_fingerprints(classes, edited):
    (classes / "labels.json").write_text(json.dumps({"class_names": edited}))
    with pytest.raises(ArtifactError, match=r"of its labels is not that .*\([0-9a-f]{12}, [0-9a-f]{12}\)"):
        load(classes)


@pytest.mark.parametrize(
    "values", [{"max_length": 0}, {"max_length": "6"}, {"outputs": 4}, {"outputs": -1}, {"kind_of_task": "x"}]
)
def test_a_description_that_cannot_be_right_is_refused(classes, values):
    edit(classes / "adapter_config.json", **values)
    with pytest.raises(ArtifactError, match=next(iter(values))):
        load(classes)


def test_classes_of_one_name_are_neither_written_nor_read(tmp_path, classes):
    with pytest.raises(ArtifactError, match="two classes are named 'old'"):
        save_bundle(tmp_path / "b", tiny_bundle(PRETRAINED, class_names=("old", "young", "old")))
    assert names(tmp_path) == ["age"]
    edit(classes / "labels.json", class_names=["old", "young", "old"])
    with pytest.raises(ArtifactError, match="two classes are named 'old'"):
        load(classes)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_neither_written_nor_read(tmp_path, classes, value):
    bad = tiny_bundle(PRETRAINED)
    with torch.no_grad():
        bad.head.bias[0] = value
    with pytest.raises(ArtifactError, match="NaN or infinite"):
        save_bundle(tmp_path / "b", bad)
    assert names(tmp_path) == ["age"]
    tensors = load_file(classes / "adapter_model.safetensors")
    save_file({name: torch.full_like(tensor, value) for name, tensor in tensors.items()},
              classes / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(ArtifactError, match="NaN or infinite"):
        load(classes)


@pytest.mark.parametrize(
    "ids", [[f"item-{i}" for i in (1, 0, 2, 3, 4)], [f"item-{i}" for i in range(6)], list(range(5))]
)
def test_other_targets_are_refused_with_both_fingerprints(ranking, ids):
    other_targets = Catalogue(pa.array(ids), range(len(ids)), first=0)
    other_targets.write(ranking / "targets.parquet")
    with pytest.raises(ArtifactError, match="the fingerprint of its targets") as caught:
        load(ranking)
    assert TARGETS.fingerprint[:12] in caught.value.message
    assert other_targets.fingerprint[:12] in caught.value.message


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "metrics.json", "labels.json"])
@pytest.mark.parametrize("fraction", [None, 0.0, 0.5], ids=["missing", "empty", "half"])
def test_a_truncated_file_is_named(classes, name, fraction):
    path = classes / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * (fraction or 0))])
    if fraction is None:
        path.unlink()
    with pytest.raises(ArtifactError) as caught:
        load(classes)
    assert caught.value.path == path


@pytest.mark.parametrize("missing", [True, False])
def test_damaged_targets_are_named(ranking, missing):
    path = ranking / "targets.parquet"
    path.unlink() if missing else path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        load(ranking)
    assert caught.value.path == path


@pytest.mark.parametrize(
    "key",
    ["name", "kind_of_task", "patch", "unshared", "outputs", "trained", "fingerprint", "backbone_fingerprint"],
)
def test_a_description_that_lacks_a_key_is_damaged(classes, key):
    path = classes / "adapter_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    with pytest.raises(ArtifactError, match=f"lacks the key '{key}'"):
        load(classes)


@pytest.mark.parametrize(
    "changes",
    [
        {"patch": None},
        {"patch": {"bottleneck": 2}},
        {"patch": {"bottleneck": 8}},
        {"patch": {"bottleneck": 3, "per_block": 1}},
        {"patch": {"bottleneck": 3, "colour": "red"}},
        {"unshared": {"embedding": False, "blocks": 1}},
        {"unshared": {"blocks": 1}},
        {"unshared": "all"},
        {"outputs": 4},
        {"outputs": "three"},
    ],
    ids=repr,
)
def test_a_changed_description_is_damaged(classes, changes):
    edit(classes / "adapter_config.json", **changes)
    with pytest.raises(ArtifactError):
        load(classes)


def test_labels_without_names_are_damaged(classes):
    (classes / "labels.json").write_text("{}")
    with pytest.raises(ArtifactError, match="lacks the key 'class_names'") as caught:
        load(classes)
    assert caught.value.path == classes / "labels.json"


def test_a_ranking_bundle_has_an_item_head(ranking):
    assert isinstance(load(ranking).head, ItemHead)
