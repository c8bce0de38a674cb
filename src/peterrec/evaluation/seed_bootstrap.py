"""Cluster bootstrap over the users of several seeds, p-values of paired differences, and Holm's correction.

Each seed splits the users anew, so one user is often a test user of several seeds, and what is measured there is
alike. So users are drawn, not (seed, user) pairs: a user has the same weight in every seed and every method, and
differences of methods are paired. Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8
and 13; Holm, A simple sequentially rejective multiple test procedure (Scandinavian Journal of Statistics, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from peterrec.evaluation.intervals import Estimate, Interval, Resamples, paired_difference, ratios

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
        sums: by seed, in ascending order.
        replicates: (count, seeds); NaN where no test user of the seed was drawn.
        resamples: what they were drawn with; only estimates from the same resamples can be paired.
    """

    sums: dict[int, UserSums]
    replicates: Float[np.ndarray, "count seeds"]
    resamples: Resamples

    @property
    def values(self) -> dict[int, float]:
        """The metric of each seed; NaN where the seed has no rows."""
        return {seed: sums.metric for seed, sums in self.sums.items()}

    @property
    def users(self) -> int:
        """Distinct test users of all seeds."""
        return int(np.count_nonzero(np.sum([sums.below for sums in self.sums.values()], axis=0)))

    def select(self, seeds: Sequence[int]) -> SeedEstimate | None:
        """Return the estimate of only some of its seeds; None if it has none of them."""
        places = [at for at, seed in enumerate(self.sums) if seed in seeds]
        selected = {seed: sums for seed, sums in self.sums.items() if seed in seeds}
        return SeedEstimate(selected, self.replicates[:, places], self.resamples) if places else None

    def over_seeds(self) -> Estimate:
        """Return the mean over the seeds; where a resample left a seed without users, over the others."""
        values = [value for value in self.values.values() if not math.isnan(value)]
        defined = ~np.isnan(self.replicates)
        total = np.where(defined, self.replicates, 0.0).sum(axis=1)
        means = ratios(total, defined.sum(axis=1).astype(np.float64))
        return Estimate(float(np.mean(values)) if values else math.nan, means, self.resamples)


@dataclass(frozen=True)
class Paired:
    """Method minus reference over the seeds that both have, judged on the same users.

    Attributes:
        difference: with its percentile interval.
        p: two-sided, of no difference.
        by_seed: the difference of each seed.
        means: of the method and of the reference over these seeds.
    """

    difference: Interval
    p: float
    by_seed: dict[int, float]
    means: tuple[float, float]


def estimate_all(sums: Mapping[Name, Mapping[int, UserSums]], resamples: Resamples) -> dict[Name, SeedEstimate]:
    """Evaluate every metric of every seed on the same resamples of the pool's users.

    Args:
        sums: by name, then by seed.
        resamples: of the users of the pool.
    """
    ordered = {name: dict(sorted(by_seed.items())) for name, by_seed in sums.items()}
    flat = [cell for by_seed in ordered.values() for cell in by_seed.values()]
    if not flat:
        return {}
    # Metrics of one cell share the array of their rows: it is multiplied once.
    shared = {id(cell.below): cell.below for cell in flat}
    places = {identity: at for at, identity in enumerate(shared)}
    columns = [places[id(cell.below)] for cell in flat]
    above = np.stack([cell.above for cell in flat], axis=1)  # (users, n)
    below = np.stack(list(shared.values()), axis=1)  # (users, cells)
    replicates = np.concatenate(
        [ratios(weights @ above, (weights @ below)[:, columns]) for weights in resamples.blocks()]
    )
    stops = accumulate(len(by_seed) for by_seed in ordered.values())
    return {
        name: SeedEstimate(by_seed, replicates[:, stop - len(by_seed) : stop], resamples)
        for (name, by_seed), stop in zip(ordered.items(), stops, strict=True)
    }


def paired(first: SeedEstimate, second: SeedEstimate, confidence: float) -> Paired | None:
    """Compare two methods over their common seeds; None where no seed judged both on the same users.

    The two-sided p-value is that of a normal variable: the difference divided by the standard deviation of its
    replicates. So it is not bounded by the number of resamples; and it is never below what a sign test could give with
    as few users as differ, for which the normal form is too sure of itself.
    """
    pairs = {seed: (sums, second.sums[seed]) for seed, sums in first.sums.items() if seed in second.sums}
    common = [seed for seed, (sums, reference) in pairs.items() if np.array_equal(sums.below, reference.below)]
    minuend, subtrahend = first.select(common), second.select(common)
    if minuend is None or subtrahend is None:
        return None
    differing = np.any([pairs[seed][0].above != pairs[seed][1].above for seed in common], axis=0)
    method, reference = minuend.over_seeds(), subtrahend.over_seeds()
    difference = paired_difference(method, reference, confidence)
    return Paired(
        difference,
        p_value(difference.value, method.replicates - reference.replicates, int(differing.sum())),
        {seed: value - subtrahend.values[seed] for seed, value in minuend.values.items()},
        (method.value, reference.value),
    )


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
