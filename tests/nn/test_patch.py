"""Promise 3, and what a patch may and may not be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import oracle_backbone
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.errors import ConfigError
from peterrec.nn.backbone import Backbone
from peterrec.nn.patch import INSERTIONS, Patch, bottleneck_width

CONFIG = BackboneConfig(channels=16, dilations=(1, 2, 1))
PLACES = [
    {"insertion": insertion, "position": position, "per_block": per_block}
    for insertion, position in INSERTIONS
    for per_block in (1, 2)
]


def names(place: dict[str, object]) -> str:
    return "-".join(str(value) for value in place.values())


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 24, (3, 11), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("place", PLACES, ids=names)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_fresh_serial_patch_is_the_identity(place, activation):
    backbone = Backbone(CONFIG, 20)
    patch = Patch(PatchConfig(**place, activation=activation), CONFIG, torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(backbone(tokens(), patch), backbone(tokens()))


@pytest.mark.parametrize("place", PLACES, ids=names)
def test_every_piece_of_a_patch_is_used_and_gets_a_gradient(place):
    backbone = Backbone(CONFIG, 20).requires_grad_(False)
    patch = Patch(PatchConfig(**place), CONFIG)
    with torch.no_grad():
        for piece in patch.pieces.values():
            piece.net.up.weight.normal_(generator=torch.Generator().manual_seed(2))
    backbone(tokens(), patch).square().mean().backward()
    assert len(patch.pieces) == place["per_block"] * len(CONFIG.dilations)
    for name, parameter in patch.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in backbone.parameters())


@given(seed=st.integers(0, 20), place=st.sampled_from(PLACES))
def test_a_patched_backbone_equals_the_oracle(seed, place):
    backbone = Backbone(CONFIG, 20, seed=seed)
    patch = Patch(PatchConfig(**place), CONFIG)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in patch.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        row = tokens(seed)[:1]
        hidden = backbone(row, patch)[0].numpy()
    np.testing.assert_allclose(hidden, oracle_backbone(backbone, row[0].numpy(), patch, place["position"]), atol=2e-5)


def test_one_patch_per_block_follows_the_second_convolution():
    patch = Patch(PatchConfig(per_block=1), CONFIG)
    assert [site for site in range(6) if patch.at(site) is not None] == [1, 3, 5]


@pytest.mark.parametrize(("asked", "width"), [(8, 8), (0.125, 8), (0.001, 1), (1, 1)])
def test_the_bottleneck_is_a_number_or_a_share_of_the_channels(asked, width):
    assert bottleneck_width(PatchConfig(bottleneck=asked), 64) == width


def test_a_bottleneck_as_wide_as_the_backbone_is_refused():
    with pytest.raises(ConfigError, match="not narrower"):
        Patch(PatchConfig(bottleneck=16), CONFIG)


def test_a_patch_is_below_ten_percent_of_its_convolutions():
    config = BackboneConfig(channels=64)
    patch = Patch(PatchConfig(), config)
    backbone = Backbone(config, 10)
    convolutions = sum(s.conv.weight.numel() for block in backbone.blocks for s in (block.first, block.second))
    weights = sum(p.numel() for p in patch.parameters() if p.dim() > 1)
    assert weights / convolutions < 0.10


def test_a_patch_is_no_part_of_the_backbone():
    backbone = Backbone(CONFIG, 20)
    before = set(backbone.state_dict())
    backbone(tokens(), Patch(PatchConfig(), CONFIG))
    assert set(backbone.state_dict()) == before
