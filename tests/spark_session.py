"""A real Spark on this machine, one for all tests of a process: starting it takes seconds."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def skip_without_spark() -> None:
    """Skip a test where there is no Spark."""
    if find_spec("pyspark") is None:
        pytest.skip("needs pyspark: pip install 'peterrec[spark]'")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("needs Java 17 or later, such as Debian's openjdk-17-jre-headless")


@pytest.fixture(scope="session")
def spark_of_all_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session on two threads, small and quick to start."""
    skip_without_spark()
    from pyspark.sql import SparkSession

    settings: dict[str, Any] = {
        "spark.driver.memory": "1g",
        "spark.driver.host": "localhost",
        "spark.driver.bindAddress": "127.0.0.1",
        # Queries are tiny: to plan and compile them is most of the time.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.adaptive.enabled": "false",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.shuffle.partitions": "2",
        "spark.default.parallelism": "2",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
        "spark.local.dir": str(tmp_path_factory.mktemp("spark")),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        # The workers import what is tested from where this process does, tests included.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *(path for path in sys.path if path)]))
        session = SparkSession.builder.master("local[2]").appName("tests").config(map=settings).getOrCreate()
        yield session
        session.stop()
