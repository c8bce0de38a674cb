"""The order of events that nothing in a log orders: same user, same time, same value of the order column.

Any rule that looks at the item alone (its id, its frequency) is a pattern that a sequence model learns and is scored
for. A hash of user, time and item has no pattern, and is the same on every engine, in every file form and in the
service, for it is computed here and nowhere else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.data.hashing import UInt64Array, mix64
from peterrec.data.sequences import IntArray

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def tie_keys(user_hashes: UInt64Array, seconds: FloatArray, item_hashes: UInt64Array) -> UInt64Array:
    """Return what orders events with equal times; (n,) uint64.

    Args:
        user_hashes: (n,) `id_hash` of the user of each event.
        seconds: (n,) its time, see `seconds_of`.
        item_hashes: (n,) `id_hash` of its item.
    """
    bits = (np.asarray(seconds, dtype=np.float64) + 0.0).view(np.uint64)  # + 0.0: there is one zero, not two
    return mix64(mix64(user_hashes ^ mix64(bits)) ^ item_hashes)


def seconds_of(times: pa.Array | pa.ChunkedArray, units_per_second: float | None = None) -> FloatArray:
    """Return times as float64 seconds: since 1970 of moments, of numbers by their unit; (n,)."""
    if pa.types.is_timestamp(times.type):
        microseconds = pc.cast(pc.cast(times, pa.timestamp("us"), safe=False), pa.int64())
        return np.asarray(microseconds, dtype=np.float64) / 1e6
    return np.asarray(pc.cast(times, pa.float64(), safe=False), dtype=np.float64) / (units_per_second or 1.0)


def tied_rows(same_as_before: BoolArray) -> BoolArray:
    """Return which events are tied with another; (n,).

    Args:
        same_as_before: (n,) whether nothing orders an event and the one before it; the first is False.
    """
    tied = same_as_before.copy()
    tied[:-1] |= same_as_before[1:]
    return tied


def order_ties(same_as_before: BoolArray, tied: IntArray, keys: UInt64Array, last: IntArray) -> IntArray:
    """Return the order of all events, in which those of each tie stand in the order of their keys; (n,) int64.

    Args:
        same_as_before: (n,) as in `tied_rows`.
        tied: (m,) rows of the tied events, ascending.
        keys: (m,) `tie_keys` of these.
        last: (m,) what orders events of one tie with equal keys: those of one item by the code of their features.
    """
    groups = np.cumsum(~same_as_before)[tied]
    order = np.arange(len(same_as_before), dtype=np.int64)
    order[tied] = tied[np.lexsort((last, keys, groups))]
    return order


def equal_to_before(*columns: pa.ChunkedArray) -> BoolArray:
    """Return which rows have in every column the value of the row before; (n,), the first is False."""
    rows = len(columns[0])
    is_equal = np.ones(rows, dtype=bool)
    is_equal[:1] = False
    for column in columns:
        values = column.combine_chunks()
        if rows > 1:
            is_equal[1:] &= np.asarray(pc.equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False), dtype=bool)
    return is_equal
