"""Model patches: the small networks of one task, one adapter layer per patched sublayer of the backbone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from peterrec.config import BackboneConfig, PatchConfig
from peterrec.errors import ConfigError
from peterrec.nn import patch_kinds  # noqa: F401 - registers the kinds of this package
from peterrec.nn.adapter_layer import AdapterLayer, TaskLayerNorm, build_adapter_layer
from peterrec.nn.insertion import AdapterHooks, ConvShape, SublayerShape
from peterrec.nn.sublayer import TransformerShape
from peterrec.nn.tokens import PAD, SPECIAL, TCL

UP_STD = 0.1  # about the size of embeddings


class TaskPatch(Protocol):
    """Patch as the backbone uses it: one for the whole batch (`Patch`), or one for each row (`bank.RowPatches`)."""

    def layer_at(self, sublayer: int) -> AdapterHooks | None:
        """Return the hooks of a sublayer, or None."""

    def embed(self, x: Float[Tensor, "B T C"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Change the embeddings of items, or that of [TCL]."""


class Patch(nn.Module):
    """The adapter layers of one task's patch. Never part of the backbone: it is handed in, `backbone(tokens, patch)`.

    Args:
        config: kind, insertion and width.
        backbone: the configuration of the backbone it is for.
        generator: draws the initial weights.
        items: of the catalogue; needed with `item_rank` only.

    Raises:
        ConfigError: the bottleneck is not narrower than the backbone, or more blocks than there are.
    """

    def __init__(
        self,
        config: PatchConfig,
        backbone: BackboneConfig,
        generator: torch.Generator | None = None,
        items: int | None = None,
    ) -> None:
        super().__init__()
        channels = backbone.channels
        self.config = config
        self.adapter_layers = nn.ModuleDict()
        for sublayer in patched_sublayers(config, backbone):
            adapter = build_adapter_layer(config, sublayer_shape(sublayer, backbone), generator)
            if config.train_norms and sublayer % 2:
                adapter.norm = TaskLayerNorm(channels)
            self.adapter_layers[str(sublayer)] = adapter
        # Like the task's own norms a difference from what is frozen, so that zeros change nothing.
        self.task_token = nn.Parameter(torch.zeros(channels)) if config.train_task_token else None
        self.task_items: TaskItemEmbedding | None = None
        if config.item_rank is not None:
            if items is None:
                raise ValueError("a patch with an item_rank must be told how many items there are")
            self.task_items = TaskItemEmbedding(items, config.item_rank, channels, generator)

    def grown(self, items: int) -> Patch:
        """Return the same patch for a catalogue to which items were added; all but what it has for items is shared."""
        if self.task_items is None:
            return self
        larger = copy.copy(self)
        larger._modules = self._modules | {"task_items": self.task_items.grown(items)}
        return larger

    def layer_at(self, sublayer: int) -> AdapterLayer | None:
        """Return the adapter layer of a sublayer (block i has sublayers 2i and 2i + 1), or None."""
        key = str(sublayer)
        if key not in self.adapter_layers:
            return None
        adapter = self.adapter_layers[key]
        assert isinstance(adapter, AdapterLayer)
        return adapter

    @property
    def frozen_params(self) -> int:
        """Parameters that are never trained, of patches that it is made of."""
        frozen = (module for layer in self.layers() for module in layer.frozen_modules())
        return sum(parameter.numel() for module in frozen for parameter in module.parameters())

    def layers(self) -> Iterator[AdapterLayer]:
        """Return all adapter layers, from the lowest sublayer up."""
        return (layer for layer in self.adapter_layers.values() if isinstance(layer, AdapterLayer))

    def embed(self, x: Float[Tensor, "B T C"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Add what the task has of its own for items, and for [TCL]."""
        if self.task_items is not None:
            x = x + self.task_items(tokens)
        return x if self.task_token is None else x + (tokens == TCL).unsqueeze(2) * self.task_token


class TaskItemEmbedding(nn.Module):
    """Low-rank table that a task adds to the embeddings of items: the patch of the embedding layer.

    Sums over a history then weigh every item for the task, as a linear model on the bag of items does; the blocks above
    see it too. Starts at zero. [PAD] has none.

    Args:
        items: of the catalogue.
        rank: numbers for each of them.
        channels: of the backbone.
        generator: draws the vectors.
    """

    def __init__(self, items: int, rank: int, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(items + SPECIAL, rank))
        self.up = nn.Parameter(torch.empty(rank, channels))
        nn.init.normal_(self.up, std=UP_STD, generator=generator)

    @property
    def items(self) -> int:
        """Items that it has numbers for."""
        return len(self.table) - SPECIAL

    def grown(self, items: int) -> TaskItemEmbedding:
        """Return the same for more items, with zeros for those that were added: nothing is added to them."""
        larger = copy.copy(self)
        table = F.pad(self.table.detach(), (0, 0, 0, items - self.items))
        larger._parameters = self._parameters | {"table": nn.Parameter(table, self.table.requires_grad)}
        return larger

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Return what is added at every position."""
        return F.embedding(tokens, self.table, padding_idx=PAD) @ self.up


def sublayer_shape(sublayer: int, backbone: BackboneConfig) -> SublayerShape:
    """Return the shape of a sublayer."""
    if backbone.dilations is None or backbone.kernel_size is None:
        return TransformerShape(backbone.channels)
    block, second = divmod(sublayer, 2)
    dilation = backbone.dilations[block] * (1 + second)
    return ConvShape(backbone.channels, backbone.kernel_size, dilation, backbone.kind == "causal")


def patched_sublayers(config: PatchConfig, backbone: BackboneConfig) -> list[int]:
    """Return the numbers of the sublayers that get an adapter layer, ascending.

    Raises:
        ConfigError: more blocks are to be patched than there are.
    """
    blocks = backbone.depth
    patched = blocks if config.blocks is None else config.blocks
    if patched > blocks:
        raise ConfigError(
            f"patch.blocks is {patched}, but the backbone has {blocks} blocks", remedy=f"patch at most {blocks}"
        )
    # With one patch per block it follows the second convolution (or the feed-forward sublayer), next to where the
    # block's output is formed.
    sublayers = (0, 1) if config.per_block == 2 else (1,)
    return [2 * block + sublayer for block in range(blocks - patched, blocks) for sublayer in sublayers]
