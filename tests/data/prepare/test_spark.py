"""Apache Spark makes the corpus that DuckDB makes, byte for byte; the session is left as it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.prepare.logs import COLUMNS, SMALL, settings, tree, write_csv, write_parquet
from data.prepare.test_order import EVENTS, LOG, SOURCE, TASKS, write
from peterrec.config import PrepareConfig
from peterrec.data.prepare import prepare
from peterrec.errors import DataError


def rich(folder: Path) -> PrepareConfig:
    """Cut histories, ties, [UNK], domains, a table with missing marks, later activity, new users; several files."""
    path = write(folder / "in", LOG, [300, 500], ["parquet", "csv", "csv.gz"], random.Random(3))
    users = [(f"u{n}", "" if n == 5 else ["7", "07", "x"][n % 3]) for n in range(40)]
    labels = write_csv(folder / "labels.csv", users, ("user_id", "group"))
    floats = write_parquet(
        folder / "f.parquet", [(f"u{n}", [1.0, 1e20, 0.5][n % 3]) for n in range(40)], ("user_id", "f")
    )
    tasks: list[dict[str, Any]] = [
        *TASKS,
        {"name": "table", "kind": "classification", "labels": {"path": str(labels), "label": "group"}, "until": "8"},
        {"name": "floats", "kind": "classification", "labels": {"path": str(floats), "label": "f"}, "first_events": 4},
        {"name": "active", "kind": "classification", "activity": {"after": "11"}},
    ]
    return settings(
        path, events=EVENTS, source=SOURCE | {"before": "11"}, tasks=tasks[:1] + tasks[2:], new_users={"fraction": 0.1}
    )


def written_times(folder: Path) -> PrepareConfig:
    rows = [(f"u{n % 9}", f"i{n % 5}", f"2001/02/0{1 + n % 3} 1{n % 2}:30:00") for n in range(80)]
    return settings(
        write_csv(folder / "a[1]{x}.csv", rows), source={"after": "2001-02-01T11:00+00:00", "min_item_events": 1}
    )


def formatted_times(folder: Path) -> PrepareConfig:
    rows = [(f"u{n % 9}", f"i{n % 5}", "no" if n == 7 else f"0{1 + n % 3}.02.2001") for n in range(80)]
    events = {"time_format": "%d.%m.%Y", "invalid_rows": "drop", "ties": "lines"}
    return settings(write_csv(folder / "a.csv.gz", rows), events=events)


def nanoseconds_that_are_microseconds(folder: Path) -> PrepareConfig:
    rows = [(n % 9, n % 5, 10**18 + n % 7 * 1000) for n in range(80)]
    types = {"user_id": pa.uint64(), "item_id": pa.int16(), "timestamp": pa.timestamp("ns")}
    return settings(write_parquet(folder / "a.parquet", rows, **types))


def quoted(folder: Path) -> PrepareConfig:
    rows = [(f'"u",{n % 9}', f"i\n{n % 5}", "NaN" if n == 3 else n % 11) for n in range(80)]
    return settings(write_csv(folder / "a.csv", rows), events={"missing": ["nan"], "invalid_rows": "drop"})


def decimal_times(folder: Path) -> PrepareConfig:
    rows = [(f"u{n % 9}", f"i{n % 5}", f"{n % 7}.123456789") for n in range(80)]
    return settings([write_csv(folder / "a.csv", rows), write_csv(folder / "b.csv", rows[:40])])


def large_numbers(folder: Path) -> PrepareConfig:
    rows = [(n % 9, n % 5, float(10 ** (n % 30))) for n in range(80)]
    return settings(write_parquet(folder / "a.parquet", rows))


def simple(folder: Path) -> PrepareConfig:
    """Two files in two forms, and a task of each kind."""
    path = write(folder / "in", LOG[:500], [300], ["parquet", "csv"], random.Random(3))
    users = [(f"u{n}", "" if n == 5 else ["7", "07", "x"][n % 3]) for n in range(40)]
    labels = {"path": str(write_csv(folder / "labels.csv", users, ("user_id", "group"))), "label": "group"}
    tasks: list[dict[str, Any]] = [TASKS[0], {"name": "table", "kind": "classification", "labels": labels}]
    return settings(path, events=EVENTS, source=SOURCE, tasks=tasks)


SCENARIOS: list[Callable[[Path], PrepareConfig]] = [
    simple, rich, written_times, formatted_times, nanoseconds_that_are_microseconds, quoted, decimal_times,
    large_numbers,
]  # fmt: skip


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_both_engines_make_the_same_corpus(
    spark: Any, tmp_path: Path, scenario: Callable[[Path], PrepareConfig]
) -> None:
    config = scenario(tmp_path)
    lines: dict[str, list[str]] = {"spark": [], "duckdb": []}
    prepare(config, tmp_path / "spark", session=spark, report=lines["spark"].append)
    prepare(config, tmp_path / "duckdb", report=lines["duckdb"].append)
    assert tree(tmp_path / "spark") == tree(tmp_path / "duckdb")
    assert lines["spark"] == lines["duckdb"]


def test_what_fails_says_the_same_and_leaves_nothing(spark: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(",".join(COLUMNS).encode() + b"\n" + b"\xff,1,2\n" * 3)
    time_zone, databases = spark.conf.get("spark.sql.session.timeZone"), spark.sql("SHOW DATABASES").collect()
    before = tree(tmp_path)
    messages = []
    for session in (spark, None):
        with pytest.raises(DataError) as caught:
            prepare(settings(path), tmp_path / "out", session=session)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert tree(tmp_path) == before
    assert spark.conf.get("spark.sql.session.timeZone") == time_zone
    assert spark.sql("SHOW DATABASES").collect() == databases
    assert spark.catalog.currentDatabase() == "default"


def test_times_that_spark_cannot_hold_are_refused(spark: Any, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [("u", "i", 1), ("v", "i", 2)], timestamp=pa.timestamp("ns"))
    before = tree(tmp_path)
    with pytest.raises(DataError, match="finer than a microsecond") as caught:
        prepare(settings(path), tmp_path / "out", session=spark)
    assert "--engine duckdb" in caught.value.remedy
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_large_files_are_read_by_several_tasks(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peterrec.data.prepare.spark_engine.ROWS_OF_A_TASK", 7)
    path = write_parquet(tmp_path / "a.parquet", SMALL)
    prepare(settings(path), tmp_path / "spark", session=spark)
    prepare(settings(path), tmp_path / "duckdb")
    assert tree(tmp_path / "spark") == tree(tmp_path / "duckdb")
