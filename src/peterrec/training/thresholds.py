"""Thresholds of probabilities: for a precision that is asked for, or for the costs of the two errors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from peterrec.config import ThresholdConfig

LEAST_ANSWERED = 20  # users who reach a threshold: the precision of fewer is chance


def choose_threshold(
    probabilities: Float[np.ndarray, " N"], labels: Int[np.ndarray, " N"], settings: ThresholdConfig
) -> tuple[float, str]:
    """Return the threshold that does on these users what is asked for, and a warning where none does.

    It lies halfway between the probabilities of two users, so that rounding moves nobody across it. For a precision it
    is the lowest that has it: whoever reaches it is found. For costs it is the one of the lowest cost, not
    `cost / (sum of costs)`, which is right for perfectly calibrated probabilities only.

    Args:
        probabilities: of the label.
        labels: 1 for users who have it.
        settings: the precision, or the costs.
    """
    order = np.argsort(-probabilities, kind="stable")
    scores, hits = probabilities[order], np.cumsum(labels[order])
    answered = np.arange(1, len(scores) + 1)
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # users of one probability come all at once
    limits = (scores[last] + np.append(scores[last[1:]], 0.0)) / 2
    hits, answered = hits[last], answered[last]
    if settings.precision is None:
        return _cheapest(limits, hits, answered, int(labels.sum()), settings, float(scores[0]))
    precision = hits / answered
    enough = answered >= min(LEAST_ANSWERED, len(labels))
    reaching = np.flatnonzero(enough & (precision >= settings.precision))
    if len(reaching):
        return float(limits[reaching[-1]]), ""
    best = int(np.flatnonzero(enough)[precision[enough].argmax()])
    warning = (
        f"no threshold has a precision of {settings.precision:g} on the valid users; the best has {precision[best]:.3f}"
    )
    return float(limits[best]), warning


def _cheapest(
    limits: Float[np.ndarray, " n"],
    hits: Int[np.ndarray, " n"],
    answered: Int[np.ndarray, " n"],
    having: int,
    settings: ThresholdConfig,
    highest: float,
) -> tuple[float, str]:
    assert settings.false_positive_cost is not None
    assert settings.false_negative_cost is not None
    costs = settings.false_positive_cost * (answered - hits) + settings.false_negative_cost * (having - hits)
    best = int(costs.argmin())
    if settings.false_negative_cost * having < costs[best]:  # nobody is answered to have it
        return (highest + 1.0) / 2, "the costs are lowest where it is never answered"
    return float(limits[best]), ""
