"""The fixed protocol of the benchmark: split, histories, shares of labels, metrics; and the tasks that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from peterrec.config import NewUsersConfig, SourceConfig, SplitConfig
from peterrec.data.corpus import Part

VERSION = 1
"""Of the protocol: numbers of another version are not comparable."""

LABEL_COLUMNS = ("gender", "age", "occupation")
FIRST_EVENTS = (5, 10, 20)
LABEL_PERCENTS = (10, 100)
NEXT_ITEM = "next-item"
K = 10
"""Items of a ranking, and the cut-off of its metrics."""

SPLIT = SplitConfig(train=0.65, valid=0.10, test=0.25, salt="peterrec-benchmark-1")
NEW_USERS = NewUsersConfig(parts=("valid", "test"))
SOURCE = SourceConfig(
    min_item_events=5,
    min_user_events=1,
    max_history=1_000_000_000,  # nobody has as many, so that the first ones of everybody are there
    repeats="keep",
    rare_items="drop",
)
LABEL_SEED = 0  # of the draw of labelled users
RESAMPLES, CONFIDENCE, BOOTSTRAP_SEED = 1000, 0.95, 0
METRICS = {
    "accuracy": "share of users whose most probable class is right",
    "macro_f1": "mean over classes of F1",
    "log_loss": "mean of -ln(probability of the right class), clipped at 1e-7; lower is better",
    "auc": "two classes only: the chance that a user of the second class gets more of it than one of the first",
    f"hr@{K}": f"1 if the target is among the first {K} items; mean over users",
    f"mrr@{K}": f"1 / place of the target, 0 beyond the first {K}; mean over users",
    f"ndcg@{K}": f"1 / log2(1 + place of the target), 0 beyond the first {K}; mean over users",
}


@dataclass(frozen=True)
class BenchmarkTask:
    """A task of the benchmark: what is asked about the test users.

    Attributes:
        name: such as `gender-labels-10-first-5` or `next-item-first-5`.
        kind: of the answers.
        first_events: how many of a user's events may be read.
        users: how many test users have an answer: those who are judged.
        label: column of the labels and of `test_answers.parquet` (classification).
        label_percent: of the labelled train users (classification).
        classes: names, in the order of the class indices (classification).
    """

    name: str
    kind: Literal["classification", "ranking"]
    first_events: int
    users: int
    label: str | None = None
    label_percent: int | None = None
    classes: tuple[str, ...] = ()

    @property
    def answers(self) -> str:
        """Name of the column of `test_answers.parquet`."""
        return self.label or target_column(self.first_events)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> BenchmarkTask:
        """Read an entry of `benchmark.json`."""
        return cls(**entry | {"classes": tuple(entry["classes"])})

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `json.dumps` takes."""
        return asdict(self) | {"classes": list(self.classes)}


def list_tasks(classes: Mapping[str, Sequence[str]], users: Mapping[str, int]) -> list[BenchmarkTask]:
    """Return all tasks that have test users to judge.

    Args:
        classes: names of the classes of each label column.
        users: how many test users have an answer, by column of `test_answers.parquet`.
    """
    attributes = [
        BenchmarkTask(f"{label}-labels-{percent}-first-{first}", "classification", first, users[label],
                      label, percent, tuple(names))
        for label, names in classes.items()
        for percent in LABEL_PERCENTS
        for first in FIRST_EVENTS
    ]  # fmt: skip
    rankings = [
        BenchmarkTask(f"{NEXT_ITEM}-first-{first}", "ranking", first, users[target_column(first)])
        for first in FIRST_EVENTS
    ]
    return [task for task in attributes + rankings if task.users]


def history_file(part: Part, first_events: int) -> str:
    """Return the name of the file with the first events of the users of a part."""
    return f"histories/{part}-first-{first_events}.parquet"


def label_file(percent: int) -> str:
    """Return the name of the file with the labels of a share of the train users, and of all valid users."""
    return f"labels-{percent}.parquet"


def target_column(first_events: int) -> str:
    """Return the name of the column with the item that follows the first events."""
    return f"next_item_first_{first_events}"
