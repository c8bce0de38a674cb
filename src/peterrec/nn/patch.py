"""Model patches: the small networks of one task, one piece per site of the backbone."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from peterrec.config import BackboneConfig, PatchConfig
from peterrec.errors import ConfigError
from peterrec.nn.pieces import KINDS, OwnNorm, SitePatch, SiteShape


class TaskPatch(Protocol):
    """What the backbone asks of a patch: one for the whole batch (`Patch`), or one for each row (`bank.RowPatches`)."""

    def at(self, site: int) -> SitePatch | None:
        """Return what acts at a site, or None."""

    def embed(self, x: Float[Tensor, "B T C"], is_task_token: Bool[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Change the embedding of [TCL]."""


class Patch(nn.Module):
    """All pieces of one task's patch. Never part of the backbone: it is handed in, `backbone(tokens, patch)`.

    Args:
        config: kind, insertion and width.
        backbone: the configuration of the backbone it is for.
        generator: draws the initial weights.

    Raises:
        ConfigError: the bottleneck is not narrower than the backbone, or more blocks than there are.
    """

    def __init__(self, config: PatchConfig, backbone: BackboneConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        channels = backbone.channels
        self.pieces = nn.ModuleDict()
        for site in patched_sites(config, backbone):
            block, second = divmod(site, 2)
            dilation = backbone.dilations[block] * (1 + second)
            shape = SiteShape(channels, backbone.kernel_size, dilation, backbone.kind == "causal")
            piece = KINDS[config.kind](config, shape, generator)
            if config.train_norms and second:
                piece.norm = OwnNorm(channels)
            self.pieces[str(site)] = piece
        # Like the task's own norms a difference from what is frozen, so that zeros change nothing.
        self.task_token = nn.Parameter(torch.zeros(channels)) if config.train_task_token else None

    def at(self, site: int) -> SitePatch | None:
        """Return the piece for a site (block i has sites 2i and 2i + 1), or None."""
        key = str(site)
        if key not in self.pieces:
            return None
        piece = self.pieces[key]
        assert isinstance(piece, SitePatch)
        return piece

    def embed(self, x: Float[Tensor, "B T C"], is_task_token: Bool[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Put the task's own embedding at [TCL], if it has one."""
        return x if self.task_token is None else x + is_task_token.unsqueeze(2) * self.task_token


def patched_sites(config: PatchConfig, backbone: BackboneConfig) -> list[int]:
    """Return the sites that get a piece, ascending.

    Raises:
        ConfigError: more blocks are to be patched than there are.
    """
    blocks = len(backbone.dilations)
    patched = blocks if config.blocks is None else config.blocks
    if patched > blocks:
        raise ConfigError(
            f"patch.blocks is {patched}, but the backbone has {blocks} blocks", remedy=f"patch at most {blocks}"
        )
    # With one patch per block it follows the second convolution, next to where the block's output is formed.
    sites = (0, 1) if config.per_block == 2 else (1,)
    return [2 * block + site for block in range(blocks - patched, blocks) for site in sites]
