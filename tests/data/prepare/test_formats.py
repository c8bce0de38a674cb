"""Events in every form that is read: what comes out is the same."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.prepare.logs import COLUMNS, SMALL, prepare_log, times, write_csv, write_parquet
from pairwise import pairwise
from peterrec.config import EventsConfig
from peterrec.errors import DataError
from whole_histories import read_event_histories

HEADER = "user_id,item_id,timestamp\n"
ROWS = [("a", "x", 3), ("b", "z", 7), ("a", "y", 1), ("a", "x", 2)]
WANTED = {"a": ["y", "x", "x"], "b": ["z"]}


def histories(*paths: Path | str, **events: Any) -> dict[str, list[Any]]:
    users, items, _ = read_event_histories(EventsConfig(paths=tuple(str(path) for path in paths), **events))
    return dict(zip(users, items, strict=True))


def text_file(folder: Path, text: str, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    ("separator", "name", "end"),
    pairwise([*product([",", "\t", ";", "|", "::"], ["log.csv", "log.txt.gz"], ["\n", "\r\n", "\r"])], enumerate),
    ids=repr,
)
def test_separators_are_found(tmp_path: Path, separator: str, name: str, end: str) -> None:
    assert histories(write_csv(tmp_path / name, ROWS, separator=separator, end=end)) == WANTED


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("separator", "setting"), [("#", "#"), (" -> ", " -> "), ("\t", r"\t"), (",", ",")])
def test_separators_are_said(tmp_path: Path, separator: str, setting: str) -> None:
    assert histories(write_csv(tmp_path / "log.csv", ROWS, separator=separator), separator=setting) == WANTED


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("name", "separator"), [("ratings.dat", "::"), ("r.tsv", "\t"), ("r.csv.gz", ",")])
def test_without_a_header_line(tmp_path: Path, name: str, separator: str) -> None:
    rows = [(user, item, 5, time) for user, item, time in ROWS]
    path = write_csv(tmp_path / name, rows, None, separator=separator)
    assert histories(path, columns=("user_id", "item_id", "rating", "timestamp")) == WANTED


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("name", "header", "mark"),
    pairwise([*product(["log.csv", "log.csv.gz"], [True, False], ["", "\ufeff"])], enumerate),
    ids=repr,
)
def test_a_byte_order_mark_is_no_part_of_the_first_value(tmp_path: Path, name: str, header: bool, mark: str) -> None:
    import gzip

    data = f"{mark}{HEADER if header else ''}7,x,3\n7,y,1\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert histories(tmp_path / name, columns=None if header else COLUMNS) == {"7": ["y", "x"]}


def test_quotes_blank_lines_and_no_end_of_the_last_line(tmp_path: Path) -> None:
    body = '"u,1","line one\nline two",1\n\n"u,1","say ""a, b""",2\n\nplain,5" disk,3'
    wanted = {"plain": ['5" disk'], "u,1": ["line one\nline two", 'say "a, b"']}
    assert histories(text_file(tmp_path, HEADER + body)) == wanted
    quoted = text_file(tmp_path, '"timestamp";"user_id";"more, or less";"item_id"\n1;a;;x\n', "quoted.csv")
    assert histories(quoted) == {"a": ["x"]}


def test_ids_stay_as_they_are_written(tmp_path: Path) -> None:
    ids = ["007", "7", " 7", "日本 語", "naïve 😀", "NULL", "NA", "nan", "true", "1e3", "1.0", "x" * 100_000, "#", "'"]
    rows = [(item, item, time) for time, item in enumerate(ids)]
    for path in (write_csv(tmp_path / "a.csv", rows), write_parquet(tmp_path / "a.parquet", rows)):
        assert histories(path) == {item: [item] for item in ids}


@pytest.mark.slow
@pytest.mark.parametrize("ids", ["auto", "text", "integer"])
def test_what_ids_are_can_be_said(tmp_path: Path, ids: Any) -> None:
    plain = histories(write_csv(tmp_path / "a.csv", [(7, 5, 1), (7, -6, 2)]), ids=ids)
    assert plain == {"7": ["5", "-6"] if ids == "text" else [5, -6]}
    with contextlib.nullcontext() if ids != "integer" else pytest.raises(DataError, match="1 without an integer item"):
        assert histories(write_csv(tmp_path / "c.csv", [(7, "1.5", 1), (7, -6, 2)]), ids=ids) == {"7": ["1.5", "-6"]}
    zeros = histories(write_csv(tmp_path / "b.csv", [("007", "05", 1), ("007", "+6", 2)]), ids=ids)
    assert zeros == ({"7": [5, 6]} if ids == "integer" else {"007": ["05", "+6"]})


@pytest.mark.slow
def test_integers_of_64_bits_are_integers_and_longer_ones_text(tmp_path: Path) -> None:
    largest = 2**63 - 1
    assert histories(write_csv(tmp_path / "a.csv", [("u", largest, 1), ("u", -largest, 2)])) == {
        "u": [largest, -largest]
    }
    for path in (
        write_csv(tmp_path / "b.csv", [("u", largest + 1, 1), ("u", 5, 2)]),
        write_parquet(tmp_path / "b.parquet", [("u", largest + 1, 1), ("u", 5, 2)], item_id=pa.uint64()),
    ):
        assert histories(path) == {"u": [str(largest + 1), "5"]}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_text_ids_of_parquet_are_text_also_where_they_are_digits(tmp_path: Path, type_: pa.DataType) -> None:
    rows = [("1", "30", 3), ("1", "4", 1)]
    assert histories(write_parquet(tmp_path / "a.parquet", rows, user_id=type_, item_id=type_)) == {"1": ["4", "30"]}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "type_", [pa.int8(), pa.uint8(), pa.int32(), pa.uint64(), pa.int64(), pa.dictionary(pa.int8(), pa.int32())], ids=str
)
def test_integer_ids_of_parquet(tmp_path: Path, type_: pa.DataType) -> None:
    path = write_parquet(tmp_path / "a.parquet", [(1, 30, 3), (1, 4, 1)], user_id=type_, item_id=type_)
    assert histories(path) == {"1": [4, 30]}
    out = prepare_log(
        write_parquet(tmp_path / "b.parquet", [(u, 4, u) for u in range(8)], item_id=type_), tmp_path / "out"
    )
    assert out.catalogue.ids.type == pa.int64()


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize(
    "kind", ["integer", "float", "decimal", "date", "text", "zone", "s", "ms", "us", "ns", "float32", "dictionary"]
)
def test_times_of_every_kind(tmp_path: Path, kind: str, form: str) -> None:
    value_kind = {"float32": "float", "dictionary": "text"}.get(kind, kind)
    values, type_ = times(value_kind, [3, 7, 1, 2])
    if kind == "float32":
        type_ = pa.float32()
    elif kind == "dictionary":
        type_ = pa.dictionary(pa.int32(), pa.string())
    elif kind == "decimal" and form == "parquet":
        values = [Decimal(value) for value in values]
    rows = [(user, item, value) for (user, item, _), value in zip(ROWS, values, strict=True)]
    path = tmp_path / f"log.{form}"
    write_parquet(path, rows, timestamp=type_) if form == "parquet" else write_csv(path, rows)
    assert histories(path) == WANTED


def test_times_of_spark_before_its_version_3(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    moments = [datetime(1969, 12, 31), datetime(1969, 12, 30)]
    table = pa.table({"user_id": ["a", "a"], "item_id": ["x", "y"], "timestamp": moments})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    assert histories(tmp_path / "a.parquet") == {"a": ["y", "x"]}


def test_offsets_count_and_text_without_one_is_utc(tmp_path: Path) -> None:
    lines = ["2001-02-01T12:00:00+02:00,first", "2001-02-01 10:30:00,second", "2001/02/01 11:00,third"]
    lines += ["2001-02-01T08:00:00-04:00,fifth", "2001-02-01T11:59:59.999999Z,fourth"]
    body = "\n".join(f"a,{line.split(',')[1]},{line.split(',')[0]}" for line in lines)
    assert histories(text_file(tmp_path, HEADER + body)) == {"a": ["first", "second", "third", "fourth", "fifth"]}


@pytest.mark.slow
def test_a_time_format_is_used_for_text_only(tmp_path: Path) -> None:
    rows = [("a", "x", "03/01/2001 10:00 +0200"), ("a", "y", "03/01/2001 09:00 +0000")]
    wanted = {"time_format": "%d/%m/%Y %H:%M %z"}
    csv_path, parquet_path = write_csv(tmp_path / "a.csv", rows), write_parquet(tmp_path / "a.parquet", rows)
    assert histories(csv_path, **wanted) == histories(parquet_path, **wanted) == {"a": ["x", "y"]}
    typed = write_parquet(tmp_path / "b.parquet", [("a", "z", datetime(2001, 1, 2))])
    assert histories(csv_path, typed, **wanted) == {"a": ["z", "x", "y"]}
    assert histories(write_parquet(tmp_path / "c.parquet", [("a", "z", 5)]), **wanted) == {"a": ["z"]}


@pytest.mark.slow
def test_files_may_differ_in_form_columns_and_kind_of_time(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [(1, "x", "a", 3)], ("timestamp", "item_id", "user_id", "more"))
    write_csv(tmp_path / "b.tsv.gz", [("a", "y", 1.5)], separator="\t")
    write_parquet(tmp_path / "c.parquet", [("a", "z", 2)])
    write_parquet(tmp_path / "d.parquet", [(1.75, 0, "w", "a")], ("timestamp", "else", "item_id", "user_id"))
    assert histories(tmp_path) == {"a": ["x", "y", "w", "z"]}
    moments = [datetime(2001, 1, 2), datetime(2001, 1, 1, 23, tzinfo=timezone(timedelta(hours=-2)))]
    other_folder = tmp_path / "other"
    write_csv(other_folder / "a.csv", [("a", "x", "2001-01-02T01:00:01Z")])
    write_parquet(other_folder / "b.parquet", [("a", "y", moments[0])])
    write_parquet(other_folder / "c.parquet", [("a", "z", moments[1].astimezone(UTC))])
    write_parquet(other_folder / "d.parquet", [("a", "w", datetime(2001, 1, 3).date())])
    assert histories(other_folder) == {"a": ["y", "z", "x", "w"]}


@pytest.mark.slow
def test_files_folders_and_globs_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "day=1" / "events.parquet"
    write_parquet(folder / "part-0.snappy.parquet", ROWS[:2])
    write_csv(folder / "deep" / "part-1.CSV", ROWS[2:])
    for name in ("_SUCCESS", ".part-0.crc", "_temporary/part-9.parquet", ".hidden/part-8.csv", "notes.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no events")
    assert histories(folder) == WANTED
    monkeypatch.chdir(tmp_path)
    for pattern in ("*/events.parquet", "day=1/**/part-?.*", f"{tmp_path}/**/*.parquet", "**/events*"):
        assert histories(pattern) == WANTED
    (tmp_path / "link.csv").symlink_to(folder / "deep" / "part-1.CSV")
    all_names = (folder, "day=1/../day=1", folder / "part-0.snappy.parquet", "**/*.CSV", "link.csv")
    assert histories(*all_names) == WANTED


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("name", ["a[1].csv", "b*.csv", "c?.csv", "{d}.csv", "e'e.csv", "f f.csv", "g[1]/a.csv"])
def test_a_name_is_no_pattern_where_it_is_a_file(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path / name, ROWS)
    for matching_name in ("a1.csv", "b1.csv", "c1.csv", "g1/a.csv"):
        write_csv(tmp_path / matching_name, [("other", "other", 1)])
    assert histories(tmp_path / name) == WANTED


@pytest.mark.slow
def test_columns_that_are_not_asked_for_may_be_anything(tmp_path: Path) -> None:
    columns = ("", "", "User_id", "peterrec_file", *COLUMNS)
    rows = [(None, 1, "no", "no", *row) for row in ROWS]
    assert histories(write_csv(tmp_path / "a.csv", rows, columns)) == WANTED
    assert histories(write_csv(tmp_path / "b.csv", [(*row, "x" * 200_000) for row in ROWS], (*COLUMNS, "m"))) == WANTED
    long = write_csv(tmp_path / "d.csv", [(*row, 1) for row in ROWS], (*COLUMNS, "m" * 200_000))
    assert histories(long) == WANTED


def test_one_column_may_be_two_things(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [(1, 3), (1, 2)], ("who", "what"))
    assert histories(path, user="who", item="what", time="what", order="what") == {"1": [2, 3]}


@pytest.mark.slow
def test_the_time_zone_of_the_machine_changes_nothing(tmp_path: Path) -> None:
    moments = [datetime(2001, 2, 1, hour, tzinfo=UTC) for hour in range(24)]
    write_parquet(tmp_path / "in" / "a.parquet", [(f"u{t.hour % 8}", "abc"[t.hour % 3], t) for t in moments])
    write_csv(tmp_path / "in" / "b.csv", [(f"u{t.hour % 8}", "c", f"{t:%Y-%m-%d %H:30}") for t in moments])
    source = {"before": "2001-02-01 12:00:00", "min_item_events": 1}
    corpus = prepare_log(tmp_path / "in", tmp_path / "out", source=source)
    code = (
        "import sys; from pathlib import Path; from data.prepare.logs import prepare_log\n"
        f"print(prepare_log(Path(sys.argv[1]), Path(sys.argv[2]), source={source}).manifest['fingerprint'])"
    )
    environment = os.environ | {"TZ": "Asia/Kolkata", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, str(tmp_path / "in"), str(tmp_path / "there")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == corpus.manifest["fingerprint"]


def test_a_hive_folder_name_is_no_column(tmp_path: Path) -> None:
    write_parquet(tmp_path / "user_id=9" / "a.parquet", SMALL)
    assert set(histories(tmp_path)) == {row[0] for row in SMALL}
