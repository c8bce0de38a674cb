"""The whole of `prepare` and `read_event_histories` against plain Python, on random logs in random forms."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from data.prepare.logs import (
    assert_steps_add_up,
    bound,
    parts_of,
    seconds,
    sequences_of,
    times,
    write_csv,
    write_parquet,
)
from data.prepare.logs import settings as build
from data.prepare.oracle import Oracle, RefusedError, Row, Settings, TaskSettings
from pairwise import FULL
from peterrec import storage
from peterrec.data.prepare import duckdb_engine, prepare
from peterrec.data.prepare import event_sequences as sequences_module
from peterrec.errors import PeterRecError, TaskError
from whole_histories import read_event_histories

USERS = ["7", "u1", "u10", "u9", "B", "ä", "07", "a b", "Z|1", "日本", 'q"1', "u,2", "u11", "u12", "u13", "u14"]
NUMBERS = [7, 10, 9, -3, 0, 123456789012345678, 5, 11, 12, 13, 14, 15, 16, 17, 18, 19]
TEXTS = ["i1", "i10", "i9", "É", "007", "a b", "z,1", 'q"', "Z", "😀"]
DOMAINS = ["shop", "food", "53"]
LABELS = ["10", "9", "x", None]


class Case:
    """A random log, the form it has on disk, and settings; all from one number."""

    def __init__(self, seed: int) -> None:
        draw = self.draw = random.Random(seed)
        self.kind = draw.choice(["integer", "float", "decimal", "date", "text", "zone", "s", "ms", "us", "ns"])
        self.packed = draw.choice([".parquet", ".csv", ".tsv", ".csv.gz", "mixed"])
        self.integers, self.has_order, self.has_domain = (draw.random() < 0.5 for _ in range(3))
        self.number_users = draw.random() < 0.3
        self.horizon = draw.choice([4, 8, 20])
        self.users = [str(number) for number in NUMBERS] if self.number_users else USERS
        if self.packed == "mixed" and not self.number_users:
            self.users = USERS[1:]  # a CSV file with no user but 7 would be refused beside one of text
        self.rows = self.events(draw.choice([30, 90, 200]), self.users)
        self.settings = self.source()
        self.tasks = self.draw_tasks()

    def events(self, count: int, users: list[str]) -> list[Row]:
        draw, items = self.draw, NUMBERS[: len(TEXTS)] if self.integers else TEXTS
        drawn_items = items[: draw.randint(3, len(items))]
        drawn = [(draw.choice(users), draw.choice(drawn_items), draw.randrange(self.horizon)) for _ in range(count)]
        return [
            Row(
                user,
                item,
                time,
                draw.randrange(3) if self.has_order else None,
                draw.choice(DOMAINS) if self.has_domain else None,
                seconds(self.kind, time),
            )
            for user, item, time in drawn
        ]

    def source(self) -> Settings:
        draw = self.draw
        longest = draw.choice([1, 2, 3, 5, 200])
        return Settings(
            domains=draw.choice([None, ("shop",), ("shop", "food")]) if self.has_domain else None,
            exclude_domains=draw.choice([(), ("53",), ("food", "53")]) if self.has_domain else (),
            after=draw.choice([None, None, 1]),
            before=draw.choice([None, self.horizon // 2, self.horizon // 2]),
            min_item_events=draw.choice([1, 2, 5]),
            min_user_events=draw.randint(1, min(longest, 3)),
            max_history=longest,
            repeats=draw.choice(["keep", "drop"]),
            rare_items=draw.choice(["drop", "unk"]),
            salt=str(draw.random()),
            new_parts=draw.choice([(), (), ("test",), ("train", "valid")]),
            new_fraction=draw.choice([0.0, 0.0, 0.3]),
            new_seed=draw.randrange(3),
            first_event_after=draw.choice([None, None, 2]),
        )

    def draw_tasks(self) -> list[TaskSettings]:
        draw = self.draw
        least, later = draw.randint(1, 2), self.settings.before or self.horizon - 1
        names = LABELS[: draw.choice([2, 4])]
        table = [(user, draw.choice(names)) for user in [*self.users, "stranger"]]
        own_events = tuple(self.events(draw.randint(20, 40), self.users))
        if draw.random() < 0.8:  # by chance alone, one of them is a source event in most logs
            contents = {row.content() for row in self.rows}
            own_events = tuple(row for row in own_events if row.content() not in contents)
        longest = self.settings.max_history
        cut = {
            "first_events": draw.choice([None, min(longest, draw.randint(least, 6))]),
            "last_events": draw.choice([None, None, draw.randint(least, 4)]),
            "until": draw.choice([None, None, self.horizon // 2]),
        }
        if (cut["first_events"] or least) < least:
            cut["first_events"] = None
        ranking = cut | {
            "min_user_events": least,
            "first_only": draw.random() < 0.6,
            "min_item_events": draw.randint(1, 3),
        }
        tasks = [
            TaskSettings(
                "labels", labels=tuple(table), min_user_events=least, min_class_users=draw.randint(1, 3), **cut
            ),
            TaskSettings("twice", labels=(*table, table[0])),
            TaskSettings("active", activity=True, after=later, before=draw.choice([None, later + 2])),
            TaskSettings("later", after=later, **ranking),
            TaskSettings("own", own_events=own_events, **ranking),
        ]
        if self.has_domain:
            tasks.append(TaskSettings("domain", domains=("53",), before=draw.choice([None, later]), **ranking))
        return tasks

    def write(self, folder: Path, rows: list[Row], name: str) -> Path:
        """Write a log in one file or two."""
        folder = folder / name
        if self.packed != "mixed":
            self._file(folder / f"log{self.packed}", rows)
            return folder
        cut = self.draw.randrange(1, len(rows))
        self._file(folder / "a.csv", rows[:cut])
        self._file(folder / "b.parquet", rows[cut:])
        return folder

    def _file(self, path: Path, rows: list[Row]) -> None:
        moments, type_ = times(self.kind, [row.time for row in rows])
        columns: dict[str, list[Any]] = {
            "user_id": [int(row.user) if self.number_users else row.user for row in rows],
            "item_id": [row.item for row in rows],
            "timestamp": moments,
            "n": [row.order for row in rows],
            "d": [row.domain for row in rows],
        }
        lines = list(zip(*columns.values(), strict=True))
        if path.suffix == ".parquet":
            if self.kind == "decimal":
                from decimal import Decimal

                lines = [(u, i, Decimal(t), n, d) for u, i, t, n, d in lines]
            write_parquet(path, lines, list(columns), timestamp=type_, d=pa_string())
        else:
            write_csv(path, lines, list(columns), separator="\t" if path.suffix == ".tsv" else ",")

    def config(self, folder: Path, tasks: list[TaskSettings]) -> Any:
        source_settings = self.settings
        source = {
            name: getattr(source_settings, name)
            for name in ("domains", "exclude_domains", "min_item_events", "min_user_events", "max_history")
        }
        source |= {"repeats": source_settings.repeats, "rare_items": source_settings.rare_items}
        source |= {"after": bound(self.kind, source_settings.after), "before": bound(self.kind, source_settings.before)}
        split = {
            "train": source_settings.split[0],
            "valid": source_settings.split[1],
            "test": 1 - sum(source_settings.split),
            "salt": source_settings.salt,
        }
        events = {"order": "n" if self.has_order else None, "domain": "d" if self.has_domain else None}
        new_users = {
            "parts": source_settings.new_parts,
            "fraction": source_settings.new_fraction,
            "seed": source_settings.new_seed,
            "first_event_after": bound(self.kind, source_settings.first_event_after),
        }
        task_trees = [self._task(folder, task) for task in tasks]
        return build(
            self.write(folder, self.rows, "events"),
            events=events,
            source=source,
            split=split,
            new_users=new_users,
            tasks=task_trees,
        )

    def _task(self, folder: Path, task: TaskSettings) -> dict[str, Any]:
        tree: dict[str, Any] = {"name": task.name, "min_user_events": task.min_user_events}
        tree |= {"first_events": task.first_events, "last_events": task.last_events}
        tree["until"] = bound(self.kind, task.until)
        period = {"after": bound(self.kind, task.after), "before": bound(self.kind, task.before)}
        if task.labels is not None:
            path = write_csv(folder / f"{task.name}.csv", task.labels, ("user_id", "group"), separator=";")
            labels = {"path": str(path), "label": "group"}
            return tree | {"kind": "classification", "labels": labels, "min_class_users": task.min_class_users}
        if task.activity:
            return tree | {"kind": "classification", "activity": period}
        tree |= period | {"kind": "ranking", "domains": task.domains, "min_item_events": task.min_item_events}
        tree["history"] = "before-first-target" if task.first_only else "all"
        if task.own_events is not None:
            tree["events"] = {"paths": [str(self.write(folder, list(task.own_events), task.name))]}
        return tree


def pa_string() -> Any:
    import pyarrow as pa

    return pa.string()


def check(case: Case, oracle: Oracle, folder: Path) -> None:
    """Tasks that can be learned are as they must be; one that cannot is refused."""
    expected, refused = {}, []
    for task in case.tasks:
        try:
            expected[task.name] = oracle.task(task)
        except RefusedError:
            refused.append(task)
    for name in expected:
        event(f"task {name}")
    config = case.config(folder, [task for task in case.tasks if task.name in expected])
    corpus = prepare(config, folder / "out")
    assert list(zip(corpus.catalogue.ids.to_pylist(), corpus.catalogue.counts.tolist(), strict=True)) == list(
        zip(oracle.catalogue, oracle.counts, strict=True)
    )
    assert sequences_of(corpus) == oracle.sequences
    assert list(sequences_of(corpus)) == sorted(oracle.sequences, key=str.encode)
    new_users = [user in oracle.new_users for user in sequences_of(corpus)]
    event(f"new users {any(new_users)}")
    assert corpus.new_users.tolist() == new_users
    assert corpus.pretraining_rows.tolist() == [row for row, is_new in enumerate(new_users) if not is_new]
    for name, task in expected.items():
        prepared_task = corpus.task(name)
        assert parts_of(corpus, name) == task.parts
        assert list(prepared_task.class_names) == task.class_names
        if prepared_task.targets is not None:
            pairs = zip(prepared_task.targets.ids.to_pylist(), prepared_task.targets.counts.tolist(), strict=True)
            assert list(pairs) == task.targets
    assert_steps_add_up(corpus)
    if refused:
        refused_task = case.draw.choice(refused)
        event(f"refused {refused_task.name}")
        with pytest.raises(PeterRecError) as caught:
            prepare(case.config(folder, [refused_task]), folder / "refused")
        assert isinstance(caught.value, TaskError) or refused_task.name == "twice"
        assert caught.value.remedy
        assert not (folder / "refused").exists()


@pytest.mark.parametrize("block", [0, 1])  # two halves of the work, for two processes
@given(seed=st.integers(0, 2**32), at_once=st.sampled_from([1, 7, 10**6]), users_at_once=st.sampled_from([1, 5, 10**6]))
@settings(max_examples=12 if FULL else 1, phases=[Phase.explicit, Phase.generate])  # a seed has no simpler one
def test_prepare_and_the_oracle_agree(block: int, seed: int, at_once: int, users_at_once: int) -> None:
    case = Case(2 * seed + block)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(sequences_module, "EVENTS_AT_ONCE", at_once)
        patch.setattr(duckdb_engine, "ROWS_AT_ONCE", users_at_once)
        patch.setattr(storage, "_fsync", lambda path: None)  # slow, and seen elsewhere
        folder = Path(name)
        try:
            oracle = Oracle(case.rows, case.settings)
        except RefusedError:
            event("no source")
            with pytest.raises(PeterRecError):
                prepare(case.config(folder, []), folder / "out")
            return
        check(case, oracle, folder)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32))
@settings(max_examples=15 if FULL else 1, phases=[Phase.explicit, Phase.generate])
def test_histories_are_in_the_order_of_the_oracle(seed: int) -> None:
    case = Case(seed)
    with tempfile.TemporaryDirectory() as name:
        config = case.config(Path(name), []).events
        users, items, _ = read_event_histories(config)
    assert users == sorted({row.user for row in case.rows}, key=str.encode)
    for user, user_items in zip(users, items, strict=True):
        assert user_items == [row.item for row in sorted(case.rows, key=Row.key) if row.user == user]
