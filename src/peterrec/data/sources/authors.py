"""The files of the paper's authors: sequences of items, and sequences with what is to be predicted of their users.

A pre-training file has the items of a user in each line, `0,0,12,7,3`; a task file also a target or several behind two
commas, `12,7,3,,45`. Item 0 is padding. The ids are kept as they are, so that an item is the same one in every file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.data.sources.authors_users import Ints, Users, event_table, names_of, positions
from peterrec.data.sources.base import Converted, Fill, Report, Write
from peterrec.data.sources.reading import BLOCK, UNREADABLE, UTF8, WHOLE, Lines, no_rows, open_bytes, unreadable
from peterrec.errors import ConfigError, DataError

MARK = ",,"
SOURCE = "source"
ONLY_NAME = {"items": "target", "labels": "label"}  # of a task, where there is one; else it is called like its file
FORM = "write i1,i2,...,in in each line of a pre-training file, and i1,i2,...,in,,target in each of a task file"


@dataclass(frozen=True)
class AuthorsFile:
    """One file.

    Attributes:
        path: where it is.
        task: the domain of its targets or the column of its labels; empty for a pre-training file.
    """

    path: Path
    task: str = ""


def open_authors(paths: Sequence[Path], targets: str | None, report: Report) -> Fill:
    """Look at the first line of each file, which tells its kind, and return how to read them.

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
        what = f"{tasks[0]} is a task file, and it is not said what its targets are"
        remedy = "write --targets items for items of another domain, or --targets labels for classes of users"
        raise ConfigError(what, remedy=remedy)
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
            what = f"cannot give its name to a task: {name!r} is taken"
            raise DataError(what, remedy="rename the file", path=path)
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
    """Reads the files one after the other, and remembers users, items and targets."""

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
            what = f"{self._targets} of {file.task}" if file.task else "sequences"
            self._notes.append(f"{file.path.name}: {what}, rows: {rows:,}")
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
            found = {0: "no ',,'", 1: "a ',,'"}.get(int(marks[bad[0]]), "several ',,'")
            what = f"line {lines[bad[0]]:,} has {found}, but the first line makes it {kind} file"
            raise DataError(what, remedy=FORM, path=file.path)
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
            what = f"line {lines[empty.argmax()]:,} has no target"
            raise DataError(what, remedy=FORM, path=file.path)
        self._users.keep(file.task, users[rows], values)


def _split(texts: pa.Array) -> tuple[pa.Array, Ints]:
    """Return the values between commas, and the row of each."""
    lists = pc.split_pattern(texts, ",")
    return pc.utf8_trim_whitespace(pc.list_flatten(lists)), pc.list_parent_indices(lists).to_numpy()


def _ids(texts: pa.Array, lines: Lines, path: Path, what: str) -> tuple[Ints, Ints]:
    """Return the ids between commas without padding, and the row of each."""
    values, rows = _split(texts)
    place = pc.index(pc.match_substring_regex(values, WHOLE), False).as_py()
    if place >= 0:
        problem = f"line {lines[rows[place]]:,} has the {what} {values[place].as_py()!r}, which is not a whole number"
        raise DataError(problem, remedy=FORM, path=path)
    ids = pc.cast(values, pa.int64()).to_numpy()
    return ids[ids != 0], rows[ids != 0]
