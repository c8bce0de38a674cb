"""Finding input files, and knowing their columns before any engine reads them."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from peterrec.arguments import with_suggestions
from peterrec.errors import DataError

TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".dat")
ENDINGS = (".parquet", ".pq", *TEXT_ENDINGS, *(f"{ending}.gz" for ending in TEXT_ENDINGS))
FILE = "peterrec_file"  # column of the engine's tables: which file a row is from
UNREAD = "unread_time"  # column of a table with a format of times: what is not written as that says
_CHUNK = 1 << 22
_LINE = 1 << 20  # bytes of the longest header that is read
_SHOWN = 40
WHICH_COLUMNS = (
    "say which columns to use, e.g. --user, --item and --time (or --columns, without a header line), and name files of "
    "events only"
)
SEPARATORS = ("::", "\t", ";", "|", ",")  # in the order they are tried when several would do


@dataclass(frozen=True)
class InputFile:
    """A file with a table in it.

    Attributes:
        path: where it is.
        kind: how it is read.
        columns: its column names, in order.
        types: the Arrow type of each column; text throughout for CSV.
        separator: of a CSV file.
        header: whether the first line of a CSV file names the columns.
    """

    path: Path
    kind: Literal["parquet", "csv"]
    columns: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    separator: str = ","
    header: bool = True

    def type_of(self, column: str) -> pa.DataType:
        """Return the Arrow type of a column."""
        return self.types[self.columns.index(column)]

    def identity(self) -> dict[str, str | int]:
        """Return what tells whether the file is still the same: path, size, time of the last change."""
        status = self.path.stat()
        return {"path": str(self.path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def find_files(paths: Sequence[str]) -> list[Path]:
    """Expand files, globs and folders, each file once, in order of their names.

    Raises:
        DataError: a path matches nothing, or a file has an ending that is not read.
    """
    distinct: dict[Path, Path] = {}
    for file in all_files(paths):
        distinct.setdefault(file.resolve(), file)
    return list(distinct.values())


def all_files(paths: Sequence[str]) -> list[Path]:
    """Expand files, globs and folders, a file as often as it is named; errors as in `find_files`."""
    matches: list[Path] = []
    for text in paths:
        try:
            matching = _matches(text)
        except OSError as error:  # of a name that is too long, or a folder that may not be read
            raise DataError(f"cannot be read ({error.strerror})", remedy="check the path", path=text) from error
        if not matching:
            raise DataError("there is no such file", remedy=f"name files that end in {_endings()}", path=text)
        matches += matching
    return matches


def _matches(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        readable = _readable_files(path)
        if not readable:
            raise DataError(
                "no file in this folder can be read", remedy=f"name files that end in {_endings()}", path=text
            )
        return readable
    matches = [path] if path.is_file() else _glob(text)
    for match in matches:
        if not _has_read_ending(match):
            raise DataError("is of a kind that is not read", remedy=f"name files that end in {_endings()}", path=match)
    return matches


def _glob(pattern: str) -> list[Path]:
    matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207 - it may be absolute
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    visible = [match for match in matches if not _hidden(match, fixed)]
    return [file for match in visible for file in (_readable_files(match) if match.is_dir() else [match])]


def _readable_files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not _hidden(file, folder))
    return [file for file in files if _has_read_ending(file)]


def _hidden(file: Path, folder: Path) -> bool:
    """Return whether a file is a by-product of the program that wrote the folder (`_SUCCESS`, `.crc`)."""
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _has_read_ending(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def _endings() -> str:
    return ", ".join(ENDINGS)


def describe(
    path: Path,
    needed: Sequence[str],
    *,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    remedy: str = WHICH_COLUMNS,
) -> InputFile:
    """Return the columns and types of a file, by its head.

    Args:
        path: the file.
        needed: columns it must have.
        separator: of CSV; if not given, the one that makes the header hold the needed columns.
        columns: names of the columns of a CSV file without a header line.
        remedy: what to do about a column that is not there.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    if path.name.lower().endswith((".parquet", ".pq")):
        file = _describe_parquet(path)
    else:
        file = _describe_csv(path, needed, separator, columns)
    missing = [name for name in needed if name not in file.columns]
    if missing:
        raise DataError(
            f"does not have the column{'s' if len(missing) > 1 else ''} {with_suggestions(missing, file.columns)}; "
            f"it has {_quoted(file.columns)}",
            remedy=remedy,
            path=path,
        )
    _refuse_names(file, needed)
    return file


def _refuse_names(file: InputFile, needed: Sequence[str]) -> None:
    """Refuse columns that the engine would take for one another: in Parquet it does not look at the case of names."""
    fold = str.lower if file.kind == "parquet" else str
    names = [fold(name) for name in file.columns]
    for name in needed:
        if names.count(fold(name)) > 1:
            raise DataError(f"has the column {name!r} twice", remedy="rename one of them", path=file.path)
    if file.kind == "parquet" and FILE in names:
        raise DataError(f"has a column {FILE!r}, a name that is taken here", remedy="rename it", path=file.path)


def _describe_parquet(path: Path) -> InputFile:
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"cannot be read as Parquet ({_first_line(error)})",
            remedy="the file is cut short or is something else: write it again",
            path=path,
        ) from error
    return InputFile(path, "parquet", tuple(schema.names), tuple(schema.types))


def _describe_csv(path: Path, needed: Sequence[str], separator: str | None, columns: Sequence[str] | None) -> InputFile:
    line = _first_line_of(path)
    if not line.strip():
        raise DataError("is empty", remedy="name a file with a header line and one event a line", path=path)
    candidates = [separator] if separator is not None else [s for s in SEPARATORS if s in line] or [","]
    split = {candidate: _split(line, candidate) for candidate in candidates}
    if columns is not None:
        fitting = [s for s in candidates if len(split[s]) == len(columns)]
        if not fitting:
            raise DataError(
                f"has {max(len(fields) for fields in split.values())} fields in its first line, but {len(columns)} "
                "columns were named",
                remedy="name every column (--columns), and check the --separator",
                path=path,
            )
        names, chosen = tuple(columns), fitting[0]
    else:
        fitting = [s for s in candidates if set(needed) <= set(split[s])]
        chosen = fitting[0] if fitting else max(candidates, key=lambda s: len(split[s]))
        names = tuple(split[chosen])
    return InputFile(path, "csv", names, (pa.string(),) * len(names), chosen, columns is None)


def _split(line: str, separator: str) -> list[str]:
    if len(separator) > 1:  # which the reader of the standard library does not know
        return [field[1:-1] if re.fullmatch('"[^"]*"', field) else field for field in line.split(separator)]
    try:
        return next(csv.reader(io.StringIO(line), delimiter=separator))
    except csv.Error:  # a field is too long for it
        return line.split(separator)


def _first_line_of(path: Path) -> str:
    try:
        with gzip.open(path) if is_packed(path) else path.open("rb") as file:
            line: bytes = file.readline(_LINE)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    try:
        return re.split("[\r\n]", line.decode("utf-8-sig"), maxsplit=1)[0]
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", remedy="save the file as UTF-8", path=path) from error


def check_complete(file: InputFile) -> None:
    """Read a packed file to its end: the engine takes what it finds in one that is cut short, and says nothing.

    Raises:
        DataError: it is damaged.
    """
    if not is_packed(file.path):
        return
    try:
        with gzip.open(file.path) as unpacked:
            while unpacked.read(_CHUNK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(file.path, error) from error


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed with gzip."""
    return path.name.lower().endswith(".gz")


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"cannot be read ({error})", remedy="check the file, or write it again", path=path)


def _quoted(names: Sequence[str]) -> str:
    """List names for a message: not all of very many, and not all of a very long one."""
    shown = ", ".join(repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...") for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]


def directives(time_format: str) -> list[str]:
    """Return the letters of the directives of a strptime format."""
    return re.findall("%-?(.)", time_format, re.DOTALL)
