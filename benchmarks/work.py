"""How many floating-point operations a job needs at least; a multiplication and an addition are two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from worker import Sizes


@dataclass(frozen=True)
class Work:
    """Operations of one run.

    Attributes:
        window: with every position of the window computed.
        receptive_field: with those alone that the result depends on; the same where it depends on all.
    """

    window: float
    receptive_field: float


def window_positions(sizes: Sizes, length: int) -> list[int]:
    """Return how many positions each convolution computes on the whole window, from the bottom up."""
    return [length] * (2 * len(sizes.dilations))


def receptive_field_positions(sizes: Sizes, length: int) -> list[int]:
    """Return at how many positions each convolution is needed for the last of `length`, from the bottom up."""
    needed = {length - 1}
    counts: list[int] = []
    for dilation in reversed(sizes.dilations):
        counts.append(len(needed))
        between = _touched(needed, 2 * dilation, sizes.kernel)
        counts.append(len(between))
        needed |= _touched(between, dilation, sizes.kernel)  # the block adds its input to its output
    return counts[::-1]


def _touched(positions: set[int], dilation: int, kernel: int) -> set[int]:
    """Return the inputs of a convolution at these positions; before the first there is only padding."""
    return {p - tap * dilation for p in positions for tap in range(kernel) if p >= tap * dilation}


def represent(sizes: Sizes) -> Work:
    """One user's vector each: the state at [TCL], which stands after the events."""
    length = sizes.events + 1
    window = sum(window_positions(sizes, length))
    receptive_field = window if sizes.full_pass else sum(receptive_field_positions(sizes, length))
    return Work(_convolutions(sizes, window), _convolutions(sizes, receptive_field))


def rank(sizes: Sizes) -> Work:
    """The state at the last event, and the scores of all items."""
    scores = sizes.batch * _product(sizes.channels, sizes.items)
    window = sum(window_positions(sizes, sizes.events))
    receptive_field = sum(receptive_field_positions(sizes, sizes.events))
    return Work(_convolutions(sizes, window) + scores, _convolutions(sizes, receptive_field) + scores)


def pretrain(sizes: Sizes) -> Work:
    """A step of pre-training: what goes forward once is done twice more backward, for inputs and for weights."""
    targets = sizes.batch * (1 if sizes.last_only else sizes.events)
    scored = sizes.items if sizes.loss == "full" else _distinct_draws(sizes)
    scores = 3 * targets * _product(sizes.channels, scored)
    window = 3 * _convolutions(sizes, sum(window_positions(sizes, sizes.events)))
    positions = (
        receptive_field_positions(sizes, sizes.events) if sizes.last_only else window_positions(sizes, sizes.events)
    )
    return Work(window + scores, 3 * _convolutions(sizes, sum(positions)) + scores)


def adapt(sizes: Sizes) -> Work:
    """A step of adapting. Frozen convolutions have gradients of their inputs only, the lowest not even those."""
    length = sizes.events + 1
    window, receptive_field = window_positions(sizes, length), receptive_field_positions(sizes, length)
    return Work(_adapting(sizes, window), _adapting(sizes, receptive_field))


def _adapting(sizes: Sizes, positions: list[int]) -> float:
    head = 3 * sizes.batch * _product(sizes.channels, sizes.classes)
    if sizes.strategy == "all":
        return 3 * _convolutions(sizes, sum(positions)) + head
    frozen = _convolutions(sizes, sum(positions) + sum(positions[1:]))
    bottleneck = 2 * _product(sizes.channels, sizes.channels // 8)
    return frozen + 3 * sizes.batch * sum(positions) * bottleneck + head


def _distinct_draws(sizes: Sizes) -> float:
    """Return how many different items are expected among the negatives: the logit of one drawn twice is made once."""
    ranks = np.arange(sizes.items)
    share = np.log1p(1 / (ranks + 1)) / np.log(sizes.items + 1)
    return float((1 - (1 - share) ** sizes.negatives).sum())


def _convolutions(sizes: Sizes, positions: int) -> float:
    return sizes.batch * positions * sizes.kernel * _product(sizes.channels, sizes.channels)


def _product(rows: float, columns: float) -> float:
    return 2.0 * rows * columns
