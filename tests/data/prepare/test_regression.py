"""Tasks with numbers: as the table has them, and whoever has none is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.prepare.logs import assert_steps_add_up, prepare_log, write_csv, write_parquet
from peterrec.data.corpus import Corpus
from peterrec.data.prepare import prepare
from peterrec.errors import ConfigError, TaskError

USERS = [str(n) for n in range(30)]
LOG = [(int(user), item, time) for user in USERS for time, item in enumerate("abc")]
NAMES = ("user_id", "spend")


def corpus_of(folder: Path, table: Path, **values: Any) -> Corpus:
    labels = {"path": str(table), "label": "spend"} | values.pop("labels", {})
    task = {"kind": "regression", "name": "spend", "labels": labels} | values
    return prepare_log(write_parquet(folder / "log.parquet", LOG), folder / "out", tasks=[task])


def numbers_of(corpus: Corpus) -> dict[str, float]:
    task = corpus.task("spend")
    parts = [task.part(part) for part in ("train", "valid", "test")]
    return {
        user: number
        for part in parts
        if part.numbers is not None
        for user, number in zip(part.user_ids.to_pylist(), part.numbers.tolist(), strict=True)
    }


def test_numbers_are_those_of_the_table(tmp_path: Path) -> None:
    spend = {user: (0.1 + int(user)) * 10.0 ** (int(user) - 12) for user in USERS}
    table = write_csv(tmp_path / "a.csv", [(user, repr(number)) for user, number in spend.items()], NAMES)
    corpus = corpus_of(tmp_path, table)
    assert numbers_of(corpus) == spend  # to the last bit
    floats = write_parquet(tmp_path / "b.parquet", list(spend.items()), NAMES, spend=pa.float64())
    floating = corpus_of(tmp_path / "again", floats)
    assert numbers_of(floating) == spend
    assert floating.manifest["tasks"][0]["fingerprint"] == corpus.manifest["tasks"][0]["fingerprint"]
    single = write_parquet(tmp_path / "c.parquet", list(spend.items()), NAMES, spend=pa.float32())
    assert numbers_of(corpus_of(tmp_path / "single", single)) == {u: float(np.float32(x)) for u, x in spend.items()}


def test_the_manifest_describes_them(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", [(user, int(user) * 2) for user in USERS], NAMES)
    entry = corpus_of(tmp_path, table).manifest["tasks"][0]
    assert entry["kind"] == "regression"
    expected = {"min": 0.0, "median": 29.0, "mean": 29.0, "max": 58.0, "deviation": np.std(np.arange(30) * 2)}
    assert entry["numbers"] == pytest.approx(expected)


def test_who_has_no_number_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [(user, {"3": "NA", "4": "", "5": "unknown"}.get(user, int(user))) for user in USERS]
    corpus = corpus_of(tmp_path, write_csv(tmp_path / "a.csv", rows, NAMES), labels={"missing": ["NA", "unknown"]})
    assert set(USERS) - set(numbers_of(corpus)) == {"3", "4", "5"}
    assert_steps_add_up(corpus)
    step = corpus.manifest["tasks"][0]["steps"][1]
    assert (step["dropped"], step["why"]) == (3, "'spend' is empty or 'NA' or 'unknown'")
    gaps = [(user, None if user == "3" else float("nan") if user == "4" else int(user) / 2) for user in USERS]
    floats = corpus_of(tmp_path / "b", write_parquet(tmp_path / "b.parquet", gaps, NAMES, spend=pa.float64()))
    assert set(USERS) - set(numbers_of(floats)) == {"3", "4"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [*((user, int(user)) for user in USERS[1:]), ("0", "much")],
            "the value 'much' of 'spend' is no finite number",
        ),
        ([*((user, int(user)) for user in USERS[1:]), ("0", "inf")], "the value 'inf' of 'spend' is no finite number"),
        ([(user, 7) for user in USERS], "all users of task 'spend' have the number 7"),
    ],
)
def test_what_is_no_number_or_always_the_same_is_refused(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        corpus_of(tmp_path, write_csv(tmp_path / "a.csv", rows, NAMES))
    assert not (tmp_path / "out").exists()


def test_an_infinite_float_is_refused(tmp_path: Path) -> None:
    rows = [(user, float("-inf") if user == "9" else 0.5 * int(user)) for user in USERS]
    with pytest.raises(TaskError, match="is no finite number"):
        corpus_of(tmp_path, write_parquet(tmp_path / "a.parquet", rows, NAMES, spend=pa.float64()))


def test_numbers_that_only_test_users_tell_apart_are_refused(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", [(user, int(user)) for user in USERS], NAMES)
    train = corpus_of(tmp_path, table).task("spend").part("train").user_ids.to_pylist()
    rows = [(user, 5 if user in train else int(user)) for user in USERS]
    with pytest.raises(TaskError, match="all train users of task 'spend' have the number 5"):
        corpus_of(tmp_path / "b", write_csv(tmp_path / "b.csv", rows, NAMES))


@pytest.mark.only_duckdb("DataFrames are written to files for both")
def test_frames_and_keywords(tmp_path: Path) -> None:
    events = pa.table(dict(zip(("user_id", "item_id", "timestamp"), zip(*LOG, strict=True), strict=True)))
    users = pa.table({"user_id": list(map(int, USERS)), "spend": [int(user) / 4 for user in USERS]})
    settings = {"source": {"min_item_events": 1}, "split": {"train": 0.5, "valid": 0.25, "test": 0.25}}
    corpus = prepare(events, tmp_path / "a", users=users, regress=["spend"], **settings)
    assert numbers_of(corpus) == {user: int(user) / 4 for user in USERS}
    named = prepare(events, tmp_path / "b", users=users, regress={"value": "spend"}, **settings)
    assert named.task_names == ["value"]
    with pytest.raises(ConfigError, match="regress names columns of users, and there are none"):
        prepare(events, tmp_path / "c", regress=["spend"], **settings)
    assert not (tmp_path / "c").exists()


def test_a_column_of_many_numbers_as_classes_is_refused_with_the_other_way(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", [(user, 18 + int(user)) for user in USERS], NAMES)
    with pytest.raises(TaskError, match="occurs only among valid or test") as caught:
        corpus_of(tmp_path, table, kind="classification")
    assert "a task of kind regression (--regress, regress=)" in caught.value.remedy
    names = write_csv(tmp_path / "b.csv", [(user, f"n{user}") for user in USERS], NAMES)
    with pytest.raises(TaskError) as caught:
        corpus_of(tmp_path / "b", names, kind="classification")
    assert "regress" not in caught.value.remedy


def test_the_part_on_disk_has_a_column_of_doubles(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", [(user, int(user)) for user in USERS], NAMES)
    schema = pq.read_schema(corpus_of(tmp_path, table).path / "tasks" / "spend" / "train.parquet")
    assert schema.field("number").type == pa.float64()
