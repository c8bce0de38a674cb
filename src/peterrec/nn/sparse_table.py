"""The rows of a large table that one batch touches, as a small tensor of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TouchedRows:
    """Some rows of a table: what is computed with them has its gradient in `values`, not in the whole table.

    What it costs depends on the indices alone, not on the rows of the table.

    Attributes:
        table: (V, C) a parameter.
        rows: (U,) which of them, ascending.
        values: (U, C) a copy of them, a leaf.
        places: where the row of each index is among them; in the shapes of the indices.
    """

    table: Tensor
    rows: Int[Tensor, " U"]
    values: Float[Tensor, "U C"]
    places: tuple[Int[Tensor, ...], ...]

    @classmethod
    def from_indices(cls, table: Float[Tensor, "V C"], *touched: Int[Tensor, ...]) -> Self:
        """Take the rows of these indices, each once."""
        flat = torch.cat([indices.reshape(-1) for indices in touched])
        rows, places = cast(Any, torch.unique)(flat, return_inverse=True)
        pieces = torch.split(places, [indices.numel() for indices in touched])
        shaped = tuple(piece.reshape(indices.shape) for piece, indices in zip(pieces, touched, strict=True))
        values = table.detach().index_select(0, rows).requires_grad_(table.requires_grad)
        return cls(table, rows, values, shaped)

    def hand_over(self) -> None:
        """Give the table its gradient, as a sparse tensor of these rows."""
        if self.values.grad is not None:
            size = tuple(self.table.shape)
            self.table.grad = torch.sparse_coo_tensor(
                self.rows.unsqueeze(0), self.values.grad, size, is_coalesced=True, check_invariants=False
            )
