"""Reading large tables of text a block at a time, every value as text: nothing is guessed, and little is held."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from peterrec.errors import DataError

BLOCK = 1 << 24  # bytes read at once; a row must fit
LINE = 1 << 20  # bytes of the longest header that is read
UNREADABLE = (OSError, EOFError, zlib.error)
INTEGER = r"^[0-9]{1,18}$"
FLOATING = r"^[0-9]{1,15}\.0+$"  # a whole number as pandas writes it in a table that also has fractions
UTF8 = "save the file as UTF-8"
PLACE = "place"

Lines = npt.NDArray[np.int64]


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file, or what is in it if it is packed."""
    if path.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(path))
    return path.open("rb")


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the complaint about a file that cannot be read."""
    reason = getattr(error, "strerror", None) or error
    return DataError(f"cannot be read ({reason})", remedy="check the file and its permissions", path=path)


def header(path: Path, separator: str, *, quoted: bool = True) -> list[str]:
    """Return the names in the first line.

    Raises:
        DataError: the file cannot be read, or has no line after the first.
    """
    try:
        with open_bytes(path) as file:
            line = file.readline(LINE)
            has_rows = bool(file.read(1))
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", remedy=UTF8, path=path) from error
    if not has_rows:
        raise no_rows(path)
    return next(csv.reader(io.StringIO(text), delimiter=separator), []) if quoted else text.split(separator)


def refuse_twice(names: Sequence[str], path: Path) -> None:
    """Refuse a header that names a column twice.

    Raises:
        DataError: it does.
    """
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"names the column {twice[0]!r} twice", remedy="rename one of them", path=path)


def no_rows(path: Path) -> DataError:
    """Return the complaint about a file without rows."""
    return DataError("has no rows", remedy="name a file with a header line and one row a line", path=path)


def blocks(
    path: Path,
    names: Sequence[str],
    wanted: Sequence[str],
    separator: str,
    *,
    quoted: bool = True,
    has_header: bool = True,
) -> Iterator[tuple[pa.Table, Lines]]:
    """Yield the rows under the header, some at a time, with the number of the line of each (empty ones not counted).

    Args:
        path: the file.
        names: of all columns.
        wanted: the columns to read.
        separator: between columns.
        quoted: whether values may be in double quotes.
        has_header: whether the first line is one; else it is a row.

    Raises:
        DataError: the file is damaged, not UTF-8, or a row has more or fewer values than there are columns.
    """
    options = {
        "read_options": pa_csv.ReadOptions(column_names=list(names), skip_rows=int(has_header), block_size=BLOCK),
        "parse_options": pa_csv.ParseOptions(delimiter=separator, quote_char='"' if quoted else False),
        "convert_options": pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), include_columns=list(wanted), strings_can_be_null=False
        ),
    }
    line = 1 + has_header
    try:
        for batch in pa_csv.open_csv(str(path), **options):
            yield pa.Table.from_batches([batch]), np.arange(line, line + len(batch))
            line += len(batch)
    except (*UNREADABLE, pa.ArrowException) as error:
        remedy = UTF8 if "UTF8" in str(error) else "give every row one value for each column"
        raise DataError(f"cannot be read as a table ({error})", remedy=remedy, path=path) from error


def null_if_unknown(texts: pa.ChunkedArray, *unknown: str) -> pa.ChunkedArray:
    """Return texts with null for those that mean nothing: the empty one and `unknown`."""
    return pc.if_else(pc.is_in(texts, value_set=pa.array(["", *unknown])), pa.scalar(None, pa.string()), texts)


def whole_numbers(texts: pa.ChunkedArray, name: str, path: Path, lines: Lines) -> pa.ChunkedArray:
    """Turn texts into int64; `12.0` is taken too, which pandas makes of 12.

    Raises:
        DataError: one is not a whole number; the message names its line.
    """
    good = pc.match_substring_regex(texts, INTEGER)
    if pc.all(good).as_py():
        return pc.cast(texts, pa.int64())
    good = pc.or_(good, pc.match_substring_regex(texts, FLOATING))
    refuse_first(good, texts, name, "which is not a whole number", path, lines)
    return pc.cast(pc.replace_substring_regex(texts, r"\.0+$", ""), pa.int64())


def refuse_first(
    good: pa.ChunkedArray, texts: pa.ChunkedArray, name: str, complaint: str, path: Path, lines: Lines
) -> None:
    """Refuse a column with a value that is not good, and name the first.

    Raises:
        DataError: it has the line and the value.
    """
    place = pc.index(good, False).as_py()
    if place >= 0:
        problem = f"line {lines[place]:,} has the {name} {texts[place].as_py()!r}, {complaint}"
        raise DataError(problem, remedy="correct the line, or check that the format is the right one", path=path)


class Distinct:
    """The distinct rows of a table that comes in pieces, in the order in which they first appear."""

    def __init__(self, schema: pa.Schema) -> None:
        # Grouping brings rows into an order of its own, with threads or without: so each has its place beside it.
        self._names = schema.names
        self._held = [schema.append(pa.field(PLACE, pa.int64())).empty_table()]
        self._total = self._rows = 0
        self._limit = BLOCK // 4

    def add(self, piece: pa.Table) -> None:
        """Take some more rows."""
        places = np.arange(self._total, self._total + len(piece))
        self._held.append(self._distinct(piece.append_column(PLACE, pa.array(places))))
        self._total += len(piece)
        self._rows += len(self._held[-1])
        if self._rows > self._limit:
            self._held = [self._distinct(pa.concat_tables(self._held))]
            self._rows = len(self._held[0])
            self._limit = max(self._limit, 2 * self._rows)

    def table(self) -> pa.Table:
        """Return the distinct rows."""
        return self._distinct(pa.concat_tables(self._held)).sort_by(PLACE).select(self._names)

    def _distinct(self, piece: pa.Table) -> pa.Table:
        first_places = piece.group_by(self._names).aggregate([(PLACE, "min")])
        return first_places.select([*self._names, f"{PLACE}_min"]).rename_columns([*self._names, PLACE])
