"""Metrics of several labels at once as functions of user weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from peterrec.evaluation.intervals import Statistic, ratios
from peterrec.evaluation.metrics import CLIP
from peterrec.evaluation.protocols import MultilabelOutcome
from peterrec.evaluation.statistics import Sums, auc_statistic, equal_scores, weighted_mean


def multilabel_sums(outcome: MultilabelOutcome) -> Sums:
    """Return what each user adds to the log-loss: the mean over labels."""
    probabilities = np.where(outcome.indicators == 1, outcome.probabilities, 1.0 - outcome.probabilities)
    return {"log_loss": -np.log(np.clip(probabilities, CLIP, 1.0)).mean(axis=1)}


def multilabel_statistics(outcome: MultilabelOutcome) -> dict[str, Statistic]:
    """Return log-loss, macro-AUC and macro-AP: means over the labels that some users have and some have not.

    A resample without either of a label leaves that label out.
    """
    ones, sums = np.ones(outcome.users), multilabel_sums(outcome)
    having = outcome.indicators.sum(axis=0)
    judged = np.flatnonzero((having > 0) & (having < outcome.users))
    pairs = [(outcome.probabilities[:, label], outcome.indicators[:, label]) for label in judged]
    statistics: dict[str, Statistic] = {
        "macro_auc": partial(mean_over_labels, [auc_statistic(*pair) for pair in pairs]),
        "macro_ap": partial(mean_over_labels, [_average_precision_statistic(*pair) for pair in pairs]),
    }
    return (statistics if pairs else {}) | {"log_loss": partial(weighted_mean, sums["log_loss"], ones)}


def mean_over_labels(by_label: Sequence[Statistic], weights: Float[np.ndarray, "b u"]) -> Float[np.ndarray, " b"]:
    """Return the mean of metrics of labels, in each resample without those that are undefined there."""
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for statistic in by_label:
        values = statistic(weights)
        defined = ~np.isnan(values)
        total[defined] += values[defined]
        count += defined
    return ratios(total, count)


def _average_precision_statistic(scores: Float[np.ndarray, " users"], labels: Int[np.ndarray, " users"]) -> Statistic:
    order, starts = equal_scores(-scores)
    return partial(_average_precision, order, starts, labels[order].astype(np.float64))


def _average_precision(
    order: Int[np.ndarray, " u"],
    starts: Int[np.ndarray, " g"],
    positive: Float[np.ndarray, " u"],
    weights: Float[np.ndarray, "b u"],
) -> Float[np.ndarray, " b"]:
    """Return the precision down to each positive, their mean; users of one score come all at once."""
    drawn = weights[:, order]
    positives = np.add.reduceat(drawn * positive, starts, axis=1)  # (b, g)
    users = np.cumsum(np.add.reduceat(drawn, starts, axis=1), axis=1)
    positives_above = np.cumsum(positives, axis=1)
    precision = np.divide(positives_above, users, out=np.zeros_like(positives_above), where=users > 0)
    total = positives_above[:, -1]
    total = np.where(users[:, -1] > total, total, 0.0)  # as the AUC: a label of everybody is left out
    return ratios((positives * precision).sum(axis=1), total)
