"""Receptive field of the last position of a causal backbone, layer by layer: nothing else is computed for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from jaxtyping import Shaped
from torch import Tensor


@dataclass(frozen=True)
class ConvGeometry:
    """Geometry of one convolution: from the positions of its input, evenly spaced, to those that it computes.

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
        """Return the inputs at the output positions; a view."""
        first = x.shape[1] - 1 - (self.outputs - 1) * self.stride
        return x[:, first :: self.stride]

    def taps_on_inputs(self, taps: int, inputs: int) -> tuple[slice, tuple[int, int]]:
        """Return the taps that see something else than padding, and the padding that these need.

        Args:
            taps: of the convolution.
            inputs: given positions, at least one.

        Returns:
            A slice of the taps, and zeros to put before and after what is given; negative: inputs to leave out.
        """
        before, after = self.pad
        first = max(0, -(((self.outputs - 1) * self.stride - before) // self.dilation))
        end = min(taps, -(-(before + inputs) // self.dilation))
        return slice(first, end), (before - first * self.dilation, after - (taps - end) * self.dilation)


BlockSteps = tuple[ConvGeometry, ConvGeometry]


@dataclass(frozen=True)
class ReceptiveField:
    """Positions of each layer that the last position depends on.

    Attributes:
        spacing: distance between the tokens that are read.
        count: how many of them, the last one included.
        steps: geometry of both sublayers of each block.
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
        second, spacing, count = _required_inputs(2 * dilation, kernel_size, length, spacing, count)
        first, spacing, count = _required_inputs(dilation, kernel_size, length, spacing, count)
        steps.append((first, second))
        counts.append(count)
    return ReceptiveField(spacing, count, tuple(reversed(steps)), tuple(reversed(counts)))


def _required_inputs(
    dilation: int, kernel_size: int, length: int, spacing: int, count: int
) -> tuple[ConvGeometry, int, int]:
    """Return the geometry to the positions that are asked for, and spacing and count of the inputs these need."""
    input_spacing = math.gcd(spacing, dilation)
    stride, relative_dilation = max(1, spacing // input_spacing), dilation // input_spacing
    needed = (count - 1) * stride + (kernel_size - 1) * relative_dilation + 1
    inputs = min(needed, (length - 1) // input_spacing + 1)
    return ConvGeometry(relative_dilation, stride, (needed - inputs, 0), count), input_spacing, inputs
