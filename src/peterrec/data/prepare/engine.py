"""The embedded engine: DuckDB behind Ibis, in a scratch folder, with a memory limit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa

from peterrec.errors import ConfigError, DataError, StorageError

DISK_FULL = ("No space left", "Could not write", "could not write", "File too large", "max_temp_directory_size")


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
            connection.raw_sql("SET TimeZone = 'UTC'")  # times with an offset must not depend on the machine
            connection.raw_sql("SET preserve_insertion_order = false")  # no result of ours rests on it; it costs memory
            yield connection
        finally:
            connection.disconnect()


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Turn what DuckDB raises into the project's errors."""
    try:
        yield
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except duckdb.OutOfMemoryException as error:
        if any(sign in str(error) for sign in DISK_FULL):
            raise _disk_full() from error
        raise ConfigError(
            f"the events do not fit ({_what(error)})", remedy="raise memory_limit, e.g. --set memory_limit=4GB"
        ) from error
    except (duckdb.IOException, duckdb.FatalException) as error:
        if any(sign in str(error) for sign in DISK_FULL):
            raise _disk_full() from error
        raise DataError(f"the input cannot be read ({_what(error)})", remedy="write the file again") from error
    except (duckdb.ParserException, duckdb.CatalogException) as error:
        if "memory" in str(error).lower():
            raise ConfigError(f"memory_limit: {_what(error)}", remedy="write e.g. memory_limit=2GB") from error
        raise
    except (duckdb.InvalidInputException, duckdb.ConversionException) as error:
        raise DataError(
            f"the input cannot be read as it is ({_what(error)})",
            remedy="correct the file; check its separator, quotes and encoding (UTF-8), and the time_format",
        ) from error


def _disk_full() -> StorageError:
    return StorageError(
        "the disk is full; nothing was kept of what was being written",
        remedy="free some space, or write to another disk",
    )


def _what(error: Exception) -> str:
    """Return the lines of a message that say what and where; the rest lists settings of the engine."""
    lines = [line.strip() for line in str(error).split("\n\n")[0].splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("*", "Possible", "LINE", "^"))]
    where = [line.strip() for line in str(error).splitlines() if line.strip().startswith("file = ")]
    return "; ".join(kept[:3] + where[:1])


def scalars(expression: Any) -> dict[str, Any]:
    """Run an expression of one row and return its values."""
    rows: list[dict[str, Any]] = expression.to_pyarrow().to_pylist()
    return rows[0]


def upload(connection: Any, name: str, table: pa.Table) -> Any:
    """Make a table of the engine from one in memory."""
    return connection.create_table(name, table, overwrite=True)
