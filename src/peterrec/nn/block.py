"""Sites and residual blocks."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from peterrec.nn.conv import DilatedConv
from peterrec.nn.patch import Patch, SitePatch


class Site(nn.Module):
    """conv -> LayerNorm -> ReLU, with the three places where a patch may act."""

    def __init__(self, channels: int, kernel_size: int, dilation: int, norm_eps: float) -> None:
        super().__init__()
        self.conv = DilatedConv(channels, kernel_size, dilation)
        self.norm = nn.LayerNorm(channels, eps=norm_eps)

    def forward(
        self, x: Float[Tensor, "B T C"], keep: Bool[Tensor, "B T 1"] | None, patch: SitePatch | None
    ) -> Float[Tensor, "B T C"]:
        """Apply the site; positions where `keep` is false feed zeros to the convolution."""
        h = self.conv(x if keep is None else x * keep)
        if patch is None:
            return torch.relu(self.norm(h))
        h = self.norm(patch.pre_norm(x, h))
        return patch.post_act(x, torch.relu(patch.pre_act(x, h)))


class Block(nn.Module):
    """x + site2(site1(x)); the second site has twice the dilation of the first (paper, section 3.2, eq. 2)."""

    def __init__(self, channels: int, kernel_size: int, dilation: int, norm_eps: float) -> None:
        super().__init__()
        self.first = Site(channels, kernel_size, dilation, norm_eps)
        self.second = Site(channels, kernel_size, 2 * dilation, norm_eps)

    def forward(
        self, x: Float[Tensor, "B T C"], keep: Bool[Tensor, "B T 1"] | None, patch: Patch | None, index: int
    ) -> Float[Tensor, "B T C"]:
        """Apply block number `index`, whose sites are 2 * index and 2 * index + 1 of the patch."""
        first = patch.at(2 * index) if patch is not None else None
        second = patch.at(2 * index + 1) if patch is not None else None
        out: Tensor = self.second(self.first(x, keep, first), keep, second)
        return x + out
