"""Tenrec: exposures of videos and articles in feeds, with clicks and other feedback, gender and age (NeurIPS 2022).

What the files hold (those of the makers, and those their scripts cut from them): a header, one row per exposure, the
rows of a user in the order of time, and no times. `\\N` is a missing value; gender and age are codes, of which the
makers leave 0 out as unknown. Files that went through pandas have `1.0` for 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.data.sources.base import Converted, Fill, Report, Write
from peterrec.data.sources.text_tables import (
    Distinct,
    Lines,
    blocks,
    header,
    no_rows,
    null_if_unknown,
    refuse_first,
    refuse_twice,
    whole_numbers,
)
from peterrec.errors import ConfigError, DataError

IDS = ("user_id", "item_id")
CLICK = "click"
PROFILE = ("gender", "age")
RESERVED = ("timestamp", "domain")  # columns of the events that no file has
HISTORY = re.compile("hist_[0-9]+")  # of the files for click prediction: earlier items again, in every row
MISSING = "\\N"
CLICKED, NOT_CLICKED = r"^1(\.0+)?$", r"^(0(\.0+)?|\\N)?$"
REMEDY = "name files of Tenrec, such as sbr_data_1M.csv or QB-video.csv, with their header"


@dataclass(frozen=True)
class TenrecFile:
    """One file, which is a domain.

    Attributes:
        path: where it is.
        domain: its name without the ending.
        columns: the names in its header.
    """

    path: Path
    domain: str
    columns: tuple[str, ...]


def open_tenrec(paths: Sequence[Path], targets: str | None, report: Report) -> Fill:
    """Check the headers of files of Tenrec, each of which is a domain, and return how to read them.

    Rows that were not clicked are left out, where there is a column `click`. `timestamp` is the number of the row, over
    all files in the order given. Other columns are kept as text, but the histories of the files for click prediction.

    Raises:
        ConfigError: `targets` is given.
        DataError: a header lacks a column, or two files have the same name.
    """
    if targets is not None:
        raise ConfigError("Tenrec has no task files", remedy="leave --targets out: it is for the format peterrec")
    files = [_read_header(path) for path in paths]
    domains = [file.domain for file in files]
    for file in files:
        if domains.count(file.domain) > 1:
            problem = f"and another file are both called {file.domain}, and the name of a file is its domain"
            raise DataError(problem, remedy="rename one of them", path=file.path)
    return partial(_Reader(files).read, report)


def _read_header(path: Path) -> TenrecFile:
    if path.is_dir():
        raise DataError("is a folder", remedy=REMEDY, path=path)
    columns = header(path, ",")
    if missing := [name for name in IDS if name not in columns]:
        raise DataError(f"does not have the column {' and '.join(missing)}", remedy=REMEDY, path=path)
    refuse_twice(columns, path)
    if reserved := [name for name in RESERVED if name in columns]:
        problem = f"has the column {reserved[0]}, which no file of Tenrec has"
        raise DataError(problem, remedy="give it to `peterrec prepare` as it is", path=path)
    return TenrecFile(path, re.sub(r"\.(csv|gz|csv\.gz)$", "", path.name), tuple(columns))


class _Reader:
    """Reader of the files, one after the other, which keeps users and items."""

    def __init__(self, files: Sequence[TenrecFile]) -> None:
        self._files = files
        names = [name for file in files for name in file.columns]
        self._profile = [name for name in PROFILE if name in names]
        left_out = {*IDS, CLICK, *PROFILE}
        self._other_columns = [n for n in dict.fromkeys(names) if n not in left_out and not HISTORY.fullmatch(n)]
        text, number = pa.string(), pa.int64()
        self._users = Distinct(pa.schema([("user_id", number), *((name, text) for name in self._profile)]))
        self._items = Distinct(pa.schema([("item_id", number), ("domain", text)]))
        self._notes: list[str] = []

    def read(self, report: Report, write: Write) -> Converted:
        before = 0
        for file in self._files:
            report(f"reading {file.path}")
            before += self._read_file(file, before, write)
        items = self._items.table()
        if not len(items):
            raise DataError("no row of the files was clicked", remedy=REMEDY, path=self._files[0].path)
        if len(self._files) > 1:
            self._notes.append(
                "a domain is a file: pass --domain domain to prepare, and --rank DOMAIN for the one to recommend; "
                "times go on from file to file in the order given"
            )
        users = self._profiles()
        return Converted(users, items, tuple(file.path for file in self._files), tuple(self._notes))

    def _read_file(self, file: TenrecFile, before: int, write: Write) -> int:
        wanted = [name for name in (*IDS, CLICK, *self._profile, *self._other_columns) if name in file.columns]
        rows = clicked_rows = 0
        for block, lines in blocks(file.path, file.columns, wanted, ","):
            rows += len(block)
            clicked, clicked_lines = _clicked(block, file, lines)
            if len(clicked):
                write(self._events(clicked, file, clicked_lines, before))
                clicked_rows += len(clicked)
        if not rows:
            raise no_rows(file.path)
        dropped = f"; left out because they were not clicked: {rows - clicked_rows:,}" if CLICK in file.columns else ""
        self._notes.append(f"{file.domain}: rows: {rows:,}{dropped}")
        return rows

    def _events(self, rows: pa.Table, file: TenrecFile, lines: Lines, before: int) -> pa.Table:
        columns = {name: whole_numbers(rows[name], name, file.path, lines) for name in IDS}
        columns["timestamp"] = pa.array(lines - 2 + before)  # line 2 is the first row
        columns["domain"] = pa.array(np.full(len(rows), file.domain))
        nothing = pa.nulls(len(rows), pa.string())
        profile = {n: _code(rows[n]) if n in file.columns else nothing for n in self._profile}
        self._users.add(pa.table({"user_id": columns["user_id"], **profile}))
        self._items.add(pa.table({name: columns[name] for name in ("item_id", "domain")}))
        other_values = {
            n: null_if_unknown(rows[n], MISSING) if n in file.columns else nothing for n in self._other_columns
        }
        return pa.table(columns | other_values)

    def _profiles(self) -> pa.Table:
        """Return one row per user, with the first known value of each column."""
        profiles = self._users.table()
        aggregations = [(name, kind) for name in self._profile for kind in ("first", "count_distinct")]
        users = profiles.group_by("user_id", use_threads=False).aggregate(aggregations)
        for name in self._profile:
            several = pc.sum(pc.greater(users[f"{name}_count_distinct"], 1)).as_py()
            unknown = users[f"{name}_first"].null_count
            about_several = f"; with several values, of which the first counts: {several:,}" if several else ""
            self._notes.append(f"{name}: users without (0 means unknown): {unknown:,} of {len(users):,}{about_several}")
        columns = ["user_id", *(f"{name}_first" for name in self._profile)]
        return users.select(columns).rename_columns(["user_id", *self._profile]).sort_by("user_id")


def _clicked(block: pa.Table, file: TenrecFile, lines: Lines) -> tuple[pa.Table, Lines]:
    """Return the rows that were clicked, and their lines."""
    if CLICK not in file.columns:
        return block, lines
    clicked = pc.match_substring_regex(block[CLICK], CLICKED)
    good = pc.or_(clicked, pc.match_substring_regex(block[CLICK], NOT_CLICKED))
    refuse_first(good, block[CLICK], CLICK, "which is neither 0 nor 1", file.path, lines)
    return block.filter(clicked), lines[clicked.to_numpy()]


def _code(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a code of the profile as text, null where it is unknown."""
    return null_if_unknown(pc.replace_substring_regex(texts, r"\.0+$", ""), "0", MISSING)
