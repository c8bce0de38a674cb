"""Sequences made of events, some users at a time, so that memory does not grow with the log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from peterrec.data.prepare.engine import Engine, OrderedPart
from peterrec.data.prepare.events import SORT_COLUMNS
from peterrec.data.prepare.feature_columns import FeatureRows, feature_names
from peterrec.data.prepare.source_events import Source
from peterrec.data.sequences import IntArray, Sequences
from peterrec.data.ties import equal_to_before, order_ties, seconds_of, tie_keys, tied_rows

EVENTS_AT_ONCE = 2_000_000
CODE_BITS = 31  # of the features of an event


@dataclass(frozen=True)
class Piece:
    """Sequences of some users.

    Attributes:
        places: (n,) positions of the users, ascending.
        user_ids: (n,) text.
        sequences: n rows, every kept event, oldest first; unknown items are distinct numbers below zero. Where there
            are features, with their codes and with times.
        cuts: for each cut, (n,) how many of the first events lie before it.
        tied_events: how many events nothing of the log orders: they stand in the order of a hash.
    """

    places: IntArray
    user_ids: pa.Array
    sequences: Sequences
    cuts: tuple[IntArray, ...]
    tied_events: int


def pieces(engine: Engine, source: Source, cuts: Sequence[Any] = (), at_once: int | None = None) -> Iterator[Piece]:
    """Yield the sequences of all users, in order of their place.

    Args:
        engine: of the tables.
        source: the events.
        cuts: tables place, cut: a time for some users; users without one have all of their events before it.
        at_once: events held in memory at a time (a user with more is one piece); `EVENTS_AT_ONCE` if not given.
    """
    parts = list(_parts(source.users.events, EVENTS_AT_ONCE if at_once is None else at_once))
    table = piece_expression(source.table, cuts)
    keys = ["place", *(name for name in SORT_COLUMNS if name in table.columns)]
    for part, events in zip(parts, engine.in_order("source", table, keys, parts), strict=True):
        yield _piece(source, part, events, len(cuts))


def _parts(events: IntArray, at_once: int) -> Iterator[OrderedPart]:
    """Yield ranges of users with so many events, or of one user with more."""
    ends = np.cumsum(events)
    first = 0
    while first < len(events):
        previous_events = int(ends[first - 1]) if first else 0
        last = max(first, int(np.searchsorted(ends, previous_events + at_once, side="right")) - 1)
        yield OrderedPart(first, last, int(ends[last]) - previous_events)
        first = last + 1


def _piece(source: Source, part: OrderedPart, events: pa.Table, cuts: int) -> Piece:
    users = source.users.table
    named = users.filter(users["place"].between(part.first, part.last)).order_by("place").to_pyarrow()
    places, ranks = events["place"].to_numpy(), events["rank"].to_numpy()
    same_as_before = equal_to_before(
        events["place"], *(events[name] for name in SORT_COLUMNS if name in events.column_names)
    )
    tied = np.flatnonzero(tied_rows(same_as_before))
    seconds = seconds_of(events["time"].take(pa.array(tied)), source.units_per_second)
    keys = tie_keys(source.users.hashes[places[tied]], seconds, source.item_hashes[ranks[tied]])
    sequences = _in_file_order(events, source)
    final_keys = ranks[tied].astype(np.int64)
    if sequences.features is not None:
        final_keys = final_keys << CODE_BITS | sequences.features[tied]
    order = order_ties(same_as_before, tied, keys, final_keys)
    counts = source.users.events[part.first : part.last + 1]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    before = (np.add.reduceat(events[f"before{number}"].to_numpy(), offsets[:-1]) for number in range(cuts))
    return Piece(
        np.arange(part.first, part.last + 1),
        named["user"].combine_chunks(),
        sequences.at(order, offsets),
        tuple(cut.astype(np.int64) for cut in before),
        len(tied),
    )


def _in_file_order(events: pa.Table, source: Source) -> Sequences:
    """Return events as they come of the engine, all in one row."""
    items = source.item_indices[events["rank"].to_numpy()]
    offsets = np.array([0, len(items)], dtype=np.int64)
    if source.encoder is None:
        return Sequences(items, offsets)
    features = FeatureRows(events, seconds_of(events["time"], source.units_per_second))
    return Sequences(items, offsets, features.codes(source.encoder), features.seconds)


def piece_expression(table: Any, cuts: Sequence[Any] = ()) -> Any:
    """Return the expression of what pieces are made of: place, time, [order,] [line,] rank, features, before0, ...

    The last ones are 1 where the event lies before the cut, else 0.
    """
    for number, cut in enumerate(cuts):
        renamed = cut.select(cut["place"].name("cut_place"), cut["cut"].name(f"until{number}"))
        table = table.left_join(renamed, table["place"] == renamed["cut_place"]).drop("cut_place")
    keys = [name for name in SORT_COLUMNS if name in table.columns]
    before = {}
    for number in range(len(cuts)):
        until = table[f"until{number}"]
        before[f"before{number}"] = (until.isnull() | (table["time"] < until)).cast("int64")
    return table.select("place", *keys, "rank", *feature_names(table.columns), **before)


class ArrayFile:
    """Writer of a flat array of int32 as it comes, in NumPy's format.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._header(0)
        self._start = self._file.tell()
        self.total = 0

    def append(self, values: IntArray) -> None:
        """Write some values."""
        np.ascontiguousarray(values, dtype=np.int32).tofile(self._file)
        self.total += len(values)

    def give_up(self) -> None:
        """Close the file as it is."""
        with contextlib.suppress(OSError):  # a full disk, of which the caller knows already
            self._file.close()

    def close(self) -> IntArray:
        """Finish the file and return the array, memory-mapped."""
        self._file.seek(0)
        self._header(self.total)
        if self._file.tell() != self._start:  # numpy leaves room for the number to grow
            raise AssertionError(f"the header of {self.path.name} changed its length")
        self._file.close()
        if self.total == 0:  # nothing to map
            return np.empty(0, dtype=np.int32)
        mapped: IntArray = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return mapped

    def _header(self, length: int) -> None:
        header = {"descr": "<i4", "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, header)


class SequenceFile(contextlib.AbstractContextManager["SequenceFile"]):
    """Writer of sequences as `items.npy`, `features.npy` (int32) and `offsets.npy` (int64); maps them at the end.

    Leaving its context without `close` gives up what was written.

    Args:
        folder: made if it is not there.
        features: whether the sequences have features.
    """

    def __init__(self, folder: Path, *, features: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._items = ArrayFile(folder / "items.npy")
        self._features = ArrayFile(folder / "features.npy") if features else None
        self._offsets: list[IntArray] = [np.zeros(1, dtype=np.int64)]

    def __exit__(self, *_: object) -> None:
        self._items.give_up()
        if self._features is not None:
            self._features.give_up()

    def append(self, sequences: Sequences) -> None:
        """Write some rows."""
        self._offsets.append(sequences.offsets[1:] + self._items.total)
        self._items.append(sequences.items)
        if self._features is not None:
            assert sequences.features is not None
            self._features.append(sequences.features)

    def close(self) -> Sequences:
        """Finish all files and return the sequences, memory-mapped."""
        items = self._items.close()
        features = None if self._features is None else self._features.close()
        offsets = np.concatenate(self._offsets)
        np.save(self.folder / "offsets.npy", offsets)
        return Sequences(items, offsets, features)
