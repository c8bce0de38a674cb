"""The work of Spark's Python workers: reading files and values as DuckDB does, so that both engines see the same."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

import peterrec.errors
from peterrec.data.prepare.duckdb_engine import engine_errors, file_rows, with_formatted_times
from peterrec.data.prepare.files import InputFile, check_complete
from peterrec.errors import PeterRecError

RAW = "raw"  # the table that the SQL of a reading is about
ROWS = "peterrec_rows"  # of a DataFrame, for DuckDB
ROWS_AT_ONCE = 100_000
ROWS_OF_A_TASK = 4_000_000
SIGN = "peterrec-error:"


@dataclass(frozen=True)
class FilesRead:
    """Files that are to be read, see `Engine.read`."""

    files: tuple[InputFile, ...]
    columns: dict[str, str]
    time_format: str | None
    file_number: int | None

    def table(self, connection: Any, file: InputFile, rows: tuple[int, int] | None = None) -> Any:
        """Return the expression, of a connection to DuckDB, that reads one of the files, or only some rows of it."""
        return file_rows(connection, [file], self.columns, self.time_format, file_number=self.file_number, rows=rows)

    def schema(self) -> ibis.Schema:
        """Return what columns the files give.

        Raises:
            DataError: the first file is damaged.
        """
        connection = ibis.duckdb.connect()
        with contextlib.closing(connection.con), engine_errors(self.files[0].path):
            return self.table(connection, self.files[0]).schema()


@dataclass(frozen=True)
class ReadTask:
    """A file, or rows of it, that one worker reads at a time."""

    read: FilesRead
    file: InputFile
    rows: tuple[int, int] | None = None


def read_values(
    batches: Iterator[pa.RecordBatch], tasks: Sequence[ReadTask], sql: str, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Yield what a query of DuckDB makes of the rows of the tasks whose numbers are in `id`."""
    with errors_as_text():
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from _values(tasks[number], sql, schema)


def _values(task: ReadTask, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with _connection(task.file.path) as connection:
        connection.create_view(RAW, task.read.table(connection, task.file, task.rows))
        yield from _query(connection, sql, schema)


@contextlib.contextmanager
def _connection(path: Path | None) -> Iterator[Any]:
    connection = ibis.duckdb.connect(threads=1)  # so lines are in order, too; Spark knows how many work at a time
    with contextlib.closing(connection.con), engine_errors(path):
        connection.raw_sql("SET TimeZone = 'UTC'")
        yield connection


def _query(connection: Any, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in connection.raw_sql(sql).fetch_record_batch(ROWS_AT_ONCE):
        yield from pa.Table.from_batches([batch]).cast(schema).to_batches()


@dataclass(frozen=True)
class FrameRead:
    """Rows of a DataFrame that are to be read as files are.

    Attributes:
        frame: of Spark, with the columns of `Engine.read`.
        types: the same as Arrow has them.
        time_format: as of `Engine.read`.
    """

    frame: Any
    types: pa.Schema
    time_format: str | None

    def schema(self) -> ibis.Schema:
        """Return what columns it gives."""
        with _connection(None) as connection:
            return self.table(connection, self.types.empty_table(), self.time_format).schema()

    @staticmethod
    def table(connection: Any, rows: pa.Table, time_format: str | None) -> Any:
        """Return the expression, of a connection to DuckDB, that reads what is registered as `ROWS`: these rows."""
        connection.con.register(ROWS, rows)
        return with_formatted_times(connection.table(ROWS), time_format)


def read_rows(
    batches: Iterator[pa.RecordBatch], time_format: str | None, sql: str, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Yield what a query of DuckDB makes of rows."""
    with errors_as_text(), _connection(None) as connection:
        for number, batch in enumerate(batches):
            rows = pa.Table.from_batches([batch])
            if number == 0:
                connection.create_view(RAW, FrameRead.table(connection, rows, time_format))
            connection.con.register(ROWS, rows)
            yield from _query(connection, sql, schema)


def check_files(batches: Iterator[pa.RecordBatch], files: Sequence[InputFile]) -> Iterator[pa.RecordBatch]:
    """Read the packed files whose numbers are in `id` to their ends; yields nothing of them."""
    with errors_as_text():
        for batch in batches:
            for number in batch.column(0).to_pylist():
                check_complete(files[number])
            yield batch.slice(0, 0)


def apply_function(
    batches: Iterator[pa.RecordBatch], function: Callable[[pa.Table], pa.Table], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Yield what a function makes of batches of rows."""
    with errors_as_text():
        for batch in batches:
            yield from function(pa.Table.from_batches([batch])).cast(schema).to_batches()


@contextlib.contextmanager
def errors_as_text() -> Iterator[None]:
    """Add a note to errors of the project, by which `error_in` finds them in the traceback that Spark tells."""
    try:
        yield
    except PeterRecError as error:
        path = None if error.path is None else str(error.path)
        fields = json.dumps([type(error).__name__, error.message, error.remedy, path])
        error.add_note(f"{SIGN}{base64.b64encode(fields.encode()).decode()};")
        raise


def error_in(text: str) -> PeterRecError | None:
    """Return the error of the project that a worker raised, if a message of Spark holds one."""
    written = re.search(f"{SIGN}([A-Za-z0-9+/=]+);", text)
    if written is None:
        return None
    name, message, remedy, path = json.loads(base64.b64decode(written[1]))
    kind: type[PeterRecError] = getattr(peterrec.errors, name, PeterRecError)
    return kind(message, remedy=remedy, path=path)
