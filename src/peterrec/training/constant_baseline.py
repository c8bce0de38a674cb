"""The answer that is the same for everybody, and the warning about a model that is no better."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.sequences import IntArray
from peterrec.nn.heads import log_share
from peterrec.nn.readout import readout_named
from peterrec.training.task_loss import MetricTotals, mean_metrics, metric_sums

ROWS_AT_ONCE = 256
SETTINGS_NAMED = 3
ROUNDING = 1e-6  # metrics that were logged are fp32

Metrics = dict[str, float]


def constant_answer_sums(
    task: Task, train: TaskPart, part: TaskPart, rows: IntArray, weights: Tensor | None
) -> list[MetricTotals]:
    """Return the sums of the metrics of the constant answer on some users, as `metric_sums` does.

    It is the class shares of the train users (as the loss weighs them; for the accuracy the largest class), or the
    popularity of the targets among them.

    Args:
        task: with the target catalogue counted on the train users.
        train: users whose shares are answered.
        part: users that are answered.
        rows: which of them.
        weights: (K,) of the classes in the log-loss.
    """
    if train.labels is None:
        assert task.targets is not None
        popularity = log_share(torch.from_numpy(task.targets.counts))
        return [metric_sums(popularity.repeat(len(chunk), 1), part, chunk) for chunk in _chunks(rows)]
    shares = log_share(torch.from_numpy(np.bincount(train.labels, minlength=len(task.class_names))))
    weighted = shares if weights is None else shares + weights.cpu().log()
    sums = []
    for chunk in _chunks(rows):
        plain = metric_sums(shares.repeat(len(chunk), 1), part, chunk)
        sums.append(plain | {"log_loss": metric_sums(weighted.repeat(len(chunk), 1), part, chunk, weights)["log_loss"]})
    return sums


def constant_answer_metrics(task: Task, train: TaskPart, part: TaskPart, weights: Tensor | None) -> Metrics:
    """Return the metrics of the constant answer on all users of a part, as `constant_answer_sums`."""
    return mean_metrics(constant_answer_sums(task, train, part, np.arange(len(part)), weights))


def _chunks(rows: IntArray) -> Iterator[IntArray]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]


def useless(name: str, metrics: dict[str, Any], valid: int, config: AdaptConfig) -> tuple[str, ...]:
    """Return the warning that is due where a model is no better than the constant answer, if one is.

    Held-out train users are asked where there was a cross-validation: they are more than the valid users.

    Args:
        name: of the task.
        metrics: of the bundle: `valid`, `constant`, `cross_validation`, `best_epoch`.
        valid: number of valid users.
        config: of the model.
    """
    held_out = metrics.get("cross_validation")
    if held_out is not None:
        judged_on, users = "held-out train users", held_out["users"]
        model_metrics, constant_answer = held_out["metrics"], held_out["constant"]
    else:
        judged_on, users = "valid users", valid
        model_metrics, constant_answer = metrics["valid"], metrics["constant"]
    problem = _problem(model_metrics, constant_answer, users, weighted=config.class_weights is not None)
    if problem is None:
        return ()
    return (f"{name!r} is {problem} for {users:,} {judged_on}: {_advice(config, metrics['best_epoch'])}",)


def _problem(metrics: Metrics, constant: Metrics, users: int, *, weighted: bool) -> str | None:
    """Return in words how a model is no better than the constant answer; None where it is better.

    The metric that decides must be better. The accuracy may lie below the share of the largest class by a standard
    error; and by any amount where classes are weighted: it is then not what is trained for.
    """
    if "mrr" in metrics:
        if metrics["mrr"] > constant["mrr"] + ROUNDING:
            return None
        return f"no better than ranking by popularity (mrr {_pair('mrr', metrics, constant)})"
    if metrics["log_loss"] >= constant["log_loss"] - ROUNDING:
        return f"no better than answering the class shares (log_loss {_pair('log_loss', metrics, constant)})"
    share = constant["accuracy"]
    if weighted or metrics["accuracy"] >= share - ROUNDING - math.sqrt(share * (1.0 - share) / users):
        return None
    return f"worse than answering the largest class (accuracy {_pair('accuracy', metrics, constant)})"


def _pair(name: str, metrics: Metrics, constant: Metrics) -> str:
    return f"{metrics[name]:.3f} against {constant[name]:.3f}"


def settings_to_try(config: AdaptConfig, best_epoch: int) -> tuple[str, ...]:
    """Return the settings that are the most likely to help a model that is no better than the constant answer.

    Args:
        config: of the model.
        best_epoch: the one that was kept, counted from 0; -1: what the training started from.
    """
    settings = []
    if best_epoch == config.epochs - 1:
        settings.append(f"epochs={2 * config.epochs}")
    elif best_epoch <= 0:
        settings.append(f"optim.lr={config.optim.lr / 4:g}")
    if readout_named(config.readout).token_only:
        settings.append("readout=pooled")
    if config.event_dropout == 0.0:
        settings.append("event_dropout=0.5")
    if config.strategy not in ("head", "joint"):
        settings.append("strategy=head")
    if config.optim.weight_decay < 0.1:
        settings.append("optim.weight_decay=0.1")
    return tuple(settings[:SETTINGS_NAMED])


def _advice(config: AdaptConfig, best_epoch: int) -> str:
    """Return what to do about such a model, in words."""
    settings = settings_to_try(config, best_epoch)
    return f"try the settings {', '.join(settings)}; or label more users" if settings else "label more users"
