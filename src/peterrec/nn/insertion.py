"""Interfaces between a sublayer of the backbone and an adapter layer: its shape, its input and the hooks it calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from peterrec.nn.conv import DilatedConv
from peterrec.nn.receptive_field import ConvGeometry


class SublayerShape(Protocol):
    """Shape of a sublayer, as its adapter layer is built for it."""

    @property
    def channels(self) -> int:
        """Channels of the backbone."""

    def low_rank(self, rank: int, generator: torch.Generator | None) -> nn.Module:
        """Return a map to `rank` channels from what the sublayer's own linear map is given, without a bias."""


@dataclass(frozen=True)
class ConvShape:
    """SublayerShape of a sublayer of convolutions."""

    channels: int
    kernel_size: int
    dilation: int
    causal: bool

    def low_rank(self, rank: int, generator: torch.Generator | None) -> nn.Module:
        """Return a convolution with the taps and the dilation of the sublayer's."""
        return DilatedConv(
            self.channels, self.kernel_size, self.dilation,
            causal=self.causal, out_channels=rank, bias=False, generator=generator,
        )  # fmt: skip


class LayerInput(Protocol):
    """Input of a sublayer, as adapter layers read it."""

    @property
    def current(self) -> Float[Tensor, "B n C"]:
        """The input at the positions that are computed."""

    def through(self, layer: nn.Module) -> Float[Tensor, "B n D"]:
        """Return the output of the sublayer's own linear map, or of another one in its place."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all that differs from row to row, rows first."""

    def with_tensors(self, *tensors: Tensor) -> Self:
        """Return the same with other rows."""


@dataclass(frozen=True)
class ConvInput:
    """Input of a sublayer of convolutions, as its convolution gets it (padding is zero), and the computed positions.

    Attributes:
        x: (B, T, C).
        step: to n positions.
    """

    x: Tensor
    step: ConvGeometry

    @property
    def current(self) -> Float[Tensor, "B n C"]:
        """The input at the positions that are computed."""
        return self.step.at_outputs(self.x)

    def through(self, layer: nn.Module) -> Float[Tensor, "B n D"]:
        """Return the output of the sublayer's convolution, or of one with its taps and dilation."""
        out: Tensor = layer(self.x, self.step)
        return out

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all that differs from row to row, rows first."""
        return (self.x,)

    def with_tensors(self, *tensors: Tensor) -> Self:
        """Return the same with other rows."""
        return replace(self, x=tensors[0])


class AdapterHooks(Protocol):
    """Hooks that a sublayer calls: of one task (`AdapterLayer`), or of the tasks of all rows (`batched_patches`)."""

    def pre_norm(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between convolution and LayerNorm."""

    def normalise(self, norm: nn.LayerNorm, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Apply the sublayer's LayerNorm, or the task's own version of it."""

    def pre_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between LayerNorm and the nonlinearity."""

    def post_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act after the nonlinearity."""
