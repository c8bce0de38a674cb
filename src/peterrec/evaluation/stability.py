"""Are users still like those of the reference? The population stability index, and how often chance gives as much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from peterrec.data.reference import Distribution, Values
from peterrec.evaluation.seed_bootstrap import holm

DRAWS = 9_999  # of the null distribution: the smallest p-value is 1 / 10,000
SMOOTHING = 0.5  # users added to every bin: an empty one would make the index infinite
SIZES = ((0.1, "small"), (0.25, "medium"))
"""Words for an index below these; above the last it is large (Siddiqi, Credit Risk Scorecards, 2006)."""

Counts = Int[np.ndarray, " bins"]


@dataclass(frozen=True)
class Stability:
    """One quantity of users, beside the reference.

    Attributes:
        name: of the quantity.
        bins: what they are called.
        expected: share of the users of the reference in each bin.
        observed: share of the users now.
        users: how many these are.
        index: population stability index: the sum over bins of (observed - expected) * ln(observed / expected).
        p_value: how often users drawn from one and the same population give such an index, or a larger one.
        adjusted: the same with Holm's adjustment, for all quantities together.
        shifted: whether that is below the level.
    """

    name: str
    bins: tuple[str, ...]
    expected: tuple[float, ...]
    observed: tuple[float, ...]
    users: int
    index: float
    p_value: float
    adjusted: float
    shifted: bool

    @property
    def size(self) -> str:
        """The index in a word: small, medium or large."""
        return next((word for limit, word in SIZES if self.index < limit), "large")


def stability_index(expected: Counts, observed: Int[np.ndarray, "*draws bins"]) -> Float[np.ndarray, "*draws"]:
    """Return the population stability index of counts, half a user added to every bin."""
    first = (expected + SMOOTHING) / (expected + SMOOTHING).sum(axis=-1, keepdims=True)
    second = (observed + SMOOTHING) / (observed + SMOOTHING).sum(axis=-1, keepdims=True)
    return np.asarray(((second - first) * np.log(second / first)).sum(axis=-1))


def chance_of_index(expected: Counts, observed: Counts, generator: np.random.Generator) -> float:
    """Return how often a random division of all users into two such groups has such an index: a permutation test.

    What is usual, to take 0.1 and 0.25 for every number of users, sounds an alarm of 100 honest users and is silent of
    a million changed ones (Yurdakul and Naranjo, Journal of Risk Model Validation, 2020).
    """
    pooled, drawn = expected + observed, int(observed.sum())
    draws = generator.multivariate_hypergeometric(pooled, drawn, size=DRAWS, method="marginals")
    as_large = stability_index(pooled - draws, draws) >= stability_index(expected, observed) - 1e-12
    return float((as_large.sum() + 1) / (DRAWS + 1))


def compare(
    reference: Mapping[str, Distribution], values: Mapping[str, Values], level: float, seed: int = 0
) -> list[Stability]:
    """Compare users with a reference, quantity by quantity; those that only one side has are left out.

    Args:
        reference: distributions, by quantity.
        values: of the users now, by quantity.
        level: chance of any false alarm, of all quantities together.
        seed: of the draws.
    """
    names = [name for name in reference if name in values and len(values[name])]
    generator = np.random.default_rng(seed)
    tested: list[tuple[Counts, Counts, float]] = []
    for name in names:
        expected, observed = np.array(reference[name].counts), reference[name].count(values[name])
        tested.append((expected, observed, chance_of_index(expected, observed, generator)))
    adjusted = holm([p for *_, p in tested])
    return [
        Stability(
            name, tuple(reference[name].labels), _shares(expected), _shares(observed), int(observed.sum()),
            float(stability_index(expected, observed)), p, p_adjusted, p_adjusted < level,
        )
        for name, (expected, observed, p), p_adjusted in zip(names, tested, adjusted, strict=True)
    ]  # fmt: skip


def _shares(counts: Counts) -> tuple[float, ...]:
    return tuple((counts / max(1, counts.sum())).tolist())
