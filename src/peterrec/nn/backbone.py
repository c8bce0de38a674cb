"""The backbone: embedding and residual blocks, dilated unless a subclass says otherwise. It knows no task."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from peterrec.config import BackboneConfig
from peterrec.nn.block import Block
from peterrec.nn.dropout import residual_dropout
from peterrec.nn.event_features import EventFeatureEmbedding
from peterrec.nn.execution import compiled_run, recomputed_run, run_blocks
from peterrec.nn.patch import TaskPatch
from peterrec.nn.precision import to_autocast_dtype
from peterrec.nn.receptive_field import BlockSteps, ReceptiveField, receptive_field_of_last
from peterrec.nn.tokens import PAD, SPECIAL, items_of, tokens_before

EMBEDDING_STD = 0.02


@dataclass(frozen=True)
class UnsharedModules:
    """Modules of a backbone that a task has for itself, not shared with other tasks.

    Attributes:
        embedding: whether the embedding table is (and whatever else stands below the blocks).
        blocks: how many of the last blocks are.
        per_block: 2: these blocks as a whole; 1: the second sublayer of each only.
    """

    embedding: bool
    blocks: int
    # No part of its text, which versions of bundles in a service are made of: those of before it existed stay the same.
    per_block: Literal[1, 2] = field(default=2, repr=False)


class Backbone(nn.Module):
    """User model: causal (NextItNet) or noncausal (the encoder of GRec); paper, section 3.2.

    `build_backbone` makes the one that a configuration asks for; this is the dilated one.

    Args:
        config: kind, channels, kernel, dilations.
        items: items of the catalogue; the embedding table has four more rows, for the special tokens.
        seed: of the initial weights.
        feature_sizes: integers of each feature of events that it reads beside the items; none: items alone.
    """

    input_modules: ClassVar[tuple[str, ...]] = ("embedding",)
    """Names of the modules below the blocks, apart from that of the features of events."""
    second_sublayer: ClassVar[str] = "second"
    """Name of the second sublayer in a block."""

    def __init__(self, config: BackboneConfig, items: int, *, seed: int = 0, feature_sizes: Sequence[int] = ()) -> None:
        super().__init__()
        self.config = config
        self.items = items
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Embedding(items + SPECIAL, config.channels, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD, generator=generator)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()
        self.blocks = nn.ModuleList(self._make_blocks(generator))
        self.event_features: EventFeatureEmbedding | None = None
        if feature_sizes:  # drawn last: all else starts as without
            self.event_features = EventFeatureEmbedding(feature_sizes, config.channels, generator, EMBEDDING_STD)
        self.compiled_shapes: frozenset[tuple[int, int]] = frozenset()
        self.recomputes = False
        self.masks_always = False
        self.dropout = 0.0

    def set_items(self, items: int) -> None:
        """Take over an embedding table of another number of items, which was put in the place of the first one."""
        self.items = items
        self.embedding.num_embeddings = items + SPECIAL

    def _make_blocks(self, generator: torch.Generator) -> Iterable[nn.Module]:
        return (Block(self.config, dilation, generator) for dilation in self._taps[0])

    @property
    def _taps(self) -> tuple[tuple[int, ...], int]:
        dilations, kernel_size = self.config.dilations, self.config.kernel_size
        assert dilations is not None
        assert kernel_size is not None
        return dilations, kernel_size

    @property
    def receptive_field(self) -> int:
        """Positions that one hidden state sees, itself included; at the end of the sequence if causal."""
        dilations, kernel_size = self._taps
        return 1 + sum(3 * (kernel_size - 1) * dilation for dilation in dilations)

    def forward(self, tokens: Int[Tensor, "B T"], patch: TaskPatch | None = None) -> Float[Tensor, "B T C"]:
        """Return the hidden state of every position.

        Args:
            tokens: indices; [PAD] may stand anywhere and influences no other position. Of a backbone that reads
                features of events, with their code above the bits of the index.
            patch: the `Patch` of one task, one for each row (`PatchBank.rows`), or None for the plain backbone.
        """
        return self.forward_embedded(self.embed(tokens, patch), tokens, patch)

    def forward_embedded(
        self, x: Float[Tensor, "B T C"], tokens: Int[Tensor, "B T"], patch: TaskPatch | None = None
    ) -> Float[Tensor, "B T C"]:
        """Return the hidden state of every position from given embeddings of the tokens."""
        return self.forward_blocks(
            self.embed_positions(x, tokens), self.padding_mask(tokens), patch, [None] * len(self.blocks)
        )

    def embed_positions(self, x: Float[Tensor, "B T C"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Return what the first block is given, from the embeddings of the tokens: those themselves."""
        return x

    def forward_last(
        self, tokens: Int[Tensor, "B T"], positions: Int[Tensor, " B"], patch: TaskPatch | None = None
    ) -> Float[Tensor, "B C"]:
        """Return the hidden state of one position of each row: as `forward`, but only what it depends on is computed.

        Args:
            tokens: as in `forward`; the backbone must be causal.
            positions: one of each row.
            patch: as in `forward`.
        """
        field = self.receptive_field_of_last(tokens.shape[1])
        read = tokens_before(tokens, positions, field.spacing, field.count)
        return self.forward_blocks(self.embed(read, patch), self.padding_mask(read), patch, field.steps).squeeze(1)

    def receptive_field_of_last(self, length: int) -> ReceptiveField:
        """Return which positions the last of so many depends on."""
        return receptive_field_of_last(*self._taps, length)

    def last_position_length(self, length: int) -> int:
        """Return how many of so many tokens `last` computes with."""
        return self.receptive_field_of_last(length).count if self.config.kind == "causal" else length

    def embed(self, tokens: Int[Tensor, "B T"], patch: TaskPatch | None) -> Float[Tensor, "B T C"]:
        """Return the embeddings, with what the patch has of its own."""
        items = tokens if self.event_features is None else items_of(tokens)
        x = self.add_event_features(self.embedding(items), tokens)
        return x if patch is None else patch.embed(x, items)

    def add_event_features(self, x: Float[Tensor, "*n C"], tokens: Int[Tensor, "*n"]) -> Float[Tensor, "*n C"]:
        """Return embeddings of the items of tokens with what the features of the events add to them."""
        return x if self.event_features is None else x + self.event_features(tokens)

    @property
    def feature_sizes(self) -> tuple[int, ...]:
        """Integers of each feature of events that it reads; none where it reads items alone."""
        return () if self.event_features is None else self.event_features.sizes

    @property
    def _input_modules(self) -> tuple[str, ...]:
        return (*self.input_modules, *(() if self.event_features is None else ("event_features",)))

    def padding_mask(self, tokens: Int[Tensor, "B T"]) -> Bool[Tensor, "B T 1"] | None:
        """Return True at real positions; None if padding only follows them, where a causal backbone never looks."""
        real = tokens != PAD
        if self.masks_always:
            return real.unsqueeze(2)
        harmful = real[:, 1:] & ~real[:, :-1] if self.config.kind == "causal" else ~real
        return real.unsqueeze(2) if bool(harmful.any()) else None

    def forward_blocks(
        self,
        x: Float[Tensor, "B T C"],
        keep: Bool[Tensor, "B T 1"] | None,
        patch: TaskPatch | None,
        steps: Sequence[BlockSteps | None],
        first: int = 0,
    ) -> Float[Tensor, "B n C"]:
        """Run some consecutive blocks.

        Args:
            x: what the first of them is given.
            keep: which positions of it are no padding; None: all, or those that are do no harm.
            patch: as in `forward`.
            steps: of each of these blocks; None: every position is computed.
            first: number of the first of them.
        """
        # Without compiled shapes no size is looked at: that of an exported batch is no number yet.
        is_compiled = bool(self.compiled_shapes) and tuple(x.shape[:2]) in self.compiled_shapes
        run = compiled_run if is_compiled else run_blocks
        if self.recomputes and torch.is_grad_enabled():
            run = recomputed_run
        dropout = self.dropout if self.training else 0.0
        if dropout > 0 and first == 0:
            x = residual_dropout(x, None, dropout)
        out = run(self.blocks, to_autocast_dtype(x), keep, patch, steps, first, dropout)
        return out.to(x.dtype)

    def dropping_out(self, fraction: float) -> Self:
        """Return the same backbone with dropout of embeddings and of what each block adds, in training mode.

        All modules are shared. Source: Srivastava et al., JMLR 2014. It draws from torch's own generator.
        """
        copied: Self = copy.copy(self)
        copied.dropout = fraction
        return copied

    def with_frozen_embedding(self) -> Self:
        """Return the same backbone, whose embeddings have no gradient: they are this one's, also after a step."""
        copied: Self = copy.copy(self)
        copied._modules = {**self._modules, "embedding": _embedding(self.embedding.weight)}
        return copied

    def with_item_vectors(self, table: Float[Tensor, "V C"]) -> Self:
        """Return the same backbone with other embeddings, through which gradients go on; all else is shared."""
        copied: Self = copy.copy(self)
        copied._modules = {**self._modules, "embedding": _Lookup(table)}
        return copied

    def recomputing(self) -> Self:
        """Return the same backbone, which keeps less for the backward pass and computes it again. All is shared."""
        copied: Self = copy.copy(self)
        copied.recomputes = True
        return copied

    def masking_always(self) -> Self:
        """Return the same backbone, which masks padding whether it does harm or not. All is shared.

        Then no step depends on what the tokens are, and the network is one graph for all of them (`torch.export`).
        """
        copied: Self = copy.copy(self)
        copied.masks_always = True
        return copied

    def compiled(self, rows: int, lengths: Iterable[int]) -> Self:
        """Return the same backbone, whose blocks are compiled for batches of exactly these shapes.

        All modules are shared. Other batches, such as an epoch's last one, run as they are: each shape costs ten
        seconds or more of compiling, and which shapes do must not depend on what came before (a resumed run).

        Args:
            rows: of a batch.
            lengths: tokens of a row, for the whole pass and for the last position.
        """
        widths = {count for n in lengths for count in (n, self.last_position_length(n))}
        copied: Self = copy.copy(self)
        copied.compiled_shapes = frozenset((rows, width) for width in widths)
        return copied

    def truncated(self, items: int) -> Self:
        """Return the same backbone with the first items of its table only; all modules but that are shared."""
        if items == self.items:
            return self
        copied: Self = copy.copy(self)
        copied._modules = self._modules | {"embedding": _embedding(self.embedding.weight[: SPECIAL + items])}
        copied.items = items
        return copied

    def fork(self, unshared: UnsharedModules) -> Self:
        """Return a backbone with copies of some modules, which may then be trained while this one never changes.

        All else is shared: the very same modules.
        """
        parts = copy.deepcopy(self.modules_of(unshared))
        return self.graft(unshared, parts)

    def graft(self, unshared: UnsharedModules, replacements: nn.ModuleDict) -> Self:
        """Return a backbone with these modules, as `modules_of` names them, in place of its own; the rest is shared.

        Where this one has more items, their embeddings are its own.
        """
        grafted: Self = copy.copy(self)
        grafted._modules = dict(self._modules)
        if unshared.embedding:
            grafted._modules |= {name: replacements[name] for name in self._input_modules}
            rows = grafted.embedding.weight.detach()
            if len(rows) < len(self.embedding.weight):
                added = self.embedding.weight.detach()[len(rows) :]
                grafted._modules["embedding"] = _embedding(torch.cat([rows, added.to(rows)]))
        blocks = list(self.blocks)
        chosen = replacements["blocks"] if unshared.blocks else nn.ModuleDict()
        assert isinstance(chosen, nn.ModuleDict)
        for name, part in chosen.items():
            blocks[int(name)] = part if unshared.per_block == 2 else with_submodules(blocks[int(name)], part)
        grafted.blocks = nn.ModuleList(blocks)
        return grafted

    def modules_of(self, unshared: UnsharedModules) -> nn.ModuleDict:
        """Return the chosen modules, named as in the state of the backbone."""
        first = len(self.blocks) - unshared.blocks
        blocks = {str(i): block for i, block in enumerate(self.blocks) if i >= first}
        if unshared.per_block == 1:
            name = self.second_sublayer
            blocks = {i: nn.ModuleDict({name: block.get_submodule(name)}) for i, block in blocks.items()}
        parts = {name: self.get_submodule(name) for name in self._input_modules} if unshared.embedding else {}
        return nn.ModuleDict(parts | ({"blocks": nn.ModuleDict(blocks)} if unshared.blocks else {}))


class _Lookup(nn.Module):
    """Rows of a table that is computed."""

    def __init__(self, table: Float[Tensor, "V C"]) -> None:
        super().__init__()
        self.weight = table

    def forward(self, tokens: Int[Tensor, "*n"]) -> Float[Tensor, "*n C"]:
        """Return the rows of tokens; [PAD] has no gradient."""
        return F.embedding(tokens, self.weight, PAD)


def _embedding(table: Tensor) -> nn.Embedding:
    rows, channels = table.shape
    return nn.Embedding(rows, channels, padding_idx=PAD, _weight=table.detach(), _freeze=True)


def with_submodules(module: nn.Module, replacements: nn.Module) -> nn.Module:
    """Return a module with the submodules of another one in place of its own of the same names; the rest is shared."""
    copied = copy.copy(module)
    copied._modules = module._modules | replacements._modules
    return copied
