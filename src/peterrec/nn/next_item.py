"""The pre-training head: scores of the next, or the masked, item of the source catalogue."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from peterrec.nn.backbone import Backbone
from peterrec.nn.heads import ItemHead
from peterrec.nn.readout import represent_next
from peterrec.nn.tokens import SPECIAL


class NextItemModel(nn.Module):
    """A backbone with the scores of next (or masked) items.

    With tied weights (`BackboneConfig.tie_weights`) items are scored with their own input embeddings.

    Args:
        backbone: the backbone.
        bias: (items,) initial bias of each item, such as its log popularity.
        seed: of the initial output table, where it is not tied.
    """

    def __init__(self, backbone: Backbone, bias: Float[Tensor, " items"] | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        config = backbone.config
        if config.tie_weights:
            self.head: ItemHead | None = None
            self.bias = nn.Parameter(torch.zeros(backbone.items) if bias is None else bias.clone())
        else:
            generator = torch.Generator().manual_seed(seed)
            self.head = ItemHead(config.channels, backbone.items, generator, bias)

    def outgoing(self, hidden: Float[Tensor, "*n C"]) -> Float[Tensor, "*n C"]:
        """Return hidden states as items are scored with them (`BackboneConfig.output_relu`)."""
        return torch.relu(hidden) if self.backbone.config.output_relu else hidden

    def represent(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """Return what the next item of each row is scored with."""
        return self.next_item_vectors(self.backbone, tokens)

    def next_item_vectors(self, backbone: Backbone, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """Return the same by another form of the backbone, such as a compiled one."""
        return self.outgoing(represent_next(backbone, tokens))

    def output_table(self) -> tuple[Float[Tensor, "V C"], Float[Tensor, " V"]]:
        """Return the vector and the bias of every item of the catalogue."""
        if self.head is None:
            return self.backbone.embedding.weight[SPECIAL:], self.bias
        return self.head.weight, self.head.bias
