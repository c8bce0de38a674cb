"""Objectives of pre-training and of tasks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class LogUniformSampler:
    """Sampler of item positions with p(r) = log((r + 2) / (r + 1)) / log(n + 1), r the rank by frequency (0-based).

    The usual approximation of Zipf's law for a catalogue sorted by falling frequency; with replacement.

    Args:
        items: n, number of items.
    """

    def __init__(self, items: int) -> None:
        self.items = items
        self._log_range = math.log(items + 1)

    def sample(self, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
        """Draw `count` positions in 0 .. n - 1, on the CPU."""
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        drawn = torch.exp(uniform * self._log_range) - 1.0  # inverse of the distribution function
        return drawn.long().clamp_(max=self.items - 1)

    def log_probability(self, positions: Int[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return log p of positions."""
        ranks = positions.double()
        return torch.log(torch.log1p(1.0 / (ranks + 1.0)) / self._log_range).float()

    def log_expected(self, positions: Int[Tensor, "*s"], draws: int) -> Float[Tensor, "*s"]:
        """Return the log of how often each position is expected among so many draws."""
        return self.log_probability(positions) + math.log(draws)


def candidate_softmax_loss(positive: Float[Tensor, " N"], negative: Float[Tensor, "N M"]) -> Float[Tensor, ""]:
    """Return the cross-entropy of each positive among its M negatives of corrected scores, mean over rows."""
    return (torch.logaddexp(positive, torch.logsumexp(negative, 1)) - positive).mean()


def bpr_loss(positive: Float[Tensor, " B"], negative: Float[Tensor, "B M"]) -> Float[Tensor, ""]:
    """Return -log sigmoid(positive - negative), mean over pairs (paper, eq. 5; Rendle et al., UAI 2009)."""
    return F.softplus(negative - positive.unsqueeze(1)).mean()


def bce_loss(positive: Float[Tensor, " B"], negative: Float[Tensor, "B M"]) -> Float[Tensor, ""]:
    """Return -log sigmoid(positive) - log(1 - sigmoid(negative)), mean over positives (as the authors, M = 1).

    The M negatives of a positive weigh as much as it does together.
    """
    return F.softplus(-positive).mean() + F.softplus(negative).mean()


def pinball_loss(
    outputs: Float[Tensor, "B K"], numbers: Float[Tensor, " B"], quantiles: Float[Tensor, " K"]
) -> Float[Tensor, " B"]:
    """Return the pinball loss of quantiles of each row, their mean (Koenker and Bassett, Econometrica 1978)."""
    above = numbers.unsqueeze(1) - outputs  # (B, K)
    return torch.maximum(quantiles * above, (quantiles - 1.0) * above).mean(dim=1)
