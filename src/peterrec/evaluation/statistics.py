"""Every metric of an outcome as a function of user weights, for the table (weights of 1) and for the bootstrap."""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from peterrec.evaluation.intervals import Statistic, ratios
from peterrec.evaluation.metrics import hit_rate, mrr, ndcg, row_log_loss
from peterrec.evaluation.protocols import ClassificationOutcome, RankingOutcome

LOWER_IS_BETTER = ("log_loss", "ece", "mae", "rmse", "pinball", "cost", "set_size")

Sums = dict[str, Float[np.ndarray, " users"]]
"""Of metrics that are means over rows: what each user adds, by name."""


def classification_sums(outcome: ClassificationOutcome) -> Sums:
    """Return what each user adds to accuracy and log-loss; a user is one row."""
    right = (outcome.predicted == outcome.labels).astype(np.float64)
    return {"accuracy": right, "log_loss": row_log_loss(outcome.probabilities, outcome.labels)}


def ranking_sums(outcome: RankingOutcome, *, k: int, sampled_negatives: int) -> Sums:
    """Return what each user's (user, target) pairs add to HR@k, MRR@k and NDCG@k, by full and by sampled ranking."""
    protocols = (
        ("", outcome.full_rank, outcome.full_ties),
        (f" sampled-{sampled_negatives}", outcome.sampled_rank, outcome.sampled_ties),
    )
    return {
        f"{name}@{k}{suffix}": np.bincount(outcome.user, weights=metric(ranks, k, ties=ties), minlength=outcome.users)
        for suffix, ranks, ties in protocols
        for name, metric in (("hr", hit_rate), ("mrr", mrr), ("ndcg", ndcg))
    }


def pairs_of(outcome: RankingOutcome) -> Int[np.ndarray, " users"]:
    """Return how many (user, target) pairs each user has: the rows that ranking metrics are means over."""
    return np.bincount(outcome.user, minlength=outcome.users).astype(np.int64)


def classification_statistics(outcome: ClassificationOutcome) -> dict[str, Statistic]:
    """Return accuracy, macro-F1 and log-loss, and AUC where there are two classes and both occur."""
    labels, predicted = outcome.labels, outcome.predicted
    classes = outcome.probabilities.shape[1]
    ones, sums = np.ones(outcome.users), classification_sums(outcome)
    statistics: dict[str, Statistic] = {
        "accuracy": partial(weighted_mean, sums["accuracy"], ones),
        "macro_f1": partial(
            _macro_f1,
            _one_hot(labels, classes),
            _one_hot(predicted, classes),
            _one_hot(labels, classes, keep=predicted == labels),
        ),
        "log_loss": partial(weighted_mean, sums["log_loss"], ones),
    }
    if classes == 2 and 0 < labels.sum() < len(labels):
        statistics["auc"] = auc_statistic(outcome.probabilities[:, 1], labels)
    return statistics


def ranking_statistics(outcome: RankingOutcome, *, k: int, sampled_negatives: int) -> dict[str, Statistic]:
    """Return HR@k, MRR@k and NDCG@k, means over (user, target) pairs, by full and by sampled ranking.

    The mean of a resample is the sum over the drawn users' pairs by their number: a ratio of sums.
    """
    pairs = pairs_of(outcome).astype(np.float64)
    sums = ranking_sums(outcome, k=k, sampled_negatives=sampled_negatives)
    return {name: partial(weighted_mean, gains, pairs) for name, gains in sums.items()}


def weighted_mean(
    sums: Float[np.ndarray, " users"], rows: Float[np.ndarray, " users"], weights: Float[np.ndarray, "b u"]
) -> Float[np.ndarray, " b"]:
    """Return a mean over rows for each weighting of users, from what each user adds and how many rows each has."""
    return ratios(weights @ sums, weights @ rows)


def _one_hot(
    classes: Int[np.ndarray, " users"], count: int, keep: Int[np.ndarray, " users"] | None = None
) -> sp.csc_array:
    values = np.ones(len(classes)) if keep is None else keep.astype(np.float64)
    return sp.csc_array((values, (np.arange(len(classes)), classes)), shape=(len(classes), count))


def _macro_f1(
    true: sp.csc_array, predicted: sp.csc_array, hits: sp.csc_array, weights: Float[np.ndarray, "b u"]
) -> Float[np.ndarray, " b"]:
    columns = np.ascontiguousarray(weights.T)
    true_count = true.T @ columns  # (C, b)
    true_and_predicted = true_count + predicted.T @ columns
    f1 = np.divide(
        2.0 * (hits.T @ columns),
        true_and_predicted,
        out=np.zeros_like(true_and_predicted),
        where=true_and_predicted > 0,
    )
    present = true_count > 0  # a class that nobody drawn has can be neither found nor missed
    return np.asarray((f1 * present).sum(axis=0) / present.sum(axis=0))


def auc_statistic(scores: Float[np.ndarray, " users"], labels: Int[np.ndarray, " users"]) -> Statistic:
    """Return the AUC of scores for labels of 0 and 1; NaN where a resample has one of them only."""
    order, starts = equal_scores(scores)
    return partial(_auc, order, starts, labels[order].astype(np.float64))


def equal_scores(scores: Float[np.ndarray, " users"]) -> tuple[Int[np.ndarray, " users"], Int[np.ndarray, " groups"]]:
    """Return users in ascending order of their scores, and where in it each score begins."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    return order, np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


def _auc(
    order: Int[np.ndarray, " u"],
    starts: Int[np.ndarray, " g"],
    positive: Float[np.ndarray, " u"],
    weights: Float[np.ndarray, "b u"],
) -> Float[np.ndarray, " b"]:
    drawn = weights[:, order]
    positives = np.add.reduceat(drawn * positive, starts, axis=1)  # (b, g)
    negatives = np.add.reduceat(drawn, starts, axis=1) - positives
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2.0)).sum(axis=1)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return ratios(wins, pairs)
