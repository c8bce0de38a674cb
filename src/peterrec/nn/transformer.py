"""A transformer in the place of the dilated blocks (SASRec), to tell the effect of the patch from theirs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar, NoReturn

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from peterrec.config import BackboneConfig
from peterrec.nn.backbone import Backbone
from peterrec.nn.patch import TaskPatch
from peterrec.nn.receptive_field import BlockSteps
from peterrec.nn.sublayer import Attention, TransformerSublayer, Widen
from peterrec.nn.tokens import PAD, read_at


class TransformerBlock(nn.Module):
    """Self-attention, then a feed-forward sublayer; each is a sublayer, added to its input and normalised."""

    def __init__(self, config: BackboneConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        assert config.heads is not None
        channels, causal = config.channels, config.kind == "causal"
        attention = Attention(channels, config.heads, causal=causal, generator=generator)
        self.attention = TransformerSublayer(attention, channels, config.norm_eps, generator)
        self.feed_forward = TransformerSublayer(Widen(channels, generator), channels, config.norm_eps, generator)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        keep: Bool[Tensor, "B T 1"] | None,
        patch: TaskPatch | None,
        index: int,
        steps: BlockSteps | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Apply block number `index`, with the patch's layers 2 * index and 2 * index + 1; `steps` are not used."""
        first = patch.layer_at(2 * index) if patch is not None else None
        second = patch.layer_at(2 * index + 1) if patch is not None else None
        out: Tensor = self.feed_forward(self.attention(x, keep, first), keep, second)
        return out


class TransformerBackbone(Backbone):
    """User model of self-attention (SASRec: Kang and McAuley, ICDM 2018), with what `Backbone` has of methods.

    Blocks are normalised after the residual sum, as in Vaswani et al. (2017): a patch then has the place it has behind
    a convolution. Embeddings are multiplied by the root of the channels. There is no dropout, as there is none in the
    dilated one.

    Positions are counted from the last real token of a row back, as in SASRec, whose rows are padded on the left: the
    latest event is at 0 however long the history is. So padding changes nothing, and events further back than those of
    pre-training are the only ones without a trained position. What stands at later positions never changes an earlier
    state, but how many later tokens there are does. The table starts at zero: a position that no row of the
    pre-training had says nothing. Tokens further back than the table all have its last position, the oldest.

    Args:
        config: of architecture transformer.
        items: as in `Backbone`.
        seed: of the initial weights.
        feature_sizes: as in `Backbone`.
    """

    input_modules: ClassVar[tuple[str, ...]] = ("embedding", "positions")
    second_sublayer: ClassVar[str] = "feed_forward"

    def __init__(self, config: BackboneConfig, items: int, *, seed: int = 0, feature_sizes: Sequence[int] = ()) -> None:
        super().__init__(config, items, seed=seed, feature_sizes=feature_sizes)
        assert config.positions is not None
        self.positions = nn.Embedding(config.positions, config.channels)
        nn.init.zeros_(self.positions.weight)

    def _make_blocks(self, generator: torch.Generator) -> Iterable[nn.Module]:
        return (TransformerBlock(self.config, generator) for _ in range(self.config.depth))

    @property
    def receptive_field(self) -> int:
        """Positions that one hidden state tells apart; it sees those further back too, as the oldest."""
        return self.positions.num_embeddings

    def embed_positions(self, x: Float[Tensor, "B T C"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Return what the first block is given: scaled embeddings, and where each token stands."""
        real = (tokens != PAD).long()
        later = real.flip(1).cumsum(1).flip(1) - real
        placed: Tensor = self.positions(later.clamp(max=self.positions.num_embeddings - 1))
        return x * math.sqrt(self.config.channels) + placed

    def forward_last(
        self, tokens: Int[Tensor, "B T"], positions: Int[Tensor, " B"], patch: TaskPatch | None = None
    ) -> Float[Tensor, "B C"]:
        """Return the hidden state of one position of each row; it depends on all, so that all are computed."""
        return read_at(self(tokens, patch), positions.unsqueeze(1))

    def last_position_length(self, length: int) -> int:
        """Return how many of so many tokens `last` computes with: all."""
        return length

    def receptive_field_of_last(self, length: int) -> NoReturn:
        """Refuse to compute one: an attention leaves no position out.

        Raises:
            TypeError: always.
        """
        raise TypeError("a transformer has no receptive field: its last position depends on all")
