"""The dilated convolution over time. All padding of the project lives here."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class DilatedConv(nn.Module):
    """1-D convolution over time that keeps the length, with zeros padded on the left only (causal).

    Source: PeterRec, section 3.2; NextItNet (Yuan et al., WSDM 2019), section 3.

    Args:
        channels: C, in and out.
        kernel_size: taps; the last one sees the present position.
        dilation: distance between taps, in positions.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.weight = nn.Parameter(torch.empty(channels, channels, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    @property
    def reach(self) -> int:
        """Earlier positions that one output position sees."""
        return (self.weight.shape[2] - 1) * self.dilation

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Convolve over time; output t depends on inputs t - reach .. t."""
        # A (1, k) convolution on a permuted view reads time-major memory as it lies (channels_last): no copies.
        image = F.pad(x, (0, 0, self.reach, 0)).transpose(1, 2).unsqueeze(2)  # (B, C, 1, T + reach)
        out = F.conv2d(image, self.weight.unsqueeze(2), self.bias, dilation=(1, self.dilation))
        return out.squeeze(2).transpose(1, 2)  # (B, T, C)
