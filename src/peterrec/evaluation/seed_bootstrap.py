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
        return {
            seed: float(one.above.sum() / one.below.sum()) if one.below.sum() else math.nan
            for seed, one in zip(self.seeds, self.sums, strict=True)
        }

    @property
    def users(self) -> int:
        """Distinct test users of all seeds."""
        return int(np.count_nonzero(np.sum([one.below for one in self.sums], axis=0)))

    def of(self, seeds: Sequence[int]) -> SeedEstimate | None:
        """Return the estimate of only some of its seeds; None if it has none of them."""
        kept = [at for at, seed in enumerate(self.seeds) if seed in seeds]
        if not kept:
            return None
        names, sums = tuple(self.seeds[at] for at in kept), tuple(self.sums[at] for at in kept)
        return replace(self, seeds=names, sums=sums, replicates=self.replicates[:, kept])

    def over_seeds(self) -> Estimate:
        """Return the mean over the seeds; where a resample left a seed without users, over the others."""
        defined = ~np.isnan(self.replicates)
        count = defined.sum(axis=1)
        total = np.where(defined, self.replicates, 0.0).sum(axis=1)
        means = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        known = [value for value in self.values.values() if not math.isnan(value)]
        return Estimate(float(np.mean(known)) if known else math.nan, means, self.resamples)

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
    flat = [(name, seed, by_seed[seed]) for name, by_seed in sums.items() for seed in sorted(by_seed)]
    if not flat:
        return {}
    # Metrics of one cell share the array of their rows: it is multiplied once.
    shared = {id(one.below): one.below for *_, one in flat}
    places = {identity: at for at, identity in enumerate(shared)}
    which = [places[id(one.below)] for *_, one in flat]
    above = np.stack([one.above for *_, one in flat], axis=1)  # (users, n)
    below = np.stack(list(shared.values()), axis=1)  # (users, cells)
    replicates = np.concatenate(
        [_ratios(weights @ above, (weights @ below)[:, which]) for weights in resamples.blocks()]
    )
    found: dict[Name, SeedEstimate] = {}
    start = 0
    for name, by_seed in sums.items():
        if not by_seed:
            continue
        seeds = tuple(sorted(by_seed))
        columns = replicates[:, start : start + len(seeds)]
        found[name] = SeedEstimate(seeds, tuple(by_seed[seed] for seed in seeds), columns, resamples)
        start += len(seeds)
    return found


def paired(first: SeedEstimate, second: SeedEstimate, confidence: float) -> Paired | None:
    """Compare two methods over their common seeds; None where no seed judged both on the same users.

    The two-sided p-value is that of a normal variable: the difference divided by the standard deviation of its
    replicates. So it is not bounded by the number of resamples; and it is never below what a sign test could give with
    as few users as differ, for which the normal form is too sure of itself.
    """
    common = [
        seed
        for seed in sorted({*first.seeds} & {*second.seeds})
        if np.array_equal(first.sums[first.seeds.index(seed)].below, second.sums[second.seeds.index(seed)].below)
    ]
    one, two = first.of(common), second.of(common)
    if one is None or two is None:
        return None
    differing = np.zeros(len(one.sums[0].above), dtype=bool)
    for mine, other in zip(one.sums, two.sums, strict=True):
        differing |= mine.above != other.above
    difference = paired_difference(one.over_seeds(), two.over_seeds(), confidence)
    spread = one.over_seeds().replicates - two.over_seeds().replicates
    p = p_value(difference.value, spread, int(differing.sum()))
    mine_by, other_by = one.values, two.values
    return Paired(difference, p, one.seeds, tuple(mine_by[seed] - other_by[seed] for seed in one.seeds))


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
    order = sorted(range(len(p)), key=lambda at: p[at])
    adjusted, highest = [1.0] * len(p), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[at]))
        adjusted[at] = highest
    return adjusted


def _ratios(above: Float[np.ndarray, "b n"], below: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b n"]:
    return np.asarray(np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0))
