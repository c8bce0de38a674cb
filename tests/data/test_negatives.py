"""Promise 10, for training negatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.data.negatives import UniformNegatives
from peterrec.data.sequences import Sequences
from peterrec.errors import TaskError


@given(st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=1, max_size=6), st.integers(0, 20))
def test_a_negative_is_never_a_positive_of_the_same_user(positives, seed):
    sampler = UniformNegatives(Sequences.of(positives), 10)
    rows = np.repeat(np.arange(len(positives)), 3)
    drawn = sampler.sample(rows, 20, np.random.default_rng(seed))
    assert drawn.shape == (len(rows), 20)
    assert drawn.min() >= 0
    assert drawn.max() < 10
    for row, line in zip(rows, drawn, strict=True):
        assert not set(line) & set(positives[row])


def test_every_other_item_is_drawn_equally_often():
    sampler = UniformNegatives(Sequences.of([[0, 3, 3, 9], []]), 10)
    drawn = sampler.sample(np.zeros(20_000, dtype=int), 5, np.random.default_rng(0))
    counts = np.bincount(drawn.ravel(), minlength=10)
    assert counts[[0, 3, 9]].tolist() == [0, 0, 0]
    np.testing.assert_allclose(counts[[1, 2, 4, 5, 6, 7, 8]] / counts.sum(), 1 / 7, atol=0.005)


def test_a_user_with_every_item_is_refused():
    with pytest.raises(TaskError, match="every target item"):
        UniformNegatives(Sequences.of([[0], [0, 1]]), 2)
