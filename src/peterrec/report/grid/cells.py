"""Cells of a grid: their keys, and their results as plain values and one row for each test user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from peterrec.config import TaskKind
from peterrec.config.experiment import ExperimentConfig, QuestionConfig
from peterrec.errors import ArtifactError
from peterrec.evaluation.baselines import baseline_names
from peterrec.storage import FORMAT_VERSION, check_format, new_folder, read_json, write_json

KIND = "cell"
Family = Literal["adapt", "baseline", "neural-baseline"]


@dataclass(frozen=True, order=True)
class CellKey:
    """Key of a cell: data set, task, method, seed, share of the labelled train users."""

    data: str
    task: str
    method: str
    seed: int
    share: float = 1.0

    @classmethod
    def from_path(cls, task_path: str, method: str, seed: int, share: float) -> CellKey:
        """Return the key of a cell of DATA/TASK."""
        data, task = task_path.split("/")
        return cls(data, task, method, seed, share)

    @property
    def folder(self) -> Path:
        """Path of the cell in the folder of a grid."""
        percent = f"{100 * self.share:.12g}"
        return Path("cells", self.data, self.task, self.method, f"seed-{self.seed}-share-{percent}")

    @property
    def task_path(self) -> str:
        """DATA/TASK."""
        return f"{self.data}/{self.task}"


class Cost(BaseModel, frozen=True, extra="forbid"):
    """Cost of a method in parameters, bytes and seconds; a value is None where it is not measured or does not apply.

    Attributes:
        trained: trained parameters by group (`embedding`, `blocks`, `norms`, `patch`, `head`, ...).
        all_params: parameters of the whole network, frozen ones too.
        stored_bytes: of the task's own files, beside the shared backbone.
        seconds: of training, all epochs.
        seconds_per_epoch: mean over the epochs but the first, of one epoch if there is no other.
        peak_memory: bytes that the process grew by while the cell was computed, at most.
        jobs: cells that were computed at the same time; times compare only between cells of the same number.
    """

    trained: dict[str, int] = {}
    all_params: int | None = None
    stored_bytes: int | None = None
    seconds: float | None = None
    seconds_per_epoch: float | None = None
    peak_memory: int | None = None
    jobs: int = 1


class CellResult(BaseModel, frozen=True, extra="forbid"):
    """Result of a cell: metrics on the test users, with the settings and the cost that gave them.

    Attributes:
        data, task, method, seed, share: its key.
        inputs: fingerprints and settings that decide what comes out; a finished cell is reused where they are the same.
        users: by part, after the share was taken.
        classes: names with the number of test users, of a classification task.
        candidates: targets that are ranked, of a ranking task.
        metrics: on the test users, by name; also those that no sum over users gives (AUC, macro-F1).
        primary: `accuracy` or `mrr@K`.
        monitor: metric of the curve that chose the epoch.
        curve: a row an epoch: `epoch` (from 0), `seconds`, losses and metrics of the valid users.
        start: metrics of the valid users before the first epoch.
        best_epoch: from 0; -1: no epoch was better than the start.
        settings: resolved settings of the method, for the reader.
        notes: what the reader should know.
        finished: date and time.
    """

    data: str
    task: str
    method: str
    seed: int
    share: float
    inputs: dict[str, Any]
    task_kind: TaskKind
    family: Family
    users: dict[str, int]
    classes: dict[str, int] = {}
    candidates: int | None = None
    metrics: dict[str, float]
    primary: str
    cost: Cost = Cost()
    monitor: str | None = None
    curve: list[dict[str, float | None]] = []
    start: dict[str, float | None] = {}
    best_epoch: int | None = None
    settings: dict[str, Any] = {}
    notes: list[str] = []
    finished: str = ""

    @property
    def key(self) -> CellKey:
        """Key of the cell."""
        return CellKey(self.data, self.task, self.method, self.seed, self.share)


# Columns of the table of test users beside one for each metric that is a mean over rows: `user_id` (text), `events`
# (int64, of the source history, uncut), `seen` (bool: was in pre-training), `rows` (int64: 1, or the user's targets).
# A metric's column holds the sum over the user's rows, so that the metric is sum(column) / sum(rows).
USER_COLUMNS = ("user_id", "events", "seen", "rows")


def write_cell(root: Path, result: CellResult, users: pa.Table) -> Path:
    """Write a cell atomically, in place of what is there.

    Raises:
        StorageError: the disk is full or the place is not writable.
    """
    path = root / result.key.folder
    with new_folder(path, overwrite=True, kind=KIND) as folder:
        pq.write_table(users, folder / "users.parquet", compression="zstd")
        write_json(
            folder / "cell.json", {"kind": KIND, "format_version": FORMAT_VERSION} | result.model_dump(mode="json")
        )
    return path


def read_cell(path: Path) -> CellResult:
    """Read what a cell found.

    Raises:
        ArtifactError: missing, damaged, or of another format.
    """
    meta = read_json(path / "cell.json")
    check_format(meta, KIND, path)
    try:
        return CellResult.model_validate({k: v for k, v in meta.items() if k not in ("kind", "format_version")})
    except ValidationError as error:
        raise ArtifactError(f"is no cell of a grid ({error})", remedy="delete it, and run again", path=path) from error


def read_users(path: Path) -> pa.Table:
    """Read the table of test users of a cell.

    Raises:
        ArtifactError: missing or damaged.
    """
    try:
        return pq.read_table(path / "users.parquet")
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"cannot be read ({error})", remedy="delete it, and run again", path=path) from error


def expected_cells(config: ExperimentConfig) -> list[CellKey]:
    """Return the cells that the questions ask for, a baseline only where it suits the kind of task."""
    keys = (
        CellKey.from_path(task_path, method, seed, share)
        for question in config.questions
        for task_path in question_tasks(config, question)
        for method in question.methods
        if suits(config, method, task_path)
        for share in question.label_fractions
        for seed in (config.seeds if question.seeds is None else question.seeds)
    )
    return list(dict.fromkeys(keys))


def task_kinds(config: ExperimentConfig) -> dict[str, TaskKind]:
    """Return the kind of every task by its DATA/TASK, in the order of the data sets."""
    return {f"{name}/{task.name}": task.kind for name, data in config.data.items() for task in data.prepare.tasks}


def question_tasks(config: ExperimentConfig, question: QuestionConfig) -> list[str]:
    """Return the tasks of a question, in the order of the data sets."""
    return [path for path in task_kinds(config) if not question.tasks or path in question.tasks]


def suits(config: ExperimentConfig, method: str, task_path: str) -> bool:
    """Return whether a method exists for a task: for its kind, and among those it is trained for."""
    trained_on, baseline = config.methods[method].trained_on, config.methods[method].baseline
    if trained_on and task_path.partition("/")[2] not in trained_on:
        return False
    return baseline is None or baseline in baseline_names(task_kinds(config)[task_path])
