"""Merging bundles: what the merged one computes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import shaken
from peterrec.artifacts.bundle_io import Bundle
from peterrec.cli.main import execute
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import PeterRecError
from peterrec.model import UserModel
from peterrec.nn.build import build_backbone
from peterrec.nn.patch import Patch
from peterrec.storage import read_json
from peterrec.training.adapt import adapt
from peterrec.training.merge import merge_bundles
from peterrec.training.merged_weights import side_by_side, ties
from training.small import adapt_config


@pytest.fixture(scope="module")
def paths(backbone: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of the task `cluster`: of two seeds, twice of the same, and other ones."""
    folder = tmp_path_factory.mktemp("paths")
    settings: dict[str, dict[str, Any]] = {
        "first": {}, "second": {"seed": 1}, "longer": {"epochs": 2},
        "head": {"strategy": "head"}, "wide": {"patch": PatchConfig(bottleneck=3)},
        "last1": {"strategy": "last1"}, "last1-longer": {"strategy": "last1", "epochs": 2},
    }  # fmt: skip
    for name, changed in settings.items():
        adapt(backbone, corpus, "cluster", folder / name, adapt_config(**({"epochs": 1} | changed)))
    adapt(backbone, corpus, "shop", folder / "shop", adapt_config(epochs=1))
    return {name: folder / name for name in (*settings, "shop")}


def probabilities(model: UserModel, corpus: Corpus, bundle: Bundle | Path) -> Any:
    name = model.add_bundle(bundle, "x") if isinstance(bundle, Bundle) else model.load_bundle(bundle, "x")
    return model.probabilities(corpus.task("cluster").part("test").sequences, name)


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
    model: UserModel, corpus: Corpus, paths: dict[str, Path], tmp_path: Path, method: Any
) -> None:
    path = tmp_path / "merged"
    copy = model.load_bundle(paths["first"], "copy")
    merged = merge_bundles(model, [paths["first"], model.bundle(copy)], path, method=method, density=1.0)
    answers = probabilities(model, corpus, paths["first"])
    np.testing.assert_allclose(probabilities(model, corpus, merged), answers, atol=1e-5)
    np.testing.assert_array_equal(probabilities(model, corpus, path), probabilities(model, corpus, merged))
    meta = read_json(path / "adapter_config.json")
    assert meta["patch"]["bottleneck"] == (4 if method == "cat" else 2)
    assert meta["patch_params"] == meta["trained"]["patch"] == merged.patch_params
    assert "2 bundles were merged" in (path / "README.md").read_text()
    assert merged.metrics["warnings"] == []


@pytest.mark.parametrize("names", [("first", "longer"), ("last1", "last1-longer")])
def test_the_mean_is_that_of_all_tensors(model: UserModel, paths: dict[str, Path], names: tuple[str, str]) -> None:
    bundles = [model.bundle(model.load_bundle(paths[name], name)) for name in names]
    merged = merge_bundles(model, bundles, weights=[1, 3]).tensors()
    for name, tensor in bundles[0].tensors().items():
        torch.testing.assert_close(merged[name], 0.25 * tensor + 0.75 * bundles[1].tensors()[name])
    by_ties = merge_bundles(model, bundles, method="ties", density=1.0).tensors()
    assert any(name.startswith(("patch.", "backbone.")) for name in by_ties)


def test_patches_that_started_elsewhere_are_warned_of(model: UserModel, paths: dict[str, Path]) -> None:
    merged = merge_bundles(model, [paths["first"], paths["second"]])
    assert "seeds 0, 1" in merged.metrics["warnings"][0]
    assert merge_bundles(model, [paths["first"], paths["second"]], method="cat").metrics["warnings"] == []


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (("first",), {}, "nothing to merge"), (("first", "shop"), {}, "task"), (("first", "head"), {}, "strategy"),
        (("first", "wide"), {}, "patch"), (("first", "longer"), {"weights": [1.0]}, "for 2 bundles"),
        (("first", "longer"), {"weights": [1.0, 0.0]}, "above 0"),
        (("first", "longer"), {"method": "mean"}, "no method"),
        (("first", "second"), {"method": "ties"}, "different random weights"),
        (("head", "head"), {"method": "ties"}, "head only"), (("head", "head"), {"method": "cat"}, "have none"),
        (("first", "longer"), {"density": 0.0}, "density"), (("shop", "shop"), {"method": "cat"}, "exists"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_refused(
    model: UserModel, paths: dict[str, Path], tmp_path: Path, names: tuple[str, ...], settings: Any, message: str
) -> None:
    out = paths["shop"] if message == "exists" else tmp_path / "out"
    with pytest.raises(PeterRecError, match=message):
        merge_bundles(model, [paths[name] for name in names], out, **settings)
    assert not list(tmp_path.iterdir())


def test_the_verb(backbone: Path, paths: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["merge", str(backbone), str(paths["first"]), str(paths["second"]), "--out", str(tmp_path / "m")]
    assert execute([*arguments, "--weight", "2", "--weight", "1"]) == 0
    assert "evaluate it, or merge by cat" in capsys.readouterr().err
    merged = read_json(tmp_path / "m" / "metrics.json")["merged"]
    assert [source["weight"] for source in merged["bundles"]] == pytest.approx([2 / 3, 1 / 3])
    assert execute([*arguments, "--method", "sum"]) == 2
