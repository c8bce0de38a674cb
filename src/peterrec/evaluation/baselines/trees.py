"""Gradient-boosted trees on a bag of items and the length of the history (LightGBM: Ke et al., NeurIPS 2017)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Real

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import Sequences
from peterrec.evaluation.baselines.bag import bag, bag_width
from peterrec.evaluation.baselines.classification import ClassificationBaseline, labels_of, lengths_of
from peterrec.evaluation.baselines.regression import RegressionBaseline

NAME = "gradient-boosted trees"
LEAVES = (4, 8, 16)
RATES = (0.1, 0.05)
"""The first is used while leaves are chosen; the others are then tried with these leaves."""

MANY_CLASSES = 10
"""Classes above which only the first rate is tried: a round is a tree for each class."""

MAX_ROUNDS = 1_000
PATIENCE = 20
ROUNDS_UNSEEN = 100  # where there are no valid users to stop by
MIN_USERS = 20  # train users on each side of a split, LightGBM's own default; so rarer items can split nothing
FIXED: dict[str, Any] = {
    "min_data_in_leaf": MIN_USERS,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_col_wise": True,  # else LightGBM times both forms and takes the faster, which may differ from run to run
    "feature_pre_filter": False,
    "verbosity": -1,
}


class Unavailable(str):
    """A baseline that needs a package which is not installed; the message says which."""

    __slots__ = ()


def boosted_trees(
    train: TaskPart, valid: TaskPart, outputs: Any, *, seed: int = 0
) -> ClassificationBaseline | RegressionBaseline | str:
    """Fit trees to the counts of items that at least 20 train users have, and to the length of the history.

    Of classes by the log-loss, `outputs` being their number; of numbers by the squared error of standardised ones,
    `outputs` being the quantiles that are predicted too. Leaves of a tree, then (where classes are few) the learning
    rate, are chosen by that of the valid users, which also stops the boosting. Classes without train users get
    probability 0. As many threads as torch uses; the same seed gives the same trees whatever their number.

    Returns:
        The baseline, or why it was skipped: LightGBM is not there.
    """
    try:
        lightgbm = importlib.import_module("lightgbm")
    except (ImportError, OSError) as error:  # OSError: its library lacks the OpenMP runtime of the system
        return Unavailable(f"{NAME} was skipped: LightGBM cannot be used ({error}); install peterrec[experiments]")
    problem = _Problem(lightgbm, train, valid, seed)
    tried = [problem.fit(leaves, RATES[0]) for leaves in (LEAVES if problem.has_valid else LEAVES[1:2])]
    best = min(tried, key=lambda fit: fit.loss)
    if problem.has_valid and len(problem.present) <= MANY_CLASSES:
        best = min([best, *(problem.fit(best.leaves, rate) for rate in RATES[1:])], key=lambda fit: fit.loss)
    loss = "log-loss" if train.numbers is None else "squared error"
    settings = {
        "leaves": best.leaves, "learning rate": best.rate, "rounds": best.rounds,
        "chosen by": f"{loss} of the valid users", "items": f"of at least {MIN_USERS} train users",
    }  # fmt: skip
    if train.numbers is not None:
        return RegressionBaseline.fitted(NAME, problem.number_predictor(best), (train, valid), outputs, settings)
    return ClassificationBaseline(NAME, problem.predictor(best, outputs), settings)


@dataclass(frozen=True)
class _Fit:
    booster: Any
    leaves: int
    rate: float
    rounds: int
    loss: float


class _Problem:
    """Train and valid users as LightGBM wants them, with the classes numbered that train users have."""

    def __init__(self, lightgbm: Any, train: TaskPart, valid: TaskPart, seed: int) -> None:
        self.lightgbm = lightgbm
        self.present = np.unique(labels_of(train)) if train.numbers is None else np.empty(0, np.int64)
        if train.numbers is not None:
            self.mean, self.deviation = float(train.numbers.mean()), max(float(train.numbers.std()), 1e-12)
        self.width = bag_width(train.sequences)
        having = np.bincount(bag(train.sequences, self.width, binary=True).indices, minlength=self.width)
        self.columns = np.flatnonzero(having >= MIN_USERS)
        self.params = FIXED | {"seed": seed, "num_threads": torch.get_num_threads()}
        self.params |= {"objective": "binary" if train.numbers is None else "regression"}
        if len(self.present) > 2:
            self.params |= {"objective": "multiclass", "num_class": len(self.present)}
        self.train = lightgbm.Dataset(self.features(train.sequences), self._numbered(train), params=self.params)
        # The loss of a class that no train user has is infinite for every setting.
        rows = np.arange(len(valid))
        if len(valid) and valid.numbers is None:
            rows = np.flatnonzero(np.isin(labels_of(valid), self.present))
        self.has_valid = len(rows) > 0
        if self.has_valid:
            features, numbered = self.features(valid.sequences.take(rows)), self._numbered(valid)[rows]
            self.valid = lightgbm.Dataset(features, numbered, reference=self.train)

    def _numbered(self, part: TaskPart) -> Real[np.ndarray, " users"]:
        if part.numbers is not None:
            return (part.numbers - self.mean) / self.deviation
        return np.searchsorted(self.present, labels_of(part))

    def features(self, sequences: Sequences) -> Any:
        """Return a (users, kept items + 2) matrix, which is not an array: LightGBM warns of sparse arrays."""
        counts = bag(sequences, self.width)[:, self.columns]
        return sp.csr_matrix(sp.hstack([counts, sp.csr_array(lengths_of(sequences))]))

    def fit(self, leaves: int, rate: float) -> _Fit:
        """Boost until the valid users' log-loss no longer falls."""
        params = self.params | {"num_leaves": leaves, "learning_rate": rate}
        if not self.has_valid:
            booster = self.lightgbm.train(params, self.train, ROUNDS_UNSEEN)
            return _Fit(booster, leaves, rate, ROUNDS_UNSEEN, 0.0)
        stop = self.lightgbm.early_stopping(PATIENCE, verbose=False)
        booster = self.lightgbm.train(params, self.train, MAX_ROUNDS, valid_sets=[self.valid], callbacks=[stop])
        (loss,) = booster.best_score["valid_0"].values()
        return _Fit(booster, leaves, rate, booster.best_iteration, float(loss))

    def number_predictor(self, fit: _Fit) -> Callable[[Sequences], Float[np.ndarray, " N"]]:
        """Return what gives the numbers in their own unit."""

        def predict(sequences: Sequences) -> Float[np.ndarray, " N"]:
            if not len(sequences):
                return np.empty(0)
            outputs = fit.booster.predict(self.features(sequences), num_iteration=fit.rounds)
            return np.asarray(outputs * self.deviation + self.mean, dtype=np.float64)

        return predict

    def predictor(self, fit: _Fit, classes: int) -> Callable[[Sequences], Float[np.ndarray, "N C"]]:
        """Return what gives the probabilities of all classes."""

        def predict(sequences: Sequences) -> Float[np.ndarray, "N C"]:
            result = np.zeros((len(sequences), classes))
            if len(sequences):
                probabilities = np.asarray(fit.booster.predict(self.features(sequences), num_iteration=fit.rounds))
                result[:, self.present] = (
                    probabilities if probabilities.ndim == 2 else np.stack([1.0 - probabilities, probabilities], axis=1)
                )
            return result

        return predict
