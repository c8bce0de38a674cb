"""Logistic regression on item factors that were learned without labels, from the histories of all users."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import Sequences
from peterrec.evaluation.baselines.bag import bag_width
from peterrec.evaluation.baselines.classification import ClassificationBaseline, best_regression
from peterrec.evaluation.baselines.tfidf_factors import factorise

GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Inverse regularisation strengths C tried; of standardised features, so smaller than those of the bag of items."""

DEFAULT_STRENGTH = 0.03  # without valid users
SEED = 0
LEAST_DEVIATION = 1e-6  # of a factor, among rows of norm 1: below it is rounding


def factors_name(count: int) -> str:
    """Return the name of the baseline with so many factors."""
    return f"{count} factors + logistic regression"


def factor_regression(
    count: int, train: TaskPart, valid: TaskPart, classes: int, *, unlabelled: Sequences
) -> ClassificationBaseline | str:
    """Fit a logistic regression on what users have of item factors; C by the valid users' log-loss.

    The factors are the right singular vectors of the TF-IDF rows of all users that may be looked at; a user's features
    are the sums of TF-IDF weights times item factors, standardised by the train users. A practitioner would do it to
    put the histories of users without a label to use: self-supervised, without a network and without order.

    Args:
        count: factors, at most: no more than the rows of the users have.
        train: users to fit on.
        valid: users to choose C on; may be empty.
        classes: number of classes.
        unlabelled: histories that the factors are learned from.

    Returns:
        The baseline, or why it was skipped.
    """
    width = max(bag_width(unlabelled), bag_width(train.sequences))
    factors = factorise(unlabelled, np.arange(len(unlabelled)), width, count, SEED)
    if factors is None:
        return f"{factors_name(count)} was skipped: {len(unlabelled):,} users have too few items to factorise"
    users = factors.of_users(train.sequences)
    mean, deviation = users.mean(axis=0), users.std(axis=0)
    usable = np.flatnonzero(deviation > LEAST_DEVIATION)
    if len(usable) == 0:
        return f"{factors_name(count)} was skipped: no factor tells the train users apart"

    def features(sequences: Sequences) -> Float[np.ndarray, "N factors"]:
        return np.asarray((factors.of_users(sequences) - mean)[:, usable] / deviation[usable])

    fit = best_regression(train, valid, classes, features, GRID if len(valid) else (DEFAULT_STRENGTH,))
    settings = fit.settings() | {"factors": len(usable), "learned from": f"the histories of {factors.users:,} users"}
    return ClassificationBaseline(factors_name(count), fit.predict, settings)
