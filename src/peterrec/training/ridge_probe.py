"""Ridge probes: which items go with representations of users, in closed form, as the start of a head of items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.special import logsumexp

from peterrec.data.hashing import UInt64Array
from peterrec.data.sequences import IntArray, Sequences
from peterrec.data.splits import assign_folds
from peterrec.evaluation.validation import mean_reciprocal_rank
from peterrec.training.linear_probe import FOLDS, Vectors

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Values of lambda / users that are tried; of standardised vectors, so that they mean about the same."""

SCALES = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Factors from regression to logits that are tried: the regression says how probable an item is, in parts of one."""

MAX_HELD_OUT = 2_048
"""Held-out users that choose: all items are ranked for each, for every penalty."""

BATCH = 256  # users whose scores of all items are held at once


@dataclass(frozen=True)
class RidgeProbe:
    """A fitted ridge regression from representations to items, min ||Y - mean - X W||^2 + lambda ||W||^2.

    Y (users, items) is 1 where a user has an item. The mean of Y is the start of everybody, so that what says nothing
    gives popularity.

    Attributes:
        weight: (items, R) of the vectors as they are given.
        bias: (items,).
        penalty: lambda / users.
        scale: both are times this, by which the scores are logits.
    """

    weight: Float[np.ndarray, "items R"]
    bias: Float[np.ndarray, " items"]
    penalty: float
    scale: float = 1.0

    @classmethod
    def fit(cls, vectors: Vectors, targets: sp.csr_array, penalty: float) -> RidgeProbe:
        """Solve for all items at once.

        Args:
            vectors: of the users to fit on.
            targets: (users, items), 1 where a user has an item.
            penalty: lambda / users.
        """
        return _solve(_Sums.over(vectors.astype(np.float64), targets), penalty)

    @classmethod
    def fit_by_cross_validation(
        cls, vectors: Vectors, targets: Sequences, items: int, hashes: UInt64Array
    ) -> RidgeProbe:
        """Fit with the penalty whose mean reciprocal rank of held-out users is highest; then with the likeliest scale.

        Args:
            vectors: of the users to fit on.
            targets: their items, as indices from 0.
            items: number of items.
            hashes: (N,) of the users' ids, which decide the folds.
        """
        vectors, matrix = vectors.astype(np.float64), _matrix(targets, items)
        everybody = _Sums.over(vectors, matrix)
        fold_of_user = assign_folds(hashes, min(FOLDS, len(vectors)), "probe")
        judges = np.linspace(0, len(vectors) - 1, min(len(vectors), MAX_HELD_OUT)).astype(np.int64)
        folds = [
            _Fold.held_out(vectors, matrix, targets, everybody, judges, fold_of_user == fold) for fold in range(FOLDS)
        ]
        folds = [fold for fold in folds if len(fold.targets.items)]
        if not folds:
            return cls.fit(vectors, matrix, PENALTIES[-1])
        ranks = {penalty: _mean([fold.reciprocal_rank(penalty) for fold in folds], folds) for penalty in PENALTIES}
        penalty = max(PENALTIES, key=lambda candidate: ranks[candidate])
        losses = np.stack([fold.losses(penalty) for fold in folds])
        scale = SCALES[int(np.argmin([_mean(list(column), folds) for column in losses.T]))]
        probe = _solve(everybody, penalty)
        return cls(probe.weight * scale, probe.bias * scale, penalty, scale)

    def scores(self, vectors: Vectors) -> Float[np.ndarray, "N items"]:
        """Return the score of every item."""
        return np.asarray(vectors @ self.weight.T + self.bias)


@dataclass(frozen=True)
class _Sums:
    """Sums over users that a ridge regression is made of; those of fewer users are a difference."""

    users: int
    vectors: Float[np.ndarray, " R"]
    gram: Float[np.ndarray, "R R"]
    items: Float[np.ndarray, " items"]
    products: Float[np.ndarray, "items R"]

    @classmethod
    def over(cls, vectors: Vectors, targets: sp.csr_array) -> _Sums:
        items = np.bincount(targets.indices, minlength=targets.shape[1]).astype(np.float64)
        return cls(len(vectors), vectors.sum(axis=0), vectors.T @ vectors, items, np.asarray(targets.T @ vectors))

    def without(self, left_out: _Sums) -> _Sums:
        return _Sums(
            self.users - left_out.users,
            self.vectors - left_out.vectors,
            self.gram - left_out.gram,
            self.items - left_out.items,
            self.products - left_out.products,
        )


def _solve(sums: _Sums, penalty: float) -> RidgeProbe:
    mean, share = sums.vectors / sums.users, sums.items / sums.users
    gram = sums.gram - sums.users * np.outer(mean, mean) + penalty * sums.users * np.eye(len(mean))
    products = sums.products - np.outer(sums.items, mean)
    weight = cho_solve(cho_factor(gram, lower=True), products.T).T
    return RidgeProbe(weight, share - weight @ mean, penalty)


@dataclass(frozen=True)
class _Fold:
    """The sums of all users but those of a fold, and some of the fold's users, who judge."""

    sums: _Sums
    vectors: Vectors
    targets: Sequences

    @classmethod
    def held_out(
        cls,
        vectors: Vectors,
        matrix: sp.csr_array,
        targets: Sequences,
        everybody: _Sums,
        judges: IntArray,
        in_fold: IntArray,
    ) -> _Fold:
        rows = np.flatnonzero(in_fold)
        judging = judges[in_fold[judges]]
        sums = everybody.without(_Sums.over(vectors[rows], matrix[rows]))
        return cls(sums, vectors[judging], targets.take(judging))

    def reciprocal_rank(self, penalty: float) -> float:
        """Return the mean over the fold's judges of 1 / rank of their items in the whole ranking."""
        return mean_reciprocal_rank(self._batches(_solve(self.sums, penalty)), self.targets)

    def losses(self, penalty: float) -> Float[np.ndarray, " scales"]:
        """Return the mean of minus the log of the probability of the judges' items, for each scale."""
        total, start = np.zeros(len(SCALES)), 0
        for scores in self._batches(_solve(self.sums, penalty)):
            part = self.targets.take(np.arange(start, start + len(scores)))
            rows, start = part.repeat(), start + len(scores)
            for at, scale in enumerate(SCALES):
                logits = scale * scores
                total[at] += float((logsumexp(logits, axis=1)[rows] - logits[rows, part.items]).sum())
        return total / len(self.targets.items)

    def _batches(self, probe: RidgeProbe) -> Iterator[Float[np.ndarray, "B items"]]:
        for start in range(0, len(self.vectors), BATCH):
            yield probe.scores(self.vectors[start : start + BATCH])


def _mean(values: list[float], folds: list[_Fold]) -> float:
    """Return the mean over all held-out items of means over those of each fold."""
    return float(np.average(values, weights=[len(fold.targets.items) for fold in folds]))


def _matrix(targets: Sequences, items: int) -> sp.csr_array:
    """Return (users, items), 1 where a user has an item, however often."""
    entries = (np.ones(len(targets.items)), targets.items.copy(), targets.offsets.copy())  # it sorts them in place
    matrix = sp.csr_array(entries, shape=(len(targets), items))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix
