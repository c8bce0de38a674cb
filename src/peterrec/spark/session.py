"""Spark itself: whether it is there, and a session of the command line's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peterrec.errors import ConfigError

SETTINGS: dict[str, bool | float | int | str | None] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",  # two classes may be named a and A
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1024",  # users whose histories are in memory at a time
}
APPLICATION: dict[str, bool | float | int | str | None] = {
    "spark.app.name": "peterrec",
    "spark.log.level": "FATAL",  # errors are told once, in words
    "spark.python.worker.reuse": "true",  # each loads the model once
    "spark.ui.enabled": "false",
}


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
        raise ConfigError("Spark needs Java, which is not there", remedy="install Java 17, or set JAVA_HOME")


@contextlib.contextmanager
def session(master: str | None, *, quiet: bool = False) -> Iterator[Any]:
    """Yield a Spark session with settings of its own: of the application that is there, or of one that ends with it.

    Settings of a cluster are taken from where Spark looks for them (`spark-defaults.conf`, `SPARK_CONF_DIR`).

    Args:
        master: of a new application, as Spark names it; None: what Spark's own settings say, or this machine.
        quiet: without a progress bar.

    Raises:
        ConfigError: there is no Spark, or it does not start.
    """
    require_spark()
    from pyspark.sql import SparkSession  # noqa: PLC0415 - an extra

    active_session = SparkSession.getActiveSession()
    if active_session is not None:
        new_session = active_session.newSession()
        for name, value in SETTINGS.items():
            new_session.conf.set(name, value)
        yield new_session
        return
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        started = _start(master, quiet=quiet)
        try:
            yield started
        finally:
            started.stop()
    finally:
        signal.signal(signal.SIGINT, interrupt)  # which Spark replaces


def _start(master: str | None, *, quiet: bool) -> Any:
    from pyspark.sql import SparkSession  # noqa: PLC0415 - an extra

    # Else the executors of this machine would run whatever `python3` is, which need not have this package.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    shown = {"spark.ui.showConsoleProgress": str(not quiet).lower()}
    builder = SparkSession.builder.config(map=SETTINGS | APPLICATION | shown)
    try:
        return (builder if master is None else builder.master(master)).getOrCreate()
    except Exception as error:  # of several kinds, of which those of py4j are about what Java said
        raise ConfigError(
            f"Spark does not start ({first_line(error)})", remedy="check --master, JAVA_HOME and Spark's settings"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of a message that says something, not too long of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("An error occurred while calling", "at "))]
    return (lines[0] if lines else type(error).__name__)[:300]
