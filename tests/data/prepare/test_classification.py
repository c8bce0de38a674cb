"""Tasks with classes: labels from a table, or from what users do later."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.prepare.logs import SMALL, assert_steps_add_up, parts_of, prepare_log, write_csv, write_parquet
from data.prepare.oracle import Settings, part_of
from peterrec.config import ActivityConfig, build_config
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError, DataError, PeterRecError, TaskError

USERS = [str(n) for n in range(30)]
LOG = [(int(user), item, time) for user in USERS for time, item in enumerate("abc" if int(user) % 5 else "a")]
PART = {user: part_of(user, Settings()) for user in USERS}


def task(path: Path, **values: Any) -> dict[str, Any]:
    labels = {"path": str(path), "label": "group"} | values.pop("labels", {})
    return {"name": "group", "kind": "classification", "labels": labels} | values


def corpus_of(folder: Path, table: list[tuple[Any, Any]], **values: Any) -> Corpus:
    path = write_csv(folder / "users.csv", table, ("user_id", "group"))
    return prepare_log(write_parquet(folder / "log.parquet", LOG), folder / "out", tasks=[task(path, **values)])


def labels_of(corpus: Corpus) -> dict[str, str]:
    """The name of each user's class, whatever the part."""
    names = corpus.task("group").class_names
    parts = parts_of(corpus, "group").values()
    return {user: names[label] for users in parts for user, (_, label) in users.items()}


def steps_of(corpus: Corpus) -> list[tuple[str, int, int]]:
    assert_steps_add_up(corpus)
    return [(step["what"], step["users"], step["dropped"]) for step in corpus.manifest["tasks"][0]["steps"]]


@pytest.mark.slow
def test_labels_meet_users_whatever_the_type_of_either(tmp_path: Path) -> None:
    wanted = {user: "even" if int(user) % 2 == 0 else "odd" for user in USERS}
    text = list(wanted.items())
    numbers = [(int(user), label) for user, label in text]
    names = ("user_id", "group")
    files = [
        write_csv(tmp_path / "a.csv", text, names, separator=";"),
        write_csv(tmp_path / "b.tsv.gz", text, names, separator="\t", end="\r\n"),
        write_csv(tmp_path / "c.dat", text, None, separator="::"),
        write_parquet(tmp_path / "d.parquet", text, names),
        write_parquet(tmp_path / "e.parquet", numbers, names, user_id=pa.int16(), group=pa.large_string()),
        write_parquet(tmp_path / "f.parquet", numbers, names, group=pa.dictionary(pa.int8(), pa.string())),
        write_csv(tmp_path / "g.csv", [(label, "x", user) for user, label in text], ("group", "User_id", "user_id")),
    ]
    tasks = [
        task(path, name=path.stem[0], labels={"columns": names} if path.suffix == ".dat" else {}) for path in files
    ]
    corpus = prepare_log(write_parquet(tmp_path / "log.parquet", LOG), tmp_path / "out", tasks=tasks)
    first = parts_of(corpus, "a")
    assert {user: ("even", "odd")[label] for users in first.values() for user, (_, label) in users.items()} == wanted
    assert all(parts_of(corpus, name) == first for name in corpus.task_names)


@pytest.mark.slow
def test_users_of_csv_events_meet_labels_when_ids_are_text_with_zeros(tmp_path: Path) -> None:
    rows = [(f"{n:03}", item, 1) for n in range(30) for item in "ab"]
    table = write_csv(tmp_path / "users.csv", [(f"{n:03}", n % 2) for n in range(30)], ("user_id", "group"))
    log = write_csv(tmp_path / "log.csv", rows)
    corpus = prepare_log(log, tmp_path / "out", tasks=[task(table)])
    assert set(labels_of(corpus)) == {f"{n:03}" for n in range(30)}
    numbers = [(n, item, 1) for n in range(30) for item in (5, 6)]  # the same users, as integers and with zeros
    read = {"ids": "integer"}
    corpus = prepare_log(write_csv(log, numbers), tmp_path / "out", tasks=[task(table)], events=read)
    assert set(labels_of(corpus)) == set(USERS)


def test_who_is_left_out_and_why(tmp_path: Path) -> None:
    table = [(user, int(user) % 2) for user in USERS] + [("stranger", 1), ("", 0)]
    table[1], table[2] = ("1", ""), ("2", "rare")
    corpus = corpus_of(tmp_path, table, min_user_events=2, min_class_users=2)
    assert set(labels_of(corpus)) == {user for user in USERS if int(user) % 5} - {"1", "2"}
    assert steps_of(corpus) == [
        ("users in the table", 32, 0),
        ("with a label", 31, 1),
        ("with source events", 29, 2),
        ("with a history", 23, 6),
        ("of common classes", 22, 1),
    ]
    reasons = [step["why"] for step in corpus.manifest["tasks"][0]["steps"]]
    assert reasons[1:] == [
        "'group' is empty",
        "no source event, such as 'stranger'",
        "fewer than 2 source events",
        "the class 'rare' has fewer than 2 users",
    ]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["10", "9.5", "1e1"], ["9.5", "10", "1e1"]),
        (["07", "7", "8"], ["07", "7", "8"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["²", "--5", "inf"], ["--5", "inf", "²"]),
        (["None", "1", "inf"], ["1", "None", "inf"]),
        (["é", "Z", "a"], ["Z", "a", "é"]),
    ],
)
def test_classes_are_in_order_of_numbers_or_of_text(tmp_path: Path, values: list[str], wanted: list[str]) -> None:
    corpus = corpus_of(tmp_path, [(user, values[int(user) % 3]) for user in USERS])
    assert list(corpus.task("group").class_names) == wanted
    assert labels_of(corpus) == {user: values[int(user) % 3] for user in USERS}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("type_", "values", "wanted"),
    [
        (pa.float64(), [10.0, 9.0, 2.5, math.nan], ["2.5", "9", "10"]),
        (pa.float32(), [10.0, -0.5, 2.5, None], ["-0.5", "2.5", "10"]),
        (pa.int8(), [10, 9, -2, None], ["-2", "9", "10"]),
        (pa.bool_(), [True, False, False, None], ["false", "true"]),
    ],
    ids=str,
)
def test_labels_of_other_types(tmp_path: Path, type_: pa.DataType, values: list[Any], wanted: list[str]) -> None:
    table = [(user, values[int(user) % 4]) for user in USERS]
    path = write_parquet(tmp_path / "users.parquet", table, ("user_id", "group"), group=type_)
    corpus = prepare_log(write_parquet(tmp_path / "log.parquet", LOG), tmp_path / "out", tasks=[task(path)])
    assert list(corpus.task("group").class_names) == wanted
    assert set(labels_of(corpus)) == {user for user in USERS if int(user) % 4 < 3}


@pytest.mark.slow
def test_a_class_nobody_can_learn_is_refused_and_the_remedy_works(tmp_path: Path) -> None:
    late = [user for user in USERS if PART[user] != "train"]
    table = [(user, "seen" if int(user) % 2 else "known") for user in USERS]
    table += [("x1", "nobody")]
    for user, label in zip(late[:5], ["rare", "rare", "rare", "lone", "pair"], strict=True):
        table[int(user)] = (user, label)
    with pytest.raises(TaskError, match=r"the label 'rare' .* only among valid or test users \(3 of them\)") as caught:
        corpus_of(tmp_path, table)
    assert "min_class_users: 4" in caught.value.remedy
    assert corpus_of(tmp_path, table, min_class_users=4).task("group").class_names == ("known", "seen")
    assert not list(tmp_path.glob(".*"))


def test_numbers_are_put_into_bins(tmp_path: Path) -> None:
    ages = {user: 18 + int(user) for user in USERS}
    table = [(user, age if int(user) else "NA") for user, age in ages.items()]
    corpus = corpus_of(tmp_path, table, labels={"bins": [30.5, 40]})
    assert corpus.task("group").class_names == ("below 30.5", "30.5 to 40", "40 and above")
    assert labels_of(corpus) == {
        user: "below 30.5" if age < 30.5 else "30.5 to 40" if age < 40 else "40 and above"
        for user, age in ages.items()
        if int(user)
    }
    for bins, rows, message in (
        ([40, 20], table, "must rise"),
        ([20], [*table[:-1], (USERS[-1], "old")], "'old' is no number"),
    ):
        with pytest.raises(PeterRecError, match=message):
            corpus_of(tmp_path, rows, labels={"bins": bins})


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([(user, "same") for user in USERS], "all users of task 'group' have the label 'same'"),
        ([*((user, int(user) % 2) for user in USERS), ("3", 1), ("5", "")], "users more than once, such as '3', '5'"),
        ([(f"u{user}", int(user) % 2) for user in USERS], r"its users are such as .'u0'., those of the events .*'0'"),
        ([(user, "") for user in USERS], "no labelled user has source events"),
        ([(user, int(user) % 2) for user in USERS if PART[user] == "train"], "and none for valid and test"),
        ([], "no labelled user has source events"),
    ],
)
def test_tables_that_are_no_task(tmp_path: Path, table: list[tuple[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        corpus_of(tmp_path, table)
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("setting", "value"), [("min_user_events", 9), ("min_class_users", 50)])
def test_settings_that_leave_nobody_are_named(tmp_path: Path, setting: str, value: int) -> None:
    with pytest.raises(TaskError, match=r"no user is left for task 'group': .*fewer than") as caught:
        corpus_of(tmp_path, [(user, int(user) % 2) for user in USERS], **{setting: value})
    assert setting in caught.value.remedy


@pytest.mark.slow
def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    log, out = write_parquet(tmp_path / "log.parquet", LOG), tmp_path / "out"
    good = [(user, int(user) % 2) for user in USERS]
    floats = [(float(user), label) for user, label in good]
    names = ("user_id", "group")
    cut = write_csv(tmp_path / "cut.csv.gz", good * 900, names)
    cut.write_bytes(cut.read_bytes()[:-40])
    for path, message in [
        (tmp_path / "none.csv", "there is no such file"),
        (write_csv(tmp_path / "a.csv", good, ("who", "group")), "does not have the column 'user_id'"),
        (write_parquet(tmp_path / "b.parquet", floats, names), "'user_id' is of type double"),
        (write_csv(tmp_path / "c.csv", [*good, ("5",)], names), "Line: 32"),
        (cut, "ended before the end"),
    ]:
        with pytest.raises(PeterRecError, match=message) as caught:
            prepare_log(log, out, tasks=[task(path)])
        assert str(path) in str(caught.value)
        assert ("labels.user" in caught.value.remedy) == ("does not have" in message)
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_part_with_one_class_is_told(tmp_path: Path, part: str) -> None:
    table = [(user, "a" if PART[user] == part else "ab"[int(user) % 2]) for user in USERS]
    corpus = corpus_of(tmp_path, table)
    (warning,) = corpus.manifest["warnings"]
    count = sum(user_part == part for user_part in PART.values())
    assert warning.startswith(f"task group: all {count} {part} users have the label 'a'")
    assert f"split.{part}" in warning
    assert corpus_of(tmp_path / "other", [(user, "ab"[int(user) % 2]) for user in USERS]).manifest["warnings"] == []


ACTIVE = {"name": "group", "kind": "classification"}


@pytest.mark.slow
def test_activity_is_an_event_of_any_domain_or_item_in_the_period(tmp_path: Path) -> None:
    rows = [(user, "a", 1, "shop") for user in USERS]
    rows += [
        (USERS[0], "b", 5, "food"),
        (USERS[1], "a", 6, "shop"),
        (USERS[2], "a", 9, "shop"),
        (USERS[3], "a", 4, "shop"),
    ]
    rows += [(user, "new", 7, "shop") for user in USERS[4:20]]
    path = write_parquet(tmp_path / "log.parquet", rows, ("user_id", "item_id", "timestamp", "where"))
    source = {"before": "4", "domains": ["shop"], "min_item_events": 2}
    rule = ACTIVE | {"activity": {"after": 5, "before": 9}}
    corpus = prepare_log(path, tmp_path / "out", events={"domain": "where"}, source=source, tasks=[rule])
    active = {USERS[0], USERS[1], *USERS[4:20]}
    assert labels_of(corpus) == {user: "yes" if user in active else "no" for user in USERS}
    assert steps_of(corpus) == [("users with source events", 30, 0)]
    named = ACTIVE | {"activity": {"after": 4, "active": 1, "inactive": "0"}, "min_user_events": 1}
    corpus = prepare_log(path, tmp_path / "out", events={"domain": "where"}, source=source, tasks=[named])
    assert {user for user, label in labels_of(corpus).items() if label == "0"} == set(USERS[20:])


@pytest.mark.slow
def test_a_source_that_reaches_into_the_period_is_refused_and_the_remedy_works(tmp_path: Path) -> None:
    rows = [*LOG, *((user, "late", 9) for user in USERS[::2])]
    path = write_parquet(tmp_path / "log.parquet", [(str(user), *columns) for user, *columns in rows])
    rule = ACTIVE | {"activity": {"after": "2"}}
    for source in ({"min_item_events": 1}, {"min_item_events": 1, "before": "3"}):
        with pytest.raises(TaskError, match="the answer would be in the question") as caught:
            prepare_log(path, tmp_path / "out", source=source, tasks=[rule])
        assert "source.before: '2'" in caught.value.remedy
    prepare_log(path, tmp_path / "out", source={"min_item_events": 1, "before": "2"}, tasks=[rule])


@pytest.mark.slow
def test_activity_that_is_no_task(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "log.parquet", SMALL)
    with pytest.raises(TaskError, match="all users of task 'group' have the label 'no'"):
        prepare_log(path, tmp_path / "out", tasks=[ACTIVE | {"activity": {"after": "100000"}}])
    with pytest.raises(ConfigError, match=r"activity\.after of 'group' is '2001-02-01'") as caught:
        prepare_log(path, tmp_path / "out", tasks=[ACTIVE | {"activity": {"after": "2001-02-01"}}])
    assert "a number such as" in caught.value.remedy
    with pytest.raises(ConfigError, match="give them two names"):
        build_config(ActivityConfig, {"after": 5, "active": "yes", "inactive": "yes"})


def test_rows_of_a_task_are_the_rows_of_its_file(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, [(user, int(user) % 2) for user in USERS])
    table = pq.read_table(corpus.path / "tasks" / "group" / "train.parquet")
    assert table.schema.names == ["user_id", "sequence", "label"]
    assert table["user_id"].to_pylist() == sorted(user for user in USERS if PART[user] == "train")
