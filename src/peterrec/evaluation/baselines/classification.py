"""Baselines that give class probabilities: class priors, history length, and a bag of items."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import FIRST_ITEM, Sequences
from peterrec.errors import TaskError
from peterrec.evaluation.baselines.bag import bag, bag_width
from peterrec.evaluation.metrics import log_loss

MAX_STEPS = 300
GRID = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Inverse regularisation strengths C tried for the bag of items, weakest model first."""

Features = Callable[[Sequences], Any]


@dataclass(frozen=True)
class ClassificationBaseline:
    """A fitted baseline; implements `ClassificationScorer`.

    Attributes:
        name: as shown in tables.
        predict: (N,) sequences to (N, C) probabilities.
        settings: what was chosen, and on what.
    """

    name: str
    predict: Callable[[Sequences], Float[np.ndarray, "N C"]]
    settings: dict[str, Any] = field(default_factory=dict)
    trainable: int | None = None
    trainable_fraction: float | None = None

    def probabilities(self, sequences: Sequences) -> Float[np.ndarray, "N C"]:
        """Return class probabilities, one row a user."""
        return self.predict(sequences)


def with_unseen_classes(baseline: ClassificationBaseline, train: TaskPart, classes: int) -> ClassificationBaseline:
    """Return a baseline that gives a class which no train user has the share 1 / (users + classes), to every user.

    As if every class had been seen once more, which is where heads start, too: an impossible class of a test user would
    cost any log-loss.
    """
    counts = np.bincount(labels_of(train), minlength=classes)
    unseen = np.flatnonzero(counts == 0)
    if not len(unseen):
        return baseline
    share = 1.0 / (counts.sum() + classes)

    def predict(sequences: Sequences) -> Float[np.ndarray, "N C"]:
        result: Float[np.ndarray, "N C"] = baseline.predict(sequences) * (1.0 - share * len(unseen))
        result[:, unseen] = share
        return result

    return replace(baseline, predict=predict)


def majority(train: TaskPart, _: TaskPart, classes: int) -> ClassificationBaseline:
    """Give everybody the same answer: the share of each class among the train users."""
    counts = np.bincount(labels_of(train), minlength=classes).astype(np.float64)
    priors = counts / counts.sum()
    return ClassificationBaseline("majority", lambda sequences: np.tile(priors, (len(sequences), 1)))


def history_length(train: TaskPart, _: TaskPart, classes: int) -> ClassificationBaseline:
    """Fit a logistic regression on the length of the history: log(1 + events) and log(1 + distinct items)."""
    scaler = StandardScaler().fit(lengths_of(train.sequences))
    model = fit_regression(new_regression(1.0), scaler.transform(lengths_of(train.sequences)), labels_of(train))
    predict = _predictor(model, lambda sequences: scaler.transform(lengths_of(sequences)), classes)
    return ClassificationBaseline("history length", predict, {"C": 1.0, "converged": _converged(model)})


def bag_of_items(train: TaskPart, valid: TaskPart, classes: int) -> ClassificationBaseline:
    """Fit a logistic regression on the TF-IDF of a user's items, set by the log-loss of the valid users.

    Two things are chosen: C, and whether the rows are normalised (the mix of items alone) or keep their length (how
    much a user did, too; then all are divided by one number, so that the same C mean about the same). Without valid
    users the rows keep their length, and C is 1.
    """
    strengths = GRID if len(valid) else (1.0,)
    options = [
        (best_regression(train, valid, classes, tfidf_features(train.sequences, normalised), strengths), normalised)
        for normalised in (False, True)[: 1 + bool(len(valid))]
    ]
    fit, normalised = min(options, key=lambda option: option[0].loss)
    settings = {"C": fit.model.C, "rows": "normalised" if normalised else "keep their length"} | fit.settings()
    return ClassificationBaseline("tf-idf + logistic regression", fit.predict, settings)


@dataclass(frozen=True)
class Regression:
    """A logistic regression whose strength was chosen.

    Attributes:
        model: fitted on the train users.
        predict: (N,) sequences to (N, C) probabilities.
        loss: log-loss of the valid users; 0 where there are none.
    """

    model: LogisticRegression
    predict: Callable[[Sequences], Float[np.ndarray, "N C"]]
    loss: float

    def settings(self) -> dict[str, Any]:
        """Return what was chosen, and on what."""
        return {"C": self.model.C, "chosen by": "log-loss of the valid users", "converged": _converged(self.model)}


def best_regression(
    train: TaskPart, valid: TaskPart, classes: int, features: Features, strengths: Sequence[float]
) -> Regression:
    """Walk a grid from strong to weak regularisation, each fit starting from the last, until the log-loss rises.

    It has one minimum in C for all practical purposes.

    Args:
        train: users to fit on.
        valid: users to choose on; where there are none the first strength is taken.
        classes: number of classes.
        features: from N sequences to N rows, dense or sparse.
        strengths: values of C, smallest first.
    """
    inputs, labels = features(train.sequences), labels_of(train)
    model = new_regression(strengths[0], warm_start=True)
    best: Regression | None = None
    for strength in strengths:
        fit_regression(model.set_params(C=strength), inputs, labels)
        predict = _predictor(model, features, classes)
        loss = log_loss(predict(valid.sequences), labels_of(valid)) if len(valid) else 0.0
        if best is not None and loss >= best.loss:
            break
        fitted = copy.deepcopy(model)
        best = Regression(fitted, _predictor(fitted, features, classes), loss)
    assert best is not None
    return best


def tfidf_features(sequences: Sequences, normalised: bool) -> Features:
    """Return what gives TF-IDF rows of users, by these users; of norm 1, or all divided by one number."""
    width = bag_width(sequences)
    counts = bag(sequences, width)
    tfidf = TfidfTransformer(norm="l2" if normalised else None).fit(counts)
    squares = tfidf.transform(counts).power(2).sum(axis=1)
    scale = 1.0 if normalised else 1.0 / np.sqrt(max(float(squares.mean()), 1e-12))
    return lambda rows: tfidf.transform(bag(rows, width)) * scale


def labels_of(part: TaskPart) -> Int[np.ndarray, " users"]:
    """Return the labels of a part.

    Raises:
        TaskError: it has none, so it is not of a classification task.
    """
    if part.labels is None:
        raise TaskError("the task has no labels", remedy="evaluate it as a ranking task")
    return np.asarray(part.labels, dtype=np.int64)


def lengths_of(sequences: Sequences) -> Float[np.ndarray, "N 2"]:
    """Return log(1 + events) and log(1 + distinct items) of each user."""
    items = np.asarray(sequences.items, dtype=np.int64)
    real = items >= FIRST_ITEM
    rows = sequences.repeat()
    pairs = np.unique(np.stack([rows[real], items[real]]), axis=1)
    events = np.bincount(rows, minlength=len(sequences))
    distinct = np.bincount(pairs[0], minlength=len(sequences))
    return np.log1p(np.stack([events, distinct], axis=1))


def new_regression(strength: float, *, warm_start: bool = False) -> LogisticRegression:
    """Return a logistic regression of strength C that is not fitted yet."""
    return LogisticRegression(C=strength, max_iter=MAX_STEPS, warm_start=warm_start)


def fit_regression(model: LogisticRegression, inputs: Any, labels: Int[np.ndarray, " users"]) -> LogisticRegression:
    """Fit a regression, at most `MAX_STEPS` long, and return it."""
    # Threads take a multinomial regression of this size several times as long as one does: its steps are that short.
    with warnings.catch_warnings(), threadpool_limits(1):
        # Stopping at MAX_STEPS is early stopping; the settings say so where a reader sees it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(inputs, labels)


def _converged(model: LogisticRegression) -> bool:
    return bool(np.max(model.n_iter_) < MAX_STEPS)


def _predictor(
    model: LogisticRegression, features: Features, classes: int
) -> Callable[[Sequences], Float[np.ndarray, "N C"]]:
    def predict(sequences: Sequences) -> Float[np.ndarray, "N C"]:
        result = np.zeros((len(sequences), classes))
        if len(sequences):  # scikit-learn refuses an empty matrix
            result[:, model.classes_] = model.predict_proba(features(sequences))
        return result

    return predict
