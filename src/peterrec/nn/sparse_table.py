"""The rows of a large table that one batch touches, as a small tensor of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TouchedRows:
    """Some rows of a table: what is computed with them has its gradient in `values`, not in the whole table.

    Attributes:
        table: (V, C) a parameter.
        rows: (U,) which of them, ascending.
        values: (U, C) a copy of them, a leaf.
        place: (V,) where each row of the table is among them; of no meaning for other rows.
    """

    table: Tensor
    rows: Int[Tensor, " U"]
    values: Float[Tensor, "U C"]
    place: Int[Tensor, " V"]

    @classmethod
    def from_indices(cls, table: Float[Tensor, "V C"], *touched: Int[Tensor, ...]) -> Self:
        """Take the rows of these indices, each once."""
        touched_rows = torch.zeros(len(table), dtype=torch.bool, device=table.device)
        for indices in touched:
            touched_rows[indices.reshape(-1)] = True
        rows = touched_rows.nonzero().squeeze(1)
        place = torch.empty(len(table), dtype=torch.int32, device=table.device)
        place[rows] = torch.arange(len(rows), dtype=torch.int32, device=table.device)
        values = table.detach().index_select(0, rows).requires_grad_(table.requires_grad)
        return cls(table, rows, values, place)

    def find(self, indices: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
        """Return where rows of the table are among `values`."""
        return self.place[indices.reshape(-1)].long().reshape(indices.shape)

    def hand_over(self) -> None:
        """Give the table its gradient, as a sparse tensor of these rows."""
        if self.values.grad is not None:
            size = tuple(self.table.shape)
            self.table.grad = torch.sparse_coo_tensor(
                self.rows.unsqueeze(0), self.values.grad, size, is_coalesced=True, check_invariants=False
            )
