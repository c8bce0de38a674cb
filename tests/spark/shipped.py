"""A program that asks about users by executors that are processes of their own, which models are shipped to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyspark import SparkFiles
from pyspark.sql import SparkSession

from peterrec.spark import embed


def files(_: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the names of the files that an executor was given."""
    names = [path.name for path in Path(SparkFiles.getRootDirectory()).iterdir()]
    yield pa.RecordBatch.from_pydict({"name": pa.array(names, pa.string())})


def main(backbone: str, rows: str, out: str) -> None:
    settings = {
        **dict.fromkeys(("spark.executor.memory", "spark.driver.memory"), "600m"),
        **dict.fromkeys(("spark.ui.enabled", "spark.ui.showConsoleProgress"), "false"),
        "spark.log.level": "FATAL",
    }
    builder = SparkSession.builder.master("local-cluster[1,2,600]").config(map=settings)
    spark = builder.getOrCreate()
    users = spark.read.parquet(rows)
    answers = [row.asDict() for row in embed(users, backbone).collect()]
    names = [row.name for row in spark.range(0, 1, 1, 1).mapInArrow(files, "name string").collect()]
    Path(out).write_text(json.dumps({"answers": answers, "files": names}))
    spark.stop()


if __name__ == "__main__":
    os.environ["PYSPARK_PYTHON"] = sys.executable
    main(*sys.argv[1:])
