"""The backbone: embedding and dilated residual blocks. It knows no task."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from peterrec.config import BackboneConfig
from peterrec.nn.block import Block

PAD, TCL = 0, 1
SPECIAL = 4
EMBEDDING_STD = 0.02


class Backbone(nn.Module):
    """Causal user model (NextItNet; paper, section 3.2).

    Args:
        config: channels, kernel, dilations.
        items: items of the catalogue; the embedding table has four more rows, for the special tokens.
        seed: of the initial weights.
    """

    def __init__(self, config: BackboneConfig, items: int, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.items = items
        self.embedding = nn.Embedding(items + SPECIAL, config.channels, padding_idx=PAD)
        self.blocks = nn.ModuleList(
            Block(config.channels, config.kernel_size, dilation, config.norm_eps) for dilation in config.dilations
        )
        self._initialise(torch.Generator().manual_seed(seed))

    def _initialise(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD, generator=generator)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()
        for block in self.blocks:
            assert isinstance(block, Block)
            for site in (block.first, block.second):
                nn.init.kaiming_normal_(site.conv.weight, nonlinearity="relu", generator=generator)

    @property
    def receptive_field(self) -> int:
        """Positions that the last hidden state sees, itself included."""
        return 1 + sum(3 * (self.config.kernel_size - 1) * dilation for dilation in self.config.dilations)

    def forward(self, tokens: Int[Tensor, "B T"], patch: nn.Module | None = None) -> Float[Tensor, "B T C"]:
        """Return the hidden state of every position.

        Args:
            tokens: indices; [PAD] may stand anywhere and influences no other position.
            patch: the `Patch` of one task, or None for the plain backbone.
        """
        x: Tensor = self.embedding(tokens)
        keep = _keep_mask(tokens)
        for index, block in enumerate(self.blocks):
            x = block(x, keep, patch, index)
        return x


def _keep_mask(tokens: Int[Tensor, "B T"]) -> Bool[Tensor, "B T 1"] | None:
    """Mask out padding, unless it only follows real positions, where causality already keeps it harmless."""
    real = tokens != PAD
    if bool((real[:, 1:] & ~real[:, :-1]).any()):
        return real.unsqueeze(2)
    return None


def append_task_token(tokens: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "B T+1"], Int[Tensor, " B"]]:
    """Put [TCL] after the last real token of each row (causal; paper, section 3.3).

    Returns:
        The longer tokens, and the position of [TCL] in each row.
    """
    columns = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    position = F.pad((tokens != PAD) * columns, (1, 0)).amax(dim=1)  # padded, so that it is 0 where no token is
    longer = F.pad(tokens, (0, 1), value=PAD)
    return longer.scatter(1, position.unsqueeze(1), TCL), position


def read_at(hidden: Float[Tensor, "B T C"], position: Int[Tensor, " B"]) -> Float[Tensor, "B C"]:
    """Return each row's hidden state at its position."""
    return hidden[torch.arange(len(hidden), device=hidden.device), position]


def represent(backbone: Backbone, tokens: Int[Tensor, "B T"], patch: nn.Module | None = None) -> Float[Tensor, "B C"]:
    """Append [TCL] and return its hidden state: the user's representation (paper, section 3.3)."""
    longer, position = append_task_token(tokens)
    return read_at(backbone(longer, patch), position)
