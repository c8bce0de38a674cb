"""Probes of pre-training: what a linear model reads off the frozen backbone about labels, after an epoch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.metrics import roc_auc_score

from peterrec.config import PretrainConfig
from peterrec.data.batching import inference_batches
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import Sequences
from peterrec.data.splits import assign_folds
from peterrec.errors import TaskError
from peterrec.evaluation.metrics import log_loss
from peterrec.nn.backbone import Backbone
from peterrec.nn.readout import readout_named, represent
from peterrec.training.callbacks import require_finite
from peterrec.training.linear_probe import FOLDS, Labels, LinearProbe
from peterrec.training.selection import ENOUGH_USERS

logger = logging.getLogger(__name__)

STRENGTH = 0.03  # C of standardised features, the same in all epochs: what differs is the backbone
BATCH = 64  # users whose representations are computed at once

Vectors = Float[np.ndarray, "users R"]


@dataclass(frozen=True)
class ProbedTask:
    """Labelled users of a task that a probe reads; no test user is among them.

    Attributes:
        name: of the task.
        classes: number of classes.
        train: users that the linear model is fitted on.
        valid: users that it is judged on; None: the train users, each by a model of other folds.
    """

    name: str
    classes: int
    train: TaskPart
    valid: TaskPart | None

    @classmethod
    def from_task(cls, task: Task, max_users: int) -> ProbedTask:
        """Read the train users and, unless they are too few to judge by, the valid users; at most so many of each.

        Raises:
            TaskError: not a classification task, or too few train users, or of one class.
        """
        if task.kind != "classification":
            raise TaskError(
                f"is a {task.kind} task: probes read classes",
                remedy="name classification tasks under probe.tasks",
                path=task.path,
            )
        labelled, held_out = task.part("train"), task.part("valid")
        train, valid = _spread(labelled, max_users), _spread(held_out, max_users)
        present = np.unique(_labels(train))
        if len(present) < 2 or len(train) < 2 * FOLDS:
            raise TaskError(
                f"has {len(train)} train users of {len(present)} classes to probe, which is too few",
                remedy="leave it out of probe.tasks, raise probe.max_users, or label more users and prepare again",
                path=task.path,
            )
        enough = len(held_out) >= ENOUGH_USERS and len(np.intersect1d(_labels(valid), present)) > 1
        return cls(task.name, len(task.class_names), train, valid if enough else None)

    @property
    def judged_on(self) -> str:
        """The users that the linear model is judged on, in words."""
        return f"{FOLDS}-fold cross-validation" if self.valid is None else f"{len(self.valid):,} valid users"


class Probe:
    """Linear models of tasks on the frozen representations of a backbone. It draws nothing.

    Args:
        config: of the pre-training.
        tasks: what is probed.
    """

    def __init__(self, config: PretrainConfig, tasks: Sequence[ProbedTask]) -> None:
        self.config = config.probe
        self.last_epoch = config.epochs - 1
        self.max_length = config.max_length
        self.tasks = tasks
        self.mean_column = f"probe_{self.config.metric}"

    @classmethod
    def from_config(cls, corpus: Corpus, config: PretrainConfig) -> Probe | None:
        """Return the probe that is asked for, or None.

        Raises:
            TaskError: no such task, or one that cannot be probed.
            ArtifactError: its users cannot be read.
        """
        tasks = [ProbedTask.from_task(corpus.task(name), config.probe.max_users) for name in config.probe.tasks]
        for task in tasks:
            logger.info(f"probing {task.name!r} on {len(task.train):,} train users, judged by {task.judged_on}")
        return cls(config, tasks) if tasks else None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the curve: the mean over the tasks, then each task."""
        return (self.mean_column, *(f"{self.mean_column} ({task.name})" for task in self.tasks))

    @property
    def shown(self) -> tuple[str, ...]:
        """Columns that are shown while training: of a single task the mean says all."""
        return self.columns if len(self.tasks) > 1 else self.columns[:1]

    def description(self) -> dict[str, Any]:
        """Return in plain values who is probed, for the metadata of the backbone."""
        return {task.name: {"train_users": len(task.train), "judged_on": task.judged_on} for task in self.tasks}

    def measure(self, backbone: Backbone, epoch: int) -> dict[str, float]:
        """Return the metric of each task and their mean, by column; nothing after an epoch that is not probed.

        Args:
            backbone: in evaluation mode, on any device.
            epoch: that was trained, from 0; the first and the last planned one are always probed.

        Raises:
            TrainingError: a representation is not finite.
        """
        if epoch % self.config.every_n_epochs and epoch != self.last_epoch:
            return {}
        values = [self._measure_task(backbone, task, epoch) for task in self.tasks]
        return dict(zip(self.columns, [float(np.mean(values)), *values], strict=True))

    def _measure_task(self, backbone: Backbone, task: ProbedTask, epoch: int) -> float:
        train, labels = self._represent(backbone, task.train.sequences, epoch), _labels(task.train)
        if task.valid is not None:
            valid = self._represent(backbone, task.valid.sequences, epoch)
            probe = LinearProbe.fit(train, labels, task.classes, STRENGTH)
            return metric_of(self.config.metric, probe.probabilities(valid), _labels(task.valid))
        fold_of_user = assign_folds(id_hash(task.train.user_ids.to_pylist()), FOLDS, "probe", labels)
        probabilities = np.empty((len(labels), task.classes))
        for fold in range(FOLDS):
            held_out = fold_of_user == fold
            probe = LinearProbe.fit(train[~held_out], labels[~held_out], task.classes, STRENGTH)
            probabilities[held_out] = probe.probabilities(train[held_out])
        return metric_of(self.config.metric, probabilities, labels)

    @torch.no_grad()
    def _represent(self, backbone: Backbone, sequences: Sequences, epoch: int) -> Vectors:
        readout, device = self.config.readout, backbone.embedding.weight.device
        vectors = np.empty((len(sequences), readout_named(readout).width(backbone.config.channels)), dtype=np.float32)
        for rows, tokens in inference_batches(sequences, BATCH, self.max_length):
            values = represent(backbone, torch.from_numpy(tokens).to(device), readout=readout).float().cpu()
            require_finite(values, "a representation of a probed user", epoch)
            vectors[rows] = values.numpy()
        return vectors


def metric_of(metric: str, probabilities: Float[np.ndarray, "N C"], labels: Labels) -> float:
    """Return the log-loss, or the AUC: of more than two classes the mean over the classes, each against the others.

    Args:
        metric: `auc` or `log_loss`.
        probabilities: of each class.
        labels: of two classes at least.
    """
    if metric == "log_loss":
        return log_loss(probabilities, labels)
    present = np.unique(labels)
    if probabilities.shape[1] == 2:
        present = present[-1:]
    return float(np.mean([roc_auc_score(labels == label, probabilities[:, label]) for label in present]))


def _labels(part: TaskPart) -> Labels:
    assert part.labels is not None
    return part.labels


def _spread(part: TaskPart, count: int) -> TaskPart:
    """Return so many users of a part, evenly spread over it; all, if they are no more."""
    return part.take(np.linspace(0, len(part) - 1, min(len(part), count)).astype(np.int64))
