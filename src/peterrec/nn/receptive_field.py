"""Receptive field of the last position of a causal backbone, layer by layer: nothing else is computed for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from jaxtyping import Shaped
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """Step of one convolution from the positions of its input, evenly spaced, to those that it computes.

    The last of both is the same position. Distances count in given positions.

    Attributes:
        dilation: between taps.
        stride: between computed positions.
        pad: zeros put before and after what is given.
        outputs: computed positions.
    """

    dilation: int
    stride: int
    pad: tuple[int, int]
    outputs: int

    def at_outputs(self, x: Shaped[Tensor, "B T C"]) -> Shaped[Tensor, "B n C"]:
        """Return what is given at the positions that are computed; a view."""
        first = x.shape[1] - 1 - (self.outputs - 1) * self.stride
        return x[:, first :: self.stride]


BlockSteps = tuple[Step, Step]


@dataclass(frozen=True)
class ReceptiveField:
    """Positions of each layer that the last position depends on.

    Attributes:
        spacing: distance between the tokens that are read.
        count: how many of them, the last one included.
        steps: of both sublayers of each block.
        counts: positions that each block is given.
    """

    spacing: int
    count: int
    steps: tuple[BlockSteps, ...]
    counts: tuple[int, ...]


@lru_cache(maxsize=1024)
def receptive_field_of_last(dilations: tuple[int, ...], kernel_size: int, length: int) -> ReceptiveField:
    """Return the plan for the last of `length` tokens.

    From the top down: the last block is asked for one position, and each sublayer for those that the taps of the next
    one touch. Evenly spaced positions stay so, with the greatest common divisor of spacing and dilation.

    Args:
        dilations: of the first sublayer of each block; the second has twice that.
        kernel_size: taps.
        length: tokens of a row.
    """
    spacing, count = 0, 1  # one position is a multiple of whatever distance from the last
    steps: list[BlockSteps] = []
    counts: list[int] = []
    for dilation in reversed(dilations):
        second, spacing, count = _below(2 * dilation, kernel_size, length, spacing, count)
        first, spacing, count = _below(dilation, kernel_size, length, spacing, count)
        steps.append((first, second))
        counts.append(count)
    return ReceptiveField(spacing, count, tuple(reversed(steps)), tuple(reversed(counts)))


def _below(dilation: int, kernel_size: int, length: int, spacing: int, count: int) -> tuple[Step, int, int]:
    """Return the step to positions that are asked for, and spacing and count of those it must be given."""
    finer = math.gcd(spacing, dilation)
    stride, taps = max(1, spacing // finer), dilation // finer
    needed = (count - 1) * stride + (kernel_size - 1) * taps + 1
    inputs = min(needed, (length - 1) // finer + 1)
    return Step(taps, stride, (needed - inputs, 0), count), finer, inputs
