"""Cluster bootstrap over the users of several seeds, p-values of paired differences, and Holm's correction.

Each seed splits the users anew, so one user is often a test user of several seeds, and what is measured there is
alike. So users are drawn, not (seed, user) pairs: a user has the same weight in every seed and every method, and
differences of methods are paired. Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8
and 13; Holm, A simple sequentially rejective multiple test procedure (Scandinavian Journal of Statistics, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from peterrec.evaluation.intervals import Estimate, Interval, Resamples, paired_difference

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class UserSums:
    """A metric of one cell over the users of a pool: the metric is sum(above) / sum(below).

    Attributes:
        above: (users,) sums of the metric over each user's rows; 0 for who is no test user of the cell.
        below: (users,) number of rows.
    """

    above: Float[np.ndarray, " users"]
    below: Float[np.ndarray, " users"]

    @property
    def metric(self) -> float:
        """The metric over all users; NaN without rows."""
        return float(self.above.sum() / self.below.sum()) if self.below.sum() else math.nan


@dataclass(frozen=True)
class SeedEstimate:
    """A metric of a method for each seed: on the users as they are, and on every resample.

    Attributes:
        seeds: in ascending order.
        sums: of each seed.
        replicates: (count, seeds); NaN where no test user of the seed was drawn.
        resamples: what they were drawn with; only estimates from the same resamples can be paired.
    """

    seeds: tuple[int, ...]
    sums: tuple[UserSums, ...]
    replicates: Float[np.ndarray, "count seeds"]
    resamples: Resamples

    @property
    def values(self) -> dict[int, float]:
        """The metric of each seed; NaN where the seed has no rows."""
        return dict(zip(self.seeds, (sums.metric for sums in self.sums), strict=True))

    @property
    def users(self) -> int:
        """Distinct test users of all seeds."""
        return int(np.count_nonzero(np.sum([sums.below for sums in self.sums], axis=0)))

    def select(self, seeds: Sequence[int]) -> SeedEstimate | None:
        """Return the estimate of only some of its seeds; None if it has none of them."""
        places = [at for at, seed in enumerate(self.seeds) if seed in seeds]
        if not places:
            return None
        names, sums = tuple(self.seeds[at] for at in places), tuple(self.sums[at] for at in places)
        return replace(self, seeds=names, sums=sums, replicates=self.replicates[:, places])

    def over_seeds(self) -> Estimate:
        """Return the mean over the seeds; where a resample left a seed without users, over the others."""
        values = [value for value in self.values.values() if not math.isnan(value)]
        defined = ~np.isnan(self.replicates)
        total = np.where(defined, self.replicates, 0.0).sum(axis=1)
        means = _ratios(total, defined.sum(axis=1).astype(np.float64))
        return Estimate(float(np.mean(values)) if values else math.nan, means, self.resamples)

    def interval(self, confidence: float) -> Interval:
        """Return the percentile interval of the mean over the seeds."""
        return self.over_seeds().interval(confidence)


@dataclass(frozen=True)
class Paired:
    """Method minus reference over the seeds that both have.

    Attributes:
        difference: with its percentile interval.
        p: two-sided, of no difference.
        seeds: that both have, judged on the same users.
        by_seed: the difference of each of them.
    """

    difference: Interval
    p: float
    seeds: tuple[int, ...]
    by_seed: tuple[float, ...]


def estimate_all(sums: Mapping[Name, Mapping[int, UserSums]], resamples: Resamples) -> dict[Name, SeedEstimate]:
    """Evaluate every metric of every seed on the same resamples of the pool's users.

    Args:
        sums: by name, then by seed.
        resamples: of the users of the pool.
    """
    flat = [by_seed[seed] for by_seed in sums.values() for seed in sorted(by_seed)]
    if not flat:
        return {}
    # Metrics of one cell share the array of their rows: it is multiplied once.
    shared = {id(cell.below): cell.below for cell in flat}
    places = {identity: at for at, identity in enumerate(shared)}
    columns = [places[id(cell.below)] for cell in flat]
    above = np.stack([cell.above for cell in flat], axis=1)  # (users, n)
    below = np.stack(list(shared.values()), axis=1)  # (users, cells)
    replicates = np.concatenate(
        [_ratios(weights @ above, (weights @ below)[:, columns]) for weights in resamples.blocks()]
    )
    estimates: dict[Name, SeedEstimate] = {}
    start = 0
    for name, by_seed in sums.items():
        seeds = tuple(sorted(by_seed))
        stop = start + len(seeds)
        if seeds:
            values = tuple(by_seed[seed] for seed in seeds)
            estimates[name] = SeedEstimate(seeds, values, replicates[:, start:stop], resamples)
        start = stop
    return estimates


def paired(first: SeedEstimate, second: SeedEstimate, confidence: float) -> Paired | None:
    """Compare two methods over their common seeds; None where no seed judged both on the same users.

    The two-sided p-value is that of a normal variable: the difference divided by the standard deviation of its
    replicates. So it is not bounded by the number of resamples; and it is never below what a sign test could give with
    as few users as differ, for which the normal form is too sure of itself.
    """
    sums = [dict(zip(estimate.seeds, estimate.sums, strict=True)) for estimate in (first, second)]
    common = [
        seed
        for seed in sorted(sums[0].keys() & sums[1].keys())
        if np.array_equal(sums[0][seed].below, sums[1][seed].below)
    ]
    minuend, subtrahend = first.select(common), second.select(common)
    if minuend is None or subtrahend is None:
        return None
    differing = np.any([sums[0][seed].above != sums[1][seed].above for seed in common], axis=0)
    over_seeds = minuend.over_seeds(), subtrahend.over_seeds()
    difference = paired_difference(*over_seeds, confidence)
    p = p_value(difference.value, over_seeds[0].replicates - over_seeds[1].replicates, int(differing.sum()))
    by_seed = tuple(minuend.values[seed] - subtrahend.values[seed] for seed in common)
    return Paired(difference, p, minuend.seeds, by_seed)


def p_value(difference: float, replicates: Float[np.ndarray, " count"], differing: int) -> float:
    """Return the two-sided p-value of no difference, given its replicates and how many users differ at all.

    Equal methods have 1, and so have undefined differences: nothing is known against equality.
    """
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < 2 or not differing or math.isnan(difference) or difference == 0.0:
        return 1.0
    least = 2.0 ** (1 - differing)
    spread = float(defined.std(ddof=1))
    normal = math.erfc(abs(difference) / spread / math.sqrt(2.0)) if spread > 0 else 0.0
    return min(1.0, max(normal, least))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that the chance of any false claim among them is kept, in the order given."""
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty(len(raw))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(raw), 0, -1) * raw[order]))
    return [float(value) for value in adjusted]


def _ratios(above: Float[np.ndarray, "*n"], below: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    return np.asarray(np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0))
