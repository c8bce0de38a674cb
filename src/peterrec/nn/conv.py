"""The dilated convolution over time. All padding of the project lives here and in `field.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from peterrec.nn.receptive_field import ConvGeometry


class DilatedConv(nn.Module):
    """1-D convolution over time that keeps the length, with zeros padded on the left only, or as many on each side.

    Source: PeterRec, section 3.2; NextItNet (Yuan et al., WSDM 2019), section 3; GRec (Yuan et al., WWW 2020).

    Args:
        channels: C, in.
        kernel_size: taps. Causal: the last one sees the present position; else the middle one does, and it is odd.
        dilation: distance between taps, in positions.
        causal: whether an output sees no later position.
        out_channels: channels out; C if not given.
        bias: whether something is added to each output channel.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        dilation: int,
        *,
        causal: bool = True,
        out_channels: int | None = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.causal = causal
        out = channels if out_channels is None else out_channels
        self.weight = nn.Parameter(torch.empty(out, channels, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu", generator=generator)

    @property
    def reach(self) -> tuple[int, int]:
        """Earlier and later positions that one output position sees."""
        total = (self.weight.shape[2] - 1) * self.dilation
        return (total, 0) if self.causal else (total // 2, total // 2)

    def step(self, length: int) -> ConvGeometry:
        """Return the geometry that computes every position of so many."""
        return ConvGeometry(self.dilation, 1, self.reach, length)

    def forward(self, x: Float[Tensor, "B T C"], step: ConvGeometry | None = None) -> Float[Tensor, "B n D"]:
        """Convolve over time; output t depends on inputs t - reach[0] .. t + reach[1].

        Args:
            x: what is given.
            step: from which positions to which; every one if not given, n = T.
        """
        step = step or self.step(x.shape[1])
        taps, pad = step.taps_on_inputs(self.weight.shape[2], x.shape[1])
        # A (1, k) convolution on a permuted view reads time-major memory as it lies (channels_last): no copies.
        image = F.pad(x, (0, 0, *pad)).transpose(1, 2).unsqueeze(2)  # (B, C, 1, T + total)
        kernel = self.weight[:, :, taps].unsqueeze(2)
        out = F.conv2d(image, kernel, self.bias, stride=(1, step.stride), dilation=(1, step.dilation))
        return out.squeeze(2).transpose(1, 2)  # (B, n, D)
