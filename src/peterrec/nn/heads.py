"""What turns a representation into scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from peterrec.nn.matmul import onednn_matmul


def log_share(counts: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the log of each count's share of all, every count raised by one: a head's start without a user."""
    smoothed = counts.double() + 1
    return (smoothed / smoothed.sum()).log().float()


def item_scores(
    vectors: Float[Tensor, "B C"], weight: Float[Tensor, "n C"], bias: Float[Tensor, " n"]
) -> Float[Tensor, "B n"]:
    """Return the score of every item for each row, in fp32: the few bits of bfloat16 would make ties."""
    with onednn_matmul(vectors.device):
        return torch.addmm(bias, vectors, weight.T)


class ClassificationHead(nn.Module):
    """Scores of the classes of a task (paper, section 3.3).

    Args:
        channels: C of the representation.
        classes: number of classes.
        generator: draws the initial weights.
        bias: (classes,) initial biases, such as the log share of each class; zeros if not given.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        generator: torch.Generator | None = None,
        bias: Float[Tensor, " classes"] | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, channels))
        self.bias = nn.Parameter(torch.zeros(classes) if bias is None else bias.clone())
        nn.init.normal_(self.weight, std=0.02, generator=generator)

    def forward(self, representation: Float[Tensor, "B C"]) -> Float[Tensor, "B K"]:
        """Return the logit of every class."""
        return F.linear(representation, self.weight, self.bias)


class ItemHead(nn.Module):
    """Scores of items: inner product with each item's vector, plus its bias (paper, section 3.3).

    Args:
        channels: C of the representation.
        items: number of items that can be scored.
        generator: draws the initial weights.
        bias: (items,) initial biases, such as the log popularity; zeros if not given.
    """

    def __init__(
        self,
        channels: int,
        items: int,
        generator: torch.Generator | None = None,
        bias: Float[Tensor, " items"] | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(items, channels))
        self.bias = nn.Parameter(torch.zeros(items) if bias is None else bias.clone())
        nn.init.normal_(self.weight, std=0.02, generator=generator)

    def forward(self, representation: Float[Tensor, "B C"]) -> Float[Tensor, "B N"]:
        """Return the score of every item."""
        return F.linear(representation, self.weight, self.bias)

    def score(self, representation: Float[Tensor, "B C"], items: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Return the scores of chosen items of each row."""
        return torch.einsum("bc,bmc->bm", representation, self.weight[items]) + self.bias[items]
