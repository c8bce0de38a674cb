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
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone
from peterrec.nn.heads import ClassificationHead, ItemHead
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.patch import Patch
from peterrec.training.adapt import adapt, trainable_line
from peterrec.training.strategies import build
from training.small import adapt_config

ITEMS, CHANNELS, SITES = 24, 8, 4  # of the tiny corpus and backbone


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("strategy", ["patch", "head"])
@pytest.mark.parametrize(("task", "outputs"), [("cluster", 4), ("shop", 8)])
@pytest.mark.parametrize(("per_block", "width"), [(2, 2), (1, 3)])
def test_the_line_is_right_to_the_last_digit(
    model: UserModel, corpus: Corpus, tmp_path: Path, strategy: str, task: str, outputs: int, per_block: int, width: int
) -> None:
    backbone = (ITEMS + 4) * CHANNELS  # the table, with four special tokens
    backbone += SITES * (CHANNELS * CHANNELS * 3 + CHANNELS)  # convolutions
    backbone += SITES * 2 * CHANNELS  # LayerNorms
    next_item = ITEMS  # biases: the weights are tied to the table
    piece = CHANNELS * width + width + width * CHANNELS + CHANNELS
    patch = SITES * per_block // 2 * piece if strategy == "patch" else 0
    head = outputs * CHANNELS + outputs
    said: list[str] = []
    config = adapt_config(strategy=strategy, epochs=1, patch=PatchConfig(per_block=per_block, bottleneck=width))
    bundle = adapt(model, corpus, task, tmp_path / "out", config, report=said.append)
    everything = backbone + next_item + patch + head
    groups = f"patch {patch:,}, head {head:,}" if patch else f"head {head:,}"
    assert (
        f"trainable params: {patch + head:,} || all params: {everything:,} || "
        f"trainable%: {100 * (patch + head) / everything:.4f} ({groups})"
    ) in said
    assert (bundle.patch_params, bundle.head_params, bundle.all_params) == (patch, head, everything)


def test_the_line_reads_as_elsewhere() -> None:
    line = trainable_line({"patch": 17_536, "head": 325}, 1_000_000)
    assert line == "trainable params: 17,861 || all params: 1,000,000 || trainable%: 1.7861 (patch 17,536, head 325)"
    assert re.match(r"trainable params: [\d,]+ \|\| all params: [\d,]+ \|\| trainable%: \d+\.\d{4}", line)


def test_a_patch_of_default_width_is_as_small_as_the_paper_says() -> None:
    """Below 10 % of the convolutions, and some 2 % of a model with ten thousand items."""
    config = BackboneConfig()
    network = NextItemModel(Backbone(config, 10_000))
    patch = sum(parameter.numel() for parameter in Patch(PatchConfig(), config).parameters())
    convolutions = sum(
        site.conv.weight.numel() for block in network.backbone.blocks for site in (block.first, block.second)
    )
    everything = sum(parameter.numel() for parameter in network.parameters()) + patch
    assert convolutions == 16 * 64 * 64 * 3
    assert patch < 0.1 * convolutions
    assert 0.015 < patch / everything < 0.025


@pytest.mark.parametrize(("task", "kind"), [("cluster", ClassificationHead), ("shop", ItemHead)])
def test_modules_decide_what_is_trained(model: UserModel, corpus: Corpus, task: str, kind: type) -> None:
    spec = corpus.task(task)
    backbone = model.network.backbone
    patched, headed = (build(AdaptConfig(strategy=s), backbone, spec, spec.part("train")) for s in ("patch", "head"))
    assert list(patched.groups()) == ["patch", "head"]
    assert patched.groups() == {"patch": patched.patch, "head": patched.head}
    assert headed.groups() == {"head": headed.head}
    assert headed.patch is None
    assert isinstance(patched.head, kind)
    assert not {id(p) for m in patched.groups().values() for p in m.parameters()} & {
        id(p) for p in model.network.parameters()
    }


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
        made = build(AdaptConfig(**settings), model.network.backbone, spec, spec.part("train"))
        return tensors(nn.ModuleDict(made.groups()))

    assert equal(first(), first())
    assert not equal(first(), first(seed=1))
