"""Values that are missing, by which mark whatever, and what is said of values that were hardly meant."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.prepare.logs import COLUMNS, SMALL, parts_of, prepare_log, write_csv, write_parquet
from peterrec.config import EventsConfig, LabelsConfig, PrepareConfig, load_config
from peterrec.errors import DataError
from whole_histories import read_event_histories

ALL = (*COLUMNS, "n", "where")
FULL = ("u", "x", "2022-01-01", "1", "shop")
USERS = [f"u{n}" for n in range(40)]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("write", "name"), [(write_csv, "a.csv"), (write_parquet, "a.parquet")], ids=["csv", "parquet"]
)
@pytest.mark.parametrize("place", range(5), ids=ALL)
def test_a_mark_means_missing_in_every_column(tmp_path: Path, place: int, write: Any, name: str) -> None:
    written_marks = ["NULL", "null", "Na", r"\N", "nan", "-", ""]
    rows = [FULL, *((*FULL[:place], mark, *FULL[place + 1 :]) for mark in written_marks)]
    path = write(tmp_path / name, rows, ALL)
    events: dict[str, Any] = {"paths": (str(path),), "order": "n", "domain": "where"}
    marks = ("Null", "NA", r"\n", "NaN", "-")
    with pytest.raises(DataError, match=f"7 rows cannot be used: 7 without .*'{ALL[place]}'"):
        read_event_histories(EventsConfig(**events, missing=marks))
    assert read_event_histories(EventsConfig(**events, missing=marks, invalid_rows="drop"))[:2] == (["u"], [["x"]])


def test_a_mark_does_not_decide_what_the_others_are(tmp_path: Path) -> None:
    rows = [(1, 30, 3), (1, 4, 1), (1, "NULL", 2), ("null", 5, 2), (1, 5, "NULL")]
    path = write_csv(tmp_path / "a.csv", rows)
    events = EventsConfig(paths=(str(path),), missing=("NULL",), invalid_rows="drop")
    assert read_event_histories(events)[:2] == (["1"], [[4, 30]])


def test_a_mark_that_is_a_number_is_one_in_every_type(tmp_path: Path) -> None:
    rows = [(1, 30, 3), (-1, 4, 1), (1, 5, 2)]
    for path in (write_csv(tmp_path / "a.csv", rows), write_parquet(tmp_path / "a.parquet", rows)):
        events = EventsConfig(paths=(str(path),), missing=("-1",), invalid_rows="drop")
        assert read_event_histories(events)[:2] == (["1"], [[5, 30]])


def test_marks_of_yaml_are_the_words_that_stand_there(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(r"events: {paths: [a.csv], missing: [NULL, ~, NA, .nan, \N, -1, '']}")
    config = load_config(PrepareConfig, tmp_path / "c.yaml")
    assert config.events.missing == ("null", "null", "NA", "nan", r"\N", "-1", "")


def test_rows_with_marks_are_counted(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [*SMALL, ("u0", "NULL", 3), ("na", "a", 3), ("u0", "a", "soon"), ("", "a", 1)])
    corpus = prepare_log(path, tmp_path / "out", events={"missing": ["NULL", "NA"], "invalid_rows": "drop"})
    step = corpus.manifest["steps"][1]
    assert step["dropped"] == 4
    assert step["why"] == "a value is missing (3 rows: empty, 'NULL', 'NA') or unreadable"
    assert corpus.manifest["warnings"] == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_ids_that_look_missing_are_told(tmp_path: Path, form: str) -> None:
    rows = [(*row, "shop") for row in SMALL]
    rows += [("u0", "NULL", 3, "shop"), ("u1", "NULL", 3, "NA"), ("u0", r"\N", 3, "shop"), ("nan", "a", 3, "shop")]
    path = (write_csv if form == "csv" else write_parquet)(tmp_path / f"a.{form}", rows, (*COLUMNS, "where"))
    events: dict[str, Any] = {"domain": "where"}
    users, items, domains = prepare_log(path, tmp_path / "out", events=events).manifest["warnings"]
    assert users.startswith("the user column 'user_id' holds 'nan' (1 events): if that means that there is none")
    assert r"holds 'NULL' (2 events), '\\N' (1 events)" in items
    assert "'NA' (1 events)" in domains
    remedy = items.split("--set '")[1].split("'")[0]
    config = load_config(PrepareConfig, None, [remedy], events={"paths": [str(path)]})
    with_marks = prepare_log(
        path, tmp_path / "again", events=events | {"missing": config.events.missing, "invalid_rows": "drop"}
    )
    assert [warning for warning in with_marks.manifest["warnings"] if "item_id" in warning] == []


def owners(counts: list[int]) -> list[int]:
    return [owner for owner, count in enumerate(counts) for _ in range(count)]


@pytest.mark.slow
def test_a_user_or_an_item_with_an_implausible_share_is_told(tmp_path: Path) -> None:
    one_of_many = owners([300, *[10] * 40])
    rows = [(f"u{owner}", place % 30, place) for place, owner in enumerate(one_of_many)]
    (user,) = prepare_log(write_csv(tmp_path / "a.csv", rows), tmp_path / "a").manifest["warnings"]
    assert user.startswith("the user 'u0' has 43 % of the source events, and no other of 41 users more than 1.4 %")
    rows = [(place % 30, f"i{owner}", place) for place, owner in enumerate(one_of_many)]
    (item,) = prepare_log(write_csv(tmp_path / "b.csv", rows), tmp_path / "b").manifest["warnings"]
    assert item.startswith("the item 'i0' has 43 % of the source events")


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "counts",
    [
        [500, 20, 20, 20],  # few items: the first may well be the one
        [1000 // rank for rank in range(1, 60)],  # popular as in any shop
        [1000 // rank**2 for rank in range(1, 30)],
        [40, *[5] * 200],  # less than a tenth
    ],
)
def test_what_is_popular_is_not_implausible(tmp_path: Path, counts: list[int]) -> None:
    rows = [(place % 30, f"i{owner}", place) for place, owner in enumerate(owners(counts))]
    assert prepare_log(write_csv(tmp_path / "a.csv", rows), tmp_path / "out").manifest["warnings"] == []


def labelled(folder: Path, path: Path, **labels: Any) -> tuple[Any, list[dict[str, Any]]]:
    log = write_csv(folder / "log.csv", [(user, item, 1) for user in USERS for item in "ab"])
    task = {"name": "t", "kind": "classification", "labels": {"path": str(path), "label": "group"} | labels}
    corpus = prepare_log(log, folder / "out", tasks=[task])
    users = sum(len(part) for part in parts_of(corpus, "t").values())
    return (corpus.task("t").class_names, users), corpus.manifest["tasks"][0]["steps"]


MARKS = ["nan", "NaN", "NAN", "NULL", "null", "NA", "n/a", "<NA>", r"\N", ""]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_marks_are_no_classes(tmp_path: Path, form: str) -> None:
    table = [(user, MARKS[n] if n < len(MARKS) else "xy"[n % 2]) for n, user in enumerate(USERS)]
    path = (write_csv if form == "csv" else write_parquet)(tmp_path / f"l.{form}", table, ("user_id", "group"))
    labels, steps = labelled(tmp_path, path)
    assert labels == (("x", "y"), 30)
    assert steps[1]["dropped"] == 10
    assert steps[1]["why"] == r"'group' is empty or '<NA>' or 'NA' or 'NAN' or 'NULL' or 'NaN'"
    without_mark = [(user, "nan" if label in MARKS else label) for user, label in table]
    path = write_csv(tmp_path / "kept.csv", without_mark, ("user_id", "group"))
    assert labelled(tmp_path, path, missing=())[0] == (("nan", "x", "y"), 40)


@pytest.mark.slow
def test_numbers_may_be_marks_of_labels_and_nan_is_none(tmp_path: Path) -> None:
    values = [math.nan, -1.0, 1.0, 2.0]
    table = [(user, values[n % 4]) for n, user in enumerate(USERS)]
    path = write_parquet(tmp_path / "l.parquet", table, ("user_id", "group"), group=pa.float64())
    assert labelled(tmp_path, path)[0] == (("-1", "1", "2"), 30)
    assert labelled(tmp_path, path, missing=(-1,))[0] == (("1", "2"), 20)
    assert "NaN" in LabelsConfig(path="x", label="y").missing
