"""Finding input files, and knowing their columns before any engine reads them."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from peterrec.errors import DataError

TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".dat")
ENDINGS = (".parquet", ".pq", *TEXT_ENDINGS, *(f"{ending}.gz" for ending in TEXT_ENDINGS))
_CHUNK = 1 << 22
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
        found = self.path.stat()
        return {"path": str(self.path), "bytes": found.st_size, "modified_ns": found.st_mtime_ns}


def find_files(paths: Sequence[str]) -> list[Path]:
    """Expand files, globs and folders, each file once, in order of their names.

    Raises:
        DataError: a path matches nothing, or a file has an ending that is not read.
    """
    found: dict[Path, None] = {}
    for text in paths:
        matches = _matches(text)
        if not matches:
            raise DataError("there is no such file", remedy=f"name files that end in {_endings()}", path=text)
        found.update(dict.fromkeys(matches))
    return list(found)


def _matches(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file, path))
        known = [file for file in inside if _known(file)]
        if not known:
            raise DataError(
                "no file in this folder can be read", remedy=f"name files that end in {_endings()}", path=text
            )
        return known
    matches = [path] if path.is_file() else sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    for match in matches:
        if not _known(match):
            raise DataError("is of a kind that is not read", remedy=f"name files that end in {_endings()}", path=match)
    return matches


def _hidden(file: Path, folder: Path) -> bool:
    """Say whether a file is a by-product of the program that wrote the folder (`_SUCCESS`, `.crc`)."""
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _known(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def _endings() -> str:
    return ", ".join(ENDINGS)


def describe(
    path: Path, needed: Sequence[str], *, separator: str | None = None, columns: Sequence[str] | None = None
) -> InputFile:
    """Look at the head of a file.

    Args:
        path: the file.
        needed: columns it must have.
        separator: of CSV; if not given, the one that makes the header hold the needed columns.
        columns: names of the columns of a CSV file without a header line.

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
            f"does not have the column{'s' if len(missing) > 1 else ''} {_quoted(missing)}; it has "
            f"{_quoted(file.columns)}",
            remedy="say which columns to use, e.g. --user, --item and --time (or `columns`, without a header line)",
            path=path,
        )
    return file


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
                remedy="name every column, and check the separator",
                path=path,
            )
        names, chosen = tuple(columns), fitting[0]
    else:
        fitting = [s for s in candidates if set(needed) <= set(split[s])]
        chosen = fitting[0] if fitting else max(candidates, key=lambda s: len(split[s]))
        names = tuple(split[chosen])
    if len(set(names)) < len(names):
        raise DataError("names a column twice", remedy="rename one of them", path=path)
    return InputFile(path, "csv", names, (pa.string(),) * len(names), chosen, columns is None)


def _split(line: str, separator: str) -> list[str]:
    if len(separator) > 1:
        return line.split(separator)
    return next(csv.reader(io.StringIO(line), delimiter=separator))


def _first_line_of(path: Path) -> str:
    packed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            line: bytes = file.readline(1_000_000)
            # The engine takes what it finds in a gzip file that is cut short, and says nothing: read it to its end.
            while packed and file.read(_CHUNK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read ({error})", remedy="check the file, or write it again", path=path) from error
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", remedy="save the file as UTF-8", path=path) from error


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]
