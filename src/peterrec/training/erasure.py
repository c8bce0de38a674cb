"""Erasure of an attribute from what the head of a task reads, after the network is trained (setting `erase`)."""

from __future__ import annotations

import copy
import logging
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Corpus, TaskPart
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError, TaskError
from peterrec.nn.eraser import Eraser
from peterrec.nn.heads import Head
from peterrec.training.head_start import read_users
from peterrec.training.learners import Learner
from peterrec.training.task_kinds import Judges, Metrics, mean_metrics
from peterrec.training.task_kinds.base import ROWS_AT_ONCE

logger = logging.getLogger(__name__)

MIN_CLASS_USERS = 2  # a class of one user is a direction of that user
LEAST_CORRELATION = 1e-6  # of what is taken away: below it is rounding


@dataclass(frozen=True)
class Attribute:
    """An attribute that is erased.

    Attributes:
        name: of the classification task that labels it.
        users: train users of that task.
        classes: K.
    """

    name: str
    users: TaskPart
    classes: int


@dataclass(frozen=True)
class Erasure:
    """An eraser with what it did to the task.

    Attributes:
        attribute: that is erased.
        eraser: applied to what the head reads; its head has it in its weights already.
        metrics: of the valid users, with the head that is kept.
        facts: for the metrics of the bundle.
    """

    attribute: str
    eraser: Eraser
    metrics: Metrics
    facts: dict[str, Any]


def attribute_to_erase(config: AdaptConfig, corpus: Corpus, tasks: list[str]) -> Attribute | None:
    """Return the attribute that a setting names; None: none is erased.

    Raises:
        ConfigError: it is a task that is to be learned, or the package concept-erasure is missing.
        TaskError: no such task, not one of classes, or too few of its train users are of two classes.
    """
    if config.erase is None:
        return None
    _require_package()
    if config.erase in tasks:
        raise ConfigError(
            f"erase names {config.erase!r}, the task that is to be learned", remedy="name another attribute, or none"
        )
    task = corpus.task(config.erase)
    if task.kind != "classification":
        raise TaskError(
            f"is a {task.kind} task: only classes are erased", remedy="make a task of classes of it", path=task.path
        )
    users = task.part("train")
    counts = np.bincount(np.asarray(users.labels, dtype=np.int64), minlength=len(task.class_names))
    if (counts >= MIN_CLASS_USERS).sum() < 2:
        raise TaskError(
            f"has {len(users)} train users, and fewer than two classes with {MIN_CLASS_USERS} of them",
            remedy="label more users", path=task.path,
        )  # fmt: skip
    return Attribute(task.name, users, len(task.class_names))


def _require_package() -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.script, when it is imported
            import concept_erasure  # noqa: F401, PLC0415 - only who erases needs it
    except ImportError:
        raise ConfigError("erase needs the package concept-erasure", remedy="pip install 'peterrec[audit]'") from None


def fit_eraser(vectors: Tensor, labels: IntArray, classes: int) -> Eraser:
    """Fit the LEACE eraser of some users: among them no linear model then beats the constant answer.

    Args:
        vectors: (N, R) representations.
        labels: (N,) classes.
        classes: K.
    """
    from concept_erasure import LeaceFitter  # noqa: PLC0415 - only who erases needs it

    x, indicators = vectors.double().cpu(), torch.nn.functional.one_hot(torch.from_numpy(labels), classes).double()
    # Its limit on the variance would leave some of the attribute in; it is for layers with others above them, and
    # above this one there is a linear head.
    fitted = LeaceFitter.fit(x, indicators, svd_tol=LEAST_CORRELATION, constrain_cov_trace=False).eraser
    directions = fitted.proj_right.abs().sum(dim=1) > 0  # what is no direction of the attribute is zeros
    return Eraser.from_tensors(fitted.proj_left[:, directions], fitted.proj_right[directions], fitted.bias)


def erase(learner: Learner, attribute: Attribute, config: AdaptConfig, *, valid_chooses: bool) -> Erasure:
    """Fit an eraser on what a trained network reads, and let the head of the task read what is left.

    The network is trained first, for it decides what there is to erase: an eraser that was fitted before would be of
    another network. Two heads are compared by the valid users: the trained one as it is over the eraser, and a new one
    at a regression on the erased representations, as heads start; the better one is the learner's from then on.

    Args:
        learner: trained.
        attribute: with its users.
        config: of the training.
        valid_chooses: whether valid users choose the penalty of the regression, too.

    Raises:
        TrainingError: what the network reads is not finite.
    """
    read = partial(read_users, learner.parts, config)
    vectors = read(attribute.users)
    labels = np.asarray(attribute.users.labels, dtype=np.int64)
    eraser = fit_eraser(vectors, labels, attribute.classes).to(vectors.device)
    valid_vectors = read(learner.valid)
    before = valid_metrics(learner, learner.parts.head, valid_vectors)
    heads = {"trained": _erased(learner.parts.head, eraser)}
    refitted = _refitted(learner, eraser, config, valid_vectors if valid_chooses else None)
    if refitted is not None:
        heads["refitted"] = refitted
    metrics = {name: valid_metrics(learner, head, valid_vectors) for name, head in heads.items()}
    sign = 1.0 if learner.objective.mode == "min" else -1.0
    best = min(metrics, key=lambda name: sign * metrics[name][learner.objective.metric_names[0]])
    learner.parts.head.load_state_dict(heads[best].state_dict())
    facts = {
        "attribute": attribute.name, "users": len(attribute.users), "rank": eraser.rank, "head": best,
        "before": before, "after": metrics[best],
    }  # fmt: skip
    logger.info(_line(learner.objective.metric_names[0], facts))
    return Erasure(attribute.name, eraser.cpu(), metrics[best], facts)


def _line(metric: str, facts: dict[str, Any]) -> str:
    change = f"{metric} of the valid users {facts['before'][metric]:.4f} -> {facts['after'][metric]:.4f}"
    return f"erased {facts['attribute']!r} (rank {facts['rank']}, of {facts['users']:,} users): {change}"


def _erased(head: Head, eraser: Eraser) -> Head:
    """Return a copy of a head that reads erased representations."""
    copied = copy.deepcopy(head)
    eraser.fold_into(copied)
    return copied


def _refitted(learner: Learner, eraser: Eraser, config: AdaptConfig, valid_vectors: Tensor | None) -> Head | None:
    """Return a head at a regression on erased representations; None where the kind of task has none of these users."""
    users = learner.train.take(_spread(len(learner.train), learner.objective.starting_users))
    erased = eraser(read_users(learner.parts, config, users))
    head = copy.deepcopy(learner.parts.head)
    head.standardise(erased)
    judges = None if valid_vectors is None else Judges(learner.valid, lambda: eraser(valid_vectors))
    if not learner.objective.start_at_probe(head, erased, users, judges):
        return None
    head.fold()
    return _erased(head, eraser)


def _spread(users: int, max_users: int) -> IntArray:
    return np.linspace(0, users - 1, min(users, max_users)).astype(np.int64)


@torch.no_grad()
def valid_metrics(learner: Learner, head: Head, vectors: Tensor) -> Metrics:
    """Return the metrics of a head on the valid users, whose (N, R) representations are given."""
    totals = []
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(vectors)))
        scores = head(vectors[start : start + ROWS_AT_ONCE]).float().cpu()
        totals.append(learner.objective.metric_sums(scores, learner.valid, rows))
    return mean_metrics(totals)
