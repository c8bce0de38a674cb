"""Objectives of pre-training and of tasks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def full_softmax_loss(
    hidden: Float[Tensor, "N C"],
    positives: Int[Tensor, " N"],
    weight: Float[Tensor, "V C"],
    bias: Float[Tensor, " V"],
) -> Float[Tensor, ""]:
    """Cross-entropy over the whole catalogue, mean over the N positions (paper, eq. 3)."""
    return F.cross_entropy(F.linear(hidden, weight, bias), positives)


class LogUniformSampler:
    """Draws item positions with p(r) = log((r + 2) / (r + 1)) / log(n + 1), r the rank by frequency (0-based).

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


def sampled_softmax_loss(
    hidden: Float[Tensor, "N C"],
    positives: Int[Tensor, " N"],
    weight: Float[Tensor, "V C"],
    bias: Float[Tensor, " V"],
    negatives: Int[Tensor, " S"],
    log_expected: Float[Tensor, " S"],
    positive_log_expected: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy whose sum over the catalogue is estimated from S negatives that all rows share.

    A negative's logit is lowered by the log of its expected count among the draws (logQ correction: Bengio and Senecal,
    2008), and one that equals the row's positive is masked (accidental hit). The negatives then estimate the sum over
    all items but the positive without bias, so the positive itself stands uncorrected beside them: the loss tends to
    `full_softmax_loss` as S grows. The authors' code draws without replacement and lowers the positive's logit too;
    with replacement, where an expected count can be above one, that would push frequent items beyond their share.

    Args:
        hidden: hidden states.
        positives: 0-based positions of the items to predict.
        weight: a vector for each item.
        bias: of each item.
        negatives: 0-based positions of the drawn items.
        log_expected: log of the expected count of each of them.
        positive_log_expected: of the positives, where their logits are to be lowered too.

    Returns:
        Mean over the N positions.
    """
    positive = (hidden * weight[positives]).sum(1) + bias[positives]
    if positive_log_expected is not None:
        positive = positive - positive_log_expected
    negative = torch.addmm(bias[negatives], hidden, weight[negatives].T) - log_expected  # (N, S)
    hits = positives.unsqueeze(1) == negatives.unsqueeze(0)
    return candidate_softmax_loss(positive, negative.masked_fill(hits, float("-inf")))


def candidate_softmax_loss(positive: Float[Tensor, " N"], negative: Float[Tensor, "N M"]) -> Float[Tensor, ""]:
    """Cross-entropy of each positive among its own M negatives, whose scores are corrected already; mean over rows."""
    return (torch.logaddexp(positive, torch.logsumexp(negative, 1)) - positive).mean()


def bpr_loss(positive: Float[Tensor, " B"], negative: Float[Tensor, "B M"]) -> Float[Tensor, ""]:
    """-log sigmoid(positive - negative), mean over pairs (paper, eq. 5; Rendle et al., UAI 2009)."""
    return F.softplus(negative - positive.unsqueeze(1)).mean()


def bce_loss(positive: Float[Tensor, " B"], negative: Float[Tensor, "B M"]) -> Float[Tensor, ""]:
    """-log sigmoid(positive) - log(1 - sigmoid(negative)), mean over positives (as in the authors' code, M = 1).

    The M negatives of a positive weigh as much as it does together.
    """
    return F.softplus(-positive).mean() + F.softplus(negative).mean()
