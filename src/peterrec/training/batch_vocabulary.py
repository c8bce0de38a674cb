"""Items of one batch as a vocabulary of its own, for tables whose rows are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrize

from peterrec.nn.backbone import Backbone
from peterrec.nn.item_content import ContentPart
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.tokens import SPECIAL, items_of


@dataclass(frozen=True)
class BatchVocabulary:
    """Special tokens and the items that a batch touches, with what a network has for them.

    What a step costs then depends on the batch, and not on the items of the catalogue.

    Attributes:
        backbone: that reads tokens of this vocabulary.
        weight: vectors of its items, that they are scored with.
        bias: of its items.
        batch: in tokens, and negatives, of this vocabulary.
        negatives: as they were drawn, of the catalogue.
    """

    backbone: Backbone
    weight: Float[Tensor, "n C"]
    bias: Float[Tensor, " n"]
    batch: dict[str, Tensor]
    negatives: Int[Tensor, " S"]

    @classmethod
    def from_batch(cls, network: NextItemModel, backbone: Backbone, batch: dict[str, Tensor]) -> Self:
        """Return the vocabulary of a batch.

        Args:
            network: whose item tables have a part for content.
            backbone: its form that is to read.
            batch: inputs, targets and negatives, and views where there are some.
        """
        names = [name for name in ("inputs", "targets", "views") if name in batch]
        touched = [items_of(batch[name]).flatten() for name in names] + [batch["negatives"] + SPECIAL]
        special = torch.arange(SPECIAL, device=touched[0].device)
        rows, places = cast(Any, torch.unique)(torch.cat([special, *touched]), return_inverse=True)
        pieces = torch.split(places, [SPECIAL, *map(len, touched)])[1:]
        local: dict[str, Tensor] = {
            name: batch[name] - items_of(batch[name]) + piece.view(batch[name].shape)
            for name, piece in zip(names, pieces, strict=False)
        }
        local["negatives"] = pieces[-1] - SPECIAL
        table = _rows(network.backbone.embedding, "weight", rows)
        items = rows[SPECIAL:] - SPECIAL
        if network.head is None:
            weight, bias = table[SPECIAL:], _rows(network, "bias", items)
        else:
            weight, bias = _rows(network.head, "weight", items), _rows(network.head, "bias", items)
        return cls(backbone.with_item_vectors(table), weight, bias, batch | local, batch["negatives"])


def has_content(network: NextItemModel) -> bool:
    """Return whether the item tables of a network have a part for content (`add_content`)."""
    return parametrize.is_parametrized(network.backbone.embedding, "weight")


def _rows(module: nn.Module, attribute: str, rows: Tensor) -> Tensor:
    """Return some rows of a table of two parts."""
    part = module.get_submodule(f"parametrizations.{attribute}.0")
    assert isinstance(part, ContentPart)
    residual = module.get_parameter(f"parametrizations.{attribute}.original")
    return part.rows(residual.index_select(0, rows), rows)
