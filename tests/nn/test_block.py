"""A sublayer and a block against loops in float64, and which adapter of a patch acts where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import shaken
from oracles import ConvSublayerAt, oracle_conv_sublayer, weights_of
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.nn.block import Block, ConvSublayer
from peterrec.nn.patch import Patch
from peterrec.nn.patch_kinds import AdapterLayer
from strategies import backbone_configs, patch_configs, places_of

CHANNELS = 6
CONFIG = BackboneConfig(channels=CHANNELS, dilations=(1, 2))
PLACES = [PatchConfig(**place, bottleneck=2) for place in places_of("bottleneck") if place["activation"] == "relu"]


def inputs(length: int = 9, channels: int = CHANNELS, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, length, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def some_real(length: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, length, 1, generator=torch.Generator().manual_seed(seed)) < 0.6


def make(cls: type, *arguments: object) -> torch.nn.Module:
    return shaken(cls(*arguments).double(), scale=0.5).requires_grad_(False)


def by_loops(sublayer, x, keep, at, adapter=None, config=None) -> np.ndarray:
    mask = np.ones((len(x), 1)) if keep is None else keep[0].double().numpy()
    weights = weights_of(adapter) if adapter is not None else None
    return oracle_conv_sublayer(x, mask, weights_of(sublayer), at, weights, config)


@given(config=backbone_configs(), length=st.integers(1, 12), dilation=st.integers(1, 4), data=st.data())
def test_a_site_equals_the_loops_with_any_piece(config, length, dilation, data):
    sublayer, x = make(ConvSublayer, config, dilation), inputs(length, config.channels)
    keep = some_real(length) if data.draw(st.booleans()) else None
    settings = data.draw(
        st.none()
        | patch_configs(config).filter(
            lambda patch: patch.per_block == 2 and patch.item_rank is None  # which acts at no sublayer
        )
    )
    # The layer for a convolution must have its dilation: it is drawn for the first sublayer of a block of that one.
    at_same = config.model_copy(update={"dilations": (dilation,)})
    adapter = None
    if settings is not None:
        adapter = make(Patch, settings.model_copy(update={"blocks": 1}), at_same).layer_at(0)
    at = ConvSublayerAt(dilation, config.kind == "causal", config.norm_eps)
    expected = by_loops(sublayer, x[0].numpy(), keep, at, adapter, settings)
    np.testing.assert_allclose(sublayer(x, keep, adapter)[0].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("config", PLACES, ids=lambda c: f"{c.insertion}-{c.position}{'-skip' * c.inner_skip}")
def test_a_bottleneck_acts_at_its_place_on_what_its_insertion_says(config):
    """In series on what comes to the place, in parallel on the sublayer's input; before or after LayerNorm or ReLU."""
    sublayer, x = make(ConvSublayer, CONFIG, 1), inputs()
    adapter = make(Patch, config, CONFIG).layer_at(0)
    net = adapter.net

    def correction(v):
        return net.up(torch.relu(net.down(v)))

    def patched(place, h):
        if config.position != place:
            return h
        out = h + correction(x if config.insertion == "parallel" else h)
        return out + x if config.inner_skip else out

    expected = patched("post_act", torch.relu(patched("pre_act", sublayer.norm(patched("pre_norm", sublayer.conv(x))))))
    torch.testing.assert_close(sublayer(x, None, adapter), expected, rtol=0, atol=1e-12)
    assert (sublayer(x, None, adapter) - sublayer(x, None, None)).abs().max() > 0.1


def test_a_site_hands_its_input_and_what_comes_in_to_all_places():
    sublayer, x, recorded = make(ConvSublayer, CONFIG, 2), inputs(), []

    class Spy(AdapterLayer):
        def pre_norm(self, arguments, h):
            recorded.append(("pre_norm", arguments.x, h))
            return h + 1

        def normalise(self, norm, h):
            recorded.append(("normalise", x, h))
            return norm(h) * 2

        def pre_act(self, arguments, h):
            recorded.append(("pre_act", arguments.x, h))
            return h + 2

        def post_act(self, arguments, h):
            recorded.append(("post_act", arguments.x, h))
            return h + 3

    out = sublayer(x, None, Spy())
    convolved = sublayer.conv(x)
    normed = sublayer.norm(convolved + 1) * 2
    inner = torch.relu(normed + 2)
    expected = [("pre_norm", convolved), ("normalise", convolved + 1), ("pre_act", normed), ("post_act", inner)]
    assert [place for place, *_ in recorded] == [place for place, _ in expected]
    for (place, site_input, actual), (_, wanted) in zip(recorded, expected, strict=True):
        assert site_input is x, place
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(out, inner + 3, rtol=0, atol=1e-12)


def test_a_patch_reads_the_input_as_the_convolution_does_with_zeros_for_padding():
    sublayer, x, keep, recorded = make(ConvSublayer, CONFIG, 2), inputs(), some_real(9), []

    class Spy(AdapterLayer):
        def post_act(self, arguments, h):
            recorded.append(arguments.x)
            return h

    sublayer(x, keep, Spy())
    assert torch.equal(recorded[0], x * keep)


def test_a_piece_that_does_nothing_changes_nothing():
    sublayer, x = make(ConvSublayer, CONFIG, 1), inputs()
    assert torch.equal(sublayer(x, None, AdapterLayer()), sublayer(x, None, None))


@given(config=backbone_configs(), length=st.integers(1, 12), dilation=st.integers(1, 4), masked=st.booleans())
def test_a_block_adds_its_second_site_of_twice_the_dilation(config, length, dilation, masked):
    block = make(Block, config, dilation)
    assert (block.first.conv.dilation, block.second.conv.dilation) == (dilation, 2 * dilation)
    x, keep = inputs(length, config.channels), some_real(length) if masked else None
    causal, eps = config.kind == "causal", config.norm_eps
    inner = by_loops(block.first, x[0].numpy(), keep, ConvSublayerAt(dilation, causal, eps))
    expected = x[0].numpy() + by_loops(block.second, inner, keep, ConvSublayerAt(2 * dilation, causal, eps))
    np.testing.assert_allclose(block(x, keep, None, 0)[0].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("per_block", [1, 2])
def test_a_block_takes_its_own_pieces(index, per_block):
    block, x = make(Block, CONFIG, 1), inputs()
    patch = make(Patch, PatchConfig(bottleneck=2, per_block=per_block), CONFIG)
    first, second = patch.layer_at(2 * index), patch.layer_at(2 * index + 1)
    assert (first is None) == (per_block == 1)
    expected = x + block.second(block.first(x, None, first), None, second)
    assert torch.equal(block(x, None, patch, index), expected)
    assert not torch.equal(block(x, None, patch, 1 - index), expected)
