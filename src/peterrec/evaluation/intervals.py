"""Bootstrap intervals over users, and paired differences between methods judged on the same users.

Users, not rows, are drawn: the rows of one user are alike, and intervals that forgot it would be too narrow. A
resample is a vector of weights, how often each user was drawn, so that a metric of all resamples is a matrix product.
Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Float

Verdict = Literal["better", "worse", "no clear difference"]
Statistic = Callable[[Float[np.ndarray, "b users"]], Float[np.ndarray, " b"]]
"""A metric of b weightings of the users at once: (b, users) weights in, (b,) values out."""

Name = TypeVar("Name", bound=Hashable)

_STREAM = 1  # apart from the stream that sampled negatives are drawn from with the same seed
_BLOCK = 250_000  # weights at once: 2 MB stay in the cache while every statistic reads them


@dataclass(frozen=True)
class Resamples:
    """Users drawn with replacement in each of `count` resamples; the same for the same three numbers."""

    users: int
    count: int
    seed: int

    def blocks(self) -> Iterator[Float[np.ndarray, "b users"]]:
        """Yield the weights of all resamples, some at a time; every row sums to `users`."""
        generator = np.random.default_rng([self.seed, _STREAM])
        step = max(1, _BLOCK // max(1, self.users))
        for start in range(0, self.count, step):
            rows = min(step, self.count - start)
            drawn = generator.integers(0, self.users, size=(rows, self.users))
            drawn += np.arange(rows)[:, None] * self.users
            weights = np.bincount(drawn.ravel(), minlength=rows * self.users)
            yield weights.reshape(rows, self.users).astype(np.float64)


@dataclass(frozen=True)
class Interval:
    """A value and the limits of its percentile interval; limits are NaN where no resample gave a value."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A metric on the users as they are, and on every resample.

    Attributes:
        value: the metric.
        replicates: (count,) the metric of each resample; NaN where it is undefined (such as AUC with one class).
        resamples: what they were drawn with; only estimates from the same resamples can be paired.
    """

    value: float
    replicates: Float[np.ndarray, " count"]
    resamples: Resamples

    def interval(self, confidence: float = 0.95) -> Interval:
        """Return the percentile interval of the given confidence."""
        return _percentiles(self.value, self.replicates, confidence)


def bootstrap(statistics: Mapping[Name, Statistic], resamples: Resamples) -> dict[Name, Estimate]:
    """Evaluate every statistic on the same resamples of users, so that their differences are paired.

    Args:
        statistics: metrics of weighted users, of any number of methods.
        resamples: which users are drawn.
    """
    once = np.ones((1, resamples.users))
    replicates: dict[Name, list[Float[np.ndarray, " b"]]] = {name: [] for name in statistics}
    for weights in resamples.blocks():
        for name, statistic in statistics.items():
            replicates[name].append(statistic(weights))
    return {
        name: Estimate(float(statistic(once)[0]), np.concatenate(replicates[name]), resamples)
        for name, statistic in statistics.items()
    }


def paired_difference(first: Estimate, second: Estimate, confidence: float = 0.95) -> Interval:
    """Return first minus second with its percentile interval over the resamples they share.

    Raises:
        ValueError: the two were not estimated on the same resamples, so there is nothing to pair.
    """
    if first.resamples != second.resamples:
        raise ValueError(f"estimates of different resamples: {first.resamples} and {second.resamples}")
    return _percentiles(first.value - second.value, first.replicates - second.replicates, confidence)


def verdict(difference: Interval, *, lower_is_better: bool = False) -> Verdict:
    """Return the verdict on a difference (method minus reference): only an interval without zero is clear."""
    low, high = (-difference.high, -difference.low) if lower_is_better else (difference.low, difference.high)
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "no clear difference"


def ratios(above: Float[np.ndarray, "*n"], below: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Return above / below, NaN where below is 0: such a resample has no user that the metric is of."""
    return np.asarray(np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0))


def _percentiles(value: float, replicates: Float[np.ndarray, " count"], confidence: float) -> Interval:
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return Interval(value, float("nan"), float("nan"))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return Interval(value, float(low), float(high))
