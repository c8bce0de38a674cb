"""A network cut in two: the part below the blocks that a task changes is computed once for each user."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from peterrec.config import ReadoutName
from peterrec.nn.backbone import Backbone, UnsharedModules
from peterrec.nn.block import at_outputs
from peterrec.nn.patch import Patch, TaskPatch
from peterrec.nn.readout import (
    FullPass,
    ReadStates,
    TrainedReadout,
    full_pass,
    read_states,
    readout_named,
    represent,
)
from peterrec.nn.tokens import PAD, TCL, append_token, places_beside, tokens_before


def count_changed_blocks(
    backbone: Backbone, patch: Patch | None, unshared: UnsharedModules | None, readout: ReadoutName
) -> int | None:
    """Return how many of the last blocks a task changes; None if what is below cannot be shared.

    It cannot where the task changes the embeddings or every block. Of a noncausal backbone or a transformer, or where
    all events are read, it could only be with the states of whole windows, so there just the representation itself is:
    0, or None.

    Args:
        backbone: the network.
        patch: of the task, or None.
        own: modules that the task has for itself, or None.
        readout: what of the states is read.
    """
    blocks = len(backbone.blocks)
    changed = 0
    if unshared is not None:
        if unshared.embedding:
            return None
        changed = unshared.blocks
    if patch is not None:
        if patch.task_token is not None or patch.task_items is not None:
            return None
        patched = [sublayer // 2 for sublayer in range(2 * blocks) if patch.layer_at(sublayer) is not None]
        changed = max(changed, blocks - min(patched))
    config = backbone.config
    reads_all = config.kind == "noncausal" or config.architecture != "dilated" or not readout_named(readout).token_only
    return None if changed == blocks or (changed > 0 and reads_all) else changed


@dataclass(frozen=True)
class Trunk:
    """A backbone cut below the last so many blocks; only what the state at [TCL] depends on is ever computed.

    Attributes:
        backbone: causal, unless no block is changed.
        changed: blocks above the cut, as `count_changed_blocks` counts them; 0: the states are the representations, or
            those that a trained readout reads.
        events: at most so many are read of a user.
        readout: what of the states is the representation; with changed blocks, that at [TCL].
    """

    backbone: Backbone
    changed: int
    events: int
    readout: ReadoutName = "token"

    @property
    def reads_states(self) -> bool:
        """True if no block is changed, but the readout is trained: it reads the states of all positions."""
        return self.changed == 0 and isinstance(readout_named(self.readout), TrainedReadout)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a user's states: (n, C), at the positions that the blocks above need; (R,) without any.

        For a trained readout (n, 2C): embeddings and hidden states of all events and [TCL].
        """
        channels = self.backbone.config.channels
        if self.reads_states:
            return (self.events + (2 if self.backbone.config.encloses_histories else 1), 2 * channels)
        if self.changed == 0:
            return (readout_named(self.readout).width(channels),)
        return (self.backbone.receptive_field_of_last(self.events + 1).counts[-self.changed], channels)

    def compute_states(self, tokens: Int[Tensor, "B T"]) -> tuple[Float[Tensor, "B *n C"], Bool[Tensor, "B n"] | None]:
        """Compute the states of some users.

        Returns:
            The states, at fewer than n positions those before are zeros; and which positions are no padding, None where
            the states have none. For a trained readout: which positions are events.
        """
        if self.reads_states:
            all_states = full_pass(self.backbone, tokens[:, : self.events])
            padding = (0, self.shape[0] - all_states.events.shape[1])
            states = torch.cat([all_states.embedded, all_states.hidden], dim=2)
            return F.pad(states, (0, 0, *padding)), F.pad(all_states.events, padding)
        if self.changed == 0:
            return represent(self.backbone, tokens, None, self.readout), None
        longer, position = append_token(tokens[:, : self.events], TCL)
        field = self.backbone.receptive_field_of_last(longer.shape[1])
        read = tokens_before(longer, position, field.spacing, field.count)
        steps = field.steps[: -self.changed]
        real = (read != PAD).unsqueeze(2)
        for block_steps in steps:
            real = at_outputs(real, block_steps)
        states = self.backbone.forward_blocks(
            self.backbone.embed(read, None), self.backbone.padding_mask(read), None, steps
        )
        missing = self.shape[0] - states.shape[1]
        return F.pad(states, (0, 0, missing, 0)), F.pad(real.squeeze(2), (missing, 0))

    def represent(
        self,
        states: Float[Tensor, "B *n C"],
        keep: Bool[Tensor, "B n"] | None,
        patch: TaskPatch | None,
        module: ReadStates | None = None,
    ) -> Float[Tensor, "B R"]:
        """Return representations.

        Args:
            states: of `compute_states`.
            keep: the second of `compute_states`; None: all of its positions.
            patch: in the changed blocks.
            module: as of `represent`.
        """
        if self.reads_states:
            assert keep is not None, "[TCL] is no event"
            positions = places_beside(keep, at_both_ends=self.backbone.config.encloses_histories)
            embedded, hidden = states.chunk(2, dim=2)
            return read_states(FullPass(embedded, hidden, keep, positions), self.readout, module)
        if self.changed == 0:
            return states
        real = None if keep is None else keep.unsqueeze(2)
        steps = self.backbone.receptive_field_of_last(self.events + 1).steps[-self.changed :]
        return self.backbone.forward_blocks(
            states, real, patch, steps, len(self.backbone.blocks) - self.changed
        ).squeeze(1)
