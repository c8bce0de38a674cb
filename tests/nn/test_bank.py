"""Promise 5: a row of a mixed batch is what it would be alone with its own patch, for every backbone and patch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from builders import needs_compiler
from contracts import (
    BACKBONES,
    PATCHES,
    every_pair,
    has_inner_skip,
    lively_backbone,
    lively_patch,
    padded,
    some_items,
)
from peterrec.config import PatchConfig
from peterrec.errors import ConfigError
from peterrec.nn import bank as bank_module
from peterrec.nn.backbone import Backbone
from peterrec.nn.bank import PatchBank
from peterrec.nn.batched_patches import BatchedBottlenecks
from peterrec.nn.readout import represent

USERS = [[4, 5, 6, 7, 8], [9], [], [10, 11, 12], [5, 5, 4], [20, 19, 18, 17, 16, 15]]
WHICH = torch.tensor([2, 0, 1, 2, 2, 1])


@every_pair
def test_a_row_of_a_mixed_batch_equals_the_row_alone_with_its_patch(backbone_config, config):
    backbone = lively_backbone(backbone_config)
    patches = [lively_patch(config, backbone_config, seed) for seed in (1, 2, 3)]
    bank = PatchBank(patches)
    assert len(bank) == 3
    with torch.no_grad():
        mixed = represent(backbone, padded(USERS, 1, 2), bank.rows(WHICH))
        alone = [represent(backbone, padded([user], 0, 0), patches[i]) for user, i in zip(USERS, WHICH, strict=True)]
    torch.testing.assert_close(mixed, torch.cat(alone), atol=1e-5, rtol=1e-5)
    in_order = represent(backbone, padded(USERS[:3], 1, 2), bank.rows())
    expected = represent(backbone, padded(USERS[:3], 1, 2), bank.rows(torch.arange(3)))
    torch.testing.assert_close(in_order, expected, atol=1e-6, rtol=1e-6)
    apart = represent(backbone, padded(USERS, 1, 2), bank.rows(WHICH.roll(1)))
    assert not torch.allclose(mixed, apart, atol=1e-3)


def test_the_bank_keeps_what_it_was_given():
    backbone, config = lively_backbone(BACKBONES["causal"]), PatchConfig(bottleneck=3)
    patch = lively_patch(config, backbone.config)
    bank = PatchBank([patch])

    def answer(name: Backbone) -> Tensor:
        with torch.no_grad():
            return represent(name, padded(USERS, 0, 0), bank.rows(torch.zeros(len(USERS), dtype=torch.long)))

    before = answer(backbone)
    with torch.no_grad():
        for parameter in patch.parameters():
            parameter.zero_()
    torch.testing.assert_close(answer(backbone), before)


@every_pair
def test_a_row_without_a_patch_sees_the_plain_backbone(backbone_config, config):
    backbone = lively_backbone(backbone_config)
    patches = [lively_patch(config, backbone_config), None]
    if has_inner_skip(config):
        with pytest.raises(ConfigError, match="inner_skip"):
            PatchBank(patches)
        return
    with torch.no_grad():
        tokens = padded(USERS, 1, 2)
        mixed = represent(backbone, tokens, PatchBank(patches).rows(torch.tensor([1, 0, 1, 0, 1, 0])))
        plain, patched = represent(backbone, tokens), represent(backbone, tokens, patches[0])
    torch.testing.assert_close(mixed[::2], plain[::2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed[1::2], patched[1::2], atol=1e-5, rtol=1e-5)


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
@pytest.mark.parametrize("name", ["serial-pre_norm", "skip-post_act", "own-norms"])
def test_compiled_rows_equal_those_that_are_not(name):
    config, patch_config = BACKBONES["causal"], PATCHES[name]
    backbone = lively_backbone(config)
    bank = PatchBank([lively_patch(patch_config, config, seed) for seed in (1, 2, 3)])
    tokens = torch.stack([some_items(1, 8, seed=i)[0] for i in range(6)])
    with torch.no_grad():
        expected = represent(backbone, tokens, bank.rows(WHICH))
        compiled = represent(backbone.compiled(6, [9]), tokens, bank.rows(WHICH))
    torch.testing.assert_close(compiled, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["serial-pre_norm", "parallel-post_act", "skip-pre_norm", "own-norms"])
@pytest.mark.parametrize("which", [[0, 1, 2, 2, 1, 0, 2], [2] * 6 + [0], [1], []], ids=str)
def test_sorted_by_their_patches_rows_are_what_they_are_unsorted(name, which, monkeypatch):
    config = BACKBONES["causal"]
    backbone = lively_backbone(config)
    bank = PatchBank([lively_patch(PATCHES[name], config, seed) for seed in (1, 2, 3)])
    tokens, rows = some_items(len(which), 8), torch.tensor(which, dtype=torch.long)
    used: list[int] = []
    plain = BatchedBottlenecks._act_grouped
    monkeypatch.setattr(BatchedBottlenecks, "_act_grouped", lambda *arguments: used.append(1) or plain(*arguments))
    with torch.no_grad():
        actual = represent(backbone, tokens, bank.rows(rows))
        assert bool(used) == (len(which) == 7 and which[0] == 0)  # not where most places would be empty
        monkeypatch.setattr(bank_module, "EMPTY", -1)
        used.clear()
        torch.testing.assert_close(actual, represent(backbone, tokens, bank.rows(rows)), atol=1e-5, rtol=1e-5)
        assert not used


def test_in_bfloat16_rows_are_as_near_as_one_patch_is():
    config = BACKBONES["causal"]
    backbone, patch = lively_backbone(config), lively_patch(PATCHES["serial-pre_norm"], config)
    bank, tokens = PatchBank([patch, patch]), padded(USERS, 0, 0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        first, rows = represent(backbone, tokens, patch), represent(backbone, tokens, bank.rows(WHICH % 2))
    assert first.dtype == rows.dtype
    torch.testing.assert_close(rows, first, atol=0.05, rtol=0.05)


def test_patches_of_one_shape_but_other_settings_are_refused():
    config = BACKBONES["causal"]
    relu, gelu = (lively_patch(PatchConfig(bottleneck=3, activation=name), config) for name in ("relu", "gelu"))
    with pytest.raises(ConfigError, match="one configuration"):
        PatchBank([relu, gelu])
    drawn = lively_patch(PatchConfig(bottleneck=3, init="random"), config)
    assert len(PatchBank([relu, drawn])) == 2  # how a patch started is no part of what it does


@pytest.mark.parametrize("part", ["all", "one adapter"])
@pytest.mark.parametrize("mode", [True, False])
def test_patches_in_different_modes_are_refused(mode, part):
    config = BACKBONES["causal"]
    first, second = (lively_patch(PatchConfig(bottleneck=3), config, seed).train(mode) for seed in (1, 2))
    (second if part == "all" else second.layer_at(1)).train(not mode)
    with pytest.raises(ConfigError, match="some patches of the bank are in training mode, others in eval") as caught:
        PatchBank([first, second])
    assert "call eval()" in caught.value.remedy
    assert len(PatchBank([first, second.train(mode), None])) == 3


def test_patches_of_different_dtypes_are_refused():
    config = BACKBONES["causal"]
    single, double = (lively_patch(PatchConfig(bottleneck=3), config) for _ in range(2))
    with pytest.raises(ConfigError, match=r"different types or devices \(torch.float32 on cpu, torch.float64 on cpu\)"):
        PatchBank([single, double.double()])


def test_a_frozen_patch_and_one_that_is_not_stand_side_by_side():
    """What is stacked is a copy that nothing is learned by."""
    config = BACKBONES["causal"]
    frozen, free = (lively_patch(PatchConfig(bottleneck=3), config, seed) for seed in (1, 2))
    bank = PatchBank([frozen.requires_grad_(False), free, None])
    assert not any(tensor.requires_grad for tensor in bank.stacked.values())
    for name, parameter in free.named_parameters():
        assert torch.equal(bank.stacked[name][1], parameter)


def test_patches_of_different_shapes_and_none_at_all_are_refused():
    config = BACKBONES["causal"]
    narrow, wide = (lively_patch(PatchConfig(bottleneck=width), config) for width in (2, 3))
    with pytest.raises(ConfigError, match="one configuration"):
        PatchBank([narrow, wide])
    with pytest.raises(ConfigError, match="one configuration"):
        PatchBank([])
    with pytest.raises(ConfigError, match="one configuration"):
        PatchBank([None])
