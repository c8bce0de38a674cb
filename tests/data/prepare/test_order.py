"""Nothing but the events decides what comes out: not threads, files, formats, order of rows or what fits at once."""

from __future__ import annotations

import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from data.prepare.logs import COLUMNS, items_of, parts_of, prepare_log, sequences_of, write_csv, write_parquet
from data.prepare.logs import settings as build
from data.prepare.oracle import tie_of
from pairwise import FULL
from peterrec import storage
from peterrec.data.hashing import id_hash
from peterrec.data.prepare import duckdb_engine, prepare
from peterrec.data.prepare import event_sequences as sequences_module
from peterrec.data.prepare import tasks as tasks_module
from peterrec.data.prepare.event_sequences import SequenceFile
from peterrec.data.sequences import Sequences
from peterrec.data.shorten import shorten
from peterrec.data.ties import tie_keys
from whole_histories import read_event_histories

ALL = (*COLUMNS, "n", "where")
DICE = random.Random(7)
LOG = [
    (f"u{DICE.randrange(40)}", f"i{DICE.randrange(30)}", DICE.randrange(12), DICE.randrange(2), DICE.choice("aaaab"))
    for _ in range(900)
]
SOURCE = {"domains": ["a"], "min_item_events": 22, "rare_items": "unk", "repeats": "drop", "max_history": 9}
TASKS = [
    {"name": "rank", "kind": "ranking", "domains": ["b"], "history": "before-first-target", "min_item_events": 1},
    {"name": "all", "kind": "ranking", "domains": ["b"], "after": "6", "min_item_events": 2},
]
EVENTS = {"order": "n", "domain": "where"}


def write(folder: Path, rows: list[Any], cuts: list[int], forms: list[str], dice: random.Random) -> Path:
    """Cut a log into files, each of its own form and with its columns in another order."""
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
        names = dice.sample(ALL, len(ALL))
        part = [[row[ALL.index(name)] for name in names] for row in rows[start:end]]
        path = folder / f"{dice.randrange(10**6)}-{number}.{forms[number % len(forms)]}"
        if path.suffix == ".parquet":
            types = {name: pa.string() if name in ("user_id", "item_id", "where") else pa.int32() for name in names}
            write_parquet(path, part, names, **types)
        else:
            write_csv(path, part, names, separator=dice.choice([",", "\t", ";", "|", "::"]))
    return folder


def config(path: Path, **values: Any) -> Any:
    return build(path, events=EVENTS, source=SOURCE, tasks=TASKS, **values)


@pytest.fixture(scope="module")
def fingerprint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("log")
    path = write(folder / "in", LOG, [], ["parquet"], random.Random(0))
    corpus = prepare(config(path), folder / "out")
    assert [sum(task["users"].values()) > 20 for task in corpus.manifest["tasks"]] == [True, True]
    assert (np.asarray(corpus.sequences.items) == 3).sum() > 20  # [UNK]
    digest: str = corpus.manifest["fingerprint"]
    return digest


@pytest.mark.slow
@given(
    seed=st.integers(0, 999),
    threads=st.sampled_from([1, 2, 3]),
    cuts=st.lists(st.integers(0, len(LOG)), max_size=3),
    forms=st.lists(st.sampled_from(["csv", "parquet", "csv.gz"]), min_size=1, max_size=3),
    at_once=st.sampled_from([30, 200, 10**9]),
)
@settings(max_examples=10 if FULL else 2, phases=[Phase.explicit, Phase.generate])  # a seed has no simpler one
def test_the_same_events_are_the_same_corpus(
    fingerprint: str, seed: int, threads: int, cuts: list[int], forms: list[str], at_once: int
) -> None:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences_module, "EVENTS_AT_ONCE", at_once)
        patch.setattr(duckdb_engine, "ROWS_AT_ONCE", at_once % 997)
        patch.setattr(storage, "_fsync", lambda path: None)
        path = write(Path(name) / "in", dice.sample(LOG, len(LOG)), sorted(cuts), forms, dice)
        corpus = prepare(config(path, threads=threads), Path(name) / "out")
        assert corpus.manifest["fingerprint"] == fingerprint


@pytest.mark.slow
def test_users_beyond_the_first_batch_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", [(f"u{n}", "ab"[n % 2], n) for n in range(5000)])
    at_once = prepare_log(path, tmp_path / "whole")
    monkeypatch.setattr(duckdb_engine, "ROWS_AT_ONCE", 700)
    monkeypatch.setattr(tasks_module, "USERS_AT_ONCE", 300)
    monkeypatch.setattr(sequences_module, "EVENTS_AT_ONCE", 1100)
    cut = prepare_log(path, tmp_path / "cut")
    assert cut.manifest["users"] == 5000
    assert cut.manifest["fingerprint"] == at_once.manifest["fingerprint"]
    assert len(list((cut.path / "sequences").iterdir())) == 5
    assert sequences_of(cut) == sequences_of(at_once)


TIES = [("u", "b", 1, 2), ("u", "a", 1, 3), ("u", "c", 1, 1), ("u", "d", 0, 9), ("u", "a", 2, 0), ("u", "É", 1, 1)]


def by_hash(user: str, seconds: float, items: str) -> str:
    return "".join(sorted(items, key=lambda item: tie_of(user, seconds, item)))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("order", [None, "n"])
def test_ties_in_time_are_broken_by_order_and_then_by_a_hash(tmp_path: Path, order: str | None) -> None:
    wanted = "d" + (by_hash("u", 1, "abcÉ") if order is None else by_hash("u", 1, "cÉ") + "ba") + "a"
    other_users = [(f"u{n}", item, 1, 1) for n in range(8) for item in "abcdÉ"]
    path = write_parquet(tmp_path / "a.parquet", [*TIES, *other_users], (*COLUMNS, "n"))
    corpus = prepare_log(path, tmp_path / "out", events={"order": order})
    assert "".join(items_of(corpus)["u"]) == wanted
    users, items, _ = read_event_histories(build(path, events={"order": order}).events)
    assert "".join(items[users.index("u")]) == wanted


@pytest.mark.slow
def test_integers_are_ordered_as_numbers_and_order_may_be_of_any_kind(tmp_path: Path) -> None:
    rows = [("u", item, 1, order) for item, order in [(10, "b"), (9, "a"), (-1, "b"), (100, "B")]]
    paths = [write_csv(tmp_path / "a.csv", rows, (*COLUMNS, "n"))]
    paths.append(write_parquet(tmp_path / "a.parquet", rows, (*COLUMNS, "n")))
    for path in paths:
        assert read_event_histories(build(path).events)[1] == [sorted([-1, 9, 10, 100], key=partial(tie_of, "u", 1))]
        ordered = [100, 9, *sorted([-1, 10], key=partial(tie_of, "u", 1))]
        assert read_event_histories(build(path, events={"order": "n"}).events)[1] == [ordered]


@pytest.mark.slow
def test_lines_break_ties_where_that_is_said(tmp_path: Path) -> None:
    """Over several files of two forms, in the order in which they are named, and in any number of threads."""
    rows = [(f"u{n % 7}", f"i{n * 7919 % 1000}", n // 500) for n in range(9000)]
    cuts = [0, 2500, 2600, 7000, 9000]
    writers = [(write_csv, ".csv"), (write_parquet, ".parquet")] * 2
    paths = [
        write_form(tmp_path / f"{9 - number}{ending}", rows[cuts[number] : cuts[number + 1]])
        for number, (write_form, ending) in enumerate(writers)
    ]
    wanted = {f"u{n}": [item for user, item, _ in rows if user == f"u{n}"] for n in range(7)}
    source = {"min_item_events": 1, "max_history": 9000}
    corpus = prepare_log(paths, tmp_path / "out", events={"ties": "lines"}, source=source, threads=4)
    assert items_of(corpus) == wanted
    assert corpus.manifest["ties"] == {"events": 0, "fraction": 0.0, "ordered_by": "lines"}
    users, items, _ = read_event_histories(build(paths, events={"ties": "lines"}).events)
    assert dict(zip(users, items, strict=True)) == wanted


def test_the_account_says_how_many_events_are_tied(tmp_path: Path) -> None:
    rows = [("u", "a", 1), ("u", "b", 1), ("u", "c", 1), ("u", "d", 2), ("v", "a", 1), ("v", "b", 2)]
    lines: list[str] = []
    corpus = prepare(build(write_csv(tmp_path / "a.csv", rows)), tmp_path / "out", report=lines.append)
    assert corpus.manifest["ties"] == {"events": 3, "fraction": 0.5, "ordered_by": "hash"}
    (line,) = [line for line in lines if "hash" in line]
    assert line.startswith("3 of these events (50.0 %) share their user and time with another")
    assert "--order" in line
    assert "--ties lines" in line


def test_no_rule_of_ties_can_be_learned_from_items() -> None:
    """Each of two items comes first in half of the ties, whoever the user and whatever the time."""
    users, times = np.meshgrid(np.arange(100), np.arange(100))
    hashes, seconds = id_hash(users.ravel().tolist()), times.ravel().astype(float)
    first, second = (tie_keys(hashes, seconds, np.full(10_000, id_hash([item])[0])) for item in ("a", "b"))
    before = (first < second).reshape(100, 100)
    assert abs(before.mean() - 0.5) < 0.03
    assert before.mean(axis=0).min() > 0.25  # of any user
    assert before.mean(axis=1).min() > 0.25  # at any time


def test_an_unknown_item_keeps_its_place_among_ties(tmp_path: Path) -> None:
    """As `read_event_histories` has it, whose histories are what a model is asked about."""
    wanted = by_hash("u", 1, "abc").replace("b", "?")
    rows = [("u", item, 1) for item in "abc"] + [(f"u{n}", item, 1) for n in range(5) for item in "ac"]
    path = write_parquet(tmp_path / "a.parquet", rows)
    corpus = prepare_log(path, tmp_path / "out", source={"min_item_events": 2, "rare_items": "unk"})
    assert [item if item != "[UNK]" else "?" for item in items_of(corpus)["u"]] == list(wanted)


@pytest.mark.slow
def test_two_unknown_items_in_a_row_are_no_repeat(tmp_path: Path) -> None:
    rows = [("u", item, time) for time, item in enumerate("aaxxyyxa")] + [(f"u{n}", "a", 0) for n in range(5)]
    path = write_parquet(tmp_path / "a.parquet", rows)
    rules = {"min_item_events": 5, "rare_items": "unk", "repeats": "drop"}
    assert items_of(prepare_log(path, tmp_path / "out", source=rules))["u"] == ["a", "[UNK]", "[UNK]", "[UNK]", "a"]
    rules |= {"rare_items": "drop"}  # then what is between two events goes first
    assert items_of(prepare_log(path, tmp_path / "out", source=rules))["u"] == ["a"]
    assert (
        items_of(prepare_log(path, tmp_path / "out", source=rules | {"repeats": "keep", "max_history": 2}))["u"]
        == ["a"] * 2
    )


@pytest.mark.slow
def test_the_catalogue_is_in_order_of_frequency_and_then_of_id(tmp_path: Path) -> None:
    counts = {"b": 4, "a": 3, "É": 3, "B": 3, "z": 5, "rare": 2}
    rows = [(f"u{n}", item, n) for item, count in counts.items() for n in range(count)]
    corpus = prepare_log(write_parquet(tmp_path / "a.parquet", rows), tmp_path / "out", source={"min_item_events": 3})
    assert corpus.catalogue.ids.to_pylist() == ["z", "b", "B", "a", "É"]
    assert corpus.catalogue.counts.tolist() == [5, 4, 3, 3, 3]
    numbers = [(f"u{n}", item, n) for item in (10, 9, -1) for n in range(3)]
    corpus = prepare_log(write_csv(tmp_path / "b.csv", numbers), tmp_path / "out")
    assert corpus.catalogue.ids.to_pylist() == [-1, 9, 10]


@pytest.mark.slow
def test_parts_are_of_users_alone_and_the_same_for_all_tasks(tmp_path: Path) -> None:
    rows = [(f"u{n}", item, time) for n in range(60) for time, item in enumerate("abcde" if n % 3 else "bd")]
    path = write_parquet(tmp_path / "a.parquet", rows)
    groups = write_csv(tmp_path / "l.csv", [(f"u{n}", n % 2) for n in range(60)], ("user_id", "group"))
    tasks: list[dict[str, Any]] = [
        {"name": "group", "kind": "classification", "labels": {"path": str(groups), "label": "group"}},
        {"name": "active", "kind": "classification", "activity": {"after": "3"}},
        {"name": "next", "kind": "ranking", "after": "3", "min_item_events": 1},
    ]
    source = {"before": "3", "min_item_events": 1}
    corpus = prepare_log(path, tmp_path / "out", source=source, tasks=tasks)
    users_of_parts: dict[str, set[str]] = {}
    for name in corpus.task_names:
        for part, users in parts_of(corpus, name).items():
            assert len(users) > 5
            users_of_parts.setdefault(part, set()).update(users)
    assert sum(len(users) for users in users_of_parts.values()) == len(set.union(*users_of_parts.values())) == 60
    fewer = prepare_log(path, tmp_path / "fewer", source=source | {"before": "1", "repeats": "drop"}, tasks=tasks[:1])
    assert {part: set(users) for part, users in parts_of(fewer, "group").items()} == users_of_parts
    salted = prepare_log(path, tmp_path / "salted", source=source, tasks=tasks[:1], split={"salt": "another"})
    assert {part: set(users) for part, users in parts_of(salted, "group").items()} != users_of_parts


def test_pieces_are_whole_users_and_as_large_as_may_be() -> None:
    events = np.array([3, 1, 1, 9, 2, 2, 1])
    for at_once, wanted in {
        4: [(0, 1), (2, 2), (3, 3), (4, 5), (6, 6)],
        1: [(n, n) for n in range(7)],
        99: [(0, 6)],
    }.items():
        parts = list(sequences_module._parts(events, at_once))
        assert [(part.first, part.last) for part in parts] == wanted
        assert [part.rows for part in parts] == [events[first : last + 1].sum() for first, last in wanted]


def test_the_order_of_cutting_is_until_repeats_and_then_length() -> None:
    rules = build(Path("x"), source={"repeats": "drop", "max_history": 2}).source
    rows = Sequences.from_rows([[4, 4, 5, 5, 6], [-1, -2, -2, 4], []])
    assert [row.tolist() for row in map(shorten(rows, rules).__getitem__, range(3))] == [[5, 6], [3, 4], []]
    early = shorten(rows, rules, np.array([3, 3, 0]))
    assert [row.tolist() for row in map(early.__getitem__, range(3))] == [[4, 5], [3, 3], []]
    users = shorten(Sequences.from_rows([[4, 5], [5, 5], [5]]), rules)  # the same item of the next user is no repeat
    assert [users[row].tolist() for row in range(3)] == [[4, 5], [5], [5]]


def test_a_sequence_file_is_what_numpy_reads(tmp_path: Path) -> None:
    with SequenceFile(tmp_path) as file:
        for rows in ([[4, 5], []], [], [[6]]):
            file.append(Sequences.from_rows(rows))
        sequences = file.close()
    assert isinstance(sequences.items, np.memmap)
    assert np.load(tmp_path / "items.npy").tolist() == [4, 5, 6]
    assert np.load(tmp_path / "offsets.npy").tolist() == sequences.offsets.tolist() == [0, 2, 2, 3]
    with SequenceFile(tmp_path / "empty") as file:
        assert len(file.close()) == 0
