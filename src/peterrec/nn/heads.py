"""Heads: from a representation to scores of classes or items."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from peterrec.nn.matmul import onednn_matmul

GROUP = 64  # items of which the best is looked up first
SPREAD = 1e-6  # deviations below it are rounding


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


def grouped_topk(scores: Float[Tensor, "B n"], k: int) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
    """Return the k best scores of each row, best first, and where they are.

    On a CPU the best k groups of items are found by their largest scores first, which holds the best k items: one quick
    pass over all scores, and a search among few.
    """
    groups = scores.shape[1] // GROUP
    if scores.device.type != "cpu" or groups <= 2 * k:
        best = scores.topk(k, dim=1)
        return best.values, best.indices
    grouped = scores[:, : groups * GROUP].view(len(scores), groups, GROUP)
    chosen = grouped.amax(dim=2).topk(k, dim=1).indices.unsqueeze(2)  # (B, k, 1)
    values = grouped.gather(1, chosen.expand(-1, -1, GROUP)).flatten(1)  # (B, k * GROUP)
    positions = (chosen * GROUP + torch.arange(GROUP)).flatten(1)
    values = torch.cat([values, scores[:, groups * GROUP :]], dim=1)
    last = torch.arange(groups * GROUP, scores.shape[1])
    positions = torch.cat([positions, last.expand(len(scores), -1)], dim=1)
    best = values.topk(k, dim=1)
    return best.values, positions.gather(1, best.indices)


class _Head(nn.Module):
    """Scores of outputs: inner product of a representation with each one's vector, plus its bias.

    Args:
        channels: R of the representation.
        outputs: K.
        generator: draws the initial weights.
        bias: (K,) initial biases; zeros if not given.
    """

    shift: Tensor | None
    scale: Tensor | None

    def __init__(
        self,
        channels: int,
        outputs: int,
        generator: torch.Generator | None = None,
        bias: Float[Tensor, " K"] | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, channels))
        self.bias = nn.Parameter(torch.zeros(outputs) if bias is None else bias.clone())
        nn.init.normal_(self.weight, std=0.02, generator=generator)
        self.register_buffer("shift", None, persistent=False)
        self.register_buffer("scale", None, persistent=False)

    def standardise(self, vectors: Float[Tensor, "N R"]) -> None:
        """Read every number of a representation by its mean and deviation over some users, from now on.

        Until `fold`. The scale of states differs by layer, and by backbone; a head that learns with one rate for all of
        them would hear the loud ones only.
        """
        self.shift = vectors.mean(dim=0)
        spread = vectors.std(dim=0, correction=0)
        # What is the same of all users says nothing of another either, however far off it is.
        self.scale = torch.where(spread > SPREAD, 1.0 / spread.clamp(min=SPREAD), 0.0)

    @torch.no_grad()
    def fold(self) -> None:
        """Put what `standardise` did into weights and biases: the same scores, and nothing else to keep."""
        if self.shift is not None and self.scale is not None:
            self.weight.mul_(self.scale)
            self.bias.sub_(self.weight @ self.shift)
        self.shift = self.scale = None

    @torch.no_grad()
    def start_at(self, weight: Float[Tensor, "K R"], bias: Float[Tensor, " K"]) -> None:
        """Begin at weights and biases; an output whose bias is minus infinity keeps its own.

        Args:
            weight: of the numbers as `read` gives them.
            bias: of each output.
        """
        has_bias = (bias > -torch.inf).to(self.bias.device)
        self.weight.copy_(weight)
        self.bias.copy_(torch.where(has_bias, bias.to(self.bias), self.bias))

    @torch.no_grad()
    def start_rows_at(self, rows: Int[Tensor, " n"], weight: Float[Tensor, "n R"], bias: Float[Tensor, " n"]) -> None:
        """Let some outputs begin at weights and biases of another head; the others stay.

        Args:
            rows: the outputs.
            weight: of representations as they are, not as `read` gives them.
            bias: of each of the outputs.
        """
        if self.shift is not None and self.scale is not None:
            shift, scale = self.shift.to(weight), self.scale.to(weight)
            bias = bias + weight @ shift
            weight = torch.where(scale > 0, weight / scale, 0.0)
        rows = rows.to(self.weight.device)
        self.weight[rows], self.bias[rows] = weight.to(self.weight), bias.to(self.bias)

    def forward(self, representation: Float[Tensor, "B R"]) -> Float[Tensor, "B K"]:
        """Return the score of every output: logits of classes, or scores of items."""
        return F.linear(self.read(representation), self.weight, self.bias)

    def read(self, representation: Float[Tensor, "B R"]) -> Float[Tensor, "B R"]:
        """Return what the weights are applied to."""
        if self.shift is None or self.scale is None:
            return representation
        return (representation - self.shift) * self.scale


class ClassificationHead(_Head):
    """Scores of the classes of a task (paper, section 3.3); the bias starts, for example, at the log share of each."""


class ItemHead(_Head):
    """Scores of items (paper, section 3.3); the bias starts, for example, at the log popularity."""

    def score(self, representation: Float[Tensor, "B R"], items: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Return the scores of chosen items of each row."""
        return torch.einsum("bc,bmc->bm", self.read(representation), self.weight[items]) + self.bias[items]


class RegressionHead(_Head):
    """Standardised numbers of users: one output, or one a quantile; the bias starts, for example, at the mean."""


class MultilabelHead(_Head):
    """Log odds of labels, of which a user has any number; the bias starts, for example, at those of the shares."""


Head = ClassificationHead | ItemHead | RegressionHead | MultilabelHead
"""Of any kind of task."""
