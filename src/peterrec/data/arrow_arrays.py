"""Columns of tables as single arrays, also where they are larger than 32 bits count: `large_string`, `large_list`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.data.sequences import Sequences

LIMIT = 2**31 - 1  # bytes of all texts, or values of all lists, that arrays of the plain types can have
LONGEST_NUMBER = 32  # letters


def as_text(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return values as one array of text: `large_string` where they may be too long together for `string`."""
    texts = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    size = values.nbytes if texts else LONGEST_NUMBER * len(values)
    return single_array(pc.cast(values, pa.string() if size <= LIMIT else pa.large_string()))


def single_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, whose type is `large_string` where its texts are too long together."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if pa.types.is_string(column.type) and column.nbytes > LIMIT:
        column = column.cast(pa.large_string())
    return column.combine_chunks()


def from_lists(column: pa.ChunkedArray) -> Sequences:
    """Return a column of lists of integers as sequences in memory, however many values there are; none is null."""
    offsets, row = np.zeros(len(column) + 1, dtype=np.int64), 0
    for chunk in column.chunks:
        ends = np.asarray(chunk.offsets, dtype=np.int64)
        offsets[row + 1 : row + len(ends)] = offsets[row] + ends[1:] - ends[0]
        row += len(chunk)
    items, row = np.empty(offsets[-1], dtype=np.int32), 0
    for chunk in column.chunks:
        first, last = chunk.offsets[0].as_py(), chunk.offsets[-1].as_py()
        items[offsets[row] : offsets[row + len(chunk)]] = np.asarray(chunk.values)[first:last]
        row += len(chunk)
    return Sequences(items, offsets)


def from_event_lists(table: pa.Table) -> Sequences:
    """Return the column `sequence` with `features`, where there is such a column, as `from_lists`."""
    sequences = from_lists(table["sequence"])
    features = from_lists(table["features"]).items if "features" in table.column_names else None
    return Sequences(sequences.items, sequences.offsets, features)


def feature_lists(sequences: Sequences) -> dict[str, pa.Array]:
    """Return the column `features`, lists beside those of `to_lists`; none where sequences have no features."""
    if sequences.features is None:
        return {}
    return {"features": to_lists(Sequences(sequences.features, sequences.offsets))}


def to_lists(sequences: Sequences) -> pa.Array:
    """Return rows as an array of lists of int32, `large_list` where they have too many values."""
    values = pa.array(np.asarray(sequences.items, dtype=np.int32))
    if len(values) > LIMIT:
        return pa.LargeListArray.from_arrays(pa.array(sequences.offsets.astype(np.int64)), values)
    return pa.ListArray.from_arrays(pa.array(sequences.offsets.astype(np.int32)), values)
