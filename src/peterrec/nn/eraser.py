"""Linear erasure of an attribute: an affine map of representations, after which no linear model reads it.

Source: LEACE (Belrose et al., NeurIPS 2023): of all such maps the one that moves representations least.
"""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from peterrec.nn.heads import Head


class Eraser(nn.Module):
    """The map x - up (down (x - mean)), of rank K - 1 for an attribute of K classes.

    Its numbers are buffers: they are fitted in closed form, and never trained.

    Args:
        channels: R of the representation.
        rank: of what is taken away.
    """

    up: Tensor
    down: Tensor
    mean: Tensor

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.register_buffer("up", torch.zeros(channels, rank))
        self.register_buffer("down", torch.zeros(rank, channels))
        self.register_buffer("mean", torch.zeros(channels))

    @classmethod
    def from_tensors(cls, up: Float[Tensor, "R k"], down: Float[Tensor, "k R"], mean: Float[Tensor, " R"]) -> Self:
        """Return the eraser of these numbers."""
        eraser = cls(*up.shape)
        eraser.load_state_dict({"up": up, "down": down, "mean": mean})
        return eraser

    @property
    def rank(self) -> int:
        """Rank of what is taken away."""
        return len(self.down)

    def forward(self, representation: Float[Tensor, "B R"]) -> Float[Tensor, "B R"]:
        """Return the representations without the attribute."""
        return representation - (representation - self.mean) @ self.down.T @ self.up.T

    @torch.no_grad()
    def fold_into(self, head: Head) -> None:
        """Let a head read erased representations from now on: the map becomes part of its weights.

        All that computes with heads (banks of them, searches in items, exported ones) is then right without knowing
        of erasers.

        Args:
            head: whose own `fold` is done.
        """
        read = head.weight.double() @ self.up.double()  # (K, k)
        down = self.down.double()
        head.bias.copy_(head.bias.double() + read @ (down @ self.mean.double()))
        head.weight.copy_(head.weight.double() - read @ down)
