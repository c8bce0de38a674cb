"""What a time means rests on its own text and type alone, and no two times become one on the way."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from data.prepare.logs import COLUMNS, items_of, prepare_log, write_csv, write_parquet
from data.prepare.logs import settings as build
from pairwise import FULL
from peterrec.config import EventsConfig
from peterrec.data.prepare import prepare
from peterrec.errors import ConfigError, DataError, PeterRecError
from whole_histories import read_event_histories

MOMENT = datetime(2022, 1, 27, 12)
NANOSECONDS = pytest.mark.only_duckdb("Spark has no times finer than a microsecond, and says so")


def order_of(*paths: Path, **events: Any) -> list[Any]:
    """The items of the only user, oldest first."""
    users, items, _ = read_event_histories(EventsConfig(paths=tuple(map(str, paths)), **events))
    assert len(users) == 1
    return items[0]


def numbered(values: Sequence[Any]) -> list[tuple[str, str, Any]]:
    """Events whose items say the place of their time, in an order against that of the ids."""
    return [("u", f"i{999_999 - place}", value) for place, value in enumerate(values)]


def wanted(count: int) -> list[str]:
    return [f"i{999_999 - place}" for place in range(count)]


def written(moment: datetime, form: int) -> str:
    """A moment of UTC as one of the forms that are read."""
    local = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=form % 27 - 13, minutes=15 * (form % 4))))
    forms = [
        f"{moment}",
        f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z",
        f"{moment:%Y/%m/%d %H:%M:%S.%f} UTC",
        f"{moment} GMT",
        f" {moment:%Y-%m-%d  %H:%M:%S.%f}000",
        local.isoformat(),
        f"{local:%Y-%m-%d %H:%M:%S.%f%z}",
    ]
    return forms[form % len(forms)]


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), files=st.integers(1, 3))
@settings(max_examples=3, phases=[Phase.explicit, Phase.generate])
def test_no_form_of_a_time_changes_another_row_however_many_there_are(seed: int, files: int) -> None:
    draw, count = random.Random(seed), 6000  # the engine's batches are of 2048 rows
    moments = [MOMENT + timedelta(seconds=7 * place, microseconds=place % 3) for place in range(count)]
    rows = numbered([written(moment, draw.randrange(10_000)) for moment in moments])
    draw.shuffle(rows)
    with tempfile.TemporaryDirectory() as name:
        paths = [write_csv(Path(name) / f"{part}.csv", rows[part::files]) for part in range(files)]
        assert order_of(*paths) == wanted(count)


BAD = [
    "2022-01-27 12:00:00 Asia/Tokyo", "2022-01-27 12:00:00 BST", "2022-01-27 12:00:00BST", "2022-01-27T12:00 EST",
    "2022-01-27 12:00:00 UTC+2", "2022-01-27 12:00:00+02:00 UTC", "2022-01-27 12:00:00 (BC)", "12:00:00",
    "2022-01-27 12:00:00.1234567891", "2022-02-30", "27/01/2022", "infinity", "2022-01-27 12:00:00 Etc/UTC",
    "2022-01-27 12:00:00+99:00", "2022-01-27 12:00:00+02:60",
]  # fmt: skip


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("bad", BAD)
def test_a_time_that_is_not_read_is_shown_with_its_row(tmp_path: Path, bad: str) -> None:
    good = [("u", f"i{n}", f"2022-01-27 0{n % 9}:00:00", f"2022-01-27 0{n % 9}:00:00+01:00") for n in range(9)]
    files = [(0, write_csv, "0.csv"), (9, write_parquet, "9.parquet")]
    for place, write, name in files if FULL else [files[BAD.index(bad) % 2]]:
        row = ("who", "what", *((bad, good[0][3]) if place else (good[0][2], bad)))
        path = write(tmp_path / name, [*good[:place], row, *good[place:]], (*COLUMNS, "line"))
        with pytest.raises(DataError, match="1 row cannot be used") as caught:
            order_of(path, order="line")
        assert f"user_id 'who', item_id 'what', timestamp {row[2]!r}, line {row[3]!r}" in str(caught.value)
    assert order_of(path, order="line", invalid_rows="drop") == [f"i{n}" for n in range(9)]


def test_a_column_of_names_of_zones_is_no_time(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither numbers nor dates .* but '2022-01-27 12:00:00 ") as caught:
        order_of(write_csv(tmp_path / "a.csv", [("u", "x", BAD[0]), ("u", "y", BAD[1])]))
    assert "the name of a zone" in caught.value.remedy


SECONDS = [978300760, 978300800, 978300900, 978387300]
TYPES: dict[str, pa.DataType] = {
    str(type_): type_
    for type_ in [
        pa.int32(), pa.uint32(), pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(22, 3), pa.decimal128(38, 0),
        pa.decimal128(38, 19), pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()),
        *(pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "Asia/Tokyo")),
    ]
}  # fmt: skip


# One of each kind of literal that a time filter compares with; the others are read into the same kinds.
PREPARED = {"int32", "double", "decimal128(22, 3)", "decimal128(38, 19)", "string", "timestamp[us]", "timestamp[ns]"}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", TYPES)
def test_the_type_of_the_times_changes_nothing(tmp_path: Path, name: str) -> None:
    type_ = TYPES[name]
    text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_dictionary(type_)
    values = pa.array(map(Decimal, SECONDS), type_) if pa.types.is_decimal(type_) else pa.array(SECONDS)
    if pa.types.is_timestamp(type_):
        values = values.cast(pa.timestamp("s")).cast(pa.timestamp(type_.unit))
    decimal = pa.types.is_decimal(type_)
    column = (
        pa.array(map(Decimal, SECONDS), type_) if decimal else values.cast(pa.string() if text else type_).cast(type_)
    )
    items = [f"i{999_999 - place}" for place in range(4)]
    table = pa.table({"user_id": ["u"] * 4, "item_id": items, "timestamp": column})
    pq.write_table(table, tmp_path / "a.parquet")
    assert order_of(tmp_path / "a.parquet") == wanted(4)
    if not (FULL or name in PREPARED):
        return
    bounds = {"after": "978300800", "before": "978300900.5"}
    if pa.types.is_timestamp(type_):
        bounds = {name: datetime.fromtimestamp(float(text), UTC).isoformat() for name, text in bounds.items()}
    corpus = prepare_log(tmp_path / "a.parquet", tmp_path / "out", source=bounds | {"min_item_events": 1})
    assert items_of(corpus) == {"u": wanted(4)[1:3]}


NANO = [f"2022-01-27 12:00:00.{digits}" for digits in ("000000001", "000000002", "000001", "0000010009", "1")]
FINE: dict[str, tuple[list[Any], pa.DataType | None]] = {
    "nanoseconds of Parquet": ([978300760, 978300800, 978300900], pa.timestamp("ns")),
    "nanoseconds before 1970": ([-2, -1, 0, 1], pa.timestamp("ns")),
    "nanoseconds in text": ([*NANO[:3], NANO[4]], None),
    "nanoseconds and offsets": (["2022-01-27T12:00:00.000000001+01:00", "2022-01-27T11:00:00.000000002Z"], None),
    "whole decimals": ([Decimal(1643281200000000000 + place) for place in range(3)], pa.decimal128(20, 0)),
    "decimals": ([Decimal(f"1643281200.00000000{place}") for place in range(3)], pa.decimal128(38, 9)),
    "large decimals": ([Decimal(2**64 - 4 + place) for place in range(3)], pa.decimal128(38, 0)),
    "unsigned": ([2**63 + 1, 2**63 + 2, 2**63 + 3], pa.uint64()),
    "unsigned and small": ([5, 2**63, 2**64 - 1], pa.uint64()),
    "large integers": ([2**53, 2**53 + 1, 2**63 - 1], pa.int64()),
    "integers in text": ([2**53, 2**53 + 1, 2**63 - 1], None),
    "unsigned in text": ([7, 2**63 + 1, 2**63 + 2, 2**64 - 1], None),
    "seconds with nine decimals": ([f"1643281200.00000000{place}" for place in range(3)], None),
    "text of floats": ([1.6432812001234567e-05, 0.1, 0.10000000000000002, 1.6432812e18, 1e300], None),
    "floats": ([0.1, 0.10000000000000002, 1e300], pa.float64()),
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=NANOSECONDS if "nanoseconds" in name else ()) for name in FINE]
)
def test_times_that_differ_stay_different(tmp_path: Path, name: str) -> None:
    values, type_ = FINE[name]
    rows = numbered(values)
    path = tmp_path / ("a.csv" if type_ is None else "a.parquet")
    write_csv(path, rows) if type_ is None else write_parquet(path, rows, timestamp=type_)
    assert order_of(path) == wanted(len(values))
    ties = [(user, item, 1, value) for user, item, value in rows]
    write = write_csv if type_ is None else write_parquet
    types = {} if type_ is None else {"types": type_}
    columns = (*COLUMNS, "types")
    assert order_of(write(path, ties, columns, **types), order="types") == wanted(len(values))


@pytest.mark.slow
@given(
    st.lists(
        st.one_of(
            st.integers(-(2**66), 2**66).map(str),
            st.decimals(-(10**12), 10**12, places=9, allow_nan=False).map(lambda number: f"{number:f}"),
            st.floats(allow_nan=False, allow_infinity=False).map(repr),
        ),
        min_size=2,
        max_size=12,
        unique_by=Decimal,
    )
)
@settings(max_examples=100 if FULL else 8)
def test_any_numbers_are_in_their_order_or_refused(texts: list[str]) -> None:
    ordered = sorted(texts, key=Decimal)
    rows = numbered(ordered)
    random.Random(0).shuffle(rows)
    with tempfile.TemporaryDirectory() as name:
        path = write_csv(Path(name) / "a.csv", rows)
        try:
            items = order_of(path)
        except DataError:
            return
    assert items == wanted(len(texts))


@pytest.mark.slow
def test_files_of_numbers_are_compared_exactly_or_refused(tmp_path: Path) -> None:
    large = write_parquet(tmp_path / "a.parquet", [("u", "a", 2**53 + 1)])
    decimals = write_csv(tmp_path / "b.csv", [("u", "b", "9007199254740992.5")])
    assert order_of(large, decimals) == ["b", "a"]
    floats = write_parquet(tmp_path / "c.parquet", [("u", "c", 0.5)])
    assert order_of(floats, write_csv(tmp_path / "d.csv", [("u", "d", "0.1"), ("u", "e", "7")])) == ["d", "c", "e"]
    for path in (large, decimals):
        with pytest.raises(DataError, match="too many digits to compare them"):
            order_of(floats, path)


@pytest.mark.slow
@NANOSECONDS
def test_microseconds_and_nanoseconds_in_one_log(tmp_path: Path) -> None:
    paths = [
        write_parquet(tmp_path / "a.parquet", [("u", "c", MOMENT + timedelta(microseconds=1))]),
        write_parquet(tmp_path / "b.parquet", [("u", "b", 1643284800000000999)], timestamp=pa.timestamp("ns")),
        write_csv(tmp_path / "c.csv", [("u", "a", "2022-01-27 12:00:00.000000998"), ("u", "d", "2022-01-28")]),
        write_parquet(tmp_path / "d.parquet", [("u", "e", datetime(2022, 1, 29).date())]),
    ]
    assert order_of(*paths) == list("abcde")
    for form, far_time in (("csv", "9999-12-31"), ("parquet", datetime(9999, 12, 31)), ("csv", "1677-09-21 20:00")):
        far = (write_csv if form == "csv" else write_parquet)(tmp_path / f"e.{form}", [("u", "z", far_time)])
        with pytest.raises(DataError, match="1 row cannot be used") as caught:
            order_of(*paths, far)
        assert "1678 to 2261" in caught.value.remedy
        assert order_of(paths[0], far) in (["c", "z"], ["z", "c"])


@pytest.mark.slow
def test_nanoseconds_that_the_engine_would_cut_are_refused(tmp_path: Path) -> None:
    for unit, zone, old in (("a zone", "UTC", False), ("96 bits", None, True)):
        for nanosecond in (0, 1):
            column = pa.array([1643284800000000000, None, 1643284800000001000 + nanosecond], pa.timestamp("ns", zone))
            table = pa.table({"user_id": ["u"] * 3, "item_id": ["b", "c", "a"], "timestamp": column})
            pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=old)
            if not nanosecond:
                assert order_of(tmp_path / "a.parquet", invalid_rows="drop") == ["b", "a"]
                continue
            with pytest.raises(DataError, match=r"2022-01-27 12:00:00.000001001") as caught:
                order_of(tmp_path / "a.parquet", invalid_rows="drop")
            assert unit in str(caught.value)
    far = pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": [datetime(9999, 12, 31, 23, 59)]})
    pq.write_table(far, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    assert order_of(tmp_path / "a.parquet") == ["a"]


@pytest.mark.parametrize("name", ["time", "order"])
def test_decimals_that_the_engine_would_make_floats_are_refused(tmp_path: Path, name: str) -> None:
    rows = [("u", "a", Decimal(10**45), Decimal(10**45))]
    types = {"timestamp" if name == "time" else "n": pa.decimal256(50, 0)}
    path = write_parquet(tmp_path / "a.parquet", rows, (*COLUMNS, "n"), **types)
    with pytest.raises(DataError, match="more than 38 digits"):
        order_of(path, order="n" if name == "order" else None)
    long = write_parquet(tmp_path / "b.parquet", [("u", "a", Decimal(10**30 + 1)), ("u", "b", Decimal(1))])
    with pytest.raises(DataError, match=f"timestamp '{10**30 + 1}'"):
        order_of(long)


@NANOSECONDS
@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("wrong", ["%Y-%m-%d %H:%M:%S %Z", "%Y %S.%n %z"])
def test_formats_with_names_of_zones_are_refused(tmp_path: Path, wrong: str) -> None:
    path = write_csv(tmp_path / "a.csv", [("u", "a", "2022-01-27 12:00:00 BST")])
    with pytest.raises(ConfigError, match="time_format") as caught:
        order_of(path, time_format=wrong)
    assert "%z" in caught.value.remedy
    fine = write_csv(tmp_path / "b.csv", numbered(["27.1.2022 000000001 %Z", "27.1.2022 000000002 %Z"]))
    assert order_of(fine, time_format="%d.%m.%Y %n %%Z") == wanted(2)
    with pytest.raises(DataError, match=r"timestamp '2022-01-27 12:00:00 BST'"):
        order_of(path, time_format="%d.%m.%Y")


BOUNDS: list[Any] = [
    ([1, 2, 3], None, "2", 1),
    ([1, 2, 3], None, "1.5", 1),
    ([1, 2, 3], None, "2e0", 1),
    ([2**53, 2**53 + 1, 2**53 + 2], None, str(2**53 + 1), 1),
    ([2**53, 2**53 + 1, 2**53 + 2], None, f"{2**53}.5", 1),
    ([2**63 + 1, 2**63 + 2], pa.uint64(), str(2**63 + 2), 1),
    (["0.000000000000000001", "0.000000000000000003"], None, "0.000000000000000002", 1),
    ([0.1, 0.3, 0.5], pa.float64(), "0.3", 1),
    (["2022-01-27 12:00:00", "2022-01-27 12:00:00.000001"], None, "2022-01-27 12:00:00.0000001", 1),
    (["2022-01-27 12:00:00", "2022-01-27 12:00:00.000001"], None, "2022-01-27T14:00:00.000001+02:00", 1),
    pytest.param([NANO[0], NANO[1]], None, "2022-01-27 12:00:00.000000002", 1, marks=NANOSECONDS),
    pytest.param([NANO[0], NANO[1]], None, "2022-01-27 12:00:00.0000000011", 1, marks=NANOSECONDS),
    pytest.param([NANO[0], NANO[2]], None, "2022-01-27 12:00:00.0000009999", 1, marks=NANOSECONDS),
    pytest.param([NANO[0], NANO[1]], None, "9999-12-31", 2, marks=NANOSECONDS),
    pytest.param([NANO[0], NANO[1]], None, "0001-01-01", 0, marks=NANOSECONDS),
]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("values", "type_", "bound", "before"), BOUNDS)
def test_a_bound_is_compared_exactly(
    tmp_path: Path, values: list[Any], type_: pa.DataType | None, bound: str, before: int
) -> None:
    path, rows = tmp_path / ("a.csv" if type_ is None else "a.parquet"), numbered(values)
    write_csv(path, rows) if type_ is None else write_parquet(path, rows, timestamp=type_)
    for setting, expected in (("before", wanted(len(values))[:before]), ("after", wanted(len(values))[before:])):
        try:
            corpus = prepare_log(path, tmp_path / "out", source={setting: bound, "min_item_events": 1})
        except DataError:
            assert not expected
        else:
            assert items_of(corpus) == {"u": expected}


@pytest.mark.parametrize(
    ("values", "bound", "message"),
    [
        ([0.5, 2.0**60], str(2**60 + 1), "the nearest is 1.15"),
        ([1, 2], str(2**63), "numbers below 9223372036854775807"),
    ],
)
def test_a_bound_that_the_times_cannot_be_is_refused(
    tmp_path: Path, values: list[Any], bound: str, message: str
) -> None:
    path = write_parquet(tmp_path / "a.parquet", numbered(values))
    with pytest.raises(ConfigError, match=message):
        prepare_log(path, tmp_path / "out", source={"after": bound})


LINES = [("u", "i8", "8"), ("u", "i9", "9"), ("u", "i10", "10")]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("lines", "odd"),
    [
        (["8", "9", "10"], "12a"),
        (["8", "9", "10.5"], "x"),
        (["8", "9", "10"], "2022-01-01"),
        (["2022-01-08", "2022-01-09", "2022-01-10"], "9"),
        (["b8", "b9", "c10"], "9"),
        (["b8", "b9", "c10"], "2022-01-01"),
        (["b8", "b9", "c10"], "1e5"),
    ],
)
def test_one_odd_value_to_order_by_is_an_error_with_its_row(tmp_path: Path, lines: list[str], odd: str) -> None:
    rows = [("u", f"i{9 - place}", 1, line) for place, line in enumerate(lines)]
    good = write_csv(tmp_path / "a.csv", rows, (*COLUMNS, "line"))
    assert order_of(good, order="line") == ["i9", "i8", "i7"]
    bad = write_csv(tmp_path / "b.csv", [*rows, ("other", "x", 1, odd)], (*COLUMNS, "line"))
    with pytest.raises(DataError, match=rf"user_id 'other', item_id 'x', timestamp '1', line '{odd}'"):
        order_of(bad, order="line")
    assert order_of(bad, order="line", invalid_rows="drop") == ["i9", "i8", "i7"]


UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("read_as", ["ms", "us", pytest.param("ns", marks=NANOSECONDS)])
def test_times_of_1970_are_told(tmp_path: Path, unit: str, read_as: str) -> None:
    values = [UNITS[unit] * second for second in (946684800, 1643281200, 2147483000)]
    per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[read_as]
    path = write_parquet(tmp_path / "a.parquet", numbered(values), timestamp=pa.timestamp(read_as))
    lines: list[str] = []
    corpus = prepare(build(path), tmp_path / "out", report=lines.append)
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert corpus.manifest["warnings"] == [line.removeprefix("warning: ") for line in warnings]
    assert ("January 1970" in "".join(warnings)) == (UNITS[unit] < per_second)
    assert not warnings or "pd.to_datetime" in warnings[0]


@pytest.mark.slow
def test_times_of_1970_in_the_files_of_a_task_are_told(tmp_path: Path) -> None:
    rows = [(f"u{n}", item, datetime(2022, 1, 1, n % 20)) for n in range(40) for item in "ab"]
    path = write_parquet(tmp_path / "a.parquet", rows)
    own_path = write_csv(tmp_path / "own.csv", [(user, item, "1970-01-20") for user, item, _ in rows])
    task = {"name": "later", "kind": "ranking", "events": {"paths": [str(own_path)]}}
    warnings = prepare_log(path, tmp_path / "out", tasks=[task]).manifest["warnings"]
    assert len([line for line in warnings if "80 of 80 times" in line]) == 1
    assert len(warnings) == 2  # its pairs of user and item are in the source, too


@pytest.mark.slow
def test_one_row_of_1970_is_no_column_of_1970(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", numbered(["1970-01-01", *["2022-01-01"] * 5]))
    assert prepare_log(path, tmp_path / "out").manifest["warnings"] == []
    with pytest.raises(PeterRecError):
        prepare_log(write_csv(tmp_path / "b.csv", numbered(["1970-01-01", "seventies"])), tmp_path / "out")
