"""EASE over both domains at once: every item from all others, and targets asked for the source items alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import Sequences
from peterrec.evaluation.baselines.bag import bag, bag_width, known_rows
from peterrec.evaluation.baselines.ranking import RankingBaseline, Score, choose, popularity_counts, targets_of
from peterrec.evaluation.baselines.ridge import MAX_SIDE, MAX_WEIGHTS, gram_of, solve

NAME = "EASE across domains"
PENALTIES = (30.0, 300.0, 3000.0, 30000.0)


def ease(train: TaskPart, valid: TaskPart, n_targets: int) -> RankingBaseline | str:
    """Solve min ||X - X B||^2 + lambda ||B||^2 with diag(B) = 0, X the source items and targets of the train users.

    In closed form B = I - P / diag(P), P = (X^T X + lambda I)^-1, each column by its own entry of the diagonal (Steck,
    WWW 2019). A score is the sum of B over the user's source items: of the targets nothing is known. lambda is chosen
    by the valid users' MRR. Users without known items get popularity.

    P has a row for each item, but only P between sources and targets, and its diagonal at the targets, are needed. With
    fewer users than items both follow from a matrix of the users (Woodbury's identity), so all items can stay. Where
    both are too many, the source items of the most train users are kept, and the settings say how many.

    Returns:
        The baseline, or why it was skipped.
    """
    source = bag(train.sequences, bag_width(train.sequences), binary=True, dtype=np.float32)
    target = bag(targets_of(train), n_targets, first=0, binary=True, dtype=np.float32)
    users = np.bincount(source.indices, minlength=source.shape[1])
    used = np.flatnonzero(users)
    columns = used
    if min(len(train), len(used) + n_targets) > MAX_SIDE:
        max_columns = MAX_SIDE - n_targets
        if max_columns <= 0:
            return f"{NAME} was skipped: {n_targets:,} targets and {len(train):,} users are too many to solve for"
        columns = np.sort(np.argsort(-users, kind="stable")[:max_columns])
    source = source[:, columns]
    side = min(len(train), len(columns) + n_targets)
    if side * n_targets > MAX_WEIGHTS:
        return f"{NAME} was skipped: {side:,} x {n_targets:,} is too large for an exact solution"
    problem = _Problem(columns, source, target, popularity_counts(train, n_targets))
    best, penalty = choose(PENALTIES, problem.score, valid)
    items = f"{len(columns):,} of {len(used):,}, those of the most train users" if len(columns) < len(used) else "all"
    return RankingBaseline(
        NAME, best, {"lambda": penalty, "chosen by": "MRR of the valid users", "source items": items}
    )


@dataclass
class _Problem:
    """The train users' items: columns of the bag, (users, columns), (users, targets), users of each target."""

    columns: Int[np.ndarray, " columns"]
    source: sp.csr_array
    target: sp.csr_array
    counts: Float[np.ndarray, " n_targets"]

    def __post_init__(self) -> None:
        items = sp.csr_array(sp.hstack([self.source, self.target]))
        self.by_users = items.shape[0] <= items.shape[1]
        self.gram = gram_of(items if self.by_users else sp.csr_array(items.T))

    def score(self, penalty: float) -> Score:
        """Return the scores with one lambda."""
        inner, weights = self._by_users(penalty) if self.by_users else (None, self._by_items(penalty))
        width = int(self.columns.max()) + 1 if len(self.columns) else 1

        def score_batch(sequences: Sequences) -> Float[np.ndarray, "B n_targets"]:
            bags = bag(sequences, width, binary=True, dtype=np.float32)[:, self.columns]
            scores = np.asarray((bags if inner is None else bags @ inner) @ weights)
            return np.where(known_rows(bags)[:, None], scores, self.counts)

        return score_batch

    def _by_items(self, penalty: float) -> Float[np.ndarray, "columns n_targets"]:
        sources, targets = self.source.shape[1], self.target.shape[1]
        right = np.zeros((sources + targets, targets), dtype=np.float32)
        right[sources + np.arange(targets), np.arange(targets)] = 1.0
        inverse = solve(self.gram, right, penalty)  # P, the columns of the targets
        return np.asarray(-inverse[:sources] / inverse[sources + np.arange(targets), np.arange(targets)])

    def _by_users(self, penalty: float) -> tuple[sp.csr_array, Float[np.ndarray, "users n_targets"]]:
        """Return S^T and W such that B between sources and targets is S^T W.

        With K = (X X^T + lambda I)^-1, lambda P = I - X^T K X: its entries between sources and targets are
        -S^T K T, and 1 - t^T K t on the diagonal at target t.
        """
        weights = solve(self.gram, self.target.toarray(), penalty)
        diagonal = 1.0 - np.asarray(self.target.multiply(weights).sum(axis=0), dtype=np.float64)
        return sp.csr_array(self.source.T), np.asarray(weights / diagonal.astype(np.float32))
