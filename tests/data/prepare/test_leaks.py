"""Tasks with files of their own whose answers stand in the source: by content, however ids and times are written."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.prepare.logs import COLUMNS, prepare_log, settings, write_csv, write_parquet
from pairwise import FULL
from peterrec.data.corpus import Corpus
from peterrec.data.prepare import prepare
from peterrec.errors import TaskError

USERS = [f"u{n:02}" for n in range(24)]
OLD = [(user, item, time) for user in USERS for time, item in enumerate("abcd")]
NEW = [(user, item, 10) for user in USERS for item in "xy"]
SECONDS = 1_000_000_000
SAYS = "the answer would be in the question"


def corpus_of(
    folder: Path, source: Path, own_path: Path, *, domain: str | None = None, limits: Any = None, **task: Any
) -> Corpus:
    """Prepare a source and a task of another file."""
    tree = {"name": "r", "kind": "ranking", "min_item_events": 1, "events": {"paths": [str(own_path)]}} | task
    limits = {"min_item_events": 1} | (limits or {})
    return prepare_log(source, folder / "out", events={"domain": domain}, source=limits, tasks=[tree])


def refused(folder: Path, source: Path, own_path: Path, **values: Any) -> TaskError:
    with pytest.raises(TaskError, match=SAYS) as caught:
        corpus_of(folder, source, own_path, **values)
    assert not (folder / "out").exists()
    return caught.value


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("history", ["all", "before-first-target"])
@pytest.mark.parametrize("after", [None, "10"])
def test_the_log_itself_is_refused_as_the_file_of_the_targets(tmp_path: Path, history: str, after: str | None) -> None:
    log = write_csv(tmp_path / "log.csv", [*OLD, *NEW])
    error = refused(tmp_path, log, log, history=history, after=after)
    count = len(NEW) if after else len(OLD) + len(NEW)
    example = "item 'x' at 10" if after else "item 'a' at 0"
    assert f"{count} target events of task 'r' are source events too, such as user 'u00', {example}" in error.message
    assert "source.before" in error.remedy
    if after:
        corpus_of(tmp_path, log, log, history=history, after=after, limits={"before": "10"})


@pytest.mark.slow
def test_a_copy_in_another_form_and_one_event_of_an_overlapping_export_are_refused(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", [*OLD, *NEW])
    copy = write_parquet(tmp_path / "copy.parquet", [*OLD, *NEW])
    assert "144 target events" in refused(tmp_path, log, copy).message
    overlap = write_csv(tmp_path / "export.csv", [*((user, "z", 20) for user in USERS), ("u07", "y", 10)])
    assert (
        "1 target events of task 'r' are source events too, such as user 'u07', item 'y'"
        in refused(tmp_path, log, overlap).message
    )
    apart = write_csv(tmp_path / "apart.csv", [(user, item, 20) for user in USERS for item in "zw"])
    assert corpus_of(tmp_path, log, apart).manifest["warnings"] == []


def moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


SOURCE_FORMS = ["seconds", "text", "timestamp"]
OWN_FORMS = ["seconds", "float", "ms", "us", "ns", "text", "fraction", "timestamp"]
# Every form, and every way of comparing two: as they are, as floats, as moments, in whole seconds.
SOME_FORMS = [(SOURCE_FORMS[number % 3], form) for number, form in enumerate(OWN_FORMS)]
SOME_FORMS += [("seconds", "float"), ("seconds", "timestamp"), ("timestamp", "timestamp")]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("source", "own_form"), [*product(SOURCE_FORMS, OWN_FORMS)] if FULL else SOME_FORMS)
def test_the_same_events_with_ids_and_times_written_otherwise(tmp_path: Path, source: str, own_form: str) -> None:
    def write(name: str, form: str, item: Any) -> Path:
        rows = [(user, item(place), 3600 * place + SECONDS) for user in range(24) for place in range(5)]
        shape: dict[str, Any] = {
            "seconds": lambda time: time, "float": lambda time: time + 0.0, "ms": lambda time: time * 10**3,
            "us": lambda time: time * 10**6, "ns": lambda time: time * 10**9, "text": moment,
            "fraction": lambda time: f"{moment(time)}.25",
            "timestamp": lambda time: datetime.fromtimestamp(time, UTC).replace(tzinfo=None),
        }  # fmt: skip
        lines = [(user, item_id, shape[form](time)) for user, item_id, time in rows]
        types = {"timestamp": pa.timestamp("ns")} if form == "timestamp" else {}
        return write_parquet(tmp_path / name, lines, COLUMNS, **types)

    log, own_path = write("log.parquet", source, lambda place: place), write("own.parquet", own_form, str)
    assert "120 target events" in refused(tmp_path, log, own_path).message


@pytest.mark.slow
def test_events_of_another_domain_are_others_and_so_is_what_has_another_user_item_or_time(tmp_path: Path) -> None:
    columns = (*COLUMNS, "where")
    rows = [(user, item, time, "shop") for user, item, time in OLD]
    log = write_csv(tmp_path / "log.csv", rows, columns)
    food = write_csv(tmp_path / "food.csv", [(user, item, time, "food") for user, item, time in OLD], columns)
    corpus = corpus_of(tmp_path, log, food, domain="where")
    assert (
        "96 of its 96 pairs of user and item are in the source too, at other times or in"
        in corpus.manifest["warnings"][0]
    )
    unnamed = {"paths": [str(food)], "domain": None}
    with pytest.raises(TaskError, match="96 target events"):  # for all that is known, they are the same
        corpus_of(tmp_path, log, food, domain="where", events=unnamed)
    strangers = [(f"7{user}", item, time) for user, item, time in OLD]
    changed_rows = [
        *((user, f"7{item}", time) for user, item, time in OLD),
        *((user, item, time + 9) for user, item, time in OLD),
    ]
    corpus_of(tmp_path, log, write_csv(tmp_path / "other.csv", [*strangers, *changed_rows]), domain="where", events={
        "paths": [str(tmp_path / "other.csv")], "domain": None
    })  # fmt: skip


@pytest.mark.slow
def test_a_source_later_than_the_start_of_the_targets_is_refused_whatever_file_they_come_from(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", [*OLD, *((user, "e", 12) for user in USERS[:5])])
    own_path = write_csv(tmp_path / "own.csv", NEW)
    error = refused(tmp_path, log, own_path, after="10")
    assert "5 events of the source are targets of task 'r', or later" in error.message
    assert "source.before: '10'" in error.remedy
    corpus_of(tmp_path, log, own_path, after="10", limits={"before": "10"})
    corpus_of(tmp_path, log, own_path)  # nothing says that the targets are the future of the same log
    dates = write_csv(tmp_path / "dates.csv", [(user, item, f"2001-02-{time}") for user, item, time in NEW])
    corpus_of(tmp_path, log, dates, after="2001-02-01")  # a bound that means nothing to the source


@pytest.mark.slow
def test_a_period_that_starts_in_the_source_is_seen_however_times_are_written(tmp_path: Path) -> None:
    """Times of the source are numbers, those of the task's file are text: the bound is of the text."""
    start = 1_600_646_400  # 2020-09-21
    log = write_csv(tmp_path / "log.csv", [(user, item, start + time * 3600) for user, item, time in [*OLD, *NEW]])
    own_path = write_csv(tmp_path / "own.csv", [(user, item, "2020-09-25 07:00:00") for user in USERS for item in "vw"])
    error = refused(tmp_path, log, own_path, after="2020-09-21 10:00:00")
    assert f"{len(NEW)} events of the source are targets of task 'r', or later" in error.message
    corpus_of(tmp_path, log, own_path, after="2020-09-21 10:00:00", limits={"before": str(start + 36000)})


@pytest.mark.slow
@pytest.mark.parametrize("form", ["seconds", "timestamp"])
def test_a_copy_that_tells_only_the_day_is_compared_by_day(tmp_path: Path, form: str) -> None:
    start = datetime(2020, 9, 21, 1)
    rows = [(user, item, start.replace(day=21 + time // 10, hour=1 + time)) for user, item, time in [*OLD, *NEW]]
    shape = (lambda time: int(time.replace(tzinfo=UTC).timestamp())) if form == "seconds" else (lambda time: time)
    log = write_parquet(tmp_path / "log.parquet", [(user, item, shape(time)) for user, item, time in rows])
    late = [(user, item, f"{time:%Y-%m-%d}") for user, item, time in rows[-7:]]
    apart = [(user, "z", "2020-09-22") for user in USERS] + [(user, "y", "2020-10-01") for user in USERS]
    assert "7 target events" in refused(tmp_path, log, write_csv(tmp_path / "own.csv", [*late, *apart])).message
    corpus_of(tmp_path, log, write_csv(tmp_path / "apart.csv", apart))


@pytest.mark.slow
@pytest.mark.parametrize("repeated", [9, 10, 20])
def test_that_most_targets_are_items_of_the_user_already_is_told(tmp_path: Path, repeated: int) -> None:
    log = write_csv(tmp_path / "log.csv", OLD)
    rows = [
        (user, ("ab" if n < repeated else "xy")[n % 2], f"0{n % 9 + 1}/02/2001") for n, user in enumerate(USERS[:20])
    ]
    own_events = {"paths": [str(write_csv(tmp_path / "own.csv", [*rows, rows[0]]))], "time_format": "%d/%m/%Y"}
    task = {"name": "r", "kind": "ranking", "min_item_events": 1, "events": own_events}
    lines: list[str] = []
    corpus = prepare(settings(log, tasks=[task]), tmp_path / "out", report=lines.append)
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert warnings == [f"warning: {line}" for line in corpus.manifest["warnings"]]
    if repeated < 10:
        assert warnings == []
    else:
        assert f"task r: {repeated} of its 20 pairs of user and item are in the source too" in warnings[0]
