"""Baselines of several labels at once: the share of each label, and a logistic regression of each on a bag of items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import Sequences, indicators
from peterrec.errors import TaskError
from peterrec.evaluation.baselines.classification import GRID, Features, fit_regression, new_regression, tfidf_features
from peterrec.evaluation.metrics import CLIP

Predict = Callable[[Sequences], Float[np.ndarray, "N K"]]


@dataclass(frozen=True)
class MultilabelBaseline:
    """A fitted baseline; implements `MultilabelScorer`.

    Attributes:
        name: as shown in tables.
        predict: (N,) sequences to (N, K) probabilities.
        settings: what was chosen, and on what.
    """

    name: str
    predict: Predict
    settings: dict[str, Any] = field(default_factory=dict)
    trainable: int | None = None
    trainable_fraction: float | None = None

    def label_probabilities(self, sequences: Sequences) -> Float[np.ndarray, "N K"]:
        """Return a probability of each label, one row a user."""
        return self.predict(sequences)


def label_shares(train: TaskPart, _: TaskPart, labels: int) -> MultilabelBaseline:
    """Give everybody the same answer: the share of train users with each label."""
    shares = _shares(train, labels)
    return MultilabelBaseline("label shares", lambda sequences: np.tile(shares, (len(sequences), 1)))


def label_regressions(train: TaskPart, valid: TaskPart, labels: int) -> MultilabelBaseline:
    """Fit a logistic regression of each label against all others on the TF-IDF of a user's items.

    The same C for all labels, by the log-loss of the valid users: from strong to weak penalties, until it rises. A
    label that all train users have, or none, gets its share.
    """
    features = tfidf_features(train.sequences, normalised=False)
    inputs, wanted = features(train.sequences), indicators_of(train, labels)
    strengths = GRID if len(valid) else (1.0,)
    best, lowest, strength = None, np.inf, strengths[0]
    for candidate in strengths:
        models = [_fit_label(candidate, inputs, wanted[:, label]) for label in range(labels)]
        predict = _predictor(models, features, _shares(train, labels))
        loss = _log_loss(predict(valid.sequences), indicators_of(valid, labels)) if len(valid) else 0.0
        if loss >= lowest:
            break
        best, lowest, strength = predict, loss, candidate
    assert best is not None
    settings = {"C": strength, "chosen by": "log-loss of the valid users"}
    return MultilabelBaseline("tf-idf + logistic regressions", best, settings)


def _fit_label(strength: float, inputs: Any, wanted: Float[np.ndarray, " users"]) -> LogisticRegression | None:
    return fit_regression(new_regression(strength), inputs, wanted.astype(np.int64)) if np.ptp(wanted) else None


def _predictor(models: list[LogisticRegression | None], features: Features, shares: np.ndarray) -> Predict:
    def predict(sequences: Sequences) -> Float[np.ndarray, "N K"]:
        result = np.tile(shares, (len(sequences), 1))
        if len(sequences):  # scikit-learn refuses an empty matrix
            inputs = features(sequences)
            for label, model in enumerate(models):
                if model is not None:
                    result[:, label] = model.predict_proba(inputs)[:, 1]
        return result

    return predict


def _log_loss(probabilities: Float[np.ndarray, "N K"], wanted: Float[np.ndarray, "N K"]) -> float:
    answers = np.where(wanted == 1, probabilities, 1.0 - probabilities)
    return float(-np.log(np.clip(answers, CLIP, 1.0)).mean())


def _shares(train: TaskPart, labels: int) -> Float[np.ndarray, " labels"]:
    """Return the share of users with each label, as if one more had it and one more had not."""
    return np.asarray((indicators_of(train, labels).sum(axis=0) + 1.0) / (len(train) + 2.0))


def indicators_of(part: TaskPart, labels: int) -> Float[np.ndarray, "users labels"]:
    """Return 1 where a user of a part has a label, else 0.

    Raises:
        TaskError: it has no sets of labels, so it is not of a multilabel task.
    """
    if part.label_sets is None:
        raise TaskError("the task has no sets of labels", remedy="evaluate it as a task of another kind")
    return indicators(part.label_sets, labels).astype(np.float64)
