"""What is said of a patch that has more than a tenth of the weights of its convolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peterrec.config import BackboneConfig, PatchConfig
from peterrec.data.corpus import Corpus
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone
from peterrec.nn.block import Block
from peterrec.nn.patch import Patch
from peterrec.training import patch_size
from peterrec.training.adapt import adapt
from peterrec.training.patch_size import patch_share, wide_patch_line
from training.small import adapt_config

BELOW = "nothing"


@pytest.mark.parametrize(
    ("backbone", "patch", "share", "advice"),
    [
        ({}, {}, "8.9%", BELOW),
        ({}, {"bottleneck": 9}, "9.9%", BELOW),
        ({}, {"bottleneck": 10}, "11.0%", "set patch.bottleneck to 9 for 9.9%"),
        ({"kernel_size": 2}, {}, "13.3%", "set patch.bottleneck to 5 for 8.6%"),
        ({"channels": 16}, {}, "10.5%", "set patch.bottleneck to 1 for 6.2%"),
        ({"channels": 16}, {"bottleneck": 1}, "6.2%", BELOW),
        ({"channels": 4}, {"bottleneck": 1}, "25.0%", "with 4 channels no patch.bottleneck is below that"),
        ({}, {"bottleneck": 0.25, "insertion": "parallel"}, "17.2%", "set patch.bottleneck to 9 for 9.9%"),
        ({}, {"kind": "lora"}, "8.3%", BELOW),
        ({}, {"kind": "lora", "rank": 5}, "10.4%", "set patch.rank to 4 for 8.3%"),
        ({"channels": 16}, {"kind": "lora"}, "32.7%", "set patch.rank to 1 for 8.2%"),
        ({}, {"train_norms": True}, "8.9%", BELOW),
    ],
)
def test_the_share_and_what_is_said_of_it(
    backbone: dict[str, Any], patch: dict[str, Any], share: str, advice: str
) -> None:
    settings, network = PatchConfig(**patch), BackboneConfig(**backbone)
    number = patch_share(settings, network)
    assert f"{number:.1%}" == share
    line = wide_patch_line(settings, network)
    if advice == BELOW:
        assert line is None
    else:
        start = f"at a sublayer, the patch has {share} of the weights of the convolution (the paper: less than 10 %): "
        assert line == start + advice


@pytest.mark.parametrize("patch", [{"bottleneck": 5}, {"kind": "lora", "rank": 3}])
@pytest.mark.parametrize("backbone", [{"channels": 24}, {"kind": "noncausal", "channels": 8, "kernel_size": 5}])
def test_the_share_is_that_of_the_networks(backbone: dict[str, Any], patch: dict[str, Any]) -> None:
    settings, network = PatchConfig(**patch), BackboneConfig(**backbone)
    block = Backbone(network, 10).blocks[-1]
    assert isinstance(block, Block)
    convolution = sum(parameter.numel() for parameter in block.second.conv.parameters())
    for layer in Patch(settings, network).layers():
        assert patch_share(settings, network) == sum(p.numel() for p in layer.parameters()) / convolution


@pytest.mark.parametrize(
    ("backbone", "patch"),
    [({"channels": 4}, {"kind": "scale-shift"}), ({"architecture": "transformer", "channels": 8}, {"bottleneck": 7})],
)
def test_without_a_convolution_or_a_width_nothing_is_said(backbone: dict[str, Any], patch: dict[str, Any]) -> None:
    assert patch_share(PatchConfig(**patch), BackboneConfig(**backbone)) is None
    assert wide_patch_line(PatchConfig(**patch), BackboneConfig(**backbone)) is None


@pytest.mark.parametrize(("strategy", "limit", "lines"), [("patch", 0.2, 1), ("patch", 0.22, 0), ("head", 0.2, 0)])
def test_adapt_says_it_once_and_of_patches_only(
    model: UserModel,
    corpus: Corpus,
    tmp_path: Path,
    logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    limit: float,
    lines: int,
) -> None:
    monkeypatch.setattr(patch_size, "LARGEST_SHARE", limit)
    config = adapt_config(strategy=strategy, epochs=1, patch=PatchConfig(bottleneck=2))  # 21 % of a convolution
    adapt(model, corpus, "cluster", tmp_path / "out", config)
    remarks = [line for line in logged if "of the weights of the convolution" in line]
    start = "at a sublayer, the patch has 21.0% of the weights of the convolution (the paper: less than 10 %): "
    assert remarks == [f"{start}set patch.bottleneck to 1 for 12.5%"] * lines


def test_looking_at_the_size_draws_nothing() -> None:
    before = torch.get_rng_state()
    assert wide_patch_line(PatchConfig(bottleneck=10), BackboneConfig()) is not None
    assert torch.equal(torch.get_rng_state(), before)
