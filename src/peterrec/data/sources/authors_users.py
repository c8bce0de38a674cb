"""The users of the authors' files: who is who, and what is to be predicted of them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.data.sources.base import Write

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
NOBODY = -1


class Users:
    """Users by their sequence of items, numbered from 0 in the order in which they first appear."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._lengths: list[Ints] = []
        self._kept: dict[str, list[tuple[Ints, Any]]] = {}
        self._again = self._empty = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def place(self, ids: Ints, rows: Ints, count: int) -> tuple[Ints, Flags]:
        """Find the users of some rows.

        Args:
            ids: items of all rows.
            rows: the row of each item, ascending.
            count: of rows.

        Returns:
            (count,) the number of each user, `NOBODY` where a row has no items; (count,) whether the user is new.
        """
        lengths = np.bincount(rows, minlength=count)
        ends = np.cumsum(lengths)
        users, new = np.full(count, NOBODY), np.zeros(count, np.bool_)
        for row in np.flatnonzero(lengths).tolist():
            # The digest and not the sequence: there may be millions of users.
            content = ids[ends[row] - lengths[row] : ends[row]].tobytes()
            key = hashlib.blake2b(content, digest_size=16).digest()
            before = len(self._numbers)
            users[row] = self._numbers.setdefault(key, before)
            new[row] = users[row] == before
        self._lengths.append(lengths[new])
        self._empty += int((lengths == 0).sum())
        self._again += int(((lengths > 0) & ~new).sum())
        return users, new

    def keep(self, task: str, users: Ints, values: Any) -> None:
        """Remember what is to be predicted of users; of nobody, it is forgotten."""
        known = users != NOBODY
        chosen = values[known] if isinstance(values, np.ndarray) else values.filter(pa.array(known))
        self._kept.setdefault(task, []).append((users[known], chosen))

    def write_targets(self, write: Write) -> dict[str, Ints]:
        """Write the targets as events after those of the source.

        Returns:
            The distinct items of each domain.
        """
        domains = list(self._kept)
        pieces = [(number, *piece) for number, name in enumerate(domains) for piece in self._kept[name]]
        which = np.repeat([number for number, _, _ in pieces], [len(users) for _, users, _ in pieces])
        users, ids = np.concatenate([piece[1] for piece in pieces]), np.concatenate([piece[2] for piece in pieces])
        order = np.argsort(users, kind="stable")
        times = np.empty(len(users), np.int64)
        times[order] = positions(users[order])
        times += np.concatenate(self._lengths)[users]
        for number, domain in enumerate(domains):
            own = which == number
            write(event_table(users[own], ids[own], times[own], domain))
        return {domain: np.unique(ids[which == number]) for number, domain in enumerate(domains)}

    def with_labels(self, table: pa.Table, notes: list[str]) -> pa.Table:
        """Add the labels of each task to a table of the users; none for a user of whom they differ."""
        everybody = pa.array(np.arange(len(self)))
        for task, pieces in self._kept.items():
            users, labels = zip(*pieces, strict=True)
            pairs = pa.table({"user": np.concatenate(users), "label": pa.chunked_array(labels)})
            found = pairs.group_by("user").aggregate([("label", "min"), ("label", "count_distinct")])
            sure = found.filter(pc.equal(found["label_count_distinct"], 1))
            place = pc.index_in(everybody, value_set=sure["user"].combine_chunks())
            table = table.append_column(task, sure["label_min"].take(place))
            if unsure := len(found) - len(sure):
                notes.append(f"{task}: users with different labels in several rows, who are given none: {unsure:,}")
            notes.append(f"{task}: users with a label: {len(sure):,} of {len(self):,}; prepare with --classify")
        return table

    def notes(self) -> list[str]:
        """Say how rows and users differ."""
        notes = []
        if self._again:
            notes.append(f"rows with the sequence of an earlier row, which are of the same user: {self._again:,}")
        if self._empty:
            notes.append(f"rows with padding only, which are left out: {self._empty:,}")
        return notes


def names_of(users: Ints) -> pa.Array:
    """Return the ids of users: `u1` is the first."""
    return pc.binary_join_element_wise("u", pc.cast(pa.array(users + 1), pa.string()), "")


def positions(groups: Ints) -> Ints:
    """Return the place of each value among its equals, which stand together: 0, 1, 2 of `[7, 7, 7]`."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def event_table(users: Ints, items: Ints, times: Ints, domain: str) -> pa.Table:
    """Return events of users given by their number."""
    columns = {"user_id": names_of(users), "item_id": items, "timestamp": times, "domain": np.full(len(items), domain)}
    return pa.table(columns)
