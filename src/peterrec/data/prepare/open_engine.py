"""Choice of an engine: the one place that knows which there are."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from peterrec.data.prepare.duckdb_engine import DuckDBEngine, database
from peterrec.data.prepare.engine import Engine
from peterrec.errors import ConfigError


@contextlib.contextmanager
def open_engine(
    scratch: Path,
    memory_limit: str,
    threads: int | None,
    *,
    engine: Literal["duckdb", "spark"] = "duckdb",
    master: str | None = None,
    session: Any = None,
) -> Iterator[Engine]:
    """Yield the engine of a run; what it cannot hold in memory lies in `scratch` meanwhile.

    Args:
        scratch: folder that is there.
        memory_limit: such as 2GB.
        threads: on this machine; None: all cores.
        engine: which one.
        master: of Spark.
        session: of Spark, that is there already and stays; it makes the engine Spark.

    Raises:
        ConfigError: the memory limit is not one, or too small for the events; Spark is not there or does not start.
        DataError: a file is not in the format it seems to have.
        StorageError: the disk is full.
    """
    if engine == "duckdb" and session is None:
        with database(scratch, memory_limit, threads) as connection:
            yield DuckDBEngine(connection, scratch)
        return
    if session is None:
        require_spark()
    from peterrec.data.prepare.spark_engine import SparkEngine, spark_database  # noqa: PLC0415 - it need not be there
    from peterrec.data.prepare.spark_session import spark_session  # noqa: PLC0415 - it need not be there

    with (
        spark_session(session, master, scratch, memory_limit, threads) as own_session,
        spark_database(own_session, scratch) as connection,
    ):
        yield SparkEngine(own_session, connection)


def require_spark() -> None:
    """Refuse to go on without Spark.

    Raises:
        ConfigError: its package or Java is missing.
    """
    if find_spec("pyspark") is None:
        raise ConfigError(
            "Spark needs packages that are not installed (pyspark)", remedy="pip install 'peterrec[spark]'"
        )
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=str(Path(home) / "bin") if home else None) is None:
        raise ConfigError(
            "Spark needs Java, which is not there",
            remedy="install Java 17 or later (Debian: openjdk-17-jre-headless), or set JAVA_HOME",
        )
