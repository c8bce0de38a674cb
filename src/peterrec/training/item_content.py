"""Content of items as a second part of all that a network has for them, while it is pre-trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import RidgeCV
from torch import nn
from torch.nn.utils import parametrize

from peterrec.artifacts.learned_content import LearnedContent, with_constant
from peterrec.data.catalogue import Catalogue
from peterrec.data.content_encoder import ContentEncoder
from peterrec.data.item_content import ItemContent
from peterrec.nn.item_content import ContentPart
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.tokens import SPECIAL
from peterrec.training.new_items import PENALTIES


@dataclass(frozen=True)
class FittedContent:
    """A table of items, as numbers of those of a catalogue.

    Attributes:
        encoder: fitted to the items of the catalogue.
        features: of each of them.
        fingerprint: of the table.
    """

    encoder: ContentEncoder
    features: Float[np.ndarray, "items F"]
    fingerprint: str

    @classmethod
    def from_table(cls, items: Any, catalogue: Catalogue) -> Self:
        """Read a table.

        Raises:
            DataError: it cannot be read, describes no item of the catalogue, or has no column that can be used.
        """
        content = ItemContent(items)
        return cls(*content.fit(catalogue), content.fingerprint)


def add_content(
    network: NextItemModel, features: Float[np.ndarray, "items F"], weights: Float[np.ndarray, " items"], dropout: float
) -> None:
    """Divide what a network has for items into what follows from their content, and what is of their own.

    The content's part is learned from then on; it starts with a ridge regression of what is there, so that the sum is
    what it was.

    Args:
        network: to be trained.
        features: of each item of its catalogue (`ItemContent.fit`).
        weights: of the items in the regression.
        dropout: fraction of the items that do without a part of their own in a step (`ContentPart`).
    """
    numbers = with_constant(features)
    is_described = torch.from_numpy(features[:, 0] == 0)
    for _, module, attribute, special in _item_tables(network):
        table: nn.Parameter = getattr(module, attribute)
        ridge = RidgeCV(PENALTIES, alpha_per_target=table.dim() > 1, fit_intercept=False)
        ridge.fit(numbers.numpy(), table.detach()[special:].numpy(), sample_weight=weights)
        projection = torch.from_numpy(np.ascontiguousarray(ridge.coef_.T)).to(table)
        with torch.no_grad():
            table[special:] -= numbers @ projection
        part = ContentPart(numbers, projection, is_described, special, dropout)
        is_trained = table.requires_grad
        parametrize.register_parametrization(module, attribute, part)
        module.get_parameter(f"parametrizations.{attribute}.original").requires_grad_(is_trained)


def fold_content(network: NextItemModel, encoder: ContentEncoder) -> LearnedContent:
    """Add both parts up in the tables of a network, which is then one without parts; return what content says."""
    projections = {}
    network.eval()  # nothing is dropped
    for name, module, attribute, _ in _item_tables(network):
        part = module.get_submodule(f"parametrizations.{attribute}.0")
        projections[name] = part.get_parameter("projection").detach().cpu().clone()
        parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
    return LearnedContent(encoder, projections)


def _item_tables(network: NextItemModel) -> Iterator[tuple[str, nn.Module, str, int]]:
    """Yield name, module, attribute, and rows of special tokens of each table that has a row for every item."""
    yield "embedding", network.backbone.embedding, "weight", SPECIAL
    if network.head is None:
        yield "bias", network, "bias", 0
    else:
        yield "output", network.head, "weight", 0
        yield "bias", network.head, "bias", 0
