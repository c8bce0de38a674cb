"""Small tasks in memory and on disk, and scorers that say what a test tells them to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peterrec.data.catalogue import Catalogue
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.sequences import FIRST_ITEM, Sequences

ITEMS = 40
TARGETS = 30


@dataclass
class Fixed:
    """Scores or probabilities known beforehand, row by row."""

    values: np.ndarray
    trainable: int | None = 10
    trainable_fraction: float | None = 0.5
    settings: dict[str, object] = field(default_factory=lambda: {"strategy": "patch"})

    def probabilities(self, sequences: Sequences) -> np.ndarray:
        assert len(sequences) == len(self.values)
        return self.values

    def score_batches(self, sequences: Sequences, batch_size: int) -> Iterator[np.ndarray]:
        assert len(sequences) == len(self.values)
        return (self.values[start : start + batch_size] for start in range(0, len(self.values), batch_size))


def class_part(users: int, seed: int, classes: int = 3) -> TaskPart:
    """Users of class c mostly take items of their own third of the catalogue, and more of them; some have none."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, users)
    rows = []
    for label in labels:
        length = int(rng.integers(0, 4 + 4 * label))
        class_items = rng.integers(0, ITEMS // classes, length) + label * (ITEMS // classes)
        rows.append(FIRST_ITEM + np.where(rng.random(length) < 0.5, class_items, rng.integers(0, ITEMS, length)))
    return TaskPart(pa.array([f"{seed}-{i}" for i in range(users)]), Sequences.from_rows(rows), labels=labels)


def rank_part(users: int, seed: int) -> TaskPart:
    """Source item i goes with target i % 30 for the first item; every tenth user has an empty history."""
    rng = np.random.default_rng(seed)
    rows, targets = [], []
    for user in range(users):
        history = rng.integers(0, ITEMS, 0 if user % 10 == 0 else rng.integers(1, 6))
        liked = history[0] % TARGETS if len(history) else rng.integers(0, 5)
        second_target = min(int(rng.exponential(5)), TARGETS - 1)
        rows.append(history + FIRST_ITEM)
        targets.append(np.unique([liked, second_target]))
    return TaskPart(
        pa.array([f"{seed}-{i}" for i in range(users)]), Sequences.from_rows(rows), targets=Sequences.from_rows(targets)
    )


def write_part(part: TaskPart, path: Path) -> None:
    def ragged(sequences: Sequences) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(sequences.offsets, pa.int32()), pa.array(sequences.items, pa.int32()))

    columns = {"user_id": part.user_ids, "sequence": ragged(part.sequences)}
    if part.labels is not None:
        columns["label"] = pa.array(part.labels)
    if part.targets is not None:
        columns["targets"] = ragged(part.targets)
    pq.write_table(pa.table(columns), path)


MakeTask = Callable[..., Task]


@pytest.fixture
def class_task(tmp_path: Path) -> MakeTask:
    def make(*, users: int = 400, classes: int = 3, test: TaskPart | None = None) -> Task:
        for seed, name in enumerate(("train", "valid", "test")):
            part = class_part(users if name == "train" else users // 2, seed, classes)
            write_part(test if test is not None and name == "test" else part, tmp_path / f"{name}.parquet")
        return Task("age", "classification", tmp_path, tuple(f"class {c}" for c in range(classes)))

    return make


@pytest.fixture
def rank_task(tmp_path: Path) -> MakeTask:
    def make(*, users: int = 600, test: TaskPart | None = None) -> Task:
        for seed, name in enumerate(("train", "valid", "test")):
            part = rank_part(users if name == "train" else users // 2, seed)
            write_part(test if test is not None and name == "test" else part, tmp_path / f"{name}.parquet")
        ids = pa.array([f"target {i}" for i in range(TARGETS)])
        return Task("shop", "ranking", tmp_path, targets=Catalogue(ids, np.arange(TARGETS, 0, -1), first=0))

    return make


@pytest.fixture
def fixed() -> type[Fixed]:
    return Fixed


@pytest.fixture
def make_class_part() -> Callable[..., TaskPart]:
    return class_part


@pytest.fixture
def make_rank_part() -> Callable[..., TaskPart]:
    return rank_part
