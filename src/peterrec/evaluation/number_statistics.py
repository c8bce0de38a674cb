"""Metrics of predicted numbers as functions of user weights."""

from __future__ import annotations

from functools import partial

import numpy as np
from jaxtyping import Float

from peterrec.evaluation.intervals import Statistic
from peterrec.evaluation.protocols import RegressionOutcome
from peterrec.evaluation.statistics import Sums, equal_scores, weighted_mean

EPSILON = 1e-12  # variance of ranks, as a share of the largest there can be: below it is rounding


def regression_sums(outcome: RegressionOutcome) -> Sums:
    """Return what each user adds to the mean absolute error, and of quantiles to pinball loss and coverage.

    Coverage is the share of users between the lowest and the highest quantile; its name says how many that should be.
    """
    sums: Sums = {"mae": np.abs(outcome.predictions - outcome.numbers)}
    if not outcome.quantiles:
        return sums
    quantiles, values = np.array(outcome.quantiles), outcome.quantile_predictions
    above = outcome.numbers[:, None] - values
    sums["pinball"] = np.maximum(quantiles * above, (quantiles - 1.0) * above).mean(axis=1)
    if len(quantiles) > 1:
        inside = (values[:, 0] <= outcome.numbers) & (outcome.numbers <= values[:, -1])
        sums[f"coverage@{quantiles[-1] - quantiles[0]:g}"] = inside.astype(np.float64)
    return sums


def regression_statistics(outcome: RegressionOutcome) -> dict[str, Statistic]:
    """Return MAE, RMSE and Spearman's rank correlation; of quantiles also pinball loss and coverage.

    The correlation of predictions that are all the same is 0: they say nothing of the order.
    """
    ones, sums = np.ones(outcome.users), regression_sums(outcome)
    means: dict[str, Statistic] = {name: partial(weighted_mean, values, ones) for name, values in sums.items()}
    squares = (outcome.predictions - outcome.numbers) ** 2
    statistics: dict[str, Statistic] = {
        "mae": means.pop("mae"),
        "rmse": partial(_root_mean, squares, ones),
        "spearman": partial(_spearman, _Groups(outcome.predictions), _Groups(outcome.numbers)),
    }
    return statistics | means


def _root_mean(
    squares: Float[np.ndarray, " users"], rows: Float[np.ndarray, " users"], weights: Float[np.ndarray, "b u"]
) -> Float[np.ndarray, " b"]:
    return np.asarray(np.sqrt(weighted_mean(squares, rows, weights)))


class _Groups:
    """Users in the order of a value, and where each value begins.

    Args:
        values: (users,).
    """

    def __init__(self, values: Float[np.ndarray, " users"]) -> None:
        self.order, self.starts = equal_scores(values)
        self.sizes = np.diff(np.append(self.starts, len(values)))

    def ranks(self, weights: Float[np.ndarray, "b u"]) -> Float[np.ndarray, "b u"]:
        """Return the mean rank of each user where a user counts as often as its weight says."""
        counts = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        middle = np.cumsum(counts, axis=1) - counts / 2.0
        ranks = np.empty_like(weights)
        ranks[:, self.order] = np.repeat(middle, self.sizes, axis=1)
        return ranks


def _spearman(first: _Groups, second: _Groups, weights: Float[np.ndarray, "b u"]) -> Float[np.ndarray, " b"]:
    total = weights.sum(axis=1)
    centred = [groups.ranks(weights) - total[:, None] / 2.0 for groups in (first, second)]
    product, *variances = (
        (weights * a * b).sum(axis=1)
        for a, b in ((centred[0], centred[1]), (centred[0], centred[0]), (centred[1], centred[1]))
    )
    scale = np.sqrt(variances[0] * variances[1])
    return np.asarray(np.divide(product, scale, out=np.zeros_like(scale), where=scale > EPSILON * total**3))
