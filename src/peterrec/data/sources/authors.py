"""The files of the paper's authors: sequences of items, and sequences with labels or targets of their users.

A pre-training file has the items of a user in each line, `0,0,12,7,3`; a task file also a target or several behind two
commas, `12,7,3,,45`. Item 0 is padding. The ids are kept as they are, so that an item is the same one in every file.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.data.sources.base import Converted, Fill, Report, Write
from peterrec.data.sources.text_tables import BLOCK, INTEGER, UNREADABLE, UTF8, Lines, no_rows, open_bytes, unreadable
from peterrec.errors import ConfigError, DataError

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MARK = ",,"
SOURCE = "source"
ONLY_NAME = {"items": "target", "labels": "label"}  # of a task, where there is one; else it is called like its file
FORM = "write i1,i2,...,in in each line of a pre-training file, and i1,i2,...,in,,target in each of a task file"
NOBODY = -1


@dataclass(frozen=True)
class AuthorsFile:
    """One file of the authors' formats.

    Attributes:
        path: where it is.
        task: the domain of its targets or the column of its labels; empty for a pre-training file.
    """

    path: Path
    task: str = ""


def open_authors(paths: Sequence[Path], targets: str | None, report: Report) -> Fill:
    """Find the kind of each file by its first line, and return a function that reads them.

    Rows with the same sequence are one user, `u1` being the first: users are to be split, not rows.

    Args:
        paths: pre-training and task files.
        targets: what the targets in task files are: `items` of another domain, which become events after those of the
            source, or `labels`, which become a column of the users. None if there are no task files.
        report: called with one sentence at a time.

    Raises:
        ConfigError: `targets` is missing, wrong or out of place.
        DataError: a file has no lines, or two task files have the same name.
    """
    tasks = [path for path in paths if _is_task(path)]
    if targets not in (None, *ONLY_NAME):
        raise ConfigError(f"targets cannot be {targets!r}", remedy="write --targets items, or --targets labels")
    if tasks and targets is None:
        problem = f"{tasks[0]} is a task file, and it is not said what its targets are"
        remedy = "write --targets items for items of another domain, or --targets labels for classes of users"
        raise ConfigError(problem, remedy=remedy)
    if not tasks and targets is not None:
        raise ConfigError(f"there is no task file, so there are no {targets}", remedy="leave --targets out, or name it")
    names = _names(tasks, targets or "")
    return partial(_Reader([AuthorsFile(path, names.get(path, "")) for path in paths], targets).read, report)


def _names(tasks: Sequence[Path], targets: str) -> dict[Path, str]:
    if len(tasks) == 1:
        return {tasks[0]: ONLY_NAME[targets]}
    names = {path: path.name.removesuffix(".gz").removesuffix(".csv") for path in tasks}
    for path, name in names.items():
        if name in (SOURCE, "user_id") or Counter(names.values())[name] > 1:
            problem = f"cannot give its name to a task: {name!r} is taken"
            raise DataError(problem, remedy="rename the file", path=path)
    return names


def _is_task(path: Path) -> bool:
    for texts, _ in _lines(path):
        return MARK in texts[0].as_py()
    raise no_rows(path)


def _lines(path: Path) -> Iterator[tuple[pa.Array, Lines]]:
    """Yield the lines that are not empty, some at a time, and their numbers."""
    first = 1
    try:
        with open_bytes(path) as file:
            while lines := file.readlines(BLOCK):
                if first == 1:
                    lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
                texts = pc.utf8_trim_whitespace(pa.array(lines, pa.binary()).cast(pa.string()))
                filled = np.flatnonzero(pc.not_equal(texts, "").to_numpy(zero_copy_only=False))
                if len(filled):
                    yield texts.take(pa.array(filled)), filled + first
                first += len(lines)
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    except pa.ArrowInvalid as error:
        raise DataError("is not UTF-8 text", remedy=UTF8, path=path) from error


class _Reader:
    """Reader of the files, one after the other, which keeps users, items and targets."""

    def __init__(self, files: Sequence[AuthorsFile], targets: str | None) -> None:
        self._files = files
        self._targets = targets
        self._users = Users()
        self._items = np.empty(0, np.int64)
        self._notes: list[str] = []

    def read(self, report: Report, write: Write) -> Converted:
        for file in self._files:
            report(f"reading {file.path}")
            rows = 0
            for texts, lines in _lines(file.path):
                self._read_lines(texts, lines, file, write)
                rows += len(lines)
            contents = f"{self._targets} of {file.task}" if file.task else "sequences"
            self._notes.append(f"{file.path.name}: {contents}, rows: {rows:,}")
        if not len(self._items):
            raise DataError("no row has an item other than 0, which is padding", remedy=FORM, path=self._files[0].path)
        domains = {SOURCE: self._items}
        users = pa.table({"user_id": names_of(np.arange(len(self._users)))})
        if self._targets == "items":
            domains |= self._users.write_targets(write)
            self._notes.append(f"to recommend {' or '.join([*domains][1:])}: prepare with --domain domain --rank")
        elif self._targets == "labels":
            users = self._users.with_labels(users, self._notes)
        self._notes += self._users.notes()
        items = {
            "item_id": np.concatenate(list(domains.values())),
            "domain": np.repeat([*domains], [len(ids) for ids in domains.values()]),
        }
        return Converted(users, pa.table(items), tuple(file.path for file in self._files), tuple(self._notes))

    def _read_lines(self, texts: pa.Array, lines: Lines, file: AuthorsFile, write: Write) -> None:
        marks = pc.count_substring(texts, MARK).to_numpy()
        bad = np.flatnonzero(marks != bool(file.task))
        if len(bad):
            kind = "a task" if file.task else "a pre-training"
            marks_found = {0: "no ',,'", 1: "a ',,'"}.get(int(marks[bad[0]]), "several ',,'")
            problem = f"line {lines[bad[0]]:,} has {marks_found}, but the first line makes it {kind} file"
            raise DataError(problem, remedy=FORM, path=file.path)
        parts = pc.split_pattern(texts, MARK)
        ids, rows = _ids(pc.list_element(parts, 0), lines, file.path, "item")
        users, new = self._users.place(ids, rows, len(lines))
        fresh = new[rows]
        items, owners = ids[fresh], users[rows[fresh]]
        if len(items):
            write(event_table(owners, items, positions(rows[fresh]), SOURCE))
            self._items = np.union1d(self._items, items)
        if file.task:
            self._keep_targets(pc.list_element(parts, 1), users, lines, file)

    def _keep_targets(self, texts: pa.Array, users: Ints, lines: Lines, file: AuthorsFile) -> None:
        empty = pc.equal(texts, "").to_numpy(zero_copy_only=False)
        if self._targets == "items" and not empty.any():
            values, rows = _ids(texts, lines, file.path, "target")
        else:
            values, rows = _split(texts)
            empty[rows[pc.equal(values, "").to_numpy(zero_copy_only=False)]] = True
        empty |= np.bincount(rows, minlength=len(lines)) == 0
        if empty.any():
            problem = f"line {lines[empty.argmax()]:,} has no target"
            raise DataError(problem, remedy=FORM, path=file.path)
        self._users.keep(file.task, users[rows], values)


def _split(texts: pa.Array) -> tuple[pa.Array, Ints]:
    """Return the values between commas, and the row of each."""
    lists = pc.split_pattern(texts, ",")
    return pc.utf8_trim_whitespace(pc.list_flatten(lists)), pc.list_parent_indices(lists).to_numpy()


def _ids(texts: pa.Array, lines: Lines, path: Path, role: str) -> tuple[Ints, Ints]:
    """Return the ids between commas without padding, and the row of each."""
    values, rows = _split(texts)
    place = pc.index(pc.match_substring_regex(values, INTEGER), False).as_py()
    if place >= 0:
        problem = f"line {lines[rows[place]]:,} has the {role} {values[place].as_py()!r}, which is not a whole number"
        raise DataError(problem, remedy=FORM, path=path)
    ids = pc.cast(values, pa.int64()).to_numpy()
    return ids[ids != 0], rows[ids != 0]


class Users:
    """Users by their sequence of items, numbered from 0 in the order in which they first appear."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._lengths: list[Ints] = []
        self._answers: dict[str, list[tuple[Ints, Any]]] = {}
        self._repeated_rows = self._empty_rows = 0

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
        self._empty_rows += int((lengths == 0).sum())
        self._repeated_rows += int(((lengths > 0) & ~new).sum())
        return users, new

    def keep(self, task: str, users: Ints, values: Any) -> None:
        """Keep the labels or targets of users; where there is no user, drop them."""
        is_user = users != NOBODY
        chosen = values[is_user] if isinstance(values, np.ndarray) else values.filter(pa.array(is_user))
        self._answers.setdefault(task, []).append((users[is_user], chosen))

    def write_targets(self, write: Write) -> dict[str, Ints]:
        """Write the targets as events after those of the source.

        Returns:
            The distinct items of each domain.
        """
        domains = list(self._answers)
        pieces = [(number, *piece) for number, name in enumerate(domains) for piece in self._answers[name]]
        which = np.repeat([number for number, _, _ in pieces], [len(users) for _, users, _ in pieces])
        users, ids = np.concatenate([piece[1] for piece in pieces]), np.concatenate([piece[2] for piece in pieces])
        order = np.argsort(users, kind="stable")
        times = np.empty(len(users), np.int64)
        times[order] = positions(users[order])
        times += np.concatenate(self._lengths)[users]
        for number, domain in enumerate(domains):
            in_domain = which == number
            write(event_table(users[in_domain], ids[in_domain], times[in_domain], domain))
        return {domain: np.unique(ids[which == number]) for number, domain in enumerate(domains)}

    def with_labels(self, table: pa.Table, notes: list[str]) -> pa.Table:
        """Add the labels of each task to a table of the users; none for a user of whom they differ."""
        everybody = pa.array(np.arange(len(self)))
        for task, pieces in self._answers.items():
            users, labels = zip(*pieces, strict=True)
            pairs = pa.table({"user": np.concatenate(users), "label": pa.chunked_array(labels)})
            by_user = pairs.group_by("user").aggregate([("label", "min"), ("label", "count_distinct")])
            sure = by_user.filter(pc.equal(by_user["label_count_distinct"], 1))
            place = pc.index_in(everybody, value_set=sure["user"].combine_chunks())
            table = table.append_column(task, sure["label_min"].take(place))
            if unsure := len(by_user) - len(sure):
                notes.append(f"{task}: users with different labels in several rows, who are given none: {unsure:,}")
            notes.append(f"{task}: users with a label: {len(sure):,} of {len(self):,}; prepare with --classify")
        return table

    def notes(self) -> list[str]:
        """Return remarks on how rows and users differ."""
        notes = []
        if self._repeated_rows:
            notes.append(
                f"rows with the sequence of an earlier row, which are of the same user: {self._repeated_rows:,}"
            )
        if self._empty_rows:
            notes.append(f"rows with padding only, which are left out: {self._empty_rows:,}")
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
