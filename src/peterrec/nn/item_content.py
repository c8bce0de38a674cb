"""Item tables with a second part: what the content of an item says, learned with the network."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
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
        return self._sum(residual, self.features, self.is_described)

    def rows(self, residual: Float[Tensor, " n *C"], rows: Int[Tensor, " n"]) -> Float[Tensor, " n *C"]:
        """Return some rows of the table: those of special tokens, all of them and first, and of some items.

        Args:
            residual: of these rows.
            rows: which, ascending.
        """
        items = rows[self.special :] - self.special
        return self._sum(residual, self.features.index_select(0, items), self.is_described.index_select(0, items))

    def _sum(self, residual: Tensor, features: Tensor, is_described: Tensor) -> Tensor:
        items = residual[self.special :]
        if self.training and self.dropout > 0:
            is_dropped = is_described & (torch.rand(len(items), device=items.device) < self.dropout)
            items = torch.where(is_dropped.view(-1, *[1] * (items.dim() - 1)), 0.0, items)
        return torch.cat([residual[: self.special], items + features @ self.projection])
