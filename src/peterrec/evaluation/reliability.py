"""Reliability of probabilities: how often those come true to whom a model gives so much, and the expected error."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binomtest

from peterrec.evaluation.intervals import Statistic
from peterrec.evaluation.protocols import ClassificationOutcome, MultilabelOutcome
from peterrec.evaluation.statistics import weighted_mean

BINS = 10  # of about as many users each


class Judged(NamedTuple):
    """Probabilities of one event a user, such as a class, and 1 where it came true, both (N,)."""

    probabilities: Float[np.ndarray, " N"]
    came_true: Int[np.ndarray, " N"]


class Bin(NamedTuple):
    """Users whose probabilities are neighbours.

    Attributes:
        predicted: mean of their probabilities.
        observed: share of those for whom it came true.
        users: how many they are; of several labels pairs of a user and a label.
        low: limit of the 95 % interval of `observed` (Wilson, JASA 1927); None of pairs, which are not independent.
        high: the other limit.
    """

    predicted: float
    observed: float
    users: int
    low: float | None
    high: float | None


def judged_class(outcome: ClassificationOutcome) -> Judged:
    """Return the probability of the second of two classes; of more the one of the most probable class."""
    if outcome.probabilities.shape[1] == 2:
        return Judged(outcome.probabilities[:, 1], outcome.labels)
    top = outcome.probabilities.argmax(axis=1)
    rows = np.arange(len(top))
    return Judged(outcome.probabilities[rows, top], (top == outcome.labels).astype(np.int64))


def judged_labels(outcome: MultilabelOutcome) -> list[Judged]:
    """Return the probabilities of each label."""
    columns = range(outcome.probabilities.shape[1])
    return [Judged(outcome.probabilities[:, column], outcome.indicators[:, column]) for column in columns]


def bin_of_user(probabilities: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Return the bin of each user, of about as many each: equal probabilities are never parted."""
    edges = np.unique(np.quantile(probabilities, np.arange(1, BINS) / BINS))
    return np.searchsorted(edges, probabilities, side="right").astype(np.int64)


def error_statistic(judged: list[Judged]) -> Statistic:
    """Return the expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015), of labels the mean over them.

    The mean over bins of |mean probability - share that came true|, weighted by their users. In resamples bins and the
    directions of their gaps are held: gaps of other users' chance would add to every resample, and an interval that
    does not have the value in it would come of it.
    """
    gaps = np.mean([_signed_gaps(*columns) for columns in judged], axis=0)
    mean = partial(weighted_mean, gaps, np.ones(len(gaps)))
    return lambda weights: np.maximum(mean(weights), 0.0)


def _signed_gaps(probabilities: Float[np.ndarray, " N"], came_true: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Return what each user adds to the error of a bin, with the sign that makes the bin's own gap positive."""
    gaps, bins = probabilities - came_true, bin_of_user(probabilities)
    return np.asarray(gaps * np.sign(np.bincount(bins, weights=gaps))[bins])


def reliability(judged: list[Judged]) -> list[Bin]:
    """Return the bins of a reliability diagram; those of several labels have all their pairs of user and label."""
    probabilities = np.concatenate([columns.probabilities for columns in judged])
    came_true = np.concatenate([columns.came_true for columns in judged])
    bins = bin_of_user(probabilities)
    rows = []
    for number in np.unique(bins):
        within = bins == number
        users, hits = int(within.sum()), int(came_true[within].sum())
        low, high = binomtest(hits, users).proportion_ci(method="wilson") if len(judged) == 1 else (None, None)
        limits = (None, None) if low is None or high is None else (float(low), float(high))
        rows.append(Bin(float(probabilities[within].mean()), hits / users, users, *limits))
    return rows
