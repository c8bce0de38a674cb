"""A site and a block against loops in float64, and which piece of a patch acts where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import shaken
from oracles import oracle_site
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.nn.block import Block, Site
from peterrec.nn.patch import Patch, SitePatch

CHANNELS = 6
CONFIG = BackboneConfig(channels=CHANNELS, dilations=(1, 2))


def inputs(length: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, length, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def some_real(length: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, length, 1, generator=torch.Generator().manual_seed(seed)) < 0.6


def make(cls: type, *arguments: object) -> torch.nn.Module:
    return shaken(cls(*arguments).double(), scale=0.5).requires_grad_(False)


@given(
    length=st.integers(1, 12),
    kernel=st.integers(2, 4),
    dilation=st.integers(1, 4),
    masked=st.booleans(),
    position=st.sampled_from([None, "pre_norm", "pre_act"]),
)
def test_a_site_equals_the_loops(length, kernel, dilation, masked, position):
    site = make(Site, CHANNELS, kernel, dilation, 1e-5)
    x, keep = inputs(length), some_real(length) if masked else None
    patch = make(Patch, PatchConfig(bottleneck=2, position=position), CONFIG) if position else None
    piece = patch.at(0) if patch is not None else None
    mask = np.ones((length, 1)) if keep is None else keep[0].double().numpy()
    expected = oracle_site(x[0].numpy(), mask, site, piece, position or "")
    np.testing.assert_allclose(site(x, keep, piece)[0].numpy(), expected, atol=1e-10)


def test_a_site_hands_its_input_and_what_comes_in_to_all_three_places():
    site, x, seen = make(Site, CHANNELS, 3, 2, 1e-5), inputs(), []

    class Spy(SitePatch):
        def pre_norm(self, x, h):
            seen.append(("pre_norm", x, h))
            return h + 1

        def pre_act(self, x, h):
            seen.append(("pre_act", x, h))
            return h + 2

        def post_act(self, x, h):
            seen.append(("post_act", x, h))
            return h + 3

    out = site(x, None, Spy())
    convolved = site.conv(x)
    normed = site.norm(convolved + 1)
    expected = [("pre_norm", convolved), ("pre_act", normed), ("post_act", torch.relu(normed + 2))]
    assert [place for place, *_ in seen] == [place for place, _ in expected]
    for (place, site_input, found), (_, wanted) in zip(seen, expected, strict=True):
        assert site_input is x, place
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(out, torch.relu(normed + 2) + 3, rtol=0, atol=1e-12)


def test_a_piece_that_does_nothing_changes_nothing():
    site, x = make(Site, CHANNELS, 3, 1, 1e-5), inputs()
    assert torch.equal(site(x, None, SitePatch()), site(x, None, None))


@given(length=st.integers(1, 12), dilation=st.integers(1, 4), masked=st.booleans())
def test_a_block_adds_its_second_site_of_twice_the_dilation(length, dilation, masked):
    block = make(Block, CHANNELS, 3, dilation, 1e-5)
    assert (block.first.conv.dilation, block.second.conv.dilation) == (dilation, 2 * dilation)
    x, keep = inputs(length), some_real(length) if masked else None
    mask = np.ones((length, 1)) if keep is None else keep[0].double().numpy()
    inner = oracle_site(x[0].numpy(), mask, block.first, None, "")
    expected = x[0].numpy() + oracle_site(inner, mask, block.second, None, "")
    np.testing.assert_allclose(block(x, keep, None, 0)[0].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("per_block", [1, 2])
def test_a_block_takes_its_own_pieces(index, per_block):
    block, x = make(Block, CHANNELS, 3, 1, 1e-5), inputs()
    patch = make(Patch, PatchConfig(bottleneck=2, per_block=per_block), CONFIG)
    first, second = patch.at(2 * index), patch.at(2 * index + 1)
    assert (first is None) == (per_block == 1)
    expected = x + block.second(block.first(x, None, first), None, second)
    assert torch.equal(block(x, None, patch, index), expected)
    assert not torch.equal(block(x, None, patch, 1 - index), expected)
