"""Sessions of Apache Spark for `prepare` and answers: a new one, or one that is there; and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import SparkSession

from peterrec.data.prepare.engine import EngineMemoryError
from peterrec.data.prepare.spark_reader import error_in
from peterrec.errors import ClusterError, ConfigError, PeterRecError, StorageError

SETTINGS = {
    # Times without a zone stay what they are, and what overflows is an error and not another number.
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "true",  # two classes may be named a and A
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
}
DISK_FULL = ("No space left on device", "File too large", "Disk quota exceeded")
OUT_OF_MEMORY = ("OutOfMemoryError", "Java heap space", "GC overhead limit", "maxResultSize", "ExecutorLostFailure")
# Errors are shown, but for those of tasks: what is left of them after new tries is raised, and so told once (by --debug
# in all of Spark's words).
LOG = """\
rootLogger.level = error
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yy/MM/dd HH:mm:ss} %p %c{1}: %m%n%ex
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = error
logger.executor.name = org.apache.spark.executor.Executor
logger.executor.level = fatal
logger.tasks.name = org.apache.spark.scheduler.TaskSetManager
logger.tasks.level = fatal
logger.writer.name = org.apache.spark.sql.execution.datasources.FileFormatWriter
logger.writer.level = fatal
logger.utils.name = org.apache.spark.util.Utils
logger.utils.level = fatal
"""
LOCAL_PARTITIONS = 32
LEAST_MEMORY = 512  # MB; Spark does not start with less
UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@contextlib.contextmanager
def spark_session(
    session: SparkSession | None,
    master: str | None,
    scratch: Path,
    memory_limit: str | None = None,
    threads: int | None = None,
    *,
    progress: bool = False,
) -> Iterator[SparkSession]:
    """Yield a session with settings of its own, over the cluster of another one or over one that ends with it.

    Args:
        session: that is there already; it is neither stopped nor changed.
        master: of a new one; None: as Spark's own settings say, where there are some, or this machine.
        scratch: folder for what a new one on this machine writes meanwhile.
        memory_limit: of a new one's driver, which on this machine does all of the work; None: Spark's.
        threads: of a new one on this machine; None: all.
        progress: show a bar of a new one's work.

    Raises:
        ConfigError: Spark cannot be started.
        ClusterError, StorageError, PeterRecError: what Spark's errors inside mean.
    """
    megabytes = None if memory_limit is None else _megabytes(memory_limit)
    with spark_errors():
        existing = session or SparkSession.getActiveSession()
        if existing is not None:
            yield _own_settings(existing)
            return
        with _signals_kept():
            if master is None and not _has_settings():
                master = f"local[{threads or '*'}]"
            started = _start(_builder(master, scratch, megabytes, progress=progress))
            try:
                yield _own_settings(started)
            finally:
                started.stop()


def _own_settings(session: SparkSession) -> SparkSession:
    """Return a session of the same cluster and catalog, with settings and a current database of its own."""
    separate_session = session.newSession()
    for name, value in SETTINGS.items():
        separate_session.conf.set(name, value)
    return separate_session


def _has_settings() -> bool:
    """Return whether Spark has settings of this place, such as a master: of `spark-submit`, or in a folder of them."""
    return any(name in os.environ for name in ("PYSPARK_GATEWAY_PORT", "SPARK_CONF_DIR", "SPARK_HOME"))


def _builder(master: str | None, scratch: Path, megabytes: int | None, *, progress: bool) -> SparkSession.Builder:
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": str(progress).lower(),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
    }
    if not _has_settings():
        log = scratch / "log4j2.properties"
        log.write_text(LOG, encoding="utf-8")
        settings["spark.driver.extraJavaOptions"] = f"-Dlog4j2.configurationFile={log.resolve().as_uri()}"
    if megabytes is not None:
        settings["spark.driver.memory"] = f"{megabytes}m"
    if master is not None and is_local(master):
        settings |= {
            "spark.sql.shuffle.partitions": str(LOCAL_PARTITIONS),
            "spark.local.dir": str(scratch / "spark"),
            "spark.driver.host": "localhost",
            "spark.driver.bindAddress": "127.0.0.1",
        }
    builder = SparkSession.builder.appName("peterrec").config(map=dict(settings))
    return builder if master is None else builder.master(master)


def _start(builder: SparkSession.Builder) -> SparkSession:
    with _same_python():
        try:
            return builder.getOrCreate()
        except (PySparkException, Py4JError, OSError) as error:
            context = SparkContext._active_spark_context  # what of it was started
            if context is not None:
                context.stop()
            raise ConfigError(
                f"Spark cannot be started ({_first_line(error)})",
                remedy="check --master, JAVA_HOME and Spark's settings; it needs Java 17 or later",
            ) from error


@contextlib.contextmanager
def _same_python() -> Iterator[None]:
    """Let workers run with this Python, unless the environment names one."""
    names = [name for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON") if name not in os.environ]
    os.environ.update(dict.fromkeys(names, sys.executable))
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back what Ctrl-C did before: Spark replaces it, and leaves it so."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # outside of the main thread nothing was replaced
            signal.signal(signal.SIGINT, handler)


def is_local(master: str) -> bool:
    """Return whether a master is threads of this machine, which see its files."""
    return re.fullmatch(r"local(\[.*\])?", master) is not None


def _megabytes(memory_limit: str) -> int:
    written = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?B)\s*", memory_limit, re.IGNORECASE)
    megabytes = 0.0 if written is None else float(written[1]) * UNITS[written[2].upper()] / 2**20
    if not megabytes:
        raise ConfigError(f"memory_limit: {memory_limit!r} is no size", remedy="write e.g. memory_limit=2GB")
    return max(LEAST_MEMORY, int(megabytes))


@contextlib.contextmanager
def spark_errors() -> Iterator[None]:
    """Turn what Spark raises into the project's errors; what is a fault of ours stays what it is."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        translated = translate(error)
        if translated is None:
            raise
        raise translated from error


def translate(error: Exception) -> PeterRecError | None:
    """Return the error of the project that an error of Spark means; None for a fault of ours."""
    text = str(error)
    error_of_worker = error_in(text)
    if error_of_worker is not None:
        return error_of_worker
    if any(sign in text for sign in DISK_FULL):
        remedy = "free some space, or write to another disk"
        return StorageError("the disk is full; nothing was kept of what was being written", remedy=remedy)
    if any(sign in text for sign in OUT_OF_MEMORY):
        remedy = (
            "give Spark more: memory_limit on this machine (--set memory_limit=4GB), spark.executor.memory and "
            "spark.driver.memory elsewhere"
        )
        return EngineMemoryError(
            f"the events do not fit in the memory they may use ({_first_line(error)})", remedy=remedy
        )
    if isinstance(error, AnalysisException | ParseException):
        return None
    if "Job aborted" in text or "SparkException" in text or isinstance(error, Py4JError):
        remedy = (
            "see all that Spark says of it with --debug; peterrec must be installed where its workers run, and see the "
            "same files"
        )
        return ClusterError(f"Spark could not go on ({_first_line(error)})", remedy=remedy)
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    informative = [line for line in lines if not line.startswith(("An error occurred while calling", "at "))]
    text = next(iter(informative), type(error).__name__)
    return text if len(text) <= 300 else f"{text[:300]}..."
