"""Linear probes: logistic regression on representations of users, by itself or as the start of a head."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from peterrec.data.hashing import UInt64Array
from peterrec.data.splits import assign_folds
from peterrec.evaluation.metrics import CLIP

STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Values of C that are tried, strongest penalty first; of standardised vectors, so that they mean about the same."""

FOLDS = 5
MAX_STEPS = 100  # stopping early does no harm: all that is compared stops alike

Vectors = Float[np.ndarray, "N R"]
Labels = Int[np.ndarray, " N"]
Weights = Float[np.ndarray, " N"]


@dataclass(frozen=True)
class LinearProbe:
    """A fitted logistic regression.

    Attributes:
        weight: (K, R) of the vectors as they are given; 0 for a class that nobody had.
        bias: (K,); minus infinity for a class that nobody had.
        strength: C.
    """

    weight: Float[np.ndarray, "K R"]
    bias: Float[np.ndarray, " K"]
    strength: float

    @classmethod
    def fit(
        cls, vectors: Vectors, labels: Labels, classes: int, strength: float, weights: Weights | None = None
    ) -> LinearProbe:
        """Fit on standardised vectors.

        Args:
            vectors: of the users to fit on.
            labels: their classes.
            classes: K.
            strength: C.
            weights: of the users; None: all alike.
        """
        weight, bias = np.zeros((classes, vectors.shape[1])), np.full(classes, -np.inf)
        present = np.unique(labels)
        if len(present) == 1:
            bias[present] = 0.0
            return cls(weight, bias, strength)
        vectors = vectors.astype(np.float64)
        mean, deviation = vectors.mean(axis=0), np.maximum(vectors.std(axis=0), 1e-6)
        model = LogisticRegression(C=strength, max_iter=MAX_STEPS)
        with warnings.catch_warnings(), threadpool_limits(1):  # its steps are too short for several
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((vectors - mean) / deviation, labels, sample_weight=weights)
        coefficients, intercepts = model.coef_, model.intercept_
        if len(present) == 2:  # of two classes it has the difference only
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        weight[present] = coefficients / deviation
        bias[present] = intercepts - logsumexp(intercepts) - weight[present] @ mean
        return cls(weight, bias, strength)

    @classmethod
    def fit_by_cross_validation(
        cls,
        vectors: Vectors,
        labels: Labels,
        classes: int,
        hashes: UInt64Array,
        weights: Weights | None = None,
        valid: tuple[Vectors, Labels, Weights | None] | None = None,
    ) -> LinearProbe:
        """Fit with the C whose log-loss of held-out users is lowest; from strong to weak penalties, until it rises.

        Held out are the users of each fold in turn, and the valid users, each as important as another.

        Args:
            vectors: of the users to fit on.
            labels: their classes.
            classes: K.
            hashes: (N,) of the users' ids, which decide the folds.
            weights: of the users; None: all alike.
            valid: vectors, labels and weights of users who are not fitted on.
        """
        fold_of_user = assign_folds(hashes, FOLDS, "probe", labels)
        best, lowest = STRENGTHS[0], np.inf
        for strength in STRENGTHS:
            losses = np.empty(len(labels))
            for fold in range(FOLDS):
                held_out, fitted = fold_of_user == fold, fold_of_user != fold
                fold_weights = None if weights is None else weights[fitted]
                probe = cls.fit(vectors[fitted], labels[fitted], classes, strength, fold_weights)
                losses[held_out] = probe.losses(vectors[held_out], labels[held_out])
            loss = float(np.average(losses, weights=weights))
            if valid is not None:
                valid_vectors, valid_labels, valid_weights = valid
                valid_losses = cls.fit(vectors, labels, classes, strength, weights).losses(valid_vectors, valid_labels)
                valid_loss = float(np.average(valid_losses, weights=valid_weights))
                loss += (valid_loss - loss) * len(valid_labels) / (len(valid_labels) + len(labels))
            if loss >= lowest:
                break
            best, lowest = strength, loss
        return cls.fit(vectors, labels, classes, best, weights)

    def losses(self, vectors: Vectors, labels: Labels) -> Float[np.ndarray, " N"]:
        """Return minus the log of the probability of each user's class."""
        answers = self.probabilities(vectors)[np.arange(len(labels)), labels]
        return np.asarray(-np.log(np.clip(answers, CLIP, 1.0)))

    def probabilities(self, vectors: Vectors) -> Float[np.ndarray, "N K"]:
        """Return the probability of each class; 0 for one that nobody had."""
        result: Float[np.ndarray, "N K"] = softmax(vectors @ self.weight.T + self.bias, axis=1)
        return result
