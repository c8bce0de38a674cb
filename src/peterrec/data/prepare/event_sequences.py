"""Sequences made of events, some users at a time, so that memory does not grow with the log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from peterrec.data.prepare.events import SORT_COLUMNS
from peterrec.data.prepare.source_events import Source
from peterrec.data.sequences import IntArray, Sequences
from peterrec.data.ties import equal_to_before, order_ties, seconds_of, tie_keys, tied_rows

EVENTS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Piece:
    """Sequences of some users.

    Attributes:
        places: (n,) positions of the users, ascending.
        user_ids: (n,) text.
        sequences: n rows, every kept event, oldest first; unknown items are distinct numbers below zero.
        cuts: for each cut, (n,) how many of the first events lie before it.
        tied_events: how many events nothing of the log orders: they stand in the order of a hash.
    """

    places: IntArray
    user_ids: pa.Array
    sequences: Sequences
    cuts: tuple[IntArray, ...]
    tied_events: int


def pieces(source: Source, cuts: Sequence[Any] = (), at_once: int | None = None) -> Iterator[Piece]:
    """Yield the sequences of all users, in order of their place.

    Args:
        source: the events.
        cuts: tables place, cut: a time for some users; users without one have all of their events before it.
        at_once: events held in memory at a time (a user with more is one piece); `EVENTS_AT_ONCE` if not given.
    """
    at_once = EVENTS_AT_ONCE if at_once is None else at_once
    events = source.users.events
    ends = np.cumsum(events)
    first = 0
    while first < len(events):
        previous_events = ends[first - 1] if first else 0
        last = max(first, int(np.searchsorted(ends, previous_events + at_once, side="right")) - 1)
        yield _piece(source, first, last, cuts)
        first = last + 1


def _piece(source: Source, first: int, last: int, cuts: Sequence[Any]) -> Piece:
    users = source.users.table
    named = users.filter(users["place"].between(first, last)).order_by("place").to_pyarrow()
    events = piece_expression(source.table, first, last, cuts).to_pyarrow()
    places, ranks = events["place"].to_numpy(), events["rank"].to_numpy()
    same_as_before = equal_to_before(
        events["place"], *(events[name] for name in SORT_COLUMNS if name in events.column_names)
    )
    tied = np.flatnonzero(tied_rows(same_as_before))
    seconds = seconds_of(events["time"].take(pa.array(tied)), source.units_per_second)
    keys = tie_keys(source.users.hashes[places[tied]], seconds, source.item_hashes[ranks[tied]])
    order = order_ties(same_as_before, tied, keys, ranks[tied])
    counts = source.users.events[first : last + 1]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    before = (np.add.reduceat(events[f"before{number}"].to_numpy(), offsets[:-1]) for number in range(len(cuts)))
    return Piece(
        np.arange(first, last + 1),
        named["user"].combine_chunks(),
        Sequences(events["item"].to_numpy()[order].astype(np.int32), offsets),
        tuple(cut.astype(np.int64) for cut in before),
        len(tied),
    )


def piece_expression(table: Any, first: int, last: int, cuts: Sequence[Any] = ()) -> Any:
    """Return the expression of a piece, in order: place, time, [order,] [line,] rank, item, and before0, before1, ...

    The last ones are 1 where the event lies before the cut, else 0.
    """
    part = table.filter(table["place"].between(first, last))
    for number, cut in enumerate(cuts):
        renamed = cut.select(cut["place"].name("cut_place"), cut["cut"].name(f"until{number}"))
        part = part.left_join(renamed, part["place"] == renamed["cut_place"]).drop("cut_place")
    keys = [name for name in SORT_COLUMNS if name in table.columns]
    before = {}
    for number in range(len(cuts)):
        until = part[f"until{number}"]
        before[f"before{number}"] = (until.isnull() | (part["time"] < until)).cast("int64")
    return part.select("place", *keys, "rank", "item", **before).order_by("place", *keys)


class SequenceFile(contextlib.AbstractContextManager["SequenceFile"]):
    """Writer of sequences as `items.npy` (int32) and `offsets.npy` (int64), as they come; maps them at the end.

    Leaving its context without `close` gives up what was written.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = (folder / "items.npy").open("wb")
        self._header(0)
        self._start = self._file.tell()
        self._offsets: list[IntArray] = [np.zeros(1, dtype=np.int64)]
        self.total = 0
        self.rows = 0

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk, of which the caller knows already
            self._file.close()

    def append(self, sequences: Sequences) -> None:
        """Write some rows."""
        np.ascontiguousarray(sequences.items, dtype=np.int32).tofile(self._file)
        self._offsets.append(sequences.offsets[1:] + self.total)
        self.total += len(sequences.items)
        self.rows += len(sequences)

    def close(self) -> Sequences:
        """Finish both files and return the sequences, memory-mapped."""
        self._file.seek(0)
        self._header(self.total)
        if self._file.tell() != self._start:  # numpy leaves room for the number to grow
            raise AssertionError("the header of items.npy changed its length")
        self._file.close()
        offsets = np.concatenate(self._offsets)
        np.save(self.folder / "offsets.npy", offsets)
        if self.total == 0:  # nothing to map
            return Sequences(np.empty(0, dtype=np.int32), offsets)
        return Sequences(np.load(self.folder / "items.npy", mmap_mode="r", allow_pickle=False), offsets)

    def _header(self, length: int) -> None:
        header = {"descr": "<i4", "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
