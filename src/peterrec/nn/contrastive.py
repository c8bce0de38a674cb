"""The contrastive loss: views of the same user are alike, those of others are not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def contrastive_loss(views: Float[Tensor, "U V R"], temperature: float) -> Float[Tensor, ""]:
    """Return InfoNCE over the views of a batch: each is told from those of all other users, by cosine.

    For a view z of user u and each other view p of u: -log(exp(z.p / t) / (exp(z.p / t) + sum over the views n of all
    other users of exp(z.n / t))), mean over all pairs. Source: van den Oord et al., 2018; NT-Xent of SimCLR (Chen et
    al., ICML 2020); for event sequences CoLES (Babaev et al., SIGMOD 2022).

    Args:
        views: V >= 2 representations of each of U users.
        temperature: t.
    """
    users, count, _ = views.shape
    if users < 2:  # there is nobody to be told from
        return views.sum() * 0.0
    unit = F.normalize(views.flatten(0, 1).float(), dim=1)  # (U * V, R)
    logits = unit @ unit.T / temperature
    owner = torch.arange(users, device=views.device).repeat_interleave(count)
    same_user = owner.unsqueeze(0) == owner.unsqueeze(1)
    negatives = torch.logsumexp(logits.masked_fill(same_user, -torch.inf), dim=1, keepdim=True)  # (U * V, 1)
    losses = torch.logaddexp(logits, negatives) - logits
    pairs = same_user & ~torch.eye(len(unit), dtype=torch.bool, device=views.device)
    return losses[pairs].mean()
