"""Item tables with a second part: what the content of an item says, learned with the network."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class ContentPart(nn.Module):
    """Parametrization of a table (`torch.nn.utils.parametrize`): each row is a residual of its own plus its content's.

    In training, rows of some items are those of their content alone, drawn anew in each step: so the projection learns
    to do without what only events tell, as it has to for new items (DropoutNet: Volkovs et al., NeurIPS 2017).

    Args:
        features: (items, F) of the content.
        projection: (F, C) initial weights, or (F,) of a table of single numbers.
        is_described: (items,) which of the items have content.
        special: rows of the table before those of items, which have no content.
        dropout: fraction of the items that do without a row of their own in a step.
    """

    features: Tensor
    is_described: Tensor

    def __init__(
        self,
        features: Float[Tensor, "items F"],
        projection: Float[Tensor, " F *C"],
        is_described: Bool[Tensor, " items"],
        special: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.projection = nn.Parameter(projection.clone())
        self.special = special
        self.dropout = dropout
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("is_described", is_described, persistent=False)

    def forward(self, residual: Float[Tensor, " rows *C"]) -> Float[Tensor, " rows *C"]:
        """Return the table."""
        content = self.features @ self.projection
        items = residual[self.special :]
        if self.training and self.dropout > 0:
            is_dropped = self.is_described & (torch.rand(len(items), device=items.device) < self.dropout)
            items = torch.where(is_dropped.view(-1, *[1] * (items.dim() - 1)), 0.0, items)
        return torch.cat([residual[: self.special], items + content])
