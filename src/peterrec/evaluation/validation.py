"""Cheap metrics of held-out users during training, for early stopping."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from peterrec.data.sequences import Sequences
from peterrec.evaluation.metrics import hit_rate, mrr, ndcg, rank_of
from peterrec.evaluation.protocols import scored_pairs


def mean_reciprocal_rank(score_batches: Iterable[Real[np.ndarray, "B n_targets"]], targets: Sequences) -> float:
    """Return the mean reciprocal rank of every (user, target) pair by full ranking, without a cut-off.

    Without a cut-off because a cut-off makes early stopping blind to a positive that rises from place 80 to 20. The
    user's other positives are left out; ties get the mean over the places they share.

    Args:
        score_batches: scores of all users in row order, any batch sizes.
        targets: positives of each user, 0-based columns of the scores.

    Raises:
        DataError: scores that are NaN or do not fit the targets, or no targets at all.
    """
    counts = np.concatenate([scored.full() for scored in scored_pairs(score_batches, targets)], axis=1)
    return float(mrr(1.0 + counts[0] + counts[1] / 2.0, ties=counts[1]).mean())


def last_item_ranks(
    scores: Real[np.ndarray, "B n"],
    positives: Int[np.ndarray, " B"],
    candidates: Bool[np.ndarray, "B n"] | None = None,
) -> Float[np.ndarray, " B"]:
    """Return the full rank of each user's last item among the n columns, ties at their expected place.

    Raises:
        DataError: a score is NaN.
    """
    return rank_of(scores, positives, candidates)


def last_item_metrics(ranks: Real[np.ndarray, " users"], k: int) -> dict[str, float]:
    """Return the means of HR@k, MRR@k and NDCG@k over users, named `hr@K`, `mrr@K`, `ndcg@K`."""
    return {
        f"hr@{k}": float(hit_rate(ranks, k).mean()),
        f"mrr@{k}": float(mrr(ranks, k).mean()),
        f"ndcg@{k}": float(ndcg(ranks, k).mean()),
    }
