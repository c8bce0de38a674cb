"""The embedded engine: DuckDB behind Ibis, in a scratch folder, with a memory limit."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from peterrec.data.prepare.engine import EngineMemoryError, OrderedPart, scalars
from peterrec.data.prepare.files import FILE, UNREAD, InputFile, check_complete, directives
from peterrec.errors import ConfigError, DataError, PeterRecError, StorageError
from peterrec.storage import storage_errors

LINES_OF_A_FILE = 2**40  # more than any has
ROWS_AT_ONCE = 500_000

DISK_FULL = ("No space left", "Could not write", "could not write", "File too large", "max_temp_directory_size")
CANNOT_GO_ON = (duckdb.OutOfMemoryException, duckdb.IOException, duckdb.FatalException)
CANNOT_WRITE = (*CANNOT_GO_ON, duckdb.TransactionException)


@contextlib.contextmanager
def database(scratch: Path, memory_limit: str, threads: int | None) -> Iterator[Any]:
    """Yield an Ibis connection whose tables lie in `scratch`; what does not fit in memory spills there.

    Raises:
        ConfigError: the memory limit is not one, or too small for the events.
        DataError: a file is not in the format it seems to have.
        StorageError: the disk is full.
    """
    with engine_errors():
        connection = ibis.duckdb.connect(
            scratch / "engine.duckdb",
            memory_limit=memory_limit,
            temp_directory=str(scratch / "spill"),
            **({"threads": threads} if threads is not None else {}),
        )
        try:
            # Times with an offset must not depend on the machine.
            connection.raw_sql("SET GLOBAL TimeZone = 'UTC'")
            connection.raw_sql("SET preserve_insertion_order = false")  # no result of ours rests on it; it costs memory
            yield connection
        finally:
            connection.disconnect()


@contextlib.contextmanager
def engine_errors(path: Path | None = None) -> Iterator[None]:
    """Turn what DuckDB raises into the project's errors; `path` is the file that is being read, if it is one."""
    try:
        yield
    except (duckdb.InterruptException, RuntimeError) as error:
        if str(error) != "Query interrupted" and not isinstance(error, duckdb.InterruptException):
            raise
        raise KeyboardInterrupt from error  # Ctrl-C while the engine was at work
    except duckdb.Error as error:
        translated = _translated(error, path)
        if translated is None:  # a fault of ours
            raise
        raise translated from error


def _translated(error: duckdb.Error, path: Path | None) -> PeterRecError | None:
    message = _short_message(error)
    if isinstance(error, CANNOT_WRITE) and any(sign in str(error) for sign in DISK_FULL):
        return _disk_full()
    if isinstance(error, duckdb.OutOfMemoryException):
        remedy = "raise memory_limit, e.g. --set memory_limit=4GB"
        return EngineMemoryError(f"the events do not fit in the memory they may use ({message})", remedy=remedy)
    if isinstance(error, duckdb.ParserException | duckdb.CatalogException) and "memory" in str(error).lower():
        return ConfigError(f"memory_limit: {message}", remedy="write e.g. memory_limit=2GB")
    if isinstance(error, duckdb.InvalidInputException | duckdb.ConversionException):
        remedy = (
            "correct the file: check its separator, quotes, ends of lines and encoding (UTF-8), and the time_format"
        )
        return DataError(f"cannot be read as it is ({message})", remedy=remedy, path=path)
    # What is said of a damaged file, such as "Page size mismatch", has no class of its own.
    if isinstance(error, CANNOT_GO_ON) or type(error) is duckdb.Error:
        return DataError(f"cannot be read ({message})", remedy="the file is damaged: write it again", path=path)
    if isinstance(error, duckdb.InternalException):  # how it answers some text that is not UTF-8
        remedy = "save text files as UTF-8 (iconv -f latin1 -t utf-8), and write the others again"
        return DataError("cannot be read: the engine broke off", remedy=remedy, path=path)
    return None


def _disk_full() -> StorageError:
    return StorageError(
        "the disk is full; nothing was kept of what was being written",
        remedy="free some space, or write to another disk",
    )


def _short_message(error: Exception) -> str:
    """Return the lines of a message that say what and where; the rest lists settings of the engine."""
    lines = [line.strip() for line in str(error).split("\n\n")[0].splitlines() if line.strip()]
    informative = [line for line in lines if not line.startswith(("*", "Possible", "LINE", "^"))]
    return "; ".join(line if len(line) <= 200 else f"{line[:200]}..." for line in informative[:3])


class DuckDBEngine:
    """DuckDB as the engine of `prepare`: see `Engine`, whose methods these are.

    Args:
        connection: as `database` gives it.
        scratch: folder for what is written meanwhile.
    """

    def __init__(self, connection: Any, scratch: Path) -> None:
        self.connection = connection
        self.scratch = scratch
        self._numbers = itertools.count()

    def read(
        self,
        name: str,
        files: Sequence[InputFile],
        columns: dict[str, str],
        time_format: str | None = None,
        *,
        file_number: int | None = None,
    ) -> Any:
        """Copy columns of files of the same form into a table."""
        for file in files:
            check_complete(file)
        try:
            with engine_errors(files[0].path if len(files) == 1 else None):
                table = file_rows(self.connection, files, columns, time_format, file_number=file_number)
                if file_number is None:
                    return self._store_rows(name, files, table)
                with _insertion_order(self.connection):
                    return self._store_rows(name, files, table)
        except DataError:
            for file in files if len(files) > 1 else ():
                self.read(name, [file], columns, time_format)  # the first that cannot be read says so
            raise

    def _store_rows(self, name: str, files: Sequence[InputFile], table: Any) -> Any:
        """Store what was read; the name of a single file is no column on disk."""
        if len(files) > 1:
            return self.store(name, table)
        return self.store(name, table.drop(FILE)).mutate(**{FILE: ibis.literal(str(files[0].path))})

    def rows(self, table: Any, *, reused: bool = False) -> Any:
        """Return the expression itself: it is cheap to compute again."""
        return table

    def store(self, name: str, table: Any) -> Any:
        """Make a table of an expression."""
        return self.connection.create_table(f"{name}_{next(self._numbers)}", table)

    def upload(self, name: str, table: pa.Table) -> Any:
        """Make a table from one in memory."""
        return self.store(name, table)

    def apply(self, name: str, table: Any, function: Callable[[pa.Table], pa.Table], schema: pa.Schema) -> Any:
        """Apply the function here, to some rows at a time."""
        path = self.scratch / f"{name}.parquet"
        # Not into a table: at an insertion DuckDB waits, for ever, until nothing is read.
        with (
            storage_errors(path),
            pq.ParquetWriter(path, schema) as writer,
            self.connection.con.cursor() as cursor,
        ):
            for batch in cursor.execute(ibis.to_sql(table, dialect="duckdb")).fetch_record_batch(ROWS_AT_ONCE):
                writer.write_table(function(pa.Table.from_batches([batch])).cast(schema))
        result = self.store(name, self.connection.read_parquet(path))
        path.unlink()
        return result

    def number(self, name: str, table: Any, by: str, column: str) -> Any:
        """Number the rows by a window over all of them: the sort spills."""
        return self.store(name, table.mutate(**{column: ibis.row_number().over(ibis.window(order_by=by))}))

    def in_order(self, name: str, table: Any, keys: Sequence[str], parts: Sequence[OrderedPart]) -> Iterator[pa.Table]:
        """Sort once and cut what comes of it; where the sort needs more than there is, store, and sort each part."""
        with self.connection.con.cursor() as cursor:  # the connection itself answers other questions meanwhile
            try:
                ordered = cursor.execute(ibis.to_sql(table.order_by(*keys), dialect="duckdb"))
            except duckdb.OutOfMemoryException:
                ordered = None
            if ordered is not None:
                yield from _cut(ordered.fetch_record_batch(ROWS_AT_ONCE), table.schema().to_pyarrow(), parts)
                return
        stored = self.store(name, table)
        for part in parts:
            yield stored.filter(stored[keys[0]].between(part.first, part.last)).order_by(*keys).to_pyarrow()

    def texts(self, table: Any) -> dict[str, str | None]:
        """Write the values of a table of one row."""
        return row_texts(table)


def _cut(batches: Iterator[pa.RecordBatch], schema: pa.Schema, parts: Sequence[OrderedPart]) -> Iterator[pa.Table]:
    waiting = schema.empty_table()
    for part in parts:
        tables = [waiting]
        while sum(map(len, tables)) < part.rows:
            tables.append(pa.Table.from_batches([next(batches)]).cast(schema))
        rows = pa.concat_tables(tables)
        yield rows.slice(0, part.rows)
        waiting = rows.slice(part.rows)


def row_texts(table: Any) -> dict[str, str | None]:
    """Return the values of a table of DuckDB, of one row, as it writes them."""
    return scalars(table.select(**{column: table[column].cast("string") for column in table.columns}))


def file_rows(
    connection: Any,
    files: Sequence[InputFile],
    columns: dict[str, str],
    time_format: str | None = None,
    *,
    file_number: int | None = None,
    rows: tuple[int, int] | None = None,
) -> Any:
    """Return an expression that reads files as `Engine.read` says; lines are in order where rows keep theirs.

    Of a file of Parquet it may be the `rows` from one number to before another.
    """
    table = with_formatted_times(_read_files(connection, files, columns, rows), time_format)
    return table if file_number is None else table.mutate(line=ibis.row_number() + file_number * LINES_OF_A_FILE)


def with_formatted_times(table: Any, time_format: str | None) -> Any:
    """Return a table with the column `time` read as a format says, if it is text, and `UNREAD`; see `Engine.read`."""
    if time_format is None or not table["time"].type().is_string():
        return table
    # The engine's own, as opening files is: no expression of all engines lets a bad row be.
    read = try_strptime_nanoseconds if "n" in directives(time_format) else try_strptime
    time = read(table["time"], time_format)
    return table.mutate(time=time, **{UNREAD: time.isnull().ifelse(table["time"], None)})


def _read_files(
    connection: Any, files: Sequence[InputFile], columns: dict[str, str], rows: tuple[int, int] | None
) -> Any:
    # The engine would take a [1] in a name for a pattern, and read a1.csv for a[1].csv.
    paths = [re.sub(r"([*?\[])", r"[\1]", str(file.path)) for file in files]
    first = files[0]
    if first.kind == "parquet":
        numbers = {} if rows is None else {"file_row_number": True}
        table = connection.read_parquet(paths, filename=FILE, hive_partitioning=False, **numbers)
        if rows is not None:
            table = table.filter(table["file_row_number"].between(rows[0], rows[1] - 1))
        return table.select(FILE, **{name: table[column] for name, column in columns.items()})
    # Nothing is left to the engine's guessing: it would skip lines and change ids (007) on its own. Nor does it see the
    # names of columns, which it compares without regard to case, and does not take empty.
    places = [f"column{place}" for place in range(len(first.columns))]
    table = connection.read_csv(
        paths,
        auto_detect=False,
        header=first.header,
        delim=first.separator,
        quote='"',
        escape='"',
        columns=dict.fromkeys(places, "VARCHAR"),
        filename=FILE,
    )
    return table.select(FILE, **{name: table[places[first.columns.index(column)]] for name, column in columns.items()})


@contextlib.contextmanager
def _insertion_order(connection: Any) -> Iterator[None]:
    """Let rows that are read meanwhile be numbered in the order of the lines of a file; it costs memory."""
    connection.raw_sql("SET preserve_insertion_order = true")
    try:
        yield
    finally:
        connection.raw_sql("SET preserve_insertion_order = false")


@ibis.udf.scalar.builtin(signature=(("string", "string"), "timestamp"))  # type: ignore[untyped-decorator]
def try_strptime(text: Any, pattern: Any) -> Any:
    """Read a time that is written as `pattern` says; null where it is not."""


@ibis.udf.scalar.builtin(name="try_strptime", signature=(("string", "string"), "timestamp(9)"))  # type: ignore[untyped-decorator]
def try_strptime_nanoseconds(text: Any, pattern: Any) -> Any:
    """Parse times as `try_strptime` does, for a pattern with `%n`, which that would round."""
