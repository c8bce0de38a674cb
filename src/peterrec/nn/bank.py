"""Many patches over one frozen backbone: each row of a batch goes through the patch of its own task."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from peterrec.errors import ConfigError
from peterrec.nn.patch import Patch
from peterrec.nn.pieces import Given, SitePatch
from peterrec.nn.tokens import TCL

ITEM_TABLE = "own_items.table"


class PatchBank(nn.Module):
    """Patches of one configuration, their parameters stacked: `backbone(tokens, bank.rows(which))`.

    Whatever a kind of patch does at a site is done for all rows at once, with the parameters of each row's patch
    (`torch.func.vmap`), so a new kind needs nothing here. The stack is a copy: later changes of a patch do not
    reach it.

    Args:
        patches: K patches.

    Raises:
        ConfigError: none, or patches whose parameters differ in name or shape.
    """

    def __init__(self, patches: Sequence[Patch]) -> None:
        super().__init__()
        shapes = [{name: tensor.shape for name, tensor in patch.state_dict().items()} for patch in patches]
        if not patches or any(other != shapes[0] for other in shapes):
            raise ConfigError(
                "a bank holds patches of one configuration, at least one", remedy="make one bank for each configuration"
            )
        self.template = patches[0]
        self.stacked: dict[str, Tensor]
        self.stacked, _ = stack_module_state(list(patches))

    def __len__(self) -> int:
        return len(next(iter(self.stacked.values())))

    def rows(self, which: Int[Tensor, " B"]) -> RowPatches:
        """Return the patches of the rows of a batch.

        Args:
            which: for each row, the number of its patch in the bank.
        """
        # Of the tables of items only what the rows read is copied, once it is known: `embed`.
        parameters = {name: stack.detach()[which] for name, stack in self.stacked.items() if name != ITEM_TABLE}
        table = self.stacked.get(ITEM_TABLE)
        return RowPatches(self.template, parameters, None if table is None else (table.detach(), which))


class RowPatches:
    """A patch for each row of a batch; the backbone takes it as it takes one `Patch`.

    Args:
        template: any of the patches.
        parameters: (B, ...) of each row's patch, by name.
        own_items: tables (K, V, rank) of all patches of the bank, and which is each row's; None if they have none.
    """

    def __init__(
        self, template: Patch, parameters: dict[str, Tensor], own_items: tuple[Tensor, Tensor] | None = None
    ) -> None:
        self.template = template
        self.parameters = parameters
        self.own_items = own_items

    def at(self, site: int) -> SitePatch | None:
        """Return what acts at a site, or None."""
        piece = self.template.at(site)
        if piece is None:
            return None
        prefix = f"pieces.{site}."
        own = {name.removeprefix(prefix): of for name, of in self.parameters.items() if name.startswith(prefix)}
        return RowPieces(piece, own)

    def embed(self, x: Float[Tensor, "B T C"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Add what each row's task has of its own for items, and for [TCL]."""
        token = self.parameters.get("task_token")
        if self.own_items is not None:
            tables, which = self.own_items
            x = x + tables[which.unsqueeze(1), tokens] @ self.parameters["own_items.up"]  # (B, T, rank) @ (B, rank, C)
        return x if token is None else x + (tokens == TCL).unsqueeze(2) * token.unsqueeze(1)


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


class RowPieces(SitePatch):
    """The pieces of all rows at one site: every hook runs with each row's own parameters."""

    def __init__(self, piece: SitePatch, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self._piece = [piece]  # in a list, so that it does not become a part of this module
        self._parameters_of_rows = {f"piece.{name}": of for name, of in parameters.items()}

    def _each(self, hook: str, first: Given | nn.LayerNorm, h: Tensor) -> Tensor:
        piece = self._piece[0]
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
