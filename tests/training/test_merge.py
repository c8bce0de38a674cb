"""Merging bundles: what the merged one computes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import shaken, tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.backbone_io import PretrainedBackbone, save_backbone
from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.cli.main import execute
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.errors import FingerprintError, PeterRecError
from peterrec.model import UserModel
from peterrec.nn.backbone import UnsharedModules
from peterrec.nn.build import build_backbone
from peterrec.nn.calibration import Calibration
from peterrec.nn.eraser import Eraser
from peterrec.nn.patch import Patch
from peterrec.storage import read_json
from peterrec.training.merge import merge_bundles
from peterrec.training.merged_weights import side_by_side, ties

Bundles = dict[str, Bundle]


@pytest.fixture(scope="module")
def pretrained() -> PretrainedBackbone:
    return tiny_pretrained()


@pytest.fixture
def model(pretrained: PretrainedBackbone) -> UserModel:
    return UserModel(pretrained, "cpu")


@pytest.fixture(scope="module")
def bundles(pretrained: PretrainedBackbone) -> Bundles:
    """Bundles of the task `age`, of two seeds of training and of one twice; and others."""
    last_block = UnsharedModules(embedding=False, blocks=1)
    settings: dict[str, dict[str, Any]] = {
        "first": {}, "later": {"seed": 7}, "second": {"seed": 5, "metrics": {"seed": 1}},
        "head": {"strategy": "head"}, "wide": {"patch_config": PatchConfig(bottleneck=4)},
        "shop": {"targets": tiny_catalogue(4, first=0)}, "erased": {"eraser": Eraser(8, 1), "erased": "gender"},
    }  # fmt: skip
    by_name = {
        name: tiny_bundle(pretrained, **({"metrics": {"seed": 0}} | fields)) for name, fields in settings.items()
    }
    for seed, name in enumerate(("last1", "last1-later")):
        backbone = pretrained.network.backbone.fork(last_block)
        shaken(backbone.modules_of(last_block), seed)
        head = tiny_bundle(pretrained, strategy="head", seed=seed, metrics={"seed": seed})
        by_name[name] = replace(head, strategy="last1", backbone=backbone, unshared=last_block, patch_config=None)
    return by_name


def probabilities(model: UserModel, bundle: Bundle | Path) -> Any:
    name = model.add_bundle(bundle, "x") if isinstance(bundle, Bundle) else model.load_bundle(bundle, "x")
    return model.predict([["item-1", "item-2"], ["item-7"] * 5, []], name).probabilities


def test_ties_by_hand() -> None:
    """Of four changes two stay; the sign with the larger sum decides; the mean is of those who agree."""
    start = {"a": torch.tensor([1.0, 1.0, 1.0, 1.0])}
    changes = torch.tensor([[3.0, -2.0, 0.1, 0.0], [1.0, 4.0, 0.5, 0.0]])
    networks = [{"a": start["a"] + change} for change in changes]
    merged = ties(networks, [0.5, 0.5], start, 0.5)["a"]
    torch.testing.assert_close(merged, start["a"] + torch.tensor([2.0, 4.0, 0.0, 0.0]))
    third = ties(networks, [0.75, 0.25], start, 0.25)["a"]  # of each only its largest change
    torch.testing.assert_close(third, start["a"] + torch.tensor([3.0, 4.0, 0.0, 0.0]))


@pytest.mark.parametrize("insertion", ["serial", "parallel"])
def test_bottlenecks_side_by_side_add_the_mean_of_what_each_adds(insertion: str) -> None:
    config = BackboneConfig(channels=8, dilations=(1,))
    backbone = build_backbone(config, 5, seed=0)
    kind = {"insertion": insertion, "per_block": 1, "item_rank": 2, "train_task_token": True}
    patches = [shaken(Patch(PatchConfig(bottleneck=2, **kind), config, items=5), seed) for seed in (1, 2)]
    wide = Patch(PatchConfig(bottleneck=4, **kind | {"item_rank": 4}), config, items=5)
    wide.load_state_dict(side_by_side([patch.state_dict() for patch in patches], [0.25, 0.75]))
    x = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    first, second, combined = ([layer.net.up(layer.net.activation(layer.net.down(x))) for layer in patch.layers()]
                           for patch in (*patches, wide))  # fmt: skip
    torch.testing.assert_close(combined[0], 0.25 * first[0] + 0.75 * second[0])
    tokens = torch.tensor([[4, 5, 6, 2]])
    added = [patch.embed(backbone.embedding(tokens), tokens) - backbone.embedding(tokens) for patch in (*patches, wide)]
    torch.testing.assert_close(added[2], 0.25 * added[0] + 0.75 * added[1])


@pytest.mark.parametrize("method", ["linear", "ties", "cat"])
def test_a_bundle_merged_with_itself_answers_as_before(
    model: UserModel, bundles: Bundles, tmp_path: Path, method: Any
) -> None:
    save_bundle(tmp_path / "first", bundles["first"])
    merged = merge_bundles(model, [tmp_path / "first", bundles["first"]], tmp_path / "merged", method=method, density=1)
    answers = probabilities(model, bundles["first"])
    np.testing.assert_allclose(probabilities(model, merged), answers, atol=1e-5)
    np.testing.assert_array_equal(probabilities(model, tmp_path / "merged"), probabilities(model, merged))
    meta = read_json(tmp_path / "merged" / "adapter_config.json")
    assert meta["patch"]["bottleneck"] == (6 if method == "cat" else 3)
    assert meta["patch_params"] == meta["trained"]["patch"] == merged.patch_params
    assert "2 bundles were merged" in (tmp_path / "merged" / "README.md").read_text()
    assert merged.metrics["warnings"] == []


@pytest.mark.parametrize("names", [("first", "later"), ("last1", "last1-later")])
def test_the_mean_is_that_of_all_tensors(model: UserModel, bundles: Bundles, names: tuple[str, str]) -> None:
    first, later = (bundles[name] for name in names)
    merged = merge_bundles(model, [first, later], weights=[1, 3]).tensors()
    for name, tensor in first.tensors().items():
        torch.testing.assert_close(merged[name], 0.25 * tensor + 0.75 * later.tensors()[name])
    by_ties = merge_bundles(model, [first, later], method="ties", density=1).tensors()
    changed = next(name for name in by_ties if name.startswith(("patch.", "backbone.")))
    assert not torch.equal(by_ties[changed], merged[changed])


def test_patches_that_started_elsewhere_are_warned_of(model: UserModel, bundles: Bundles) -> None:
    merged = merge_bundles(model, [bundles["first"], bundles["second"]])
    assert "seeds 0, 1" in merged.metrics["warnings"][0]
    assert merge_bundles(model, [bundles["first"], bundles["second"]], method="cat").metrics["warnings"] == []


def test_a_merged_bundle_has_no_calibration(model: UserModel, bundles: Bundles) -> None:
    calibrated = [
        replace(bundles[name], calibration=Calibration("temperature", 100, temperature))
        for name, temperature in (("first", 2.0), ("later", 0.5))
    ]
    merged = merge_bundles(model, calibrated)
    assert merged.calibration is None
    assert "calibration" in merged.metrics["warnings"][0]
    plain = merge_bundles(model, [bundles["first"], bundles["later"]])
    np.testing.assert_array_equal(probabilities(model, merged), probabilities(model, plain))


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (("first",), {}, "nothing to merge"), (("first", "shop"), {}, "task"), (("first", "head"), {}, "strategy"),
        (("first", "wide"), {}, "patch"), (("first", "later"), {"weights": [1.0]}, "for 2 bundles"),
        (("first", "later"), {"weights": [1.0, 0.0]}, "above 0"), (("first", "later"), {"method": "mean"}, "no method"),
        (("first", "second"), {"method": "ties"}, "different random weights"), (("erased", "first"), {}, "was erased"),
        (("head", "head"), {"method": "ties"}, "head only"), (("head", "head"), {"method": "cat"}, "have none"),
        (("first", "later"), {"density": 0.0}, "density"), (("first", "later"), {}, "exists"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_refused(
    model: UserModel, bundles: Bundles, tmp_path: Path, names: tuple[str, ...], settings: Any, message: str
) -> None:
    if message == "exists":
        (tmp_path / "out").mkdir()
    with pytest.raises(PeterRecError, match=message):
        merge_bundles(model, [bundles[name] for name in names], tmp_path / "out", **settings)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if message == "exists" else [])


def test_a_bundle_of_another_backbone_is_refused(model: UserModel, bundles: Bundles) -> None:
    foreign = tiny_bundle(tiny_pretrained(seed=5), metrics={"seed": 0})
    with pytest.raises(FingerprintError):
        merge_bundles(model, [bundles["first"], foreign])


def test_the_verb(
    pretrained: PretrainedBackbone, bundles: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_backbone(tmp_path / "backbone", pretrained)
    for name in ("first", "second"):
        save_bundle(tmp_path / name, bundles[name])
    paths = [str(tmp_path / name) for name in ("backbone", "first", "second", "m")]
    arguments = ["merge", *paths[:3], "--out", paths[3]]
    assert execute([*arguments, "--weight", "2", "--weight", "1"]) == 0
    assert "evaluate it, or merge by cat" in capsys.readouterr().err
    merged = read_json(tmp_path / "m" / "metrics.json")["merged"]
    assert [source["weight"] for source in merged["bundles"]] == pytest.approx([2 / 3, 1 / 3])
    assert execute([*arguments, "--method", "sum"]) == 2
