"""The losses of pre-training as their formulas are written: what those in chunks are compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from peterrec.nn.losses import candidate_softmax_loss


def full_softmax_loss(
    hidden: Float[Tensor, "N C"],
    positives: Int[Tensor, " N"],
    weight: Float[Tensor, "V C"],
    bias: Float[Tensor, " V"],
) -> Float[Tensor, ""]:
    """Cross-entropy over the whole catalogue, mean over the N positions (paper, eq. 3)."""
    return F.cross_entropy(F.linear(hidden, weight, bias), positives)


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

    `chunked_sampled_softmax_loss` says how; `positive_log_expected` lowers the positives' logits as well.

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
