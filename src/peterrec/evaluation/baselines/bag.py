"""Sequences as sparse matrices: the number of times that a user has each item."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool

from peterrec.data.sequences import FIRST_ITEM, Sequences


def bag_width(sequences: Sequences) -> int:
    """Return the columns that a bag of these source sequences needs: one an item index, at least one."""
    items = np.asarray(sequences.items)
    return max(1, int(items.max()) - FIRST_ITEM + 1) if len(items) else 1


def bag(
    sequences: Sequences, width: int, *, first: int = FIRST_ITEM, binary: bool = False, dtype: type = np.float64
) -> sp.csr_array:
    """Return (users, width) counts of items.

    Args:
        sequences: rows of item indices. Special tokens (below `first`) and items beyond the width are left out: a
            linear model fitted without a column has no weight for it.
        width: columns.
        first: index of the item in column 0: 4 for source sequences, 0 for targets.
        binary: 1 instead of the count.
        dtype: of the values.
    """
    items = np.asarray(sequences.items, dtype=np.int64) - first
    in_range = (items >= 0) & (items < width)
    rows = sequences.repeat()[in_range]
    matrix = sp.csr_array((np.ones(len(rows), dtype=dtype), (rows, items[in_range])), shape=(len(sequences), width))
    matrix.sum_duplicates()
    if binary:
        matrix.data[:] = 1
    return matrix


def known_rows(matrix: sp.csr_array) -> Bool[np.ndarray, " users"]:
    """Return which users have any item in a bag."""
    return np.asarray(np.diff(matrix.indptr) > 0)


def batches(sequences: Sequences, batch_size: int) -> Iterator[Sequences]:
    """Cut sequences into runs of at most `batch_size` users, in order."""
    rows = np.arange(len(sequences))
    return (sequences.take(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size))
