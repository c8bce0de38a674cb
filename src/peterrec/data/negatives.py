"""Negatives of a ranking task: uniform or by popularity, and never a positive of the same user."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from peterrec.data.sequences import IntArray, Sequences
from peterrec.errors import TaskError


class Negatives:
    """Sampler of items that a user does not have, in proportion to whole weights, without rejection.

    Each item holds as many tickets as its weight. A draw v among the tickets that are not of the user's positives is
    moved past the tickets of every positive at or below it.

    Args:
        positives: rows of 0-based item indices, each a user's positives.
        weights: (n,) of the items of the catalogue, whole numbers of at least 1; all alike: uniform.

    Raises:
        TaskError: some user has every item, so that no negative is left.
    """

    def __init__(self, positives: Sequences, weights: IntArray) -> None:
        items = len(weights)
        rows = positives.repeat()
        keys = np.unique(rows * np.int64(items) + positives.items)  # sorted within each row, duplicates gone
        row, item = keys // items, keys % items
        counts = np.bincount(row, minlength=len(positives)).astype(np.int64)
        if (counts >= items).any():
            raise TaskError(
                "a user has every target item, so no negative is left",
                remedy="prepare again with more target items (lower the task's min_item_events), or without that user",
            )
        self.weights = weights.astype(np.int64)
        self._ends = np.cumsum(self.weights)  # tickets up to and with each item
        self._total = np.int64(self._ends[-1])
        taken = np.concatenate([[0], np.cumsum(self.weights[item])])  # by the positives so far, of all rows
        self._offsets = np.concatenate([[0], np.cumsum(counts)])
        before = taken[:-1] - taken[self._offsets[row]]  # by earlier positives of the same row
        self._taken = taken
        self._free = self._total - (taken[self._offsets[1:]] - taken[self._offsets[:-1]])
        # Free tickets before each positive, with the row in front, so that one sorted array serves all rows.
        self._keys = row * (self._total + 1) + self._ends[item] - self.weights[item] - before

    def sample(self, rows: IntArray, count: int, rng: np.random.Generator) -> IntArray:
        """Draw `count` negatives for each of the given rows (a row may stand several times); (len(rows), count)."""
        draws = rng.integers(0, self._free[rows][:, None], size=(len(rows), count))
        query = rows[:, None] * (self._total + 1) + draws
        passed = np.searchsorted(self._keys, query.ravel(), side="right").reshape(query.shape)
        tickets = draws + self._taken[passed] - self._taken[self._offsets[:-1][rows]][:, None]
        items: IntArray = np.searchsorted(self._ends, tickets, side="right").astype(np.int64)
        return items

    def log_expected(self, rows: IntArray, items: IntArray) -> npt.NDArray[np.float32]:
        """Return the log of how often each item is expected among the M draws of its row.

        Args:
            rows: (P,) as in `sample`.
            items: (P, M) what was drawn.
        """
        share = self.weights[items] / self._free[rows][:, None]
        expected: npt.NDArray[np.float32] = np.log(items.shape[1] * share).astype(np.float32)
        return expected


def uniform_weights(items: int) -> IntArray:
    """Return the weights of uniform negatives."""
    return np.ones(items, dtype=np.int64)


def popularity_weights(counts: IntArray, power: float) -> IntArray:
    """Return weights in proportion to (count + 1) ** power, as whole numbers (word2vec: 0.75; Mikolov et al., 2013)."""
    weights = (counts + 1.0) ** power
    rounded: IntArray = np.maximum(1, np.round(weights / weights.min() * 16)).astype(np.int64)
    return rounded
