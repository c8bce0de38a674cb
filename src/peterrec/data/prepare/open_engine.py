"""Choice of an engine: the one place that knows which there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from peterrec.data.prepare.duckdb_engine import DuckDBEngine, database
from peterrec.data.prepare.engine import Engine


@contextlib.contextmanager
def open_engine(scratch: Path, memory_limit: str, threads: int | None) -> Iterator[Engine]:
    """Yield the engine of a run; what it cannot hold in memory lies in `scratch` meanwhile.

    Raises:
        ConfigError: the memory limit is not one, or too small for the events.
        DataError: a file is not in the format it seems to have.
        StorageError: the disk is full.
    """
    with database(scratch, memory_limit, threads) as connection:
        yield DuckDBEngine(connection)
