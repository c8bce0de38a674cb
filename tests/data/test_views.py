"""Views of histories: parts of them, in their order, of the lengths and kinds that are asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.config import ContrastiveConfig
from peterrec.data.sequences import FIRST_ITEM, PAD, Sequences
from peterrec.data.views import draw_views

lengths = st.lists(st.integers(0, 30), min_size=1, max_size=5)
kinds = st.sampled_from(["subset", "slice", "mixed"])


def counting(counts: list[int]) -> Sequences:
    """Histories whose items say where they stand."""
    return Sequences.from_rows([np.arange(FIRST_ITEM, FIRST_ITEM + count) for count in counts])


def views(counts: list[int], config: ContrastiveConfig, seed: int = 0) -> list[list[list[int]]]:
    tokens = draw_views(counting(counts), np.arange(len(counts)), config, np.random.default_rng(seed))
    assert tokens.shape[0] == len(counts) * config.views
    rows = [[int(token) for token in row if token != PAD] for row in tokens]
    assert all(
        row[len(events) :].tolist() == [PAD] * (len(row) - len(events))
        for row, events in zip(tokens, rows, strict=True)
    )
    return [rows[user * config.views : (user + 1) * config.views] for user in range(len(counts))]


@given(
    counts=lengths,
    kind=kinds,
    number=st.integers(2, 3),
    bounds=st.tuples(st.integers(1, 9), st.integers(0, 9)),
    seed=st.integers(0, 99),
)
def test_a_view_is_events_of_its_user_in_their_order_and_as_many_as_asked_for(counts, kind, number, bounds, seed):
    shortest, longest = bounds[0], bounds[0] + bounds[1]
    config = ContrastiveConfig(views=number, view=kind, min_events=shortest, max_events=longest)
    for count, of_user in zip(counts, views(counts, config, seed), strict=True):
        for events in of_user:
            assert min(count, shortest) <= len(events) <= min(count, longest)
            assert events == sorted(set(events))
            assert all(FIRST_ITEM <= event < FIRST_ITEM + count for event in events)


@given(counts=lengths, seed=st.integers(0, 99))
def test_a_slice_leaves_nothing_out_between_its_ends(counts, seed):
    for of_user in views(counts, ContrastiveConfig(view="slice"), seed):
        for events in of_user:
            assert events == list(range(events[0], events[0] + len(events))) if events else True


@pytest.mark.parametrize("kind", ["subset", "slice"])
def test_all_subsets_or_slices_of_a_length_are_alike(kind):
    config = ContrastiveConfig(view=kind, min_events=2, max_events=2)
    drawn = Counter(tuple(events) for of_user in views([4] * 3000, config) for events in of_user)
    assert len(drawn) == {"subset": 6, "slice": 3}[kind]
    assert max(drawn.values()) < 1.15 * min(drawn.values())


def test_lengths_are_drawn_by_their_logarithm():
    config = ContrastiveConfig(view="subset", min_events=1, max_events=15)
    sizes = [len(events) for of_user in views([20] * 2000, config) for events in of_user]
    quarters = Counter(int(np.log2(size)) for size in sizes)  # 1; 2 and 3; 4 to 7; 8 to 15
    assert [quarters[k] / len(sizes) for k in range(4)] == pytest.approx([0.25] * 4, abs=0.03)


def test_views_of_a_user_differ_and_the_same_seed_draws_them_again():
    config = ContrastiveConfig(view="mixed")
    assert views([30], config)[0][0] != views([30], config)[0][1]
    assert views([30, 9], config, 1) == views([30, 9], config, 1) != views([30, 9], config, 2)
