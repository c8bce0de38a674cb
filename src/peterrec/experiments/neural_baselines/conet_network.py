"""The network of CoNet: two towers over (user, item), one for each domain, that exchange their hidden layers."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

INITIAL = 0.1  # deviation of embeddings; with much less, a product of small numbers has to be learned first


class Tower(nn.Module):
    """Embedding of items and layers of one domain; the last item index is no item, and its embedding stays zero."""

    def __init__(self, items: int, channels: int, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(items + 1, channels, padding_idx=items)
        widths = (2 * channels, *layers)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.output = nn.Linear(widths[-1], 1)

    @property
    def items(self) -> int:
        """Number of items; also the index that means none."""
        return self.embedding.num_embeddings - 1

    def enter(self, users: Float[Tensor, "*u C"], items: Int[Tensor, "*i"]) -> Float[Tensor, "*b W"]:
        """Return the first hidden layer, of users and items whose shapes broadcast: each is multiplied only once."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        user_weight, item_weight = first.weight.chunk(2, dim=1)
        return F.relu(F.linear(users, user_weight, first.bias) + F.linear(self.embedding(items), item_weight))


class CrossNetwork(nn.Module):
    """Hidden layers a and b of two towers: a' = relu(W_a a + H b), b' = relu(W_b b + H a) (CoNet, section 4).

    H is shared by both directions, and has no bias of its own. The users' embedding is shared by both domains.

    Args:
        users: n.
        sources: source items.
        targets: target items.
        channels: width of embeddings.
        layers: widths of hidden layers.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        users: int,
        sources: int,
        targets: int,
        channels: int,
        layers: tuple[int, ...],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.users = nn.Embedding(users, channels)
        self.source = Tower(sources, channels, layers)
        self.target = Tower(targets, channels, layers)
        self.cross = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(layers))
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=INITIAL, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for tower in (self.source, self.target):
                tower.embedding.weight[tower.items].zero_()

    def forward(
        self, users: Int[Tensor, "*u"], sources: Int[Tensor, "*s"], targets: Int[Tensor, "*t"]
    ) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
        """Return the logit that a user has a source item, and a target item, each item seen beside the other.

        The three broadcast. Where there is only one layer, nothing is exchanged, and the logits have the shapes of
        users with sources, and with targets.
        """
        vectors = self.users(users)
        a, b = self.source.enter(vectors, sources), self.target.enter(vectors, targets)
        for source_layer, target_layer, cross in zip(
            self.source.layers[1:], self.target.layers[1:], self.cross, strict=True
        ):
            a, b = F.relu(source_layer(a) + cross(b)), F.relu(target_layer(b) + cross(a))
        return self.source.output(a).squeeze(-1), self.target.output(b).squeeze(-1)
