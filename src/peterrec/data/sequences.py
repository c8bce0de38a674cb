"""Many sequences in one flat array with offsets, and batches cut from it without a loop over samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]

PAD, TCL, MASK, UNK = 0, 1, 2, 3
FIRST_ITEM = 4
SPECIAL_TOKENS = ("[PAD]", "[TCL]", "[MASK]", "[UNK]")
ITEM_BITS = 32  # of a token; what stands above them is the code of an event's features
ITEM_MASK = 2**ITEM_BITS - 1


@dataclass(frozen=True)
class Sequences:
    """Ragged integer sequences: row i is `items[offsets[i]:offsets[i + 1]]`, oldest first.

    Attributes:
        items: (total,) int32, possibly memory-mapped.
        offsets: (rows + 1,) int64, starting at 0, never decreasing.
        features: (total,) code of the features of each event (`data.event_features`); None: events are items alone.
        seconds: (total,) float64 times, until gaps between events are made of them (`shorten`).
    """

    items: IntArray
    offsets: IntArray
    features: IntArray | None = None
    seconds: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> IntArray:
        row = range(len(self))[row]  # -1 is the last row, and there is none after it
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> IntArray:
        """(rows,) int64: the number of items of each row."""
        return np.diff(self.offsets)

    def lengths_of(self, rows: IntArray) -> IntArray:
        """Return (len(rows),) int64, the number of items of the given rows; its cost does not grow with other rows."""
        return self.offsets[1:][rows] - self.offsets[:-1][rows]

    @property
    def item_counts(self) -> IntArray:
        """(rows,) int64: the number of items of each row that are no special tokens, such as [UNK]."""
        before = np.concatenate([[0], np.cumsum(np.asarray(self.items) >= FIRST_ITEM)])
        counts: IntArray = before[self.offsets[1:]] - before[self.offsets[:-1]]
        return counts

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[int] | IntArray]) -> Sequences:
        """Build from rows in memory."""
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        return cls(np.concatenate(arrays) if arrays else np.empty(0, np.int32), offsets)

    @classmethod
    def from_token_rows(cls, rows: Sequence[IntArray]) -> Sequences:
        """Build from rows of tokens: items, with the code of the features above their bits."""
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        tokens = np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)
        features = tokens >> ITEM_BITS
        return cls(items_of(tokens).astype(np.int32), offsets, features.astype(np.int32) if features.any() else None)

    def at(self, index: IntArray | npt.NDArray[np.bool_], offsets: IntArray) -> Sequences:
        """Return some of all events, in any order, as rows with these offsets."""
        features = None if self.features is None else np.asarray(self.features)[index]
        seconds = None if self.seconds is None else self.seconds[index]
        return Sequences(np.asarray(self.items)[index], offsets, features, seconds)

    def without_features(self) -> Sequences:
        """Return the items alone."""
        return Sequences(self.items, self.offsets)

    def take(self, rows: IntArray) -> Sequences:
        """Return the given rows, in the given order, as a new object in memory."""
        lengths = self.lengths_of(rows)
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        index = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return self.at(index, offsets)

    def repeat(self) -> IntArray:
        """Return (total,) int64: for every item, the row it belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)


def indicators(sets: Sequences, width: int) -> npt.NDArray[np.float32]:
    """Return (n, width) float32: 1 where the number of a column is among those of a row, else 0."""
    out = np.zeros((len(sets), width), dtype=np.float32)
    out[sets.repeat(), sets.items] = 1.0
    return out


def items_of(tokens: IntArray) -> IntArray:
    """Return the item, or special token, of each token, without the features of the event."""
    items: IntArray = tokens & ITEM_MASK
    return items


def pad_windows(
    items: IntArray, starts: IntArray, lengths: IntArray, width: int, features: IntArray | None = None
) -> npt.NDArray[np.int64]:
    """Cut windows out of a flat array and pad them on the right with [PAD].

    Args:
        items: (total,) the flat array.
        starts: (B,) first position of each window.
        lengths: (B,) items in each window, at most `width`.
        width: columns of the result.
        features: (total,) codes of the features of events, which a token has above the bits of its item.

    Returns:
        (B, width) int64.
    """
    if len(items) == 0:
        return np.full((len(starts), width), PAD, dtype=np.int64)
    columns = np.arange(width)
    # Whatever follows a window is read with it: overwriting it costs less than reading around it.
    places = starts[:, None] + columns
    out: npt.NDArray[np.int64] = np.asarray(items).take(places, mode="clip").astype(np.int64)
    if features is not None:
        out |= np.asarray(features).take(places, mode="clip").astype(np.int64) << ITEM_BITS
    out[columns >= lengths[:, None]] = PAD
    return out
