"""Negatives of a ranking task: uniform, and never a positive of the same user."""

from __future__ import annotations

import numpy as np

from peterrec.data.sequences import IntArray, Sequences
from peterrec.errors import TaskError


class UniformNegatives:
    """Draws items that a user does not have, each with the same probability, without rejection.

    A draw v among the n - p items that are not the user's p positives is moved past every positive at or below it.

    Args:
        positives: rows of 0-based item indices, each a user's positives.
        items: n, size of the catalogue.

    Raises:
        TaskError: some user has every item, so that no negative is left.
    """

    def __init__(self, positives: Sequences, items: int) -> None:
        rows = positives.repeat()
        keys = np.unique(rows * np.int64(items) + positives.items)  # sorted within each row, duplicates gone
        row = keys // items
        self._counts = np.bincount(row, minlength=len(positives)).astype(np.int64)
        self._offsets = np.concatenate([[0], np.cumsum(self._counts)])
        gaps = keys % items - (np.arange(len(keys)) - self._offsets[row])  # items before it that are not positives
        self._items = items
        self._keys = row * np.int64(items + 1) + gaps
        if (self._counts >= items).any():
            raise TaskError(
                "a user has every target item, so no negative is left",
                remedy="use more target items (lower min_item_events), or drop that user",
            )

    def sample(self, rows: IntArray, count: int, rng: np.random.Generator) -> IntArray:
        """Draw `count` negatives for each of the given rows (a row may stand several times); (len(rows), count)."""
        free = self._items - self._counts[rows]
        draws = rng.integers(0, free[:, None], size=(len(rows), count))
        query = rows[:, None] * np.int64(self._items + 1) + draws
        before = np.searchsorted(self._keys, query.ravel(), side="right").reshape(query.shape)
        return np.asarray(draws + before - self._offsets[:-1][rows][:, None], dtype=np.int64)
