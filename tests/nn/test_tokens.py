"""Special tokens: where [TCL] goes, and what is read there; against users without padding."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contracts import ITEMS, every_backbone, lively_backbone, lively_patch, padded
from oracles import oracle_backbone, oracle_represent
from peterrec.data import sequences
from peterrec.nn import tokens as module
from peterrec.nn.readout import readout_named, represent, represent_next
from peterrec.nn.tokens import MASK, PAD, TCL, append_token, enclose_in_task_tokens, end_of, read_at
from strategies import patched_backbones, rows_of_tokens, users


def test_networks_and_data_agree_on_the_special_tokens():
    assert (module.PAD, module.TCL, module.MASK) == (sequences.PAD, sequences.TCL, sequences.MASK)
    assert sequences.FIRST_ITEM == module.SPECIAL


def matrix(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), -1)


CASES = [
    # tokens, with [TCL] behind, its place, with [TCL] at both ends, their places
    ([5, 6, 7], [5, 6, 7, TCL], 3, [TCL, 5, 6, 7, TCL], [0, 4]),
    ([5, 6, PAD], [5, 6, TCL, PAD], 2, [TCL, 5, 6, TCL, PAD], [0, 3]),
    ([PAD, 5, 6], [PAD, 5, 6, TCL], 3, [PAD, TCL, 5, 6, TCL], [1, 4]),
    ([PAD, 5, PAD], [PAD, 5, TCL, PAD], 2, [PAD, TCL, 5, TCL, PAD], [1, 3]),
    ([5, PAD, 6], [5, PAD, 6, TCL], 3, [TCL, 5, PAD, 6, TCL], [0, 4]),
    ([PAD, PAD, PAD], [TCL, PAD, PAD, PAD], 0, [TCL, TCL, PAD, PAD, PAD], [0, 1]),
    ([], [TCL], 0, [TCL, TCL], [0, 1]),
]


@pytest.mark.parametrize(("row", "behind", "place", "both_ends", "places"), CASES)
def test_the_task_token_stands_next_to_the_outermost_real_ones(row, behind, place, both_ends, places):
    actual, position = append_token(matrix(row), TCL)
    assert (actual.tolist(), position.tolist()) == ([behind], [place])
    actual, position = enclose_in_task_tokens(matrix(row))
    assert (actual.tolist(), position.tolist()) == ([both_ends], [places])
    assert end_of(matrix(row)).tolist() == [place]
    actual, at = append_token(matrix(row), MASK)
    assert (actual.tolist(), at.tolist()) == ([[MASK if token == TCL else token for token in behind]], [place])


def test_rows_of_a_batch_have_their_own_places():
    batch = matrix(*(row for row, *_ in CASES if len(row) == 3))
    actual, position = append_token(batch, TCL)
    assert actual.tolist() == [behind for row, behind, *_ in CASES if len(row) == 3]
    assert position.tolist() == [place for row, _, place, *_ in CASES if len(row) == 3]
    actual, position = enclose_in_task_tokens(batch)
    assert actual.tolist() == [case[3] for case in CASES if len(case[0]) == 3]
    assert position.tolist() == [case[4] for case in CASES if len(case[0]) == 3]


@given(row=rows_of_tokens(ITEMS))
def test_what_is_put_in_takes_no_item_away_and_stands_outside(row):
    for put, count in ((partial(append_token, token=TCL), 1), (enclose_in_task_tokens, 2)):
        longer, position = put(matrix(row))
        actual, places = longer[0].tolist(), position.flatten().tolist()
        assert len(actual) == len(row) + count
        assert [actual[place] for place in places] == [TCL] * count
        remaining = [t for i, t in enumerate(actual) if i not in places and t != PAD]
        assert remaining == [t for t in row if t != PAD]
        real = [i for i, t in enumerate(actual) if t != PAD]
        assert real[-1] == places[-1]
        assert count == 1 or real[0] == places[0]


def test_the_states_at_all_places_are_added():
    hidden = torch.arange(24.0).reshape(2, 4, 3)
    actual = read_at(hidden, torch.tensor([[0, 3], [1, 2]]))
    assert torch.equal(actual, torch.stack([hidden[0, 0] + hidden[0, 3], hidden[1, 1] + hidden[1, 2]]))
    assert torch.equal(read_at(hidden, torch.tensor([[2], [0]])), torch.stack([hidden[0, 2], hidden[1, 0]]))


@given(configs=patched_backbones(), rows=users(ITEMS), leading=st.integers(0, 4), trailing=st.integers(0, 4))
def test_any_user_is_represented_as_by_the_loops(configs, rows, leading, trailing):
    backbone = lively_backbone(configs[0]).double()
    patch = lively_patch(configs[1], configs[0]).double().requires_grad_(False)
    actual = represent(backbone, padded(rows, leading, trailing), patch).numpy()
    expected = [oracle_represent(backbone, row, patch, configs[1]) for row in rows]
    np.testing.assert_allclose(actual, expected, atol=1e-8, rtol=1e-8)


@every_backbone
@pytest.mark.parametrize(("leading", "trailing"), [(0, 0), (3, 0), (0, 2), (1, 4)])
def test_the_next_item_is_read_at_the_last_event_or_at_a_mask_behind_it(backbone_config, leading, trailing):
    backbone = lively_backbone(backbone_config).double()
    rows = [[5, 6, 7, 8], [9], [10, 5]]
    actual = represent_next(backbone, padded(rows, leading, trailing)).numpy()
    causal = backbone_config.kind == "causal"
    expected = [oracle_backbone(backbone, row if causal else [*row, MASK])[-1] for row in rows]
    np.testing.assert_allclose(actual, expected, atol=1e-10)


@every_backbone
@pytest.mark.parametrize("columns", [0, 3])
def test_of_who_did_nothing_only_the_popularity_of_items_is_known_or_a_mask_alone(backbone_config, columns):
    backbone = lively_backbone(backbone_config).double()
    actual = represent_next(backbone, torch.full((2, columns), PAD))
    if backbone_config.kind == "causal":
        assert torch.equal(actual, torch.zeros_like(actual))
    else:
        np.testing.assert_allclose(actual.numpy(), [oracle_backbone(backbone, [MASK])[-1]] * 2, atol=1e-10)


def pooled_by_hand(backbone, patch, row: list[int]) -> list[np.ndarray]:
    """Embeddings and hidden states of one user without padding, summed over the events by the root of their number."""
    last_only = backbone.config.kind == "causal" or backbone.config.task_tokens == "last-end"
    tokens = matrix([*row, TCL] if last_only else [TCL, *row, TCL])
    with torch.no_grad():
        embedded, hidden = backbone.embed(tokens, patch)[0].numpy(), backbone(tokens, patch)[0].numpy()
    first = 0 if last_only else 1
    return [sum(states[first : first + len(row)]) / np.sqrt(max(1, len(row))) for states in (embedded, hidden)]


@given(
    configs=patched_backbones(),
    rows=users(ITEMS).filter(all),
    leading=st.integers(0, 4),
    trailing=st.integers(0, 4),
)
def test_any_user_is_pooled_over_the_events_alone(configs, rows, leading, trailing):
    backbone = lively_backbone(configs[0]).double()
    patch = lively_patch(configs[1], configs[0]).double().requires_grad_(False)
    tokens, channels = padded(rows, leading, trailing), configs[0].channels
    pooled = represent(backbone, tokens, patch, "pooled")
    assert pooled.shape == (len(rows), readout_named("pooled").width(channels)) == (len(rows), 2 * channels)
    for user, row in zip(pooled.numpy(), rows, strict=True):
        np.testing.assert_allclose(user, np.concatenate(pooled_by_hand(backbone, patch, row)), atol=1e-9)
    both_ends = represent(backbone, tokens, patch, "both")
    torch.testing.assert_close(
        both_ends, torch.cat([represent(backbone, tokens, patch), pooled], dim=1), atol=1e-9, rtol=0
    )
    assert both_ends.shape[1] == readout_named("both").width(channels)


@every_backbone
def test_of_who_did_nothing_a_pool_is_zeros(backbone_config):
    backbone = lively_backbone(backbone_config)
    for columns in (0, 3):
        actual = represent(backbone, torch.full((2, columns), PAD), None, "pooled")
        assert torch.equal(actual, torch.zeros(2, 2 * backbone_config.channels))
