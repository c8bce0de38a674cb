"""Tasks with any number of labels a user: as the table has them, rare ones left out, and users without any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.prepare.logs import assert_steps_add_up, prepare_log, write_csv, write_parquet
from peterrec.data.corpus import Corpus
from peterrec.data.prepare import prepare
from peterrec.errors import ConfigError, DataError, TaskError

USERS = [str(n) for n in range(30)]
LOG = [(int(user), item, time) for user in USERS for time, item in enumerate("abc")]
NAMES = ("user_id", "interests")
TEXTS = pa.list_(pa.string())


def corpus_of(folder: Path, table: Path, **values: Any) -> Corpus:
    labels = {"path": str(table), "label": "interests"} | values.pop("labels", {})
    task = {"kind": "multilabel", "name": "interests", "labels": labels, "min_label_users": 1} | values
    return prepare_log(write_parquet(folder / "log.parquet", LOG), folder / "out", tasks=[task])


def labels_of(corpus: Corpus, name: str = "interests") -> dict[str, list[str]]:
    """The labels of each user, in the order of the task's."""
    task = corpus.task(name)
    parts = [task.part(part) for part in ("train", "valid", "test")]
    return {
        user: [task.class_names[label] for label in row.tolist()]
        for part in parts
        if part.label_sets is not None
        for user, row in zip(part.user_ids.to_pylist(), map(part.label_sets.__getitem__, range(len(part))), strict=True)
    }


def interests(user: str) -> list[str]:
    """Every third has none; of all others the even ones have a, and those that 5 does not divide have b."""
    number = int(user)
    return [] if number % 3 == 0 else ["b"] * (number % 5 > 0) + ["a"] * (number % 2 == 0)


def test_lists_are_read_and_users_without_labels_count(tmp_path: Path) -> None:
    rows = [(user, interests(user)) for user in USERS]
    corpus = corpus_of(tmp_path, write_parquet(tmp_path / "a.parquet", rows, NAMES, interests=TEXTS))
    assert labels_of(corpus) == dict(rows)
    entry = corpus.manifest["tasks"][0]
    assert entry["kind"] == "multilabel"
    assert entry["labels"] == [{"name": "b", "users": 16}, {"name": "a", "users": 10}]
    assert corpus.task("interests").class_names == ("b", "a")
    assert_steps_add_up(corpus)


def test_texts_with_a_separator_are_the_same_task(tmp_path: Path) -> None:
    rows = [(user, interests(user) or None) for user in USERS]
    lists = corpus_of(tmp_path / "a", write_parquet(tmp_path / "a.parquet", rows, NAMES, interests=TEXTS))
    texts = [(user, " | ".join([*(labels or []), *(labels or [])[:1]])) for user, labels in rows]  # one stands twice
    from_text = corpus_of(tmp_path / "b", write_csv(tmp_path / "b.csv", texts, NAMES))
    assert labels_of(from_text) == labels_of(lists)
    fingerprints = [corpus.manifest["tasks"][0]["fingerprint"] for corpus in (lists, from_text)]
    assert fingerprints[0] == fingerprints[1]
    written = [(user, text.replace("|", ";")) for user, text in texts]
    table = write_csv(tmp_path / "c.csv", written, NAMES)
    semicolons = corpus_of(tmp_path / "c", table, labels={"label_separator": ";", "separator": ","})
    assert labels_of(semicolons) == labels_of(lists)


def test_integers_are_labels_and_what_is_missing_in_a_list_is_none(tmp_path: Path) -> None:
    rows: list[Any] = [(user, [int(user) % 2, None, *([7] if int(user) % 3 else [])]) for user in USERS]
    rows[4] = ("4", None)
    table = write_parquet(tmp_path / "a.parquet", rows, NAMES, interests=pa.list_(pa.int32()))
    corpus = corpus_of(tmp_path, table, labels={"missing": ["7"]})  # marks are of texts
    with_labels = labels_of(corpus)
    assert set(USERS) - set(with_labels) == {"4"}
    assert (with_labels["3"], with_labels["5"]) == (["1"], ["7", "1"])
    assert corpus.task("interests").class_names == ("7", "1", "0")


def test_who_has_no_value_is_left_out_and_told(tmp_path: Path) -> None:
    rows = [(user, {"3": "NA", "4": ""}.get(user, "a|b" if int(user) % 2 else "c")) for user in USERS]
    corpus = corpus_of(tmp_path, write_csv(tmp_path / "a.csv", rows, NAMES))
    assert set(USERS) - set(labels_of(corpus)) == {"3", "4"}
    step = corpus.manifest["tasks"][0]["steps"][1]
    assert (step["dropped"], step["why"]) == (2, "'interests' is empty or 'NA'")


def test_rare_labels_are_left_out_and_their_users_are_not(tmp_path: Path) -> None:
    rows = [(user, [*interests(user), *(["rare"] if user in ("0", "6") else [])]) for user in USERS]
    table = write_parquet(tmp_path / "a.parquet", rows, NAMES, interests=TEXTS)
    corpus = corpus_of(tmp_path, table, min_label_users=3)
    assert labels_of(corpus) == {user: interests(user) for user in USERS}
    assert "left out: 1 rarer, such as 'rare'" in corpus.manifest["tasks"][0]["steps"][-1]["what"]
    assert_steps_add_up(corpus)
    with pytest.raises(TaskError, match="no label of task 'interests' has 25 users \\('b', the most frequent, has 16"):
        corpus_of(tmp_path / "b", table, min_label_users=25)


def test_labels_of_which_nothing_can_be_learned_are_refused(tmp_path: Path) -> None:
    rows = [(user, interests(user)) for user in USERS]
    table = write_parquet(tmp_path / "a.parquet", rows, NAMES, interests=TEXTS)
    test = corpus_of(tmp_path, table).task("interests").part("test").user_ids.to_pylist()
    hidden = [(user, [*labels, *(["new"] if user == test[0] else [])]) for user, labels in rows]
    with pytest.raises(TaskError, match="'new' of task 'interests' occurs only among valid or test") as caught:
        corpus_of(tmp_path / "b", write_parquet(tmp_path / "b.parquet", hidden, NAMES, interests=TEXTS))
    assert "min_label_users: 2 or more" in caught.value.remedy
    common = [(user, [*labels, "all"]) for user, labels in rows]
    with pytest.raises(TaskError, match="all train users of task 'interests' have the label 'all'"):
        corpus_of(tmp_path / "c", write_parquet(tmp_path / "c.parquet", common, NAMES, interests=TEXTS))
    assert not (tmp_path / "c" / "out").exists()


@pytest.mark.parametrize("type_", [pa.int64(), pa.list_(pa.float64())])
def test_a_column_that_holds_no_labels_is_refused(tmp_path: Path, type_: pa.DataType) -> None:
    rows = [(user, [1] if pa.types.is_list(type_) else 1) for user in USERS]
    with pytest.raises(DataError, match="labels of a user are a list of texts or integers, or a text"):
        corpus_of(tmp_path, write_parquet(tmp_path / "a.parquet", rows, NAMES, interests=type_))


def test_a_text_without_the_separator_is_refused(tmp_path: Path) -> None:
    rows = [(user, "a,b" if int(user) % 2 else "b") for user in USERS]
    with pytest.raises(
        TaskError, match=r"no user of task 'interests' has two labels: '\|' stands in no value"
    ) as caught:
        corpus_of(tmp_path, write_parquet(tmp_path / "a.parquet", rows, NAMES))
    assert "label_separator" in caught.value.remedy


@pytest.mark.only_duckdb("DataFrames are written to files for both")
def test_frames_and_keywords(tmp_path: Path) -> None:
    events = pa.table(dict(zip(("user_id", "item_id", "timestamp"), zip(*LOG, strict=True), strict=True)))
    users = pa.table({"user_id": list(map(int, USERS)), "interests": [interests(user) for user in USERS]})
    settings = {"source": {"min_item_events": 1}, "split": {"train": 0.5, "valid": 0.25, "test": 0.25}}
    for name, frame in (("arrow", users), ("pandas", users.to_pandas())):
        corpus = prepare(events, tmp_path / name, users=frame, multilabel=["interests"], **settings)
        assert labels_of(corpus) == {user: interests(user) for user in USERS}
    named = prepare(events, tmp_path / "b", users=users, multilabel={"likes": "interests"}, **settings)
    assert named.task_names == ["likes"]
    with pytest.raises(ConfigError, match="multilabel names columns of users, and there are none"):
        prepare(events, tmp_path / "c", multilabel=["interests"], **settings)


def test_the_part_on_disk_has_a_column_of_lists(tmp_path: Path) -> None:
    rows = [(user, interests(user)) for user in USERS]
    corpus = corpus_of(tmp_path, write_parquet(tmp_path / "a.parquet", rows, NAMES, interests=TEXTS))
    schema = pq.read_schema(corpus.path / "tasks" / "interests" / "train.parquet")
    assert schema.field("labels").type == pa.list_(pa.int32())
