"""The part of training that differs between kinds of task: head, its start, loss, and metrics of valid users."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.sequences import IntArray
from peterrec.nn.heads import Head

MetricTotals = dict[str, tuple[float, float]]
"""By metric: a sum, and what it is to be divided by."""

Metrics = dict[str, float]

ROWS_AT_ONCE = 256
ROUNDING = 1e-6  # metrics that were logged are fp32


@dataclass(frozen=True)
class Judges:
    """Users that a probe is not fitted on.

    Attributes:
        users: of the task.
        read: computes their representations, (users, R).
    """

    users: TaskPart
    read: Callable[[], Tensor]


class TaskObjective(nn.Module, ABC):
    """The training of one task, as its kind asks for: everything that differs between kinds.

    Args:
        config: losses and their settings.
        task: as prepared, its target catalogue counted on the train users.
        train: users that are learned from.

    Raises:
        ConfigError: a setting does not fit the task.
    """

    metric_names: ClassVar[tuple[str, ...]]
    """Metrics of the valid users; the first decides which epoch is best."""

    mode: ClassVar[Literal["min", "max"]]
    """Whether that is better when it is low or high."""

    settings: ClassVar[tuple[str, ...]]
    """Settings of `AdaptConfig` that tasks of other kinds do not look at."""

    starting_users: ClassVar[int]
    """Train users, at most, that the probe is fitted on at which a head starts."""

    def __init__(self, config: AdaptConfig, task: Task, train: TaskPart) -> None:
        super().__init__()
        self.config = config
        self.task = task
        self.train_users = train

    @abstractmethod
    def new_head(self, width: int, generator: torch.Generator) -> Head:
        """Return a head of random weights, whose bias is what is known without the user.

        Args:
            width: R of the representation.
            generator: draws the weights.
        """

    @abstractmethod
    def start_at_probe(self, head: Head, vectors: Tensor, users: TaskPart, judges: Judges | None) -> bool:
        """Let a head begin at a regression of users, and return whether it does.

        Args:
            head: of the task.
            vectors: (N, R) representations.
            users: N users of the task, with what is to be learned of them.
            judges: other users, who may choose the penalty too.
        """

    @abstractmethod
    def forward(self, head: Head, vectors: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            head: of the task.
            vectors: (B, R) representations.
            batch: as `TaskSource.batch` makes it.
        """

    @abstractmethod
    def weight_of(self, batch: dict[str, Tensor]) -> float:
        """Return what the mean loss of a batch is divided by: its (weighted) users, or its pairs."""

    @abstractmethod
    def metric_sums(self, scores: Tensor, part: TaskPart, rows: IntArray) -> MetricTotals:
        """Return the sums of the validation metrics over the given rows of a part, and what to divide them by.

        What decides the best epoch moves with every user: the validation users are few.

        Args:
            scores: (rows, outputs) of the head.
            part: users that are judged.
            rows: which of them.
        """

    @abstractmethod
    def constant_totals(self, part: TaskPart, rows: IntArray) -> MetricTotals:
        """Return the same of the answer that is the same for everybody, by the train users."""

    def constant_sums(self, part: TaskPart) -> list[MetricTotals]:
        """Return `constant_totals` of all users of a part, some at a time."""
        rows = np.arange(len(part))
        return [self.constant_totals(part, rows[start : start + ROWS_AT_ONCE]) for start in rows[::ROWS_AT_ONCE]]

    @classmethod
    @abstractmethod
    def problem(cls, metrics: Metrics, constant: Metrics, users: int, config: AdaptConfig) -> str | None:
        """Return in words how a model is no better than the constant answer; None where it is better.

        Args:
            metrics: of the model.
            constant: of the constant answer.
            users: that both were judged by.
            config: of the training.
        """

    @classmethod
    def relative(cls, start: float, metrics: Metrics) -> float:
        """Return the metric that decides by its value without looking at users: below 1 is better than that."""
        value = metrics[cls.metric_names[0]]
        return start / value if cls.mode == "max" else value / start


def mean_metrics(totals: Sequence[MetricTotals]) -> Metrics:
    """Return the mean of each metric: its sums added up, divided by what they are to be divided by, added up."""
    return {name: sum(part[name][0] for part in totals) / sum(part[name][1] for part in totals) for name in totals[0]}


def pair(name: str, metrics: Metrics, constant: Metrics) -> str:
    """Return a metric of a model beside that of the constant answer, as warnings write them."""
    return f"{metrics[name]:.3f} against {constant[name]:.3f}"


def within_error(share: float, users: int) -> float:
    """Return a share of users less a standard error of it."""
    return share - ROUNDING - math.sqrt(share * (1.0 - share) / users)
