"""Strategies that change the network: on copies, which the bundle keeps, and which answer the same after loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from peterrec.config import BackboneConfig, EvaluateConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.evaluation.bundles import evaluate
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from training.small import adapt_config, pretrain_config

pytestmark = pytest.mark.usefixtures("last_epoch_kept")

STRATEGIES = ("patch", "head", "last-sublayer", "last1", "last2", "all", "scratch", "patch-random")
CHANGED = ("last-sublayer", "last1", "last2", "all", "scratch")  # these train something of the backbone
HISTORIES = [["s0001", "s0002", "s0009"], ["s0005"], [], ["s0003"] * 12]


def copies(model: UserModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def quick(strategy: str, **settings: Any) -> Any:
    return adapt_config(**({"strategy": strategy, "epochs": 1, "optim": {"lr": 0.02}} | settings))


def answers(model: UserModel, name: str, task: str) -> Any:
    if task == "cluster":
        return model.predict(HISTORIES, name).probabilities.tolist()
    recommendations = model.recommend(HISTORIES, name, 8)
    return recommendations.items, recommendations.scores


def saved_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """What is on disk of a bundle."""
    return load_file(folder / "adapter_model.safetensors")


def backbone_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_pretrained_backbone_never_changes(
    backbone: Path, model: UserModel, corpus: Corpus, tmp_path: Path, strategy: str
) -> None:
    on_disk, before = files(backbone), copies(model)
    bundle = adapt(model, corpus, "cluster", tmp_path / "a", quick(strategy))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    assert model.pretrained.fingerprint == bundle.backbone_fingerprint
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert not any(module.training for module in model.network.modules())
    adapt(backbone, corpus, "cluster", tmp_path / "b", quick(strategy))
    assert files(backbone) == on_disk


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("task", ["cluster", "shop"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_save_load_predict_is_bit_equal(
    model: UserModel, backbone: Path, corpus: Corpus, tmp_path: Path, strategy: str, task: str
) -> None:
    bundle = adapt(model, corpus, task, tmp_path / "out", quick(strategy))
    plain = model.represent(HISTORIES)
    model.add_bundle(bundle, "memory")
    second_result = UserModel.from_pretrained(backbone, "cpu")
    second_result.load_bundle(tmp_path / "out", "disk")
    assert answers(model, "memory", task) == answers(second_result, "disk", task)
    assert np.array_equal(model.represent(HISTORIES, "memory"), second_result.represent(HISTORIES, "disk"))
    assert np.array_equal(second_result.represent(HISTORIES), plain), "without a bundle there is no trace of one"
    assert (np.array_equal(second_result.represent(HISTORIES, "disk"), plain)) == (strategy == "head")
    read = second_result.bundle("disk")
    assert (read.strategy, read.unshared, read.trained) == (strategy, bundle.unshared, bundle.trained)


def test_a_bundle_made_on_one_model_shares_nothing_with_it_on_another(
    model: UserModel, backbone: Path, corpus: Corpus, tmp_path: Path
) -> None:
    bundle = adapt(model, corpus, "cluster", tmp_path / "out", quick("last1"))
    second_model = UserModel.from_pretrained(backbone, "cpu")
    second_model.add_bundle(bundle, "there")
    model.add_bundle(bundle, "here")
    bundle_backbone = second_model.bundle("there").backbone
    assert bundle_backbone is not None
    assert bundle_backbone.embedding is second_model.network.backbone.embedding
    assert bundle_backbone.blocks[0] is second_model.network.backbone.blocks[0]
    assert bundle_backbone.blocks[-1] is not second_model.network.backbone.blocks[-1]
    assert answers(second_model, "there", "cluster") == answers(model, "here", "cluster")


@pytest.mark.slow
def test_bundles_of_all_strategies_live_side_by_side_and_are_deleted_alone(
    model: UserModel, corpus: Corpus, tmp_path: Path
) -> None:
    for strategy in STRATEGIES:
        adapt(model, corpus, "cluster", tmp_path / strategy, quick(strategy))
        model.load_bundle(tmp_path / strategy, strategy)
    before = {strategy: answers(model, strategy, "cluster") for strategy in STRATEGIES}
    assert len({str(answer) for answer in before.values()}) == len(STRATEGIES)
    for number, strategy in enumerate(STRATEGIES):
        model.delete_bundle(strategy)
        with pytest.raises(ConfigError, match=f"no bundle '{strategy}' is loaded"):
            model.predict(HISTORIES, strategy)
        for remaining_strategy in STRATEGIES[number + 1 :]:
            assert answers(model, remaining_strategy, "cluster") == before[remaining_strategy]


# ---------------------------------------------------------------- what a bundle holds


@pytest.mark.parametrize(
    ("strategy", "blocks", "per_block"),
    [
        ("head", 0, 2),
        ("patch", 0, 2),
        ("last-sublayer", 1, 1),
        ("last1", 1, 2),
        ("last2", 2, 2),
        ("all", 2, 2),
        ("scratch", 2, 2),
        ("patch-random", 2, 2),
    ],
)
def test_a_bundle_stores_the_tasks_own_modules_and_no_others(
    model: UserModel, corpus: Corpus, tmp_path: Path, strategy: str, blocks: int, per_block: int
) -> None:
    adapt(model, corpus, "cluster", tmp_path / "out", quick(strategy))
    sites = ("first", "second")[2 - per_block :]
    parts = [f"{site}.{layer}.{name}" for site in sites for layer in ("conv", "norm") for name in ("weight", "bias")]
    expected = {f"backbone.blocks.{block}.{part}" for block in (0, 1)[2 - blocks :] for part in parts}
    embedding = strategy in ("all", "scratch", "patch-random")
    expected |= {"backbone.embedding.weight"} if embedding else set()
    names = set(saved_tensors(tmp_path / "out"))
    assert {name for name in names if name.startswith("backbone.")} == expected
    assert {name.partition(".")[0] for name in names - expected} == (
        {"patch", "head"} if "patch" in strategy else {"head"}
    )
    meta = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    second_only = {} if per_block == 2 else {"per_block": per_block}
    assert meta["unshared"] == ({"embedding": embedding, "blocks": blocks} | second_only if blocks else None)


@pytest.mark.parametrize("strategy", CHANGED)
def test_what_a_strategy_trains_is_no_longer_what_was_pretrained(
    model: UserModel, corpus: Corpus, tmp_path: Path, strategy: str
) -> None:
    adapt(model, corpus, "cluster", tmp_path / "out", quick(strategy))
    mine, trunk = backbone_tensors(saved_tensors(tmp_path / "out")), model.network.backbone.state_dict()
    assert not any(torch.equal(tensor, trunk[name]) for name, tensor in mine.items())
    if "embedding.weight" in mine:
        assert not mine["embedding.weight"][0].any(), "padding stays zero"
        assert mine["embedding.weight"][1].any(), "[TCL] is trained"


def test_a_changed_copy_does_not_reach_the_blocks_that_are_shared(
    model: UserModel, corpus: Corpus, tmp_path: Path
) -> None:
    bundle = adapt(model, corpus, "cluster", tmp_path / "out", quick("last1"))
    assert bundle.backbone is not None
    assert bundle.backbone.embedding is model.network.backbone.embedding
    assert bundle.backbone.blocks[0] is model.network.backbone.blocks[0]
    assert bundle.backbone.blocks[1] is not model.network.backbone.blocks[1]
    model.load_bundle(tmp_path / "out", "disk")
    loaded = model.bundle("disk").backbone
    assert loaded is not None
    assert loaded.blocks[0] is model.network.backbone.blocks[0], "loading shares what is shared"


# ---------------------------------------------------------------- strategies without the pre-trained weights


@pytest.fixture(scope="module")
def other_backbone(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another backbone of the same catalogue and shape."""
    path = tmp_path_factory.mktemp("other") / "backbone"
    pretrain(corpus, path, pretrain_config(epochs=1, seed=7))
    return path


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("strategy", ["scratch", "patch-random", "all", "patch"])
def test_only_strategies_from_scratch_do_not_depend_on_the_pretrained_weights(
    backbone: Path, other_backbone: Path, corpus: Corpus, tmp_path: Path, strategy: str
) -> None:
    for name, path in (("a", backbone), ("b", other_backbone)):
        adapt(path, corpus, "cluster", tmp_path / name, quick(strategy))
    first, second = saved_tensors(tmp_path / "a"), saved_tensors(tmp_path / "b")
    is_equal = first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert is_equal == (strategy in ("scratch", "patch-random"))


def test_a_random_trunk_is_kept_as_it_was_drawn(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    """It is frozen, so more training does not change it; another seed does; it is nothing of the pre-trained one."""

    def trunk(name: str, **settings: Any) -> dict[str, torch.Tensor]:
        adapt(model, corpus, "cluster", tmp_path / name, quick("patch-random", **settings))
        return backbone_tensors(saved_tensors(tmp_path / name))

    first, longer, drawn = trunk("a"), trunk("b", epochs=3), trunk("c", seed=1)
    assert first.keys() == model.network.backbone.state_dict().keys()
    assert all(torch.equal(first[name], longer[name]) for name in first)
    for name, tensor in first.items():
        if name.endswith("conv.weight") or name == "embedding.weight":
            assert not torch.equal(tensor, drawn[name])
            assert not torch.equal(tensor, model.network.backbone.state_dict()[name])


# ---------------------------------------------------------------- edges


def test_the_last_block_of_a_backbone_with_one_and_no_last_two(corpus: Corpus, tmp_path: Path) -> None:
    config = pretrain_config(epochs=1, backbone=BackboneConfig(channels=8, dilations=(1,)))
    model = pretrain(corpus, tmp_path / "backbone", config)
    adapt(model, corpus, "shop", tmp_path / "last1", quick("last1"))
    everything = set(model.network.backbone.state_dict())
    assert set(backbone_tensors(saved_tensors(tmp_path / "last1"))) == everything - {"embedding.weight"}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="last 2 blocks, but the backbone has 1"):
        adapt(model, corpus, "shop", tmp_path / "last2", quick("last2"))
    assert sorted(tmp_path.rglob("*")) == before, "refused before anything is written"


def test_bundles_are_told_apart_by_strategy_or_else_all_by_path(
    model: UserModel, corpus: Corpus, tmp_path: Path
) -> None:
    for name, strategy, seed in (("head", "patch", 0), ("other", "patch", 1), ("plain", "head", 0)):
        adapt(model, corpus, "cluster", tmp_path / name, adapt_config(strategy=strategy, epochs=1, seed=seed))
    head, other_seed, plain = (tmp_path / name for name in ("head", "other", "plain"))
    config = EvaluateConfig(baselines=False, bootstrap=20)
    actual = evaluate(model, corpus, [other_seed, plain], config=config)
    assert [method.name for method in actual.methods] == ["patch", "head"]
    actual = evaluate(model, corpus, [head, other_seed, plain], config=config)
    assert [method.name for method in actual.methods] == [str(head), str(other_seed), str(plain)]
    with pytest.raises(ConfigError, match="same bundle was given twice"):
        evaluate(model, corpus, [head, other_seed, tmp_path / "." / "head"], config=config)
