"""What `build_benchmark` writes: the same for everybody, and nothing of the test users where it may be learned from."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peterrec.benchmark.build import build_benchmark
from peterrec.benchmark.folder import Benchmark, fingerprint
from peterrec.benchmark.protocol import FIRST_EVENTS, NEW_USERS, SPLIT, history_file
from peterrec.config import ClassificationTaskConfig, EventsConfig, LabelsConfig, PrepareConfig
from peterrec.data.corpus import PARTS
from peterrec.data.hashing import id_hash
from peterrec.data.prepare import prepare
from peterrec.data.splits import assign_parts
from peterrec.errors import ArtifactError, ConfigError, DataError, FormatVersionError, PeterRecError

from .conftest import LABELS, Built, write_data

LEARNABLE = ["events.parquet", "items.parquet", "labels-10.parquet", "labels-100.parquet", "valid_targets.parquet"]
LEARNABLE += [history_file(part, first) for part in ("train", "valid") for first in FIRST_EVENTS]


def part_of(built: Built) -> dict[str, str]:
    """The part of every user of the data, by the split that `prepare` has."""
    users = pq.read_table(built.data / "users.parquet")["user_id"].to_pylist()
    return {user: PARTS[part] for user, part in zip(users, assign_parts(id_hash(users), SPLIT), strict=True)}


def histories(built: Built, name: str) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for row in built.rows(name):
        assert row["position"] == len(out.setdefault(row["user_id"], []))
        out[row["user_id"]].append(row["item_id"])
    return out


def test_row_order_files_and_machine_change_no_byte(built: Built, tmp_path: Path) -> None:
    data = write_data(tmp_path / "made-up")
    events = pq.read_table(data / "events.parquet")
    order = pa.array(np.random.default_rng(0).permutation(len(events)))
    pq.write_table(events.take(order), data / "events.parquet", row_group_size=100)
    pq.write_table(pq.read_table(data / "users.parquet").slice(0)[::-1], data / "users.parquet")
    second_build = build_benchmark(tmp_path / "out", data, labels=LABELS)
    files = sorted(path.relative_to(second_build) for path in second_build.rglob("*") if path.is_file())
    assert len(files) == 17
    for file in files:
        assert (second_build / file).read_bytes() == (built.folder / file).read_bytes(), file


def test_nothing_of_test_users_may_be_learned_from(built: Built) -> None:
    parts = part_of(built)
    test_users = {user for user, part in parts.items() if part == "test"}
    assert len(test_users) > 20
    listed = {name for name in built.opened.description["files"]}
    assert listed - {*LEARNABLE} == {"test_answers.parquet", *(history_file("test", n) for n in FIRST_EVENTS)}
    for name in LEARNABLE:
        text = {value for row in built.rows(name) for value in row.values()}
        assert not text & test_users, name
    assert {parts[user] for user in built.users("events.parquet")} == {"train"}
    counts = Counter(row["item_id"] for row in built.rows("events.parquet"))
    assert {row["item_id"]: row["train_events"] for row in built.rows("items.parquet")} == counts
    assert min(counts.values()) >= 5


def test_users_are_split_as_prepare_splits_them(built: Built) -> None:
    parts = part_of(built)
    for part in PARTS:
        users = {user for user, name in parts.items() if name == part}
        assert all(built.users(history_file(part, first)) == users for first in FIRST_EVENTS)
        assert built.opened.description["users"][part] == len(users)
    assert all(row["part"] == parts[row["user_id"]] for row in built.rows("labels-10.parquet"))
    assert built.users("test_answers.parquet") == {user for user, name in parts.items() if name == "test"}


def test_histories_are_what_prepare_cuts(built: Built, tmp_path: Path) -> None:
    labels = LabelsConfig(path=str(built.data / "users.parquet"), label="cluster")
    tasks = tuple(
        ClassificationTaskConfig(name=f"first-{first}", labels=labels, first_events=first) for first in FIRST_EVENTS
    )
    events = EventsConfig(paths=(str(built.data / "events.parquet"),))
    corpus = prepare(PrepareConfig(events=events, tasks=tasks, split=SPLIT, new_users=NEW_USERS), tmp_path / "corpus")
    for first in FIRST_EVENTS:
        for part in PARTS:
            users = corpus.task(f"first-{first}").part(part)
            expected = {
                user: corpus.catalogue.decode(users.sequences[row])
                for row, user in enumerate(users.user_ids.to_pylist())
            }
            assert histories(built, history_file(part, first)) == expected


def test_events_are_those_of_the_data_with_their_times(built: Built) -> None:
    log = Counter(
        (row["user_id"], row["item_id"], row["timestamp"]) for row in built.rows(built.data / "events.parquet")
    )
    rows = built.rows("events.parquet")
    assert not Counter((row["user_id"], row["item_id"], row["timestamp"]) for row in rows) - log
    for before, row in pairwise(rows):
        if row["position"]:
            assert (before["user_id"], before["position"] + 1) == (row["user_id"], row["position"])
            assert before["timestamp"] <= row["timestamp"]


def test_targets_come_next_and_are_no_items_of_the_history(built: Built) -> None:
    items = {row["item_id"] for row in built.rows("items.parquet")}
    log = sorted(
        (row["timestamp"], row["user_id"], row["item_id"]) for row in built.rows(built.data / "events.parquet")
    )
    sequences: dict[str, list[str]] = {}
    for _, user, item in log:
        if item in items:
            sequences.setdefault(user, []).append(item)
    repeats = 0
    for name in ("valid_targets.parquet", "test_answers.parquet"):
        for row in built.rows(name):
            for first in FIRST_EVENTS:
                history, following = sequences[row["user_id"]][:first], sequences[row["user_id"]][first : first + 1]
                repeats += bool(following) and following[0] in history
                expected = following[0] if following and following[0] not in history else None
                assert row[f"next_item_first_{first}"] == expected
    assert repeats > 0


def test_labels_are_the_tables_and_a_share_of_each_class(built: Built) -> None:
    parts = part_of(built)
    truth = {row["user_id"]: row for row in built.rows(built.data / "users.parquet")}
    full, share = built.rows("labels-100.parquet"), built.rows("labels-10.parquet")
    for rows in (full, share, built.rows("test_answers.parquet")):
        assert all(row[label] in (None, truth[row["user_id"]][label]) for row in rows for label in LABELS)
    for label in LABELS:
        valid = {user for user, part in parts.items() if part == "valid" and truth[user][label] is not None}
        assert {row["user_id"] for row in share if row["part"] == "valid" and row[label]} == valid
        counts = Counter(truth[user][label] for user, part in parts.items() if part == "train")
        counts.pop(None, None)
        assert Counter(row[label] for row in full if row["part"] == "train" and row[label]) == counts
        tenth = {name: max(1, round(0.1 * count)) for name, count in counts.items()}
        assert Counter(row[label] for row in share if row["part"] == "train" and row[label]) == tenth


def test_the_description_names_tasks_files_and_fingerprints(built: Built) -> None:
    description, text = built.opened.description, (built.folder / "README.md").read_text()
    assert json.loads((built.folder / "benchmark.json").read_text()) == description
    assert description["name"] == "made-up"
    names = [f"{label}-labels-{percent}-first-{n}" for label in LABELS for percent in (10, 100) for n in FIRST_EVENTS]
    assert list(built.opened.tasks) == [*names, *(f"next-item-first-{n}" for n in FIRST_EVENTS)]
    assert built.opened.task("half-labels-10-first-5").classes == ("a", "b")
    for name, file in description["files"].items():
        table = pq.read_table(built.folder / name)
        assert (file["rows"], file["fingerprint"]) == (len(table), fingerprint(table))
    for word in [*built.opened.tasks, *description["files"], *description["metrics"], description["fingerprint"]]:
        assert word in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) < 160


def test_a_fingerprint_is_of_values_whatever_their_type() -> None:
    table = pa.table({"a": pa.array([1, 2], pa.int32()), "b": ["x", None]})
    assert fingerprint(table) == fingerprint(table.set_column(0, "a", pa.array(["1", "2"])))
    assert fingerprint(table) != fingerprint(table.set_column(1, "b", pa.array(["x", ""])))
    assert fingerprint(table) != fingerprint(table.rename_columns(["a", "c"]))
    assert fingerprint(table) != fingerprint(table.take([1, 0]))


def test_a_file_that_was_changed_is_not_read(built: Built, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(built.folder, out)
    table = pq.read_table(out / "test_answers.parquet")
    pq.write_table(table.slice(1), out / "test_answers.parquet")
    opened = Benchmark.open(out)
    with pytest.raises(ArtifactError, match=r"test_answers\.parquet: was changed since it was built"):
        opened.answers(opened.task("half-labels-10-first-5"))
    (out / "items.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"items\.parquet: cannot be read"):
        opened.table("items.parquet")


def test_another_version_of_the_protocol_is_refused(built: Built, tmp_path: Path) -> None:
    description = json.loads((built.folder / "benchmark.json").read_text())
    (tmp_path / "benchmark.json").write_text(json.dumps(description | {"version": 2}))
    with pytest.raises(FormatVersionError, match="has version 2 of the benchmark; this release judges version 1"):
        Benchmark.open(tmp_path)
    (tmp_path / "benchmark.json").write_text(json.dumps(description | {"tasks": [{"name": "x"}]}))
    with pytest.raises(ArtifactError, match=r"benchmark\.json: "):
        Benchmark.open(tmp_path)


def test_what_may_not_be_replaced_stays(built: Built, tmp_path: Path) -> None:
    def build(out: Path, **options: object) -> None:
        build_benchmark(out, built.data, **({"labels": LABELS} | options))  # type: ignore[arg-type]

    before = (built.folder / "benchmark.json").stat().st_mtime_ns
    refusals: list[tuple[Path, dict[str, object], type[PeterRecError], str]] = [
        (built.folder, {}, ArtifactError, "already exists"),
        (built.data, {"overwrite": True}, ArtifactError, "holds the data"),
        (built.data.parent, {"overwrite": True}, ArtifactError, "holds the data"),
        (tmp_path / "new", {"labels": []}, ConfigError, "name one or more columns"),
        (tmp_path / "new", {"labels": ["half", "half"]}, ConfigError, "each once"),
        (tmp_path / "new", {"labels": ["part"]}, ConfigError, "none of user_id, part"),
        (tmp_path / "new", {"labels": ["height"]}, DataError, "height"),
    ]
    for out, options, error, message in refusals:
        with pytest.raises(error, match=message):
            build(out, **options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(ArtifactError, match="is not a benchmark"):
        build(tmp_path / "mine", overwrite=True)
    assert not (tmp_path / "new").exists()
    assert (built.folder / "benchmark.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.shared
def test_movielens_gives_the_rows_that_the_docs_name(shared: Path, tmp_path: Path) -> None:
    if not (shared / "data" / "ml-1m").is_dir():
        pytest.skip("MovieLens-1M is not among the shared data")
    opened = Benchmark.open(build_benchmark(tmp_path / "out", shared / "data" / "ml-1m"))
    assert opened.description["users"] == {"train": 3911, "valid": 613, "test": 1516}
    assert opened.description["files"]["events.parquet"]["rows"] == 654_087
    assert opened.description["fingerprint"] == "5d6f84bbdff2ff05261ea759a12500b2dc5c6d4c33bede4939008604b589f029"
