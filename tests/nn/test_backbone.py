"""The backbone against the loops of the oracle, its receptive field, and where its weights come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from builders import shaken
from oracles import oracle_backbone
from peterrec.config import BackboneConfig
from peterrec.errors import ConfigError
from peterrec.nn.backbone import EMBEDDING_STD, Backbone
from peterrec.nn.patch import Patch
from peterrec.nn.tokens import MASK, PAD, TCL
from strategies import backbone_configs, patched_backbones, rows_of_tokens

ITEMS = 12
NOT_CAUSAL = BackboneConfig(kind="noncausal", channels=8, dilations=(1, 2))


def doubled(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    return shaken(module.double(), seed, scale=0.5).requires_grad_(False)


@given(configs=patched_backbones(), row=rows_of_tokens(ITEMS), seed=st.integers(0, 99))
@example(configs=(NOT_CAUSAL, None), row=[PAD, 5, 6, PAD, PAD, TCL, 7, MASK, PAD], seed=0)
@example(configs=(NOT_CAUSAL, None), row=[PAD, PAD], seed=0)
@example(configs=(BackboneConfig(channels=4, dilations=(1,)), None), row=[5, PAD, PAD, 6], seed=0)
def test_any_network_equals_the_loops_with_padding_anywhere(configs, row, seed):
    """Index 0 is [PAD], 1 to 3 the other special tokens: hypothesis puts them wherever it likes."""
    backbone = doubled(Backbone(configs[0], ITEMS), seed)
    patch = doubled(Patch(configs[1], configs[0], items=ITEMS), seed + 1) if configs[1] is not None else None
    real = np.array(row) != PAD
    for adapter, config in ((None, None), (patch, configs[1])):
        hidden = backbone(torch.tensor([row]), adapter)[0].numpy()
        expected = oracle_backbone(backbone, row, adapter, config)
        np.testing.assert_allclose(hidden[real], expected[real], atol=1e-8, rtol=1e-8)


@given(configs=patched_backbones(), row=rows_of_tokens(ITEMS))
def test_single_precision_is_near_the_loops(configs, row):
    backbone, patch = Backbone(configs[0], ITEMS, seed=3), shaken(Patch(configs[1], configs[0], items=ITEMS))
    with torch.no_grad():
        hidden = backbone(torch.tensor([row]), patch)[0].numpy()
    real = np.array(row) != PAD
    expected = oracle_backbone(backbone, row, patch, configs[1])
    np.testing.assert_allclose(hidden[real], expected[real], atol=2e-4, rtol=2e-4)


@given(config=backbone_configs(), row=rows_of_tokens(ITEMS), data=st.data())
def test_what_stands_at_padding_is_never_seen(config, row, data):
    """Neither its embedding, nor any bias that makes something out of nothing."""
    backbone, tokens = doubled(Backbone(config, ITEMS)), torch.tensor([row])
    before = backbone(tokens)
    backbone.embedding.weight[PAD] = 1e6
    real = tokens[0] != PAD
    assert torch.equal(backbone(tokens)[0, real], before[0, real])


@pytest.mark.parametrize("kind", ["causal", "noncausal"])
def test_the_receptive_field_is_exactly_what_it_says(kind):
    config = BackboneConfig(kind=kind, channels=8, dilations=(1, 2))
    backbone = Backbone(config, ITEMS).double()
    field = backbone.receptive_field
    assert field == 1 + 2 * (1 + 2 + 2 + 4)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 2 * field + 1, 8, dtype=torch.float64, generator=generator).requires_grad_()
    hidden = vectors
    for index, block in enumerate(backbone.blocks):
        hidden = block(hidden, None, None, index)
    hidden[0, field].sum().backward()
    recorded = (vectors.grad[0].abs().sum(1) > 0).nonzero().flatten().tolist()
    first = field - (field - 1) // (1 if kind == "causal" else 2)
    assert (recorded[0], recorded[-1]) == (first, first + field - 1)


def test_a_noncausal_backbone_of_even_taps_has_no_middle_and_is_refused():
    with pytest.raises(ConfigError, match="kernel_size must be odd"):
        BackboneConfig(kind="noncausal", kernel_size=4)
    assert BackboneConfig(kind="causal", kernel_size=4).kernel_size == 4


@pytest.mark.parametrize("kind", ["causal", "noncausal"])
def test_the_same_seed_gives_the_same_weights_whatever_the_global_generator(kind):
    config = BackboneConfig(kind=kind, channels=8)
    first = Backbone(config, ITEMS, seed=5)
    torch.manual_seed(99)
    second = Backbone(config, ITEMS, seed=5)
    different = Backbone(config, ITEMS, seed=6)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(first.parameters(), different.parameters(), strict=True):
        assert torch.equal(a, b) == (a.dim() == 1), "all that is drawn is drawn from the seed"


def test_fresh_embeddings_are_small_and_that_of_padding_is_zero():
    weight = Backbone(BackboneConfig(), 2000).embedding.weight
    assert weight.shape == (2004, 64)
    assert weight[PAD].abs().sum() == 0
    assert float(weight[1:].detach().std()) == pytest.approx(EMBEDDING_STD, rel=0.02)


def test_no_gradient_reaches_the_embedding_of_padding():
    backbone = Backbone(NOT_CAUSAL, ITEMS)
    backbone(torch.tensor([[PAD, 5, PAD, 6]])).sum().backward()
    gradient = backbone.embedding.weight.grad.abs().sum(1)
    assert gradient.nonzero().flatten().tolist() == [5, 6]
