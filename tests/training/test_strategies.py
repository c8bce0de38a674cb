"""What a strategy trains, counted by hand, and the line that says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from peterrec.config import AdaptConfig, BackboneConfig, PatchConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone, UnsharedModules
from peterrec.nn.heads import ClassificationHead, ItemHead
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.patch import Patch
from peterrec.training.adapt import adapt
from peterrec.training.adaptation_run import trainable_line
from peterrec.training.strategies import Trainable, build
from training.small import adapt_config

ITEMS, CHANNELS, SITES = 24, 8, 4  # of the tiny corpus and backbone
TABLE = (ITEMS + 4) * CHANNELS  # with four special tokens
BLOCK = 2 * (CHANNELS * CHANNELS * 3 + CHANNELS)  # two convolutions of three taps
NORMS = 2 * 2 * CHANNELS  # of a block: two LayerNorms, each with gain and shift


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# What each strategy trains of the backbone, in the order of the line; the head always is.
TRAINED = {
    "patch": {},
    "head": {},
    "last-sublayer": {"blocks": BLOCK // 2, "norms": NORMS // 2},
    "last1": {"blocks": BLOCK, "norms": NORMS},
    "last2": {"blocks": 2 * BLOCK, "norms": 2 * NORMS},
    "all": {"embedding": TABLE, "blocks": 2 * BLOCK, "norms": 2 * NORMS},
    "scratch": {"embedding": TABLE, "blocks": 2 * BLOCK, "norms": 2 * NORMS},
    "patch-random": {},
}


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    ("strategy", "per_block", "width"), [*((strategy, 2, 2) for strategy in TRAINED), ("patch", 1, 3)]
)
@pytest.mark.parametrize(("task", "outputs"), [("cluster", 4), ("shop", 8)])
def test_the_line_is_right_to_the_last_digit(
    model: UserModel,
    corpus: Corpus,
    tmp_path: Path,
    strategy: str,
    task: str,
    outputs: int,
    per_block: int,
    width: int,
    logged: list[str],
) -> None:
    backbone = TABLE + 2 * BLOCK + 2 * NORMS
    piece = CHANNELS * width + width + width * CHANNELS + CHANNELS
    patch = SITES * per_block // 2 * piece if "patch" in strategy else 0
    head = outputs * CHANNELS + outputs
    config = adapt_config(strategy=strategy, epochs=1, patch=PatchConfig(per_block=per_block, bottleneck=width))
    bundle = adapt(model, corpus, task, tmp_path / "out", config)
    everything = backbone + patch + head  # and nothing of what pre-training predicted items with
    groups = TRAINED[strategy] | ({"patch": patch} if patch else {}) | {"head": head}
    total = sum(groups.values())
    assert (
        f"trainable params: {total:,} || all params: {everything:,} || trainable%: {100 * total / everything:.4f} "
        f"({', '.join(f'{name} {count:,}' for name, count in groups.items())})"
    ) in logged
    assert (bundle.patch_params, bundle.head_params, bundle.all_params) == (patch, head, everything)
    assert (bundle.trained, bundle.trainable_params) == (groups, total)


def test_the_line_reads_as_elsewhere() -> None:
    line = trainable_line({"patch": 17_536, "head": 325}, 1_000_000)
    assert line == "trainable params: 17,861 || all params: 1,000,000 || trainable%: 1.7861 (patch 17,536, head 325)"
    assert re.match(r"trainable params: [\d,]+ \|\| all params: [\d,]+ \|\| trainable%: \d+\.\d{4}", line)


def test_a_patch_of_default_width_is_as_small_as_the_paper_says() -> None:
    """Below 10 % of the convolutions, and some 2 % of a model with ten thousand items."""
    config = BackboneConfig(dilations=(1, 4) * 4, tie_weights=True)
    network = NextItemModel(Backbone(config, 10_000))
    patch = sum(parameter.numel() for parameter in Patch(PatchConfig(), config).parameters())
    convolutions = sum(
        site.conv.weight.numel() for block in network.backbone.blocks for site in (block.first, block.second)
    )
    everything = sum(parameter.numel() for parameter in network.parameters()) + patch
    assert convolutions == 16 * 64 * 64 * 3
    assert patch < 0.1 * convolutions
    assert 0.015 < patch / everything < 0.025


def built(model: UserModel, corpus: Corpus, strategy: str, task: str = "cluster", **settings: Any) -> Trainable:
    spec = corpus.task(task)
    return build(adapt_config(strategy=strategy, **settings), model.network.backbone, spec, spec.part("train"))


def leaves(module: nn.Module) -> set[nn.Module]:
    """The modules that hold parameters themselves."""
    return {part for part in module.modules() if list(part.parameters(recurse=False))}


def embedding_and_sublayers(backbone: Backbone) -> list[nn.Module]:
    return [backbone.embedding, *(site for block in backbone.blocks for site in (block.first, block.second))]


@pytest.mark.parametrize("strategy", [*TRAINED, "joint"])
def test_exactly_these_modules_are_trained(model: UserModel, corpus: Corpus, strategy: str) -> None:
    parts, pretrained = built(model, corpus, strategy), model.network.backbone
    network = parts.backbone
    everything = [network.embedding, *network.blocks]
    backbone_parts = {
        "last-sublayer": [network.blocks[1].second], "last1": [network.blocks[1]], "last2": list(network.blocks),
        "all": everything, "scratch": everything, "joint": everything,
    }.get(strategy, [])  # fmt: skip
    expected: list[nn.Module] = [*backbone_parts, parts.head]
    if "patch" in strategy:
        assert isinstance(parts.patch, Patch)
        expected.append(parts.patch)
    else:
        assert parts.patch is None
    assert leaves(parts.modules()) == {leaf for module in expected for leaf in leaves(module)}
    assert all(parameter.requires_grad for parameter in parts.modules().parameters())
    trained = {id(parameter) for parameter in parts.modules().parameters()}
    for parameter in [*network.parameters(), *model.network.parameters()]:
        assert parameter.requires_grad == (id(parameter) in trained)
    assert not trained & {id(parameter) for parameter in model.network.parameters()}, "copies are trained"
    embedding, *sublayers = embedding_and_sublayers(pretrained)
    shared = {"last-sublayer": [embedding, *sublayers[:3]], "last1": [embedding, *sublayers[:2]], "last2": [embedding]}
    if strategy in ("patch", "head"):
        assert network is pretrained
    else:
        task_modules = set(embedding_and_sublayers(network))
        assert task_modules & {embedding, *sublayers} == set(shared.get(strategy, []))


@pytest.mark.parametrize("strategy", [*TRAINED, "joint"])
def test_a_strategy_starts_at_the_pretrained_weights_or_at_random(
    model: UserModel, corpus: Corpus, strategy: str
) -> None:
    random = strategy in ("scratch", "patch-random")
    pretrained, network = model.network.backbone, built(model, corpus, strategy).backbone
    for name, tensor in network.state_dict().items():
        if name.endswith("conv.weight") or name == "embedding.weight":
            assert torch.equal(tensor, pretrained.state_dict()[name]) == (not random), name
    second_result = built(model, corpus, strategy, seed=1).backbone
    assert equal(tensors(second_result), tensors(network)) == (not random)


def test_a_joint_training_may_start_at_random(model: UserModel, corpus: Corpus) -> None:
    parts = built(model, corpus, "joint", joint_init="random")
    scratch = built(model, corpus, "scratch")
    assert equal(tensors(parts.backbone), tensors(scratch.backbone))


def test_random_weights_are_not_those_that_the_pretrained_backbone_started_from(corpus: Corpus) -> None:
    config = BackboneConfig(channels=8, dilations=(1, 2))
    fresh = Backbone(config, ITEMS, seed=0)
    spec = corpus.task("cluster")
    parts = build(adapt_config(strategy="scratch"), fresh, spec, spec.part("train"))
    assert not torch.equal(parts.backbone.embedding.weight, fresh.embedding.weight)


def test_the_head_is_of_the_kind_of_the_task(model: UserModel, corpus: Corpus) -> None:
    assert isinstance(built(model, corpus, "head", "cluster").head, ClassificationHead)
    assert isinstance(built(model, corpus, "head", "shop").head, ItemHead)


def test_the_last_of_a_single_block_is_that_block_and_there_are_no_last_two(corpus: Corpus) -> None:
    single = Backbone(BackboneConfig(channels=8, dilations=(1,)), ITEMS)
    spec = corpus.task("cluster")
    with pytest.raises(ConfigError, match="last 2 blocks, but the backbone has 1"):
        build(adapt_config(strategy="last2"), single, spec, spec.part("train"))
    parts = build(adapt_config(strategy="last1"), single, spec, spec.part("train"))
    assert parts.unshared == UnsharedModules(embedding=False, blocks=1)
    assert parts.counts() == {"blocks": BLOCK, "norms": NORMS, "head": 4 * CHANNELS + 4}
    assert parts.backbone.embedding is single.embedding
    assert parts.backbone.blocks[0] is not single.blocks[0]
    assert not any(parameter.requires_grad for parameter in single.parameters()), "frozen, though it was not before"


def test_a_head_starts_at_what_is_known_without_the_user(model: UserModel, corpus: Corpus) -> None:
    cluster, shop = corpus.task("cluster"), corpus.task("shop")
    labels = cluster.part("train").labels
    assert labels is not None
    assert shop.targets is not None
    for spec, counts in ((cluster, np.bincount(labels)), (shop, shop.targets.counts)):
        bias = build(AdaptConfig(), model.network.backbone, spec, spec.part("train")).head.bias
        expected = (counts + 1) / (counts + 1).sum()
        np.testing.assert_allclose(bias.detach().exp(), expected, rtol=1e-5)


def test_the_seed_of_the_settings_draws_the_first_weights(model: UserModel, corpus: Corpus) -> None:
    spec = corpus.task("cluster")

    def first(**settings: Any) -> dict[str, torch.Tensor]:
        parts = build(AdaptConfig(**settings), model.network.backbone, spec, spec.part("train"))
        return tensors(parts.modules())

    assert equal(first(), first())
    assert not equal(first(), first(seed=1))
