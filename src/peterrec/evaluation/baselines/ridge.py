"""Ridge regression across domains: from the source items of a user straight to every target."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import Sequences
from peterrec.evaluation.baselines.bag import bag, bag_width
from peterrec.evaluation.baselines.ranking import RankingBaseline, Score, choose, popularity_counts, targets_of

NAME = "ridge across domains"
MAX_SIDE = 12_000
"""Users or source items, whichever is fewer, above which the solution (cubic in it) is skipped."""

MAX_WEIGHTS = 100_000_000
"""Weights (that side x targets) above which it is skipped; 4 bytes each, a few copies."""

_BLOCK = 512  # dense columns held at once while the Gram matrix is made

PENALTIES = (30.0, 300.0, 3000.0)  # ridge answers hardly change within a factor of three


def ridge(train: TaskPart, valid: TaskPart, n_targets: int) -> RankingBaseline | str:
    """Solve min ||Y - mean - X W||^2 + lambda ||W||^2 for all targets at once; lambda by the valid users' MRR.

    X (users, source items) and Y (users, targets) are 0 or 1. EASE (Steck, 2019) with the targets in another domain,
    so that no diagonal has to be kept at zero. The smaller side is solved: with fewer users than items,
    W = X^T (X X^T + lambda I)^-1 (Y - mean). The mean of Y is added to every score, so a user without known items
    gets popularity.

    Returns:
        The baseline, or why it was skipped.
    """
    width = bag_width(train.sequences)
    source = bag(train.sequences, width, binary=True, dtype=np.float32)
    used = np.unique(source.indices)  # an item of no train user has weight 0 anyway
    source = source[:, used]
    side = min(source.shape)
    if side > MAX_SIDE or side * n_targets > MAX_WEIGHTS:
        return f"{NAME} was skipped: {side:,} x {n_targets:,} is too large for an exact solution"
    target = bag(targets_of(train), n_targets, first=0, binary=True, dtype=np.float32)
    mean = (popularity_counts(train, n_targets) / max(1, len(train))).astype(np.float32)
    dual = source.shape[0] <= source.shape[1]
    gram = gram_of(source if dual else sp.csr_array(source.T))
    right = target.toarray() if dual else (source.T @ target).toarray()
    right -= mean if dual else np.outer(source.sum(axis=0), mean)

    def score(penalty: float) -> Score:
        weights = solve(gram, right, penalty)

        def score_batch(sequences: Sequences) -> Float[np.ndarray, "B n_targets"]:
            bags = bag(sequences, width, binary=True, dtype=np.float32)[:, used]
            inputs = bags @ source.T if dual else bags
            return np.asarray(inputs @ weights + mean)

        return score_batch

    best, penalty = choose(PENALTIES, score, valid)
    return RankingBaseline(NAME, best, {"lambda": penalty, "chosen by": "MRR of the valid users"})


def gram_of(rows: sp.csr_array) -> Float[np.ndarray, "side side"]:
    """Return rows @ rows.T. Sparse by dense, in blocks: the result is dense, and sparse storage would triple it."""
    side = rows.shape[0]
    gram = np.empty((side, side), dtype=np.float32)
    for start in range(0, side, _BLOCK):
        gram[:, start : start + _BLOCK] = rows @ rows[start : start + _BLOCK].T.toarray()
    return gram


def solve(
    gram: Float[np.ndarray, "side side"], right: Float[np.ndarray, "side n_targets"], penalty: float
) -> Float[np.ndarray, "side n_targets"]:
    """Return (gram + penalty I)^-1 @ right."""
    # float32: the entries of the Gram matrix are small whole numbers, and the penalty keeps it well conditioned.
    shifted = gram.copy()
    shifted[np.diag_indices_from(shifted)] += np.float32(penalty)
    factor = cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(cho_solve(factor, right, check_finite=False))
