"""Promise 10, for training negatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.data.negatives import Negatives, popularity_weights, uniform_weights
from peterrec.data.sequences import Sequences
from peterrec.errors import TaskError

weights_of_ten = st.lists(st.integers(1, 5), min_size=10, max_size=10).map(np.array) | st.just(uniform_weights(10))


@given(st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=1, max_size=6), weights_of_ten, st.integers(0, 20))
def test_a_negative_is_never_a_positive_of_the_same_user(positives, weights, seed):
    sampler = Negatives(Sequences.from_rows(positives), weights)
    rows = np.repeat(np.arange(len(positives)), 3)
    drawn = sampler.sample(rows, 20, np.random.default_rng(seed))
    assert drawn.shape == (len(rows), 20)
    assert drawn.min() >= 0
    assert drawn.max() < 10
    for row, line in zip(rows, drawn, strict=True):
        assert not set(line) & set(positives[row])


def test_every_other_item_is_drawn_equally_often():
    sampler = Negatives(Sequences.from_rows([[0, 3, 3, 9], []]), uniform_weights(10))
    drawn = sampler.sample(np.zeros(20_000, dtype=int), 5, np.random.default_rng(0))
    counts = np.bincount(drawn.ravel(), minlength=10)
    assert counts[[0, 3, 9]].tolist() == [0, 0, 0]
    np.testing.assert_allclose(counts[[1, 2, 4, 5, 6, 7, 8]] / counts.sum(), 1 / 7, atol=0.005)


def test_a_user_with_every_item_is_refused():
    with pytest.raises(TaskError, match="every target item"):
        Negatives(Sequences.from_rows([[0], [0, 1]]), uniform_weights(2))


@pytest.mark.parametrize("positives", [[], [0], [9], [2, 3], [0, 5, 9], [1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_items_are_drawn_in_proportion_to_their_weights_and_the_expected_counts_say_so(positives):
    weights = np.array([7, 1, 3, 9, 2, 2, 5, 1, 1, 4])
    sampler = Negatives(Sequences.from_rows([[4, 4], positives]), weights)
    rows = np.ones(40_000, dtype=int)
    drawn = sampler.sample(rows, 4, np.random.default_rng(0))
    free = np.delete(np.arange(10), positives)
    share = np.zeros(10)
    share[free] = weights[free] / weights[free].sum()
    np.testing.assert_allclose(np.bincount(drawn.ravel(), minlength=10) / drawn.size, share, atol=0.006)
    np.testing.assert_allclose(np.exp(sampler.log_expected(rows, drawn)), 4 * share[drawn], rtol=1e-6)


def test_popularity_weights_grow_with_the_power_of_the_count():
    weights = popularity_weights(np.array([0, 15, 255, 0]), 0.75)
    np.testing.assert_array_equal(weights / weights[0], [1, 8, 64, 1])
    flat = popularity_weights(np.array([3, 3]), 0.5)
    assert flat[0] == flat[1]
