"""Answers written some users at a time: Parquet, CSV or JSON lines."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from peterrec.errors import ConfigError
from peterrec.storage import replace_file

FORMATS = (".parquet", ".csv", ".jsonl")
LINES_AT_ONCE = 10_000


def check_format(out: Path) -> None:
    """Refuse a name whose ending is of none of the formats.

    Raises:
        ConfigError: it is.
    """
    if out.suffix not in FORMATS:
        raise ConfigError(f"cannot write {out.name}", remedy=f"name a file that ends in {' or '.join(FORMATS)}")


def write_answers(tables: Iterable[pa.Table], out: Path | None) -> pa.Table:
    """Write tables as one file, as they come; they are replaced by it at the end or not at all.

    Args:
        tables: at least one, of the same columns; the first is computed before anything is written.
        out: .parquet, .csv or .jsonl file; None writes none.

    Returns:
        All of them as one table: in memory without a file; with one, mapped from a copy on the same disk that has no
        name and is gone with the table.

    Raises:
        StorageError: the disk is full or `out` is not writable.
    """
    if out is None:
        return pa.concat_tables(tables)
    tables = iter(tables)
    first = next(tables)
    with (
        replace_file(out) as temporary,
        tempfile.TemporaryFile(dir=temporary.parent) as copy,
    ):
        with _writer(temporary, out.suffix, first.schema) as write, pa.ipc.new_file(copy, first.schema) as arrow:
            for table in itertools.chain([first], tables):
                write(table)
                arrow.write_table(table)
        return _mapped(copy)


@contextlib.contextmanager
def _writer(path: Path, ending: str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that adds a table to a file."""
    if ending == ".parquet":
        with pq.ParquetWriter(path, schema, compression="zstd") as parquet:
            yield parquet.write_table
    elif ending == ".csv":
        with pa.csv.CSVWriter(path, schema) as csv:
            yield csv.write_table
    else:
        with path.open("w", encoding="utf-8", newline="\n") as lines:
            yield lambda table: lines.writelines(
                to_json_lines(table.slice(start, LINES_AT_ONCE)) for start in range(0, len(table), LINES_AT_ONCE)
            )


def _mapped(file: IO[bytes]) -> pa.Table:
    """Return a table that is in an open file of Arrow; it lives on when the file is closed."""
    file.flush()
    memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(memory))).read_all()


def to_json_lines(table: pa.Table) -> str:
    """Return one JSON object per row and line; class probabilities go into one object, `probabilities`."""
    buffer = io.StringIO()
    for row in table.to_pylist():
        classes = {name[2:-1]: row.pop(name) for name in list(row) if name.startswith("p(") and name.endswith(")")}
        if classes:
            row["probabilities"] = classes
        buffer.write(json.dumps(row, ensure_ascii=False) + "\n")
    return buffer.getvalue()
