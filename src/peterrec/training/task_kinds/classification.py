"""Training of classification tasks: cross-entropy of classes, from a head that starts at a logistic regression."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError
from peterrec.nn.heads import ClassificationHead, Head, log_share
from peterrec.training.linear_probe import LinearProbe
from peterrec.training.task_kinds.base import ROUNDING, Judges, Metrics, MetricTotals, TaskObjective, pair, within_error


def class_weights(config: AdaptConfig, task: Task, train: TaskPart) -> Tensor | None:
    """Return the weight of each class, (K,), or None where all are alike.

    Raises:
        ConfigError: a class that the task does not have.
    """
    if config.class_weights is None or train.labels is None:
        return None
    names = task.class_names
    if config.class_weights == "balanced":
        counts = np.bincount(train.labels, minlength=len(names))
        return torch.from_numpy(len(train.labels) / (len(names) * np.maximum(counts, 1))).float()
    unknown = [name for name in config.class_weights if name not in names]
    if unknown:
        raise ConfigError(
            f"class_weights names {', '.join(map(repr, unknown))}, which task {task.name!r} does not have",
            remedy=f"its classes are {', '.join(names)}",
        )
    return torch.tensor([config.class_weights.get(name, 1.0) for name in names])


class ClassificationObjective(TaskObjective):
    """Cross-entropy of classes, with class weights and label smoothing; log-loss and accuracy of users."""

    metric_names = ("log_loss", "accuracy")
    mode = "min"
    settings = ("class_weights", "label_smoothing", "calibration")
    starting_users = 2048  # enough for means, deviations and a probe of classes to start from

    weights: Tensor | None

    def __init__(self, config: AdaptConfig, task: Task, train: TaskPart) -> None:
        super().__init__(config, task, train)
        self.register_buffer("weights", class_weights(config, task, train), persistent=False)

    @property
    def shares(self) -> Tensor:
        """(K,) log of the share of each class among the train users, each counted once more."""
        return log_share(torch.from_numpy(np.bincount(_labels(self.train_users), minlength=len(self.task.class_names))))

    def new_head(self, width: int, generator: torch.Generator) -> Head:
        """Return a head whose bias is the log share of each class."""
        return ClassificationHead(width, len(self.task.class_names), generator, bias=self.shares)

    def start_at_probe(self, head: Head, vectors: Tensor, users: TaskPart, judges: Judges | None) -> bool:
        """Let a head begin at a logistic regression of users whose penalty is chosen by held-out users (LP-FT).

        What is trained below it then begins to move for a reason, not after a random head, which would distort
        pre-trained features first (Kumar et al., ICLR 2022); and few labels are not all that a head knows of its size.
        Not where the users have one class.
        """
        labels, weights = self._labelled(users)
        if len(np.unique(labels)) < 2:
            return False
        judging = None if judges is None else (head.read(judges.read()).cpu().numpy(), *self._labelled(judges.users))
        hashes = id_hash(users.user_ids.to_pylist())
        read = head.read(vectors).cpu().numpy()
        probe = LinearProbe.fit_by_cross_validation(read, labels, len(head.bias), hashes, weights, judging)
        head.start_at(torch.from_numpy(probe.weight), torch.from_numpy(probe.bias))
        return True

    def _labelled(self, part: TaskPart) -> tuple[IntArray, Float[np.ndarray, " users"] | None]:
        labels = _labels(part)
        weights = None if self.weights is None else self.weights.cpu().double().numpy()[labels]
        return labels, None if weights is None else weights / weights.mean()

    def forward(self, head: Head, vectors: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy of (B,) `labels`, each with the weight of its class."""
        smoothing = self.config.label_smoothing
        return F.cross_entropy(head(vectors), batch["labels"], weight=self.weights, label_smoothing=smoothing)

    def weight_of(self, batch: dict[str, Tensor]) -> float:
        """Return the number of users, weighted by their classes."""
        labels = batch["labels"]
        return float(len(labels)) if self.weights is None else float(self.weights[labels].double().sum())

    def metric_sums(self, scores: Tensor, part: TaskPart, rows: IntArray) -> MetricTotals:
        """Return log-loss, weighted as the training loss is, and accuracy of users."""
        return _sums(scores, part, rows, self.weights)

    def constant_totals(self, part: TaskPart, rows: IntArray) -> MetricTotals:
        """Return those of the class shares (in the log-loss as the loss weighs them; of the largest for accuracy)."""
        shares = self.shares
        weighted = shares if self.weights is None else shares + self.weights.cpu().log()
        plain = _sums(shares.repeat(len(rows), 1), part, rows, None)
        return plain | {"log_loss": _sums(weighted.repeat(len(rows), 1), part, rows, self.weights)["log_loss"]}

    @classmethod
    def problem(cls, metrics: Metrics, constant: Metrics, users: int, config: AdaptConfig) -> str | None:
        """Return in words how a model is no better; the log-loss must be better than that of the class shares.

        The accuracy may lie below the share of the largest class by a standard error; and by any amount where classes
        are weighted: it is then not what is trained for.
        """
        if metrics["log_loss"] >= constant["log_loss"] - ROUNDING:
            return f"no better than answering the class shares (log_loss {pair('log_loss', metrics, constant)})"
        if config.class_weights is not None or metrics["accuracy"] >= within_error(constant["accuracy"], users):
            return None
        return f"worse than answering the largest class (accuracy {pair('accuracy', metrics, constant)})"


def _labels(part: TaskPart) -> IntArray:
    return np.asarray(part.labels, dtype=np.int64)


def _sums(scores: Tensor, part: TaskPart, rows: IntArray, weights: Tensor | None) -> MetricTotals:
    labels = torch.from_numpy(_labels(part)[rows])
    ones = torch.ones(scores.shape[1], dtype=torch.float64)
    weight_per_class = ones if weights is None else weights.double().cpu()
    loss = F.cross_entropy(scores.double(), labels, weight=weight_per_class, reduction="sum")
    hits = float((scores.argmax(1) == labels).sum())
    return {"log_loss": (float(loss), float(weight_per_class[labels].sum())), "accuracy": (hits, float(len(rows)))}
