"""Counts of what the valid users of a task were like, for comparison with later users."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

BINS = 10  # of about as many users each
STEP = 1e-6  # beside a value that all users share, relative to it
MAX_NAMES = 10  # of answers that are told apart; the others are counted together

Values = npt.NDArray[np.float64] | list[str]
"""Of users: numbers, or names such as classes."""


@dataclass(frozen=True)
class Distribution:
    """Counts of users in bins, of numbers or of names.

    Attributes:
        edges: of numbers: between the bins, rising; a number at an edge is in the bin above it.
        names: of names: those that have a bin of their own; one bin more is of all others. None: of numbers.
        counts: users in each bin.
    """

    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()
    names: tuple[str, ...] | None = None

    @classmethod
    def from_values(cls, values: Values) -> Self:
        """Return bins with about as many users each; of names the most frequent ones."""
        if isinstance(values, list):
            names, counts = np.unique(np.array(values, dtype=np.str_), return_counts=True)
            order = np.lexsort((names, -counts))[:MAX_NAMES]
            chosen = tuple(str(name) for name in names[order])
            return cls(counts=_name_counts(values, chosen), names=chosen)
        edges = _edges(values)
        return cls(counts=_number_counts(values, edges), edges=tuple(edges.tolist()))

    def count(self, values: Values) -> Int[np.ndarray, " bins"]:
        """Return how many users are in each bin."""
        if isinstance(values, list):
            return np.array(_name_counts(values, self.names or ()), dtype=np.int64)
        return np.array(_number_counts(values, np.array(self.edges)), dtype=np.int64)

    def place(self, value: float | str) -> int:
        """Return the bin of one value."""
        if self.names is None:
            return bisect.bisect_right(self.edges, value)
        return self.names.index(value) if value in self.names else len(self.names)

    @property
    def labels(self) -> list[str]:
        """Name of each bin."""
        if self.names is not None:
            return [*self.names, "others"]
        limits = [f"{edge:.3g}" for edge in self.edges]
        if not limits:
            return ["all"]
        between = [f"{low} to {high}" for low, high in itertools.pairwise(limits)]
        return [f"below {limits[0]}", *between, f"{limits[-1]} and above"]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        bins: dict[str, Any] = {"edges": list(self.edges)} if self.names is None else {"names": list(self.names)}
        return bins | {"counts": list(self.counts)}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            ValueError: there is no count for each bin, or edges do not rise.
        """
        counts = tuple(int(count) for count in tree["counts"])
        names = tuple(map(str, tree["names"])) if "names" in tree else None
        edges = tuple(float(edge) for edge in tree.get("edges", ()))
        bins = len(edges) + 1 if names is None else len(names) + 1
        if len(counts) != bins or min(counts) < 0 or list(edges) != sorted(set(edges)):
            raise ValueError(f"{len(counts)} counts are not of {bins} bins")
        return cls(counts, edges, names)


def _edges(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return edges between bins of about as many values each; values that many share have a bin of their own."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        step = STEP * max(1.0, abs(distinct[0]))
        return np.array([distinct[0] - step, distinct[0] + step])
    edges = np.quantile(values, np.arange(1, BINS) / BINS, method="higher")
    shared = np.flatnonzero(counts >= len(values) / BINS)
    above = distinct[shared[shared + 1 < len(distinct)] + 1]
    edges = np.unique(np.concatenate([edges, distinct[shared], above]))
    return np.asarray(edges[edges > distinct[0]])  # below the lowest there is nobody


def _number_counts(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> tuple[int, ...]:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return tuple(counts.tolist())


def _name_counts(values: Sequence[str], names: tuple[str, ...]) -> tuple[int, ...]:
    places = {name: place for place, name in enumerate(names)}
    counts = np.bincount([places.get(value, len(names)) for value in values], minlength=len(names) + 1)
    return tuple(counts.tolist())


@dataclass(frozen=True)
class Reference:
    """The users that a bundle was judged by in training, in counts: no user can be read from it.

    Attributes:
        users: how many they were.
        quantities: what of them was counted, by its name.
        directions: (D, R) on which representations are projected: principal ones of the train users.
        centre: (R,) mean of these representations.
    """

    users: int
    quantities: dict[str, Distribution]
    directions: Float[np.ndarray, "D R"] = field(default_factory=lambda: np.zeros((0, 0)))
    centre: Float[np.ndarray, " R"] = field(default_factory=lambda: np.zeros(0))

    def __eq__(self, operand: object) -> bool:
        return isinstance(operand, Reference) and self.to_json() == operand.to_json()

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "users": self.users,
            "quantities": {name: distribution.to_json() for name, distribution in self.quantities.items()},
            "directions": self.directions.tolist(),
            "centre": self.centre.tolist(),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            ValueError: bins without counts, or directions of another width than the centre.
        """
        quantities = {str(name): Distribution.from_json(bins) for name, bins in tree["quantities"].items()}
        centre = np.array(tree["centre"], dtype=np.float64)
        directions = np.array(tree["directions"], dtype=np.float64).reshape(-1, len(centre))
        return cls(int(tree["users"]), quantities, directions, centre)
