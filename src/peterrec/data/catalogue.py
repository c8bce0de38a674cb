"""The catalogue: external item id <-> index, with counts and a fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from peterrec.data.arrow_arrays import as_text, single_array
from peterrec.data.ids import as_history
from peterrec.data.sequences import FIRST_ITEM, UNK, IntArray
from peterrec.errors import ArtifactError, DataError

IdType = Literal["text", "integer"]
ItemId = str | int
SMALL_QUERY_FRACTION = 0.01  # of the catalogue: so few ids are looked up one by one, rather than hash all of it again


class Catalogue:
    """Ordered item ids. Position p has index p + `first`; `first` leaves room for the special tokens.

    Args:
        ids: (n,) distinct ids, text or integer, most frequent first.
        counts: (n,) events of each item.
        first: index of the first item: 4 for a source catalogue, 0 for the targets of a ranking task.
    """

    def __init__(self, ids: pa.Array, counts: IntArray, *, first: int = FIRST_ITEM) -> None:
        self.ids = _plain(ids)
        self.counts = np.array(counts, dtype=np.int64)
        self.first = first
        if len(self.ids) != len(self.counts):
            raise DataError(f"{len(self.ids)} item ids but {len(self.counts)} counts", remedy="give one count per item")
        if self.ids.null_count:
            raise DataError("an item of a catalogue has no id", remedy="leave out events without an item")
        if pc.count_distinct(self.ids).as_py() != len(self.ids):
            raise DataError("an item id stands twice in a catalogue", remedy="make the ids distinct")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def id_type(self) -> IdType:
        """Type of the external ids: `text` or `integer`."""
        return "integer" if pa.types.is_integer(self.ids.type) else "text"

    @property
    def unknown_index(self) -> int:
        """Index of an unknown id in `encode`: [UNK] (3), or -1 in a catalogue of targets, where 3 is an item."""
        return UNK if self.first > UNK else -1

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hexadecimal) of the ordered ids."""
        digest = hashlib.sha256(f"{self.id_type}\n".encode())
        for item in self.ids.to_pylist():
            text = str(item).encode()
            digest.update(f"{len(text)}:".encode() + text)
        return digest.hexdigest()

    def encode(self, ids: pa.Array | Sequence[ItemId]) -> IntArray:
        """Return the index of each id, or `unknown_index` where the catalogue does not have it; (n,) int64.

        Integers match a text catalogue by their decimal digits; text matches an integer catalogue if it is the
        plain decimal form of an integer.

        Raises:
            DataError: an id is neither a text nor an integer.
        """
        array, catalogue_ids = self._comparable(ids)
        if len(array) < SMALL_QUERY_FRACTION * len(self):
            return np.array(self.find(array.to_pylist()), dtype=np.int64)
        positions = pc.cast(pc.index_in(array, value_set=catalogue_ids, skip_nulls=True), pa.int64())
        return np.asarray(pc.fill_null(pc.add(positions, self.first), self.unknown_index), dtype=np.int64)

    def find(self, ids: Sequence[ItemId | None]) -> list[int]:
        """Return what `encode` does, by a table that is made when first needed: for few ids at a time, many times."""
        places, unknown = self._places, self.unknown_index
        return [unknown if item is None else places.get(str(item), unknown) for item in ids]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: place for place, text in enumerate(self._texts.to_pylist(), self.first)}

    def knows(self, ids: pa.Array | Sequence[ItemId]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which ids the catalogue has; (n,) bool."""
        array, catalogue_ids = self._comparable(ids)
        return np.asarray(pc.is_in(array, value_set=catalogue_ids).to_numpy(zero_copy_only=False), dtype=bool)

    def decode(self, indices: IntArray) -> list[ItemId]:
        """Return the external ids of item indices (not of special tokens)."""
        positions = np.asarray(indices).reshape(-1) - self.first
        if len(positions) and (positions.min() < 0 or positions.max() >= len(self)):
            raise DataError("an index is not an item of the catalogue", remedy="decode item indices only")
        values: list[ItemId] = self.ids.take(pa.array(positions)).to_pylist()
        return values

    @cached_property
    def _texts(self) -> pa.Array:
        return as_text(self.ids)

    def _comparable(self, ids: pa.Array | Sequence[ItemId]) -> tuple[pa.Array, pa.Array]:
        """Return `ids` and the catalogue's ids as arrays of one type: integers if both are, else text."""
        array = _plain(ids) if isinstance(ids, pa.Array | pa.ChunkedArray) else _array(ids)
        if array.type.equals(self.ids.type):
            return array, self.ids
        return pc.cast(array, self._texts.type), self._texts

    def extended(self, ids: pa.Array, counts: IntArray) -> Catalogue:
        """Return the catalogue with other items after its own, which keep their indices and counts."""
        every_id = pa.concat_arrays([self.ids, ids.cast(self.ids.type)])
        return Catalogue(every_id, np.concatenate([self.counts, counts]), first=self.first)

    def take(self, positions: IntArray) -> Catalogue:
        """Return a catalogue of some of the items."""
        return Catalogue(self.ids.take(pa.array(positions)), self.counts[positions], first=self.first)

    def first_items(self, count: int) -> Catalogue:
        """Return the catalogue of so many items, the first ones."""
        return Catalogue(self.ids.slice(0, count), self.counts[:count], first=self.first)

    def write(self, path: Path) -> None:
        """Write as Parquet: columns `item_id`, `index`, `count`."""
        index = np.arange(self.first, self.first + len(self), dtype=np.int64)
        table = pa.table({"item_id": self.ids, "index": index, "count": self.counts})
        pq.write_table(table, path, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> Catalogue:
        """Read what `write` wrote.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        damaged = (OSError, pa.ArrowException, KeyError, ValueError, TypeError, DataError)
        try:
            table = pq.read_table(path)
            index = table["index"].to_numpy()
            first = int(index[0]) if len(index) else FIRST_ITEM
            if not np.array_equal(index, np.arange(first, first + len(index))):
                raise ArtifactError("holds rows that are not in order", remedy="make the artifact again", path=path)
            return cls(single_array(table["item_id"]), table["count"].to_numpy(), first=first)
        except damaged as error:
            raise ArtifactError(f"cannot be read ({error})", remedy="make the artifact again", path=path) from error


def _plain(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return ids as int64 or text; integers too large for int64 become text."""
    if not pa.types.is_integer(ids.type):
        return as_text(ids)
    try:
        return single_array(pc.cast(ids, pa.int64()))
    except pa.ArrowInvalid:
        return as_text(ids)


def _array(ids: Sequence[ItemId]) -> pa.Array:
    ids = as_history(ids, "the ids")
    if all(type(value) is int for value in ids):
        with contextlib.suppress(OverflowError):  # beyond 64 bits no integer catalogue has it, but a text one may
            return pa.array(ids, pa.int64())
    try:
        return pa.array(map(str, ids), pa.string())
    except UnicodeEncodeError as error:
        raise DataError(f"an id has no UTF-8 form ({error})", remedy="leave out ids with half a character") from error
