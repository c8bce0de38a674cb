"""The last position alone: the same state and gradients as of the whole pass, from nothing but what it depends on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from builders import shaken
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.nn.backbone import Backbone
from peterrec.nn.patch import Patch
from peterrec.nn.receptive_field import receptive_field_of_last
from peterrec.nn.tokens import PAD, read_at, tokens_before
from strategies import patched_backbones, rows_of_tokens

ITEMS = 12


def needed(dilations: tuple[int, ...], kernel_size: int, length: int) -> tuple[list[set[int]], list[list[int]]]:
    """By enumeration: positions before the last that each block reads, and how many each of its sublayers computes."""
    positions, read, computed = {0}, [], []
    for dilation in reversed(dilations):
        counts = []
        for d in (2 * dilation, dilation):
            counts.append(len(positions))
            positions = {p + tap * d for p in positions for tap in range(kernel_size) if p + tap * d < length}
        read.append(positions)
        computed.append(counts[::-1])
    return read[::-1], computed[::-1]


@given(
    dilations=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    kernel_size=st.integers(2, 4),
    length=st.integers(1, 60),
)
@example(dilations=(1, 4, 1, 4, 1, 4, 1, 4), kernel_size=3, length=51)
@example(dilations=(1, 4, 1, 4, 1, 4, 1, 4), kernel_size=3, length=201)
def test_the_plan_covers_what_is_needed_and_hardly_more(dilations, kernel_size, length):
    field = receptive_field_of_last(dilations, kernel_size, length)
    read, computed = needed(dilations, kernel_size, length)
    assert read[0] <= {i * field.spacing for i in range(field.count)}
    assert (field.count - 1) * field.spacing < length
    assert field.counts[0] == field.count
    for steps, counts in zip(field.steps, computed, strict=True):
        for step, count in zip(steps, counts, strict=True):
            assert count <= step.outputs <= length
    assert field.steps[-1][1].outputs == 1


def test_long_histories_cost_no_more_than_the_receptive_field():
    """614 positions of 816 at 50 events and [TCL], 962 of 3,216 at 200: the numbers of docs/performance.md."""
    dilations = (1, 4) * 4
    work = {
        n: sum(step.outputs for steps in receptive_field_of_last(dilations, 3, n).steps for step in steps)
        for n in (51, 201, 5000)
    }
    assert work == {51: 614, 201: 962, 5000: 962}
    assert receptive_field_of_last(dilations, 3, 5000).count == 121


@given(
    configs=patched_backbones(kind="causal"),
    rows=st.lists(rows_of_tokens(ITEMS), min_size=1, max_size=3),
    patched=st.booleans(),
    data=st.data(),
)
def test_any_position_is_what_the_whole_pass_says_in_value_and_gradients(configs, rows, patched, data):
    width = max(len(row) for row in rows)
    tokens = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    positions = torch.tensor([data.draw(st.integers(0, width - 1)) for _ in rows])
    # [PAD] has no state of its own to compare
    tokens = tokens.scatter(1, positions.unsqueeze(1), 5)
    backbone = shaken(Backbone(configs[0], ITEMS).double(), 1, scale=0.5)
    patch = shaken(Patch(configs[1], configs[0], items=ITEMS).double(), 2, scale=0.3) if patched else None
    parameters = [*backbone.parameters(), *(patch.parameters() if patch is not None else [])]
    actual, gradients = [], []
    for hidden in (
        backbone.forward_last(tokens, positions, patch),
        read_at(backbone(tokens, patch), positions.unsqueeze(1)),
    ):
        actual.append(hidden)
        gradients.append(torch.autograd.grad(hidden.square().sum(), parameters, allow_unused=True))
    torch.testing.assert_close(actual[0], actual[1], rtol=1e-9, atol=1e-9)
    for pair in zip(*gradients, strict=True):
        field, full = torch.broadcast_tensors(*(torch.zeros(()) if g is None else g for g in pair))
        torch.testing.assert_close(field, full, rtol=1e-8, atol=1e-8)


def test_single_precision_agrees_to_1e_5():
    config = BackboneConfig()
    backbone, patch = Backbone(config, 500, seed=1), shaken(Patch(PatchConfig(), config), scale=0.1)
    tokens = torch.randint(4, 504, (8, 130), generator=torch.Generator().manual_seed(0))
    tokens[0, 40:] = PAD
    positions = torch.tensor([39, *[129] * 7])
    torch.testing.assert_close(
        backbone.forward_last(tokens, positions, patch),
        read_at(backbone(tokens, patch), positions.unsqueeze(1)),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(("position", "expected"), [(4, [1, 3, 5]), (3, [PAD, 2, 4]), (0, [PAD, PAD, 1])])
def test_tokens_before_a_position_are_evenly_spaced(position, expected):
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    assert tokens_before(tokens, torch.tensor([position]), 2, 3).tolist() == [expected]
