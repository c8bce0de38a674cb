"""Ranking tasks: targets of another domain, of a later time, of other files; histories that end before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.prepare.logs import (
    COLUMNS,
    assert_steps_add_up,
    items_of,
    parts_of,
    prepare_log,
    write_csv,
    write_parquet,
)
from data.prepare.oracle import Settings, part_of
from peterrec.config import RankingTaskConfig, build_config
from peterrec.data import arrow_arrays
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError, DataError, TaskError

USERS = [f"u{n:02}" for n in range(24)]
ALL = (*COLUMNS, "where", "n")
OLD = [(user, item, time, "shop", 0) for user in USERS for time, item in enumerate("abcd")]
NEW = [(user, item, 10, "food", place) for user in USERS for place, item in enumerate("xy")]
SOURCE: dict[str, Any] = {"min_item_events": 1, "domains": ["shop"]}
EVENTS = {"domain": "where", "order": "n"}


def rank(**values: Any) -> dict[str, Any]:
    return {"name": "r", "kind": "ranking", "domains": ["food"], "min_item_events": 1} | values


def corpus_of(folder: Path, rows: list[Any], source: dict[str, Any] | None = None, **task: Any) -> Corpus:
    path = write_parquet(folder / "log.parquet", rows, ALL)
    return prepare_log(path, folder / "out", events=EVENTS, source=SOURCE | (source or {}), tasks=[rank(**task)])


def answers(corpus: Corpus) -> dict[str, tuple[str, str]]:
    """History and targets of each user of the task, in letters."""
    task = corpus.task("r")
    assert task.targets is not None
    names = ["", "", "", "?", *corpus.catalogue.ids.to_pylist()]
    targets = task.targets.ids.to_pylist()
    return {
        user: ("".join(names[i] for i in history), "".join(targets[i] for i in wanted))
        for users in parts_of(corpus, "r").values()
        for user, (history, wanted) in users.items()
    }


def test_all_of_the_history_and_the_targets_in_order_of_time_and_order(tmp_path: Path) -> None:
    further_rows = [("u00", "z", 9, "food", 0), ("u00", "x", 8, "food", 5), ("u00", "x", 11, "food", 0)]
    further_rows += [("u01", "z", 10, "food", -1), ("u02", "e", 20, "shop", 0), ("stranger", "x", 1, "food", 0)]
    task_answers = answers(corpus_of(tmp_path, [*OLD, *NEW, *further_rows]))
    assert set(task_answers) == set(USERS)
    assert task_answers["u00"] == ("abcd", "xzy")
    assert task_answers["u01"] == ("abcd", "zxy")
    assert task_answers["u02"] == ("abcde", "xy")


@pytest.mark.slow
def test_the_first_time_of_a_target_is_one_event_and_not_the_least_of_each_column(tmp_path: Path) -> None:
    further_rows = [("u00", "x", 9, "food", 7), ("u00", "y", 9, "food", 5), ("u00", "x", 12, "food", 1)]
    assert answers(corpus_of(tmp_path, [*OLD, *NEW, *further_rows]))["u00"] == ("abcd", "yx")


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("repeats", ["keep", "drop"])
@pytest.mark.parametrize("at_once", [1, 10**6])
def test_histories_end_strictly_before_the_first_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeats: str, at_once: int
) -> None:
    from peterrec.data.prepare import event_sequences as sequences

    monkeypatch.setattr(sequences, "EVENTS_AT_ONCE", at_once)
    early = [("u00", "y", 1, "food", 0), ("u00", "x", 1, "food", 1), ("u01", "x", 0, "food", 0)]
    long = [("u02", item, 100 + time, "shop", 0) for time, item in enumerate("aabbccddaaccddbb")]
    long += [("u02", "x", 107, "food", 0), ("u02", "y", 108, "food", 0), ("u03", "x", 2, "food", 0)]
    rows = [*OLD, *(row for row in NEW if row[0] not in ("u00", "u01", "u02", "u03")), *early, *long]
    rules = {"max_history": 4, "repeats": repeats}
    corpus = corpus_of(tmp_path, rows, rules, history="before-first-target")
    task_answers = answers(corpus)
    assert task_answers["u00"] == ("a", "yx")  # b came at the same time
    assert "u01" not in task_answers  # nothing came before
    assert task_answers["u02"] == (("bccd", "x") if repeats == "keep" else ("abcd", "x"))
    assert task_answers["u03"] == ("ab", "x")
    assert items_of(corpus)["u02"] == list("ddbb" if repeats == "keep" else "acdb")
    assert_steps_add_up(corpus)
    reasons = [step["why"] for step in corpus.manifest["tasks"][0]["steps"]]
    assert reasons[2] == "fewer than 1 source events before the first target"
    other_users = [(user, item, 108, "food", 0) for user in USERS[4:] for item in "xy"]
    later = corpus_of(tmp_path, [*rows, *other_users], rules, history="before-first-target", after="108")
    assert answers(later)["u02"] == (("ccdd", "y") if repeats == "keep" else ("abcd", "y"))


@pytest.mark.slow
def test_a_user_who_is_not_in_the_corpus_is_in_no_task(tmp_path: Path) -> None:
    rows = [*OLD, *NEW, ("short", "a", 1, "shop", 0), ("short", "x", 10, "food", 0)]
    for history in ("all", "before-first-target"):
        corpus = corpus_of(tmp_path, rows, {"min_user_events": 2}, history=history)
        assert set(answers(corpus)) == set(USERS)
        assert_steps_add_up(corpus)


@pytest.mark.slow
def test_an_item_needs_distinct_users_and_counts_are_of_train_users(tmp_path: Path) -> None:
    often = [("u00", "often", time, "food", 0) for time in range(20, 40)]
    three = [(user, "three", 30, "food", 0) for user in USERS[:3]]
    corpus = corpus_of(tmp_path, [*OLD, *NEW, *often, *three], min_item_events=3)
    train = {user for user in USERS if part_of(user, Settings()) == "train"}
    targets = corpus.task("r").targets
    assert targets is not None
    assert targets.first == 0
    wanted = [("x", len(train)), ("y", len(train)), ("three", len(train & set(USERS[:3])))]
    assert list(zip(targets.ids.to_pylist(), targets.counts.tolist(), strict=True)) == wanted
    assert corpus_of(tmp_path, [*OLD, *NEW, *often, *three], min_item_events=4).manifest["tasks"][0]["targets"] == 2


@pytest.mark.slow
def test_a_later_time_without_domains(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", [row[:3] for row in [*OLD, *NEW]])
    source = {"min_item_events": 1, "before": "10"}
    task = rank(domains=None, after="10", history="all")
    task_answers = answers(prepare_log(path, tmp_path / "out", source=source, tasks=[task]))
    assert task_answers == dict.fromkeys(USERS, ("abcd", "xy"))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("source", "task", "leaks"),
    [
        ({"domains": None}, {}, True),
        ({"domains": ["shop", "food"]}, {}, True),
        ({"domains": None, "exclude_domains": ["food"]}, {}, False),
        ({"domains": None, "before": "10"}, {}, False),
        ({"domains": None, "before": "11"}, {"after": "10"}, True),
        ({"domains": None, "before": "10"}, {"domains": None, "after": "10"}, False),
        ({"domains": ["shop"]}, {"domains": None, "after": "10"}, False),
        ({"domains": ["shop"]}, {"domains": None, "after": "3"}, True),
        ({"domains": ["shop"]}, {"domains": None, "after": "2", "before": "3"}, True),
        ({"domains": ["shop"], "after": "3"}, {"domains": None, "after": "2", "before": "3"}, True),  # all later
        ({"domains": None}, {"after": "3", "before": "9"}, None),
    ],
)
def test_a_source_with_the_answers_is_refused(
    tmp_path: Path, source: dict[str, Any], task: dict[str, Any], leaks: bool | None
) -> None:
    if leaks is False:
        corpus_of(tmp_path, [*OLD, *NEW], source, **task)
        return
    message = "the answer would be in the question" if leaks else "has no target events"
    with pytest.raises(TaskError, match=message) as caught:
        corpus_of(tmp_path, [*OLD, *NEW], source, **task)
    assert ("source.exclude_domains" if leaks else "'shop', 'food'") in caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_targets_from_files_of_their_own(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", [row[:3] for row in OLD], None, separator=";")
    own_path = write_csv(
        tmp_path / "own.tsv.gz",
        [(time, "more", item, user) for user, item, time, *_ in NEW],
        ("when", "else", "film", "person"),
        separator="\t",
    )
    events = {"columns": COLUMNS, "separator": ";"}
    names = {"user": "person", "item": "film", "time": "when", "columns": None, "separator": None}
    task = rank(domains=None, history="before-first-target", events={"paths": [str(own_path)]} | names)
    corpus = prepare_log(log, tmp_path / "out", events=events, tasks=[task])
    assert answers(corpus) == dict.fromkeys(USERS, ("abcd", "xy"))
    assert [Path(file["path"]).name for file in corpus.manifest["inputs"]] == ["log.csv", "own.tsv.gz"]
    same_events = write_csv(
        tmp_path / "same.csv", [row[:3] for row in NEW], None, separator=";"
    )  # read as the others are
    task["events"] = {"paths": [str(same_events)]}
    assert answers(prepare_log(log, tmp_path / "out", events=events, tasks=[task])) == dict.fromkeys(
        USERS, ("abcd", "xy")
    )
    own_path.write_bytes(own_path.read_bytes()[:-12])
    task["events"] = {"paths": [str(own_path)]} | names
    with pytest.raises(DataError, match=r"own\.tsv\.gz: cannot be read"):
        prepare_log(log, tmp_path / "out", events=events, tasks=[task])


@pytest.mark.slow
def test_targets_may_have_ids_of_another_kind_but_not_times(tmp_path: Path) -> None:
    log = write_parquet(tmp_path / "log.parquet", [row[:3] for row in OLD])
    numbers = [(user, 7 + place, f"2001-02-0{place + 1}") for user in USERS for place in range(2)]
    own_events = {"paths": [str(write_csv(tmp_path / "own.csv", numbers))]}
    corpus = prepare_log(log, tmp_path / "out", tasks=[rank(domains=None, events=own_events)])
    targets = corpus.task("r").targets
    assert targets is not None
    assert targets.ids.to_pylist() == [7, 8]
    with pytest.raises(TaskError, match="are of kind time, those of the source integer") as caught:
        prepare_log(log, tmp_path / "out", tasks=[rank(domains=None, events=own_events, history="before-first-target")])
    assert "history: all" in caught.value.remedy


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("rows", "task", "message"),
    [
        (OLD, {}, "has no target events"),
        ([*OLD, *NEW], {"after": "11"}, "has no target events"),
        ([*OLD, *NEW], {"min_item_events": 99}, "0 items have 99 users; at least 2 are needed"),
        ([*OLD, *NEW[::2]], {}, "1 items have 1 users"),
        ([*OLD, *(("stranger", item, 10, "food", 0) for item in "xy")], {}, "0 items have 1 users"),
        ([*OLD, *NEW], {"min_user_events": 5}, "0 items have 1 users"),
        ([*OLD, *NEW[:4]], {}, "users and none for"),
    ],
)
def test_targets_that_are_no_task(tmp_path: Path, rows: list[Any], task: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        corpus_of(tmp_path, rows, **task)
    assert caught.value.remedy
    assert {path.name for path in tmp_path.iterdir()} == {"log.parquet"}


@pytest.mark.slow
def test_settings_of_a_ranking_task(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say which events are targets"):
        build_config(RankingTaskConfig, {"name": "r", "kind": "ranking", "before": 5})
    with pytest.raises(ConfigError, match=r"after of 'r' is '2001-02-01', but the times of the events are numbers"):
        corpus_of(tmp_path, [*OLD, *NEW], after="2001-02-01")
    plain = write_csv(tmp_path / "log.csv", [row[:3] for row in [*OLD, *NEW]])
    with pytest.raises(ConfigError, match="domains of 'r' names domains, but the events have none"):
        prepare_log(plain, tmp_path / "out", tasks=[rank()])


def test_a_task_of_more_values_than_plain_arrays_have_room_for_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = corpus_of(tmp_path / "small", [*OLD, *NEW])
    monkeypatch.setattr(arrow_arrays, "LIMIT", 20)  # bytes or values
    large = corpus_of(tmp_path / "large", [*OLD, *NEW])
    assert large.task("r").part("train").user_ids.type == pa.large_string()
    assert answers(large) == answers(small)
    assert items_of(large) == items_of(small)
    assert large.manifest["catalogue_fingerprint"] == small.manifest["catalogue_fingerprint"]
    file = Path("tasks") / "r" / "train.parquet"
    assert pq.read_schema(large.path / file) == pq.read_schema(small.path / file)
    assert pq.ParquetFile(large.path / file).num_row_groups > pq.ParquetFile(small.path / file).num_row_groups == 1
