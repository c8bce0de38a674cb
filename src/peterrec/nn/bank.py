"""Many patches over one frozen backbone: each row of a batch goes through the patch of its own task."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from peterrec.errors import ConfigError
from peterrec.nn.batched_patches import RowsByPatch, Stack, select_rows
from peterrec.nn.insertion import AdapterHooks
from peterrec.nn.patch import Patch
from peterrec.nn.tokens import TCL

ITEM_TABLE = "task_items.table"
EMPTY = 2  # times as many places as rows, at most, where rows are sorted by their patches


class PatchBank(nn.Module):
    """Patches of one configuration, their parameters stacked: `backbone(tokens, bank.rows(which))`.

    Whatever a kind of patch does at a sublayer is done for all rows at once, with the parameters of each row's patch
    (`torch.func.vmap`), so a new kind needs nothing here; bottlenecks have a form of their own, which is faster. The
    stack is a copy: later changes of a patch do not reach it.

    Args:
        patches: K patches; None is a task without one, whose rows see the plain backbone.

    Raises:
        ConfigError: no patch, or patches that differ in more than their numbers: in configuration, in mode (train or
            eval), in device or dtype; or None among patches that change the network even where all their numbers are
            zero (`inner_skip`).
    """

    def __init__(self, patches: Sequence[Patch | None]) -> None:
        super().__init__()
        real = [patch for patch in patches if patch is not None]
        if not real or any(stack_key(patch) != stack_key(real[0]) for patch in real):
            raise ConfigError(
                "a bank holds patches of one configuration, at least one", remedy="make one bank for each configuration"
            )
        _require_one_state(real)
        if len(real) < len(patches) and not is_identity_at_zero(real[0]):
            raise ConfigError(
                "patches with inner_skip leave no row as it was", remedy="run tasks without a patch in another batch"
            )
        self.template = real[0]
        states = [dict((patch or _zeroed(real[0])).named_parameters()) for patch in patches]
        self.stacked: Stack = {name: torch.stack([state[name].detach() for state in states]) for name in states[0]}
        self._at = {
            int(sublayer): _stack_at(self.template, int(sublayer), self.stacked)
            for sublayer in self.template.adapter_layers
        }

    def __len__(self) -> int:
        return len(next(iter(self.stacked.values())))

    def rows(self, which: Int[Tensor, " B"] | None = None) -> RowPatches:
        """Return the patches of the rows of a batch.

        Args:
            which: for each row, the number of its patch in the bank; None: all of them, in their order, B = K.
        """
        return RowPatches(self.template, self.stacked, self._at, which)


def stack_key(patch: Patch) -> object:
    """Return a key that patches of one bank share: all settings but the initial weights, and the shapes of weights."""
    settings = patch.config.model_dump(exclude={"init", *patch.config.shape_fields}, mode="json")
    return str(settings), tuple((name, tuple(tensor.shape)) for name, tensor in patch.state_dict().items())


def _require_one_state(patches: Sequence[Patch]) -> None:
    """Refuse patches of which one mode, device or dtype would stand for all: rows go through one module.

    Raises:
        ConfigError: they differ in one of these.
    """
    if len({module.training for patch in patches for module in patch.modules()}) > 1:
        raise ConfigError(
            "some patches of the bank are in training mode, others in evaluation mode",
            remedy="call eval() on every one of them, or train(), before making the bank",
        )
    kinds = sorted({f"{tensor.dtype} on {tensor.device}" for patch in patches for tensor in patch.parameters()})
    if len(kinds) > 1:
        raise ConfigError(
            f"the patches of the bank are of different types or devices ({', '.join(kinds)})",
            remedy="move them to one device and dtype with to(...) before making the bank",
        )


def is_identity_at_zero(patch: Patch) -> bool:
    """Return whether zeros in the place of such a patch leave the network as it was."""
    return all(layer.zeros_are_identity for layer in patch.layers())


def _zeroed(patch: Patch) -> Patch:
    """Return a copy whose parameters are zero, for tasks without a patch."""
    zeros = copy.deepcopy(patch)
    with torch.no_grad():
        for parameter in zeros.parameters():
            parameter.zero_()
    return zeros


def _stack_at(template: Patch, sublayer: int, stacked: Stack) -> Stack:
    """Return the stacks of one sublayer by the names in its layer, in the form in which they are computed with."""
    prefix = f"adapter_layers.{sublayer}."
    layer = template.layer_at(sublayer)
    assert layer is not None
    return layer.stack(
        {name.removeprefix(prefix): tensor for name, tensor in stacked.items() if name.startswith(prefix)}
    )


class RowPatches:
    """A patch for each row of a batch; the backbone takes it as it takes one `Patch`.

    Args:
        template: any of the patches.
        stacked: (K, ...) of all patches of the bank, by name.
        at: the same of each sublayer, by the names of its adapter.
        which: (B,) which patch is each row's; None: each has its own, in order.
    """

    def __init__(self, template: Patch, stacked: Stack, at: dict[int, Stack], which: Tensor | None) -> None:
        self.template = template
        self.which = which
        self._stacked = stacked
        self._at = at

    def layer_at(self, sublayer: int) -> AdapterHooks | None:
        """Return what acts at a sublayer, or None."""
        layer = self.template.layer_at(sublayer)
        return None if layer is None else layer.batched(self._at[sublayer], self.which, lambda: self._rows_by_patch)

    @cached_property
    def _rows_by_patch(self) -> RowsByPatch | None:
        """The rows by their patches; None if most places of most patches would be empty."""
        if self.which is None:
            return None
        patches = len(next(iter(self._stacked.values())))
        rows = RowsByPatch(self.which, patches)
        return rows if 0 < rows.rows_per_patch * patches <= EMPTY * len(self.which) else None

    def embed(self, x: Float[Tensor, "B T C"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Add what each row's task has of its own for items, and for [TCL]."""
        tables, token = self._stacked.get(ITEM_TABLE), self._stacked.get("task_token")
        if tables is not None:
            # Of the tables of items only what the rows read is copied.
            which = torch.arange(len(tokens), device=tokens.device) if self.which is None else self.which
            factors = tables.detach()[which.unsqueeze(1), tokens]  # (B, T, rank)
            x = x + factors @ select_rows(self._stacked["task_items.up"], self.which)
        return x if token is None else x + (tokens == TCL).unsqueeze(2) * select_rows(token, self.which).unsqueeze(1)
