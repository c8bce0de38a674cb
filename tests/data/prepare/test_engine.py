"""The machine below: memory, threads, a full disk, Ctrl-C; and whether another engine could do the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa
import pytest

from builders import file_size_limit
from data.prepare.logs import SMALL, prepare_log, settings, tree, write_csv, write_parquet, write_random_events
from data.prepare.test_order import EVENTS, LOG, SOURCE, TASKS, write
from peterrec.config import EventsConfig
from peterrec.data.prepare import duckdb_engine, prepare
from peterrec.data.prepare.duckdb_engine import engine_errors
from peterrec.data.prepare.open_engine import open_engine
from peterrec.errors import ConfigError, DataError, PeterRecError, StorageError
from whole_histories import read_event_histories


@pytest.mark.parametrize("limit", ["4 bananas", "0", "", "50%", '"', "2000000000", "1KB; DROP"])
def test_what_is_no_size_of_memory(tmp_path: Path, limit: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", SMALL)
    with pytest.raises(ConfigError, match="memory_limit") as caught:
        prepare_log(path, tmp_path / "out", memory_limit=limit)
    assert "memory_limit=2GB" in caught.value.remedy
    assert {path_left.name for path_left in tmp_path.iterdir()} == {"a.parquet"}


@pytest.mark.slow
@pytest.mark.only_duckdb("the memory of a session that is there is its own")
def test_too_little_memory_says_how_to_give_more(tmp_path: Path) -> None:
    path = write_random_events(tmp_path / "a.parquet", 200_000, users=2_000)
    with pytest.raises(ConfigError, match="do not fit in the memory") as caught:
        prepare_log(path, tmp_path / "out", memory_limit="10MB")
    assert "memory_limit=4GB" in caught.value.remedy
    assert {path_left.name for path_left in tmp_path.iterdir()} == {"a.parquet"}


@pytest.mark.slow
@pytest.mark.only_duckdb("the memory of a session that is there is its own")
def test_what_cannot_be_sorted_at_once_is_sorted_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the least of the memory with which anything can be done, the events are the same."""
    path = write_random_events(tmp_path / "a.parquet", 1_000_000, users=50_000)
    cut, sorted_at_once = duckdb_engine._cut, []

    def counted(*arguments: Any) -> Any:
        sorted_at_once.append(True)
        return cut(*arguments)

    monkeypatch.setattr(duckdb_engine, "_cut", counted)
    written = [
        prepare_log(path, tmp_path / limit, memory_limit=limit, threads=1).manifest["fingerprint"]
        for limit in ("18MB", "200MB")
    ]
    assert len(sorted_at_once) == 1, "of 200 MB"
    assert written[0] == written[1]


@pytest.mark.timeout(60, method="thread")  # a signal would not reach it
def test_rows_are_read_while_what_is_made_of_them_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An insertion beside a stream of more than one batch would wait for its end, in DuckDB, for ever."""
    monkeypatch.setattr(duckdb_engine, "ROWS_AT_ONCE", 2_048)
    rows = pa.table({"n": range(200_000)})
    with open_engine(tmp_path, "1GB", 1) as engine:
        engine.connection.raw_sql("SET checkpoint_threshold = '1KB'")
        stored = engine.store("rows", engine.upload("uploaded", rows))
        applied = engine.apply("applied", stored, pa.Table.slice, rows.schema)
        assert sorted(applied.to_pyarrow()["n"].to_pylist()) == list(range(200_000))
        assert not list(tmp_path.glob("*.parquet"))


@pytest.mark.parametrize("threads", [0, -1, 10**9, 1.5])
def test_a_number_of_threads_that_is_none(threads: Any) -> None:
    with pytest.raises(ConfigError, match="threads"):
        settings(Path("a.csv"), threads=threads)


@pytest.mark.only_duckdb("the tables are written by other processes, which have no such limit")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "in", LOG, [], ["parquet"], random.Random(0))
    config = settings(path, events=EVENTS, source=SOURCE, tasks=TASKS)
    before = tree(tmp_path)
    for size in (1_000, 20_000, 40_000):
        with file_size_limit(size), pytest.raises(StorageError, match="the disk is full") as caught:
            prepare(config, tmp_path / "out")
        assert caught.value.remedy
        assert tree(tmp_path) == before


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("function", ["pq.write_table", "SequenceFile.append", "SequenceFile.close"])
def test_a_disk_that_fills_up_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", SMALL)
    before = tree(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"peterrec.data.prepare.preparation.{function}", full)
    with pytest.raises(StorageError, match="the disk is full"):
        prepare(settings(path), tmp_path / "out")
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_ctrl_c_at_any_line_leaves_nothing(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", SMALL)
    lines: list[str] = []
    prepare(settings(path), tmp_path / "out", report=lines.append)
    before = tree(tmp_path)
    assert len(lines) > 4
    for stop in range(len(lines)):
        reported: list[str] = []

        def report(line: str, reported: list[str] = reported, stop: int = stop) -> None:
            reported.append(line)
            if len(reported) > stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(settings(path), tmp_path / "out", overwrite=True, report=report)
        assert tree(tmp_path) == before


@pytest.mark.slow
def test_ctrl_c_while_the_engine_works_is_ctrl_c(tmp_path: Path) -> None:
    """DuckDB makes a RuntimeError of it."""
    write_random_events(tmp_path / "a.parquet", 400_000, users=150_000)
    code = (
        "import sys; from pathlib import Path; from data.prepare.logs import settings\n"
        "from peterrec.data.prepare import prepare\n"
        "try:\n    prepare(settings(Path(sys.argv[1])), sys.argv[2], report=lambda line: print(line, flush=True))\n"
        "except KeyboardInterrupt:\n    sys.exit(77)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, str(tmp_path / "a.parquet"), str(tmp_path / "out")]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("reading 1 file")
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 77, errors
    assert {path_left.name for path_left in tmp_path.iterdir()} == {"a.parquet"}


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (duckdb.IOException("Could not write file: No space left on device"), StorageError),
        (duckdb.OutOfMemoryException("failed to offload: max_temp_directory_size"), StorageError),
        (duckdb.OutOfMemoryException("could not allocate block of size 256"), ConfigError),
        (duckdb.IOException("Could not read from file"), DataError),
        (duckdb.InvalidInputException("CSV Error"), DataError),
        (duckdb.Error("Page size mismatch"), DataError),
        (duckdb.BinderException("Referenced column not found"), duckdb.BinderException),
        (RuntimeError("Query interrupted"), KeyboardInterrupt),
        (duckdb.InterruptException("INTERRUPT"), KeyboardInterrupt),
        (RuntimeError("else"), RuntimeError),
    ],
    ids=str,
)
def test_what_the_engine_raises_and_what_it_becomes(raised: Exception, expected: type[BaseException]) -> None:
    with pytest.raises(expected) as caught, engine_errors(Path("here.csv")):
        raise raised
    assert isinstance(caught.value, expected)
    if isinstance(caught.value, PeterRecError):
        assert caught.value.remedy
        assert (str(caught.value.path) == "here.csv") == (expected is DataError)


def test_histories_leave_no_scratch_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    read_event_histories(EventsConfig(paths=(str(write_csv(tmp_path / "a.csv", SMALL)),)))
    with pytest.raises(DataError):
        read_event_histories(EventsConfig(paths=(str(write_csv(tmp_path / "b.csv", [("a", "", 1)])),)))
    assert list((tmp_path / "tmp").iterdir()) == []


class SparkOptions(ibis.config.Config):  # type: ignore[misc]
    """What loading the backend would set; it needs pyspark, its compiler does not."""

    treat_nan_as_null: bool = False


@pytest.fixture
def expressions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every Ibis expression that the connection is asked to run, but for those that open files."""
    from ibis.backends.duckdb import Backend

    collected: list[Any] = []
    to_pyarrow, create_table = Backend.to_pyarrow, Backend.create_table

    def note_query(self: Any, expression: Any, *args: Any, **options: Any) -> Any:
        collected.append(expression)
        return to_pyarrow(self, expression, *args, **options)

    def note_table(self: Any, name: str, obj: Any = None, *args: Any, **options: Any) -> Any:
        if isinstance(obj, ibis.Expr) and "ibis_read_" not in ibis.to_sql(obj, dialect="duckdb"):
            collected.append(obj)
        return create_table(self, name, obj, *args, **options)

    monkeypatch.setattr(Backend, "to_pyarrow", note_query)
    monkeypatch.setattr(Backend, "create_table", note_table)
    return collected


@pytest.mark.slow
@pytest.mark.only_duckdb("the expressions are collected from its connection")
def test_every_expression_compiles_for_spark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expressions: list[Any]
) -> None:
    rows = [(user, item, time, order, domain) for user, item, time, order, domain in LOG]
    log = write_csv(tmp_path / "in" / "log.csv", rows[:400], ("user_id", "item_id", "timestamp", "n", "where"))
    write_parquet(tmp_path / "in" / "log.parquet", rows[400:], ("user_id", "item_id", "timestamp", "n", "where"))
    users = [(f"u{n}", float(n % 3), n % 2) for n in range(40)]
    floats = write_parquet(tmp_path / "f.parquet", users, ("user_id", "group", "two"), group=pa.float64())
    own_file = write_csv(tmp_path / "own.csv", [(f"u{n}", n % 4, f"2001-02-0{1 + n % 3}") for n in range(40)])
    tasks: list[dict[str, Any]] = [
        *TASKS,
        {"name": "f", "kind": "classification", "labels": {"path": str(floats), "label": "group"}},
        {"name": "t", "kind": "classification", "labels": {"path": str(floats), "label": "two"}, "min_user_events": 2},
        {"name": "s", "kind": "classification", "activity": {"after": 11, "before": 12}},
        {"name": "o", "kind": "ranking", "domains": None, "min_item_events": 1,
         "events": {"paths": [str(own_file)], "order": None, "domain": None}},
    ]  # fmt: skip
    source = SOURCE | {"before": "11", "exclude_domains": ["b"], "after": "0", "rare_items": "drop"}
    prepare_log(log.parent, tmp_path / "out", events=EVENTS, source=source, tasks=tasks)
    read_event_histories(settings(log.parent, events=EVENTS).events)
    moments = [(f"u{n % 9}", item, f"2001-02-0{1 + n % 3}") for n in range(40) for item in ("i1", "i2")]
    write_parquet(tmp_path / "time" / "b.parquet", moments, timestamp=pa.string())
    limits = {"after": "2001-02-01T00:00+00:00", "before": "2001-02-03", "rare_items": "unk"}
    prepare_log(
        tmp_path / "time", tmp_path / "out", source=limits, catalogue=str(tmp_path / "out"), events={"ids": "text"}
    )
    assert len(expressions) > 60
    monkeypatch.setattr(ibis.options, "pyspark", SparkOptions())
    for expression in expressions:
        assert "SELECT" in ibis.to_sql(expression.as_table(), dialect="pyspark")


@pytest.mark.only_duckdb("pyspark imports pandas")
def test_nothing_of_ours_imports_pandas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)  # an import of it fails
    prepare_log(write_csv(tmp_path / "a.csv", SMALL), tmp_path / "out")
