"""Many patches over one frozen backbone: each row of a batch goes through the patch of its own task."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from peterrec.errors import ConfigError
from peterrec.nn.patch import Patch
from peterrec.nn.pieces import Bottleneck, Given, Inserted, SiteHooks, SitePatch
from peterrec.nn.tokens import TCL

ITEM_TABLE = "own_items.table"

Stack = dict[str, Tensor]


class PatchBank(nn.Module):
    """Patches of one configuration, their parameters stacked: `backbone(tokens, bank.rows(which))`.

    Whatever a kind of patch does at a site is done for all rows at once, with the parameters of each row's patch
    (`torch.func.vmap`), so a new kind needs nothing here; bottlenecks have a form of their own, which is faster. The
    stack is a copy: later changes of a patch do not reach it.

    Args:
        patches: K patches; None is a task without one, whose rows see the plain backbone.

    Raises:
        ConfigError: no patch, or patches that differ in more than their numbers; or None among patches that change
            the network even where all their numbers are zero (`inner_skip`).
    """

    def __init__(self, patches: Sequence[Patch | None]) -> None:
        super().__init__()
        real = [patch for patch in patches if patch is not None]
        if not real or any(stack_key(patch) != stack_key(real[0]) for patch in real):
            raise ConfigError(
                "a bank holds patches of one configuration, at least one", remedy="make one bank for each configuration"
            )
        if len(real) < len(patches) and not admits_none(real[0]):
            raise ConfigError(
                "patches with inner_skip leave no row as it was", remedy="run tasks without a patch in another batch"
            )
        self.template = real[0]
        self.stacked: Stack
        self.stacked, _ = stack_module_state([patch or _nothing(real[0]) for patch in patches])
        self._at = {int(site): _stack_of(self.template, int(site), self.stacked) for site in self.template.pieces}

    def __len__(self) -> int:
        return len(next(iter(self.stacked.values())))

    def rows(self, which: Int[Tensor, " B"] | None = None) -> RowPatches:
        """Return the patches of the rows of a batch.

        Args:
            which: for each row, the number of its patch in the bank; None: all of them, in their order, B = K.
        """
        return RowPatches(self.template, self.stacked, self._at, which)


def stack_key(patch: Patch) -> object:
    """Return what patches of one bank have in common: all settings but their start, and the shapes of their numbers."""
    settings = patch.config.model_dump(exclude={"start", "bottleneck"}, mode="json")
    return str(settings), tuple((name, tuple(tensor.shape)) for name, tensor in patch.state_dict().items())


def admits_none(patch: Patch) -> bool:
    """Return whether zeros in the place of such a patch leave the network as it was."""
    return not any(
        isinstance(piece, Inserted) and piece.parallel and isinstance(piece.net, Bottleneck) and piece.net.residual
        for piece in patch.pieces.values()
    )


def _nothing(patch: Patch) -> Patch:
    zeros = copy.deepcopy(patch)
    with torch.no_grad():
        for parameter in zeros.parameters():
            parameter.zero_()
    return zeros


def _stack_of(template: Patch, site: int, stacked: Stack) -> Stack:
    """Return the stacks of one site, by the names of its piece; of a bottleneck with `up` as it is multiplied."""
    prefix = f"pieces.{site}."
    own = {name.removeprefix(prefix): of.detach() for name, of in stacked.items() if name.startswith(prefix)}
    if _is_bottleneck(template.at(site)):
        own["net.up.weight"] = own["net.up.weight"].transpose(1, 2).contiguous()  # (K, r, C)
    return own


def _is_bottleneck(piece: SitePatch | None) -> bool:
    return isinstance(piece, Inserted) and isinstance(piece.net, Bottleneck)


class RowPatches:
    """A patch for each row of a batch; the backbone takes it as it takes one `Patch`.

    Args:
        template: any of the patches.
        stacked: (K, ...) of all patches of the bank, by name.
        at: the same of each site, by the names of its piece.
        which: (B,) which patch is each row's; None: each has its own, in order.
    """

    def __init__(self, template: Patch, stacked: Stack, at: dict[int, Stack], which: Tensor | None) -> None:
        self.template = template
        self.which = which
        self._stacked = stacked
        self._at = at

    def at(self, site: int) -> SiteHooks | None:
        """Return what acts at a site, or None."""
        piece = self.template.at(site)
        if piece is None:
            return None
        if isinstance(piece, Inserted) and isinstance(piece.net, Bottleneck):
            return RowBottlenecks(piece, piece.net, self._at[site], self.which)
        return RowPieces(piece, {name: _rows(stack, self.which) for name, stack in self._at[site].items()})

    def embed(self, x: Float[Tensor, "B T C"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Add what each row's task has of its own for items, and for [TCL]."""
        tables, token = self._stacked.get(ITEM_TABLE), self._stacked.get("task_token")
        if tables is not None:
            # Of the tables of items only what the rows read is copied.
            which = torch.arange(len(tokens), device=tokens.device) if self.which is None else self.which
            own = tables.detach()[which.unsqueeze(1), tokens]  # (B, T, rank)
            x = x + own @ _rows(self._stacked["own_items.up"], self.which)
        return x if token is None else x + (tokens == TCL).unsqueeze(2) * _rows(token, self.which).unsqueeze(1)


def _rows(stack: Tensor, which: Tensor | None) -> Tensor:
    return stack.detach() if which is None else stack.detach().index_select(0, which)


class RowBottlenecks:
    """Bottlenecks of all rows at one site: two products for each row, with its own matrices.

    Args:
        piece: any of the patches' pieces.
        net: its network.
        stack: parameters of the pieces, (K, ...), `up` as (K, r, C).
        which: (B,) which of them is each row's; None: in order.
    """

    def __init__(self, piece: Inserted, net: Bottleneck, stack: Stack, which: Tensor | None) -> None:
        self.place = piece.place
        self.parallel = piece.parallel
        self.residual = net.residual
        self.activation = net.activation
        self.stack = stack
        self.which = which

    def _of(self, name: str) -> Tensor:
        return _rows(self.stack[name], self.which)

    def _act(self, given: Given, h: Tensor) -> Tensor:
        x = given.here if self.parallel else h
        down, up = self._of("net.down.weight"), self._of("net.up.weight")  # (B, r, C)
        shift = self._of("net.down.bias").unsqueeze(1)
        base = h + self._of("net.up.bias").unsqueeze(1)
        if self.parallel and self.residual:
            base = base + x
        if torch.compiler.is_compiling():
            # Sums that the compiler makes one loop of, with what comes before and after: faster than small products.
            between = self.activation((x.unsqueeze(2) * down.unsqueeze(1)).sum(3) + shift)
            return base + (between.unsqueeze(3) * up.unsqueeze(1)).sum(2)
        between = self.activation(torch.baddbmm(shift, x, down.transpose(1, 2)))
        if torch.is_autocast_enabled(x.device.type):
            return base + torch.bmm(between, up)  # what is added to keeps its bits
        return torch.baddbmm(base, between, up)

    def pre_norm(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between convolution and LayerNorm."""
        return self._act(given, h) if self.place == "pre_norm" else h

    def normalise(self, norm: nn.LayerNorm, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Apply LayerNorm, or each row's own version of it."""
        if "norm.weight" not in self.stack:
            out: Tensor = norm(h)
            return out
        plain = F.layer_norm(h, norm.normalized_shape, None, None, norm.eps)
        weight, bias = norm.weight + self._of("norm.weight"), norm.bias + self._of("norm.bias")  # (B, C)
        return torch.addcmul(bias.unsqueeze(1), plain, weight.unsqueeze(1))

    def pre_act(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between LayerNorm and the nonlinearity."""
        return self._act(given, h) if self.place == "pre_act" else h

    def post_act(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act after the nonlinearity."""
        return self._act(given, h) if self.place == "post_act" else h


class _Hook(nn.Module):
    """One hook of a piece as a module that can be called, for one row at a time."""

    def __init__(self, piece: SitePatch, hook: str, first: Given | nn.LayerNorm) -> None:
        super().__init__()
        self.piece = piece
        self.hook = hook
        self._first = [first]  # in a list, so that a norm does not become a part of this module

    def forward(self, given: tuple[Tensor, ...], h: Tensor) -> Tensor:
        """Call the hook on a batch of this one row."""
        first = self._first[0]
        if not isinstance(first, nn.LayerNorm):
            first = first.of(*(tensor.unsqueeze(0) for tensor in given))
        out: Tensor = getattr(self.piece, self.hook)(first, h.unsqueeze(0))
        return out.squeeze(0)


class RowPieces:
    """The pieces of all rows at one site, of any kind: every hook runs with each row's own parameters."""

    def __init__(self, piece: SitePatch, parameters: Stack) -> None:
        self._piece = piece
        self._parameters_of_rows = {f"piece.{name}": of for name, of in parameters.items()}

    def _each(self, hook: str, first: Given | nn.LayerNorm, h: Tensor) -> Tensor:
        piece = self._piece
        if getattr(type(piece), hook) is getattr(SitePatch, hook) and (hook != "normalise" or piece.norm is None):
            out: Tensor = getattr(piece, hook)(first, h)  # a hook that nobody overrides knows no parameters
            return out
        module = _Hook(piece, hook, first)
        given = () if isinstance(first, nn.LayerNorm) else first.tensors()  # a norm has no input of its own

        def row(parameters: dict[str, Tensor], given_of_row: tuple[Tensor, ...], h_of_row: Tensor) -> Tensor:
            result: Tensor = functional_call(module, parameters, (given_of_row, h_of_row))
            return result

        found: Tensor = vmap(row)(self._parameters_of_rows, given, h)
        return found

    def pre_norm(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between convolution and LayerNorm."""
        return self._each("pre_norm", given, h)

    def normalise(self, norm: nn.LayerNorm, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Apply LayerNorm, or each row's own version of it."""
        return self._each("normalise", norm, h)

    def pre_act(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between LayerNorm and the nonlinearity."""
        return self._each("pre_act", given, h)

    def post_act(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act after the nonlinearity."""
        return self._each("post_act", given, h)
