"""Objectives, a row and an item at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def _minus_log_share(positive: float, negatives_of_row: Sequence[float]) -> float:
    """-log of exp(own) / (exp(own) + sum of exp(other)), with nothing that overflows."""
    return math.log(math.fsum(math.exp(negative - positive) for negative in [positive, *negatives_of_row]))


def _minus_log_sigmoid(x: float) -> float:
    return -math.log(1.0 / (1.0 + math.exp(-x)))


def oracle_full_softmax(hidden: np.ndarray, positives: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> float:
    """-log of the softmax of each positive among all items, mean over rows."""
    losses = []
    for h, positive in zip(hidden, positives, strict=True):
        logits = [float(h @ w + b) for w, b in zip(weight, bias, strict=True)]
        losses.append(_minus_log_share(logits[positive], [v for i, v in enumerate(logits) if i != positive]))
    return float(np.mean(losses))


def oracle_log_expected(positions: Sequence[int], items: int, draws: int) -> list[float]:
    """Log of the expected count of items (0-based ranks) among log-uniform draws."""
    return [math.log(draws * math.log((r + 2) / (r + 1)) / math.log(items + 1)) for r in positions]


def oracle_sampled_softmax(
    hidden: np.ndarray,
    positives: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    negatives: np.ndarray,
    log_expected: Sequence[float],
    positive_log_expected: Sequence[float] | None = None,
) -> float:
    """-log of each positive's share among itself and the negatives that are not it, corrected; mean over rows."""
    losses = []
    for row, (h, positive) in enumerate(zip(hidden, positives, strict=True)):
        positive_logit = float(h @ weight[positive] + bias[positive])
        if positive_log_expected is not None:
            positive_logit -= float(positive_log_expected[row])
        drawn = zip(negatives, log_expected, strict=True)
        negatives_of_row = [float(h @ weight[n] + bias[n]) - float(expected) for n, expected in drawn if n != positive]
        losses.append(_minus_log_share(positive_logit, negatives_of_row))
    return float(np.mean(losses))


def oracle_candidate_softmax(positive: np.ndarray, negative: np.ndarray) -> float:
    """-log of each positive's share among itself and its own negatives, mean over rows."""
    return float(np.mean([_minus_log_share(p, list(row)) for p, row in zip(positive, negative, strict=True)]))


def oracle_bpr(positive: np.ndarray, negative: np.ndarray) -> float:
    """-log sigmoid(positive - negative), mean over all pairs."""
    return float(np.mean([_minus_log_sigmoid(p - n) for p, row in zip(positive, negative, strict=True) for n in row]))


def oracle_bce(positive: np.ndarray, negative: np.ndarray) -> float:
    """-log sigmoid(positive) and the mean of -log(1 - sigmoid(negative)) over its negatives; mean over rows."""
    losses = []
    for p, row in zip(positive, negative, strict=True):
        losses.append(_minus_log_sigmoid(p) + float(np.mean([_minus_log_sigmoid(-n) for n in row])))
    return float(np.mean(losses))
