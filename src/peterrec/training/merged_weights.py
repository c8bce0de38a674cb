"""Weights of several networks as those of one: averages, TIES, and bottlenecks side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]

SIDE_BY_SIDE = {  # by the end of a name: the dimension that units of a bottleneck, or factors of items, are counted by
    "net.down.weight": 0,
    "net.down.bias": 0,
    "net.up.weight": 1,
    "task_items.table": 1,
    "task_items.up": 0,
}
SCALED = ("net.up.weight", "task_items.up")  # what is added by each, which the shares are of


def averaged(networks: Sequence[Weights], shares: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted mean of each tensor.

    Args:
        networks: with tensors of the same names and shapes.
        shares: of each; their sum is 1.
    """
    return {name: _mean([weights[name] for weights in networks], shares) for name in networks[0]}


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    total = sum(share * tensor.double() for share, tensor in zip(shares, tensors, strict=True))
    assert isinstance(total, Tensor)
    return total.to(tensors[0].dtype)


def ties(networks: Sequence[Weights], shares: Sequence[float], start: Weights, density: float) -> dict[str, Tensor]:
    """Merge what several trainings changed of the same start (TIES-Merging: Yadav et al., NeurIPS 2023).

    Of each network only the largest changes stay; each number takes the sign that has the larger sum of changes; and
    those of that sign are averaged.

    Args:
        networks: with tensors of the same names and shapes.
        shares: of each; their sum is 1.
        start: that all began with.
        density: fraction of the changes of a network that stay.
    """
    names = list(networks[0])
    changes = [torch.cat([(weights[name] - start[name]).double().flatten() for name in names]) for weights in networks]
    trimmed = torch.stack([_largest(change, density) for change in changes])  # (K, numbers)
    weighted = trimmed * torch.tensor(shares, dtype=trimmed.dtype).unsqueeze(1)
    sign = weighted.sum(dim=0).sign()
    agrees = (trimmed.sign() == sign) & (sign != 0)
    share_of_number = (agrees * torch.tensor(shares, dtype=trimmed.dtype).unsqueeze(1)).sum(dim=0)
    merged = (weighted * agrees).sum(dim=0) / share_of_number.clamp(min=torch.finfo(trimmed.dtype).tiny)
    sizes = [networks[0][name].numel() for name in names]
    return {
        name: (start[name].double() + part.view_as(start[name])).to(start[name].dtype)
        for name, part in zip(names, torch.split(merged, sizes), strict=True)
    }


def _largest(changes: Tensor, density: float) -> Tensor:
    """Return changes with zeros in place of all but the largest."""
    count = max(1, round(density * len(changes)))
    chosen = changes.abs().topk(count).indices
    return torch.zeros_like(changes).index_copy_(0, chosen, changes[chosen])


def side_by_side(networks: Sequence[Weights], shares: Sequence[float]) -> dict[str, Tensor]:
    """Return one wide bottleneck for several: it adds the weighted mean of what each adds, exactly.

    Args:
        networks: tensors of patches of bottlenecks.
        shares: of each; their sum is 1.
    """
    merged: dict[str, Tensor] = {}
    for name in networks[0]:
        tensors = [weights[name] for weights in networks]
        dimension = next((dim for end, dim in SIDE_BY_SIDE.items() if name.endswith(end)), None)
        if dimension is None:
            merged[name] = _mean(tensors, shares)
            continue
        scales = shares if name.endswith(SCALED) else [1.0] * len(tensors)
        merged[name] = torch.cat([scale * tensor for scale, tensor in zip(scales, tensors, strict=True)], dimension)
    return merged
