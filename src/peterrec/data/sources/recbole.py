"""Atomic files of RecBole: NAME.inter with the interactions, NAME.user and NAME.item with what is known of both.

A line a row, tabs between values, no quotes; the header says `field:type`, the type being token, token_seq, float or
float_seq. Values of a sequence have spaces between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from peterrec.data.sources.base import Converted, Fill, Report, Write
from peterrec.data.sources.text_tables import Distinct, Lines, blocks, header, no_rows, null_if_unknown, refuse_first
from peterrec.errors import ConfigError, DataError

TYPES = ("token", "token_seq", "float", "float_seq")
USER, ITEM, TIME = "user_id", "item_id", "timestamp"
PLAIN = r"^(0|-?[1-9][0-9]{0,17})$"  # the plain decimal form of an integer that fits into 64 bits: 007 is text
FLOAT = r"^\s*([-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[nN]a[nN])?\s*$"


@dataclass(frozen=True)
class AtomicFile:
    """One atomic file.

    Attributes:
        path: where it is.
        fields: the type of each field, in the order of the columns.
    """

    path: Path
    fields: dict[str, str]

    def rows(self, *wanted: str) -> Iterator[tuple[pa.Table, Lines]]:
        """Read fields (all if none is named) as text; errors as in `blocks`."""
        return blocks(self.path, list(self.fields), wanted or list(self.fields), "\t", quoted=False)


def open_recbole(paths: Sequence[Path], targets: str | None, report: Report) -> Fill:
    """Check the headers of the atomic files of a data set, and return how to read them.

    Fields keep their names; float becomes float64, everything else stays the text it is, and what is empty is null. Ids
    are integers if all of them, in all files, are written as such; else text. Without `timestamp`, the order of the
    rows is the order of the events.

    Args:
        paths: one path, of the folder or of NAME.inter.
        targets: None.
        report: called with one sentence at a time.

    Raises:
        ConfigError: `targets` is given.
        DataError: there is not one data set, or a header is wrong.
    """
    if targets is not None:
        raise ConfigError("RecBole has no task files", remedy="leave --targets out: it is for the format peterrec")
    if len(paths) > 1:
        raise DataError(
            "more than one path is named",
            remedy="name one folder, or one .inter file: .user and .item beside it are found",
            path=paths[1],
        )
    inter = _find_inter_file(paths[0])
    files = {".inter": _read_header(inter, (USER, ITEM))}
    for ending, id_ in ((".user", USER), (".item", ITEM)):
        if inter.with_suffix(ending).is_file():
            files[ending] = _read_header(inter.with_suffix(ending), (id_,))
    return partial(_read, files, report)


def _find_inter_file(path: Path) -> Path:
    if not path.is_dir():
        if path.suffix == ".inter":
            return path
        raise DataError("does not end in .inter", remedy="name NAME.inter, or the folder that it is in", path=path)
    candidates = sorted(file for file in path.iterdir() if file.suffix == ".inter")
    if len(candidates) != 1:
        names = f": {', '.join(file.name for file in candidates)}" if candidates else ""
        remedy = "name the one to read" if candidates else "name the folder of a data set of RecBole"
        raise DataError(f"holds {len(candidates)} .inter files{names}", remedy=remedy, path=path)
    return candidates[0]


def _read_header(path: Path, needed: Sequence[str]) -> AtomicFile:
    fields: dict[str, str] = {}
    for column in header(path, "\t", quoted=False):
        name, _, type_ = column.rpartition(":")
        if not name or type_ not in TYPES:
            problem = f"has {column!r} in its header, which is not a field and its type, such as {USER}:token"
            raise DataError(problem, remedy=f"write NAME:TYPE, the type being {', '.join(TYPES)}", path=path)
        if name in fields:
            raise DataError(f"has the field {name!r} twice", remedy="rename one of them", path=path)
        fields[name] = type_
    if missing := [name for name in needed if name not in fields]:
        problem = f"does not have the field {' and '.join(missing)}; it has {', '.join(fields)}"
        raise DataError(
            problem, remedy=f"call the users {USER} and the items {ITEM}, with tabs between fields", path=path
        )
    return AtomicFile(path, fields)


def _read(files: dict[str, AtomicFile], report: Report, write: Write) -> Converted:
    integers = {id_: _are_integers(files, id_) for id_ in (USER, ITEM)}
    inter, distinct_ids, rows = files[".inter"], {}, 0
    for id_ in (USER, ITEM):
        distinct_ids[id_] = Distinct(pa.schema([(id_, pa.int64() if integers[id_] else pa.string())]))
    report(f"reading {inter.path}")
    for block, lines in inter.rows():
        events = _typed(block, inter, lines, integers)
        if TIME not in inter.fields:
            events = events.append_column(TIME, pa.array(lines - 2))  # line 2 is the first row
        for id_, distinct in distinct_ids.items():
            distinct.add(events.select([id_]))
        write(events)
        rows += len(events)
    if not rows:
        raise no_rows(inter.path)
    users, items = (
        _read_table(files[ending], integers) if ending in files else distinct_ids[id_].table()
        for ending, id_ in ((".user", USER), (".item", ITEM))
    )
    return Converted(users, items, tuple(file.path for file in files.values()), _notes(files, integers))


def _notes(files: dict[str, AtomicFile], integers: dict[str, bool]) -> tuple[str, ...]:
    kinds = ["integers" if integers[id_] else "text" for id_ in (USER, ITEM)]
    notes = [f"{', '.join(file.path.name for file in files.values())}: user ids are {kinds[0]}, item ids {kinds[1]}"]
    if TIME not in files[".inter"].fields:
        notes.append(f"there is no {TIME}: the order of the rows is the order of the events")
    return tuple(notes)


def _are_integers(files: dict[str, AtomicFile], id_: str) -> bool:
    """Return whether all ids of all files are written as integers: an id must be the same in each of them."""
    blocks_of = (file.rows(id_) for file in files.values() if id_ in file.fields)
    return all(pc.all(pc.match_substring_regex(block[id_], PLAIN)).as_py() for rows in blocks_of for block, _ in rows)


def _typed(block: pa.Table, file: AtomicFile, lines: Lines, integers: dict[str, bool]) -> pa.Table:
    """Give each column its type."""
    columns = {}
    for name, type_ in file.fields.items():
        texts = block[name]
        if name in integers:
            refuse_first(pc.not_equal(texts, ""), texts, name, "which is no id", file.path, lines)
            columns[name] = pc.cast(texts, pa.int64()) if integers[name] else texts
        elif type_ == "float":
            good = pc.match_substring_regex(texts, FLOAT)
            refuse_first(good, texts, name, "which is not a number", file.path, lines)
            columns[name] = pc.cast(null_if_unknown(pc.utf8_trim_whitespace(texts)), pa.float64())
        else:
            columns[name] = null_if_unknown(texts)
    return pa.table(columns)


def _read_table(file: AtomicFile, integers: dict[str, bool]) -> pa.Table:
    pieces = [_typed(block, file, lines, integers) for block, lines in file.rows()]
    if not pieces:
        raise no_rows(file.path)
    return pa.concat_tables(pieces)
