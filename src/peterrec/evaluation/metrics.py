"""Metrics of one relevant item a row, computed from its rank, and the log-loss of class probabilities.

Metrics of whole tables, with user weights, are in `statistics`.

A positive that shares its score with `ties` other candidates could stand at any of `ties + 1` places. Its rank is the
middle of those places, and with `ties` given a metric is its mean over them: the value that a fair shuffle of the tied
items would have on average. The middle alone is not enough for a cut-off: with nine equal scores the middle is place
5, and "is 5 within the first 5?" would call constant scores perfect, where chance is 5/9.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from peterrec.errors import DataError

# Probabilities that come out of a float32 softmax are exact to about 1e-7; a smaller clip would only measure
# how a method happens to round.
CLIP = 1e-7

_BLOCK = 4_000_000  # comparisons held in memory at once

# ---------------------------------------------------------------- ranks


def count_places(
    scores: Real[np.ndarray, "B n"],
    positive_index: Int[np.ndarray, " B"],
    candidates: Bool[np.ndarray, "B n"] | None = None,
) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " B"]]:
    """Count the other candidates with a higher score than the positive, and with the same score.

    Args:
        scores: higher is better; infinities are allowed.
        positive_index: column of each row's positive; it counts as a candidate whatever the mask says.
        candidates: which columns take part; all of them if not given.

    Returns:
        (higher, ties), both (B,) int64.

    Raises:
        DataError: a score is NaN.
    """
    scores = checked_scores(scores)
    higher = np.empty(len(scores), dtype=np.int64)
    ties = np.empty(len(scores), dtype=np.int64)
    step = max(1, _BLOCK // max(1, scores.shape[1]))
    for start in range(0, len(scores), step):
        rows = slice(start, start + step)
        block, columns = scores[rows], positive_index[rows, None]
        positive = np.take_along_axis(block, columns, axis=1)
        allowed = np.ones(block.shape, dtype=bool) if candidates is None else candidates[rows].copy()
        np.put_along_axis(allowed, columns, False, axis=1)
        higher[rows] = ((block > positive) & allowed).sum(axis=1)
        ties[rows] = ((block == positive) & allowed).sum(axis=1)
    return higher, ties


def rank_of(
    scores: Real[np.ndarray, "B n"],
    positive_index: Int[np.ndarray, " B"],
    candidates: Bool[np.ndarray, "B n"] | None = None,
) -> Float[np.ndarray, " B"]:
    """Return the rank of each row's positive among its candidates, 1 for the best; ties at their expected place.

    Args and errors are those of `count_places`. The rank is 1 + higher + ties / 2, so it may end in .5.
    """
    higher, ties = count_places(scores, positive_index, candidates)
    return 1.0 + higher + ties / 2.0


def checked_scores(scores: Real[np.ndarray, "B n"]) -> Float[np.ndarray, "B n"]:
    """Return the scores as floats.

    Raises:
        DataError: not a matrix, or a score is NaN, which has no place in any order.
    """
    array = np.asarray(scores)
    if array.ndim != 2:
        raise DataError(f"scores have shape {array.shape}, not (rows, items)", remedy="give one row of scores a user")
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    if np.isnan(array).any():
        raise DataError("a score is not a number (NaN)", remedy="train the model again with a lower learning rate")
    return array


# ---------------------------------------------------------------- metrics from ranks


def hit_rate(
    ranks: Real[np.ndarray, " rows"], k: int, *, ties: Int[np.ndarray, " rows"] | None = None
) -> Float[np.ndarray, " rows"]:
    """Return for each row 1 if its positive is among the first k, else 0 (HR@k; paper, section 4.2).

    Args:
        ranks: rank of each row's positive, from 1.
        k: cut-off.
        ties: how many other candidates share the positive's score; then the chance of a hit under a fair shuffle.
    """
    return _gain(ranks, k, ties, np.ones_like)


def mrr(
    ranks: Real[np.ndarray, " rows"], k: int | None = None, *, ties: Int[np.ndarray, " rows"] | None = None
) -> Float[np.ndarray, " rows"]:
    """Return the reciprocal rank of each row's positive, 0 beyond the first k (MRR@k; paper, section 4.2).

    Args:
        ranks: rank of each row's positive, from 1.
        k: cut-off; none if not given.
        ties: as for `hit_rate`.
    """
    return _gain(ranks, k, ties, lambda rank: 1.0 / rank)


def ndcg(
    ranks: Real[np.ndarray, " rows"], k: int | None = None, *, ties: Int[np.ndarray, " rows"] | None = None
) -> Float[np.ndarray, " rows"]:
    """Return 1 / log2(1 + rank), 0 beyond the first k: NDCG@k where one item is relevant (paper, section 4.2).

    Args:
        ranks: rank of each row's positive, from 1.
        k: cut-off; none if not given.
        ties: as for `hit_rate`.
    """
    return _gain(ranks, k, ties, lambda rank: 1.0 / np.log2(1.0 + rank))


def _gain(
    ranks: Real[np.ndarray, " rows"],
    k: int | None,
    ties: Int[np.ndarray, " rows"] | None,
    gain: Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " n"]],
) -> Float[np.ndarray, " rows"]:
    ranks = np.asarray(ranks, dtype=np.float64)
    if ties is None or not len(ranks):
        return np.where(ranks <= (np.inf if k is None else k), gain(ranks), 0.0)
    above = np.rint(ranks - 1.0 - ties / 2.0).astype(np.int64)  # candidates surely ahead of the positive
    places = np.arange(1, int((above + ties).max()) + 2, dtype=np.float64)
    gains = gain(places)
    if k is not None:
        gains[k:] = 0.0
    upto = np.concatenate(([0.0], np.cumsum(gains)))
    shared = (upto[above + ties + 1] - upto[above]) / (ties + 1.0)
    return np.where(ties == 0, gains[above], shared)


# ---------------------------------------------------------------- class probabilities


def row_log_loss(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Return minus the natural logarithm of each label's probability, clipped to [CLIP, 1]."""
    label_probability = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float64)
    return -np.log(np.clip(label_probability, CLIP, 1.0))


def log_loss(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> float:
    """Return the mean of `row_log_loss`, in nats; lower is better."""
    return float(row_log_loss(probabilities, labels).mean())
