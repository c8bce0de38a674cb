"""Embeddings of what events say beside their items, added to the embeddings of the items."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from peterrec.nn.tokens import ITEM_BITS, UNK, items_of


class EventFeatureEmbedding(nn.Module):
    """Sum of one vector for each feature of an event (`data.event_features` has the integers).

    An event that does not tell a feature has the vector of "missing", which starts at zero. Special tokens other than
    [UNK] are no events and have none.

    Args:
        sizes: integers of each feature, from 0 (missing).
        channels: of the vectors.
        generator: of the initial ones.
        std: of their entries.
    """

    def __init__(self, sizes: Sequence[int], channels: int, generator: torch.Generator, std: float) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.table = nn.Embedding(sum(sizes), channels)
        nn.init.normal_(self.table.weight, std=std, generator=generator)
        first = 0
        with torch.no_grad():
            for size in sizes:
                self.table.weight[first].zero_()
                first += size

    def forward(self, tokens: Int[Tensor, "*n"]) -> Float[Tensor, "*n C"]:
        """Return the sum of the vectors of each token's features."""
        codes, first, rows = tokens >> ITEM_BITS, 0, []
        for size in self.sizes:
            rows.append(codes % size + first)
            codes, first = codes // size, first + size
        table = self.table.weight
        summed = F.embedding_bag(torch.stack(rows, dim=-1).view(-1, len(rows)), table, mode="sum")
        is_event = items_of(tokens) >= UNK
        return summed.view(*tokens.shape, -1) * is_event.unsqueeze(-1)
