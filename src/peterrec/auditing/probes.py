"""Probes: what a model that has seen other users guesses of an attribute."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from peterrec.data.corpus import TaskPart
from peterrec.data.hashing import UInt64Array
from peterrec.data.splits import assign_folds
from peterrec.evaluation.baselines.classification import bag_of_items, majority
from peterrec.training.linear_probe import LinearProbe

Vectors = Float[np.ndarray, "N R"]
Labels = Int[np.ndarray, " N"]
Probabilities = Float[np.ndarray, "N K"]
FitPredict = Callable[[Int[np.ndarray, " n"], Int[np.ndarray, " m"]], Float[np.ndarray, "m K"]]
"""From the rows of users to fit on and those to guess, to the probability of each class of the latter."""

HIDDEN_UNITS = 64
INNER_FOLDS = 5  # one of which chooses the strength of the regression on items
MAX_EPOCHS = 300


def out_of_fold(folds: Int[np.ndarray, " N"], classes: int, fit_predict: FitPredict) -> Probabilities:
    """Return what is guessed of each user by a model that was fitted on the users of the other folds."""
    probabilities = np.zeros((len(folds), classes))
    for fold in range(int(folds.max()) + 1):
        fitted, guessed = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        probabilities[guessed] = fit_predict(fitted, guessed)
    return probabilities


def linear(vectors: Vectors, labels: Labels, classes: int, hashes: UInt64Array) -> FitPredict:
    """Return a logistic regression, its penalty chosen by folds of the users that it is fitted on."""

    def fit_predict(fitted: Int[np.ndarray, " n"], guessed: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m K"]:
        probe = LinearProbe.fit_by_cross_validation(vectors[fitted], labels[fitted], classes, hashes[fitted])
        return probe.probabilities(vectors[guessed])

    return fit_predict


def nonlinear(vectors: Vectors, labels: Labels, classes: int, seed: int) -> FitPredict:
    """Return a neural network of one hidden layer, which a tenth of the users that it is fitted on stop early."""

    def fit_predict(fitted: Int[np.ndarray, " n"], guessed: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m K"]:
        scaler = StandardScaler().fit(vectors[fitted])
        model = MLPClassifier(
            (HIDDEN_UNITS,), alpha=0.01, learning_rate_init=0.003, max_iter=MAX_EPOCHS, early_stopping=True,
            random_state=seed,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaler.transform(vectors[fitted]), labels[fitted])
        probabilities = np.zeros((len(guessed), classes))
        probabilities[:, model.classes_] = model.predict_proba(scaler.transform(vectors[guessed]))
        return probabilities

    return fit_predict


def without_looking(part: TaskPart, classes: int) -> FitPredict:
    """Return the shares of the classes: the floor."""

    def fit_predict(fitted: Int[np.ndarray, " n"], guessed: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m K"]:
        train = part.take(fitted)
        return majority(train, train, classes).probabilities(part.sequences.take(guessed))

    return fit_predict


def items(part: TaskPart, classes: int, hashes: UInt64Array) -> FitPredict:
    """Return a logistic regression on the TF-IDF of all items that users had: the ceiling of what is linear in them."""

    def fit_predict(fitted: Int[np.ndarray, " n"], guessed: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m K"]:
        train = part.take(fitted)
        inner = assign_folds(hashes[fitted], INNER_FOLDS, "audit items", np.asarray(train.labels))
        choosing, learning = np.flatnonzero(inner == 0), np.flatnonzero(inner > 0)
        baseline = bag_of_items(train.take(learning), train.take(choosing), classes)
        return baseline.probabilities(part.sequences.take(guessed))

    return fit_predict


def probes_of(
    vectors: Vectors, labels: Labels, classes: int, hashes: UInt64Array, *, seed: int, with_network: bool
) -> dict[str, Callable[[], FitPredict]]:
    """Return the probes of vectors by their names."""
    named: dict[str, Callable[[], FitPredict]] = {"linear": partial(linear, vectors, labels, classes, hashes)}
    if with_network:
        named["nonlinear"] = partial(nonlinear, vectors, labels, classes, seed)
    return named
