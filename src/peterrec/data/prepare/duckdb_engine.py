"""The embedded engine: DuckDB behind Ibis, in a scratch folder, with a memory limit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa

from peterrec.errors import ConfigError, DataError, PeterRecError, StorageError

DISK_FULL = ("No space left", "Could not write", "could not write", "File too large", "max_temp_directory_size")
CANNOT_GO_ON = (duckdb.OutOfMemoryException, duckdb.IOException, duckdb.FatalException)
CANNOT_WRITE = (*CANNOT_GO_ON, duckdb.TransactionException)


class EngineMemoryError(ConfigError):
    """The events do not fit in the memory that the engine may use."""


@contextlib.contextmanager
def engine(scratch: Path, memory_limit: str, threads: int | None) -> Iterator[Any]:
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


@contextlib.contextmanager
def insertion_order(connection: Any) -> Iterator[None]:
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


def scalars(expression: Any) -> dict[str, Any]:
    """Run an expression of one row and return its values."""
    rows: list[dict[str, Any]] = expression.to_pyarrow().to_pylist()
    return rows[0]


def upload(connection: Any, name: str, table: pa.Table) -> Any:
    """Make a table of the engine from one in memory."""
    return connection.create_table(name, table, overwrite=True)
