"""Baselines that predict numbers: the same for everybody, and a ridge regression of a bag of items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import Ridge

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import Sequences
from peterrec.errors import TaskError
from peterrec.evaluation.baselines.bag import bag, bag_width
from peterrec.evaluation.baselines.classification import lengths_of

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Penalties that are tried for the bag of items."""

DEFAULT_PENALTY = 3.0  # without valid users
ENOUGH_USERS = 20  # valid users, for quantiles of what they leave unexplained; else the train users

Quantiles = tuple[float, ...]
Predict = Callable[[Sequences], Float[np.ndarray, " N"]]


@dataclass(frozen=True)
class RegressionBaseline:
    """A fitted baseline; implements `RegressionScorer`.

    Attributes:
        name: as shown in tables.
        predict: (N,) sequences to (N,) predictions.
        quantiles: that it predicts too.
        residuals: (Q,) quantiles of what its predictions leave unexplained, which are added to them.
        settings: what was chosen, and on what.
    """

    name: str
    predict: Predict
    quantiles: Quantiles = ()
    residuals: tuple[float, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    trainable: int | None = None
    trainable_fraction: float | None = None

    def numbers(self, sequences: Sequences) -> Float[np.ndarray, "N columns"]:
        """Return the prediction and each quantile, one row a user."""
        predictions = self.predict(sequences)[:, None]
        return np.concatenate([predictions, predictions + np.array(self.residuals)[None]], axis=1)

    @classmethod
    def fitted(
        cls,
        name: str,
        predict: Predict,
        parts: tuple[TaskPart, TaskPart],
        quantiles: Quantiles,
        settings: dict[str, Any] | None = None,
    ) -> RegressionBaseline:
        """Return a baseline whose quantiles are by what is unexplained of the valid users, or the train users."""
        train, valid = parts
        judges = valid if len(valid) >= ENOUGH_USERS else train
        residuals = numbers_of(judges) - predict(judges.sequences) if quantiles else np.zeros(1)
        moved = tuple(np.quantile(residuals, quantiles).tolist()) if quantiles else ()
        return cls(name, predict, quantiles, moved, settings or {})


def mean_number(train: TaskPart, valid: TaskPart, quantiles: Quantiles) -> RegressionBaseline:
    """Give everybody the mean of the train users."""
    return _constant("mean", float(numbers_of(train).mean()), train, quantiles)


def median_number(train: TaskPart, valid: TaskPart, quantiles: Quantiles) -> RegressionBaseline:
    """Give everybody the median of the train users, which no other number has a smaller absolute error than."""
    return _constant("median", float(np.median(numbers_of(train))), train, quantiles)


def _constant(name: str, number: float, train: TaskPart, quantiles: Quantiles) -> RegressionBaseline:
    def predict(sequences: Sequences) -> Float[np.ndarray, " N"]:
        return np.full(len(sequences), number)

    return RegressionBaseline.fitted(name, predict, (train, train), quantiles)


def ridge_of_items(train: TaskPart, valid: TaskPart, quantiles: Quantiles) -> RegressionBaseline:
    """Fit a ridge regression on the TF-IDF of a user's items and the length of the history.

    The penalty is chosen by the squared error of the valid users.
    """
    width = bag_width(train.sequences)
    tfidf = TfidfTransformer().fit(bag(train.sequences, width))
    length_mean = lengths_of(train.sequences).mean(axis=0)

    def features(sequences: Sequences) -> Any:
        lengths = lengths_of(sequences) - length_mean
        return sp.csr_array(sp.hstack([tfidf.transform(bag(sequences, width)), sp.csr_array(lengths)]))

    inputs, numbers = features(train.sequences), numbers_of(train)
    mean, scale = numbers.mean(), max(float(numbers.std()), 1e-12)
    wanted = (numbers - mean) / scale
    fits = {penalty: Ridge(alpha=penalty).fit(inputs, wanted) for penalty in (PENALTIES if len(valid) else ())}

    def predictor(model: Any) -> Predict:
        return lambda sequences: np.asarray(model.predict(features(sequences)) * scale + mean, dtype=np.float64)

    errors = {penalty: _squared_error(predictor(model), valid) for penalty, model in fits.items()}
    penalty = min(errors, key=lambda candidate: errors[candidate]) if errors else DEFAULT_PENALTY
    model = fits.get(penalty) or Ridge(alpha=penalty).fit(inputs, wanted)
    settings = {"penalty": penalty, "chosen by": "squared error of the valid users"}
    return RegressionBaseline.fitted("tf-idf + ridge", predictor(model), (train, valid), quantiles, settings)


def _squared_error(predict: Predict, part: TaskPart) -> float:
    return float(((predict(part.sequences) - numbers_of(part)) ** 2).mean())


def numbers_of(part: TaskPart) -> Float[np.ndarray, " users"]:
    """Return the numbers of a part.

    Raises:
        TaskError: it has none, so it is not of a regression task.
    """
    if part.numbers is None:
        raise TaskError("the task has no numbers", remedy="evaluate it as a task of another kind")
    return part.numbers
