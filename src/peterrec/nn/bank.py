"""Many patches over one frozen backbone: each row of a batch goes through the patch of its own task."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from peterrec.errors import ConfigError
from peterrec.nn.cone import Step
from peterrec.nn.patch import Patch
from peterrec.nn.pieces import SiteInput, SitePatch


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
        return RowPatches(self.template, {name: stack.detach()[which] for name, stack in self.stacked.items()})


class RowPatches:
    """A patch for each row of a batch; the backbone takes it as it takes one `Patch`."""

    def __init__(self, template: Patch, parameters: dict[str, Tensor]) -> None:
        self.template = template
        self.parameters = parameters

    def at(self, site: int) -> SitePatch | None:
        """Return what acts at a site, or None."""
        piece = self.template.at(site)
        if piece is None:
            return None
        prefix = f"pieces.{site}."
        own = {name.removeprefix(prefix): of for name, of in self.parameters.items() if name.startswith(prefix)}
        return RowPieces(piece, own)

    def embed(self, x: Float[Tensor, "B T C"], is_task_token: Bool[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Put each task's own embedding at [TCL], if the patches have one."""
        token = self.parameters.get("task_token")
        return x if token is None else x + is_task_token.unsqueeze(2) * token.unsqueeze(1)


class _Hook(nn.Module):
    """One hook of a piece as a module that can be called, for one row at a time."""

    def __init__(self, piece: SitePatch, hook: str) -> None:
        super().__init__()
        self.piece = piece
        self.hook = hook

    def forward(self, x: Tensor, h: Tensor, around: Step | nn.LayerNorm) -> Tensor:
        """Call the hook on a batch of this one row."""
        first = around if isinstance(around, nn.LayerNorm) else SiteInput(x.unsqueeze(0), around)
        out: Tensor = getattr(self.piece, self.hook)(first, h.unsqueeze(0))
        return out.squeeze(0)


class RowPieces(SitePatch):
    """The pieces of all rows at one site: every hook runs with each row's own parameters."""

    def __init__(self, piece: SitePatch, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self._piece = [piece]  # in a list, so that it does not become a part of this module
        self._parameters_of_rows = {f"piece.{name}": of for name, of in parameters.items()}

    def _each(self, hook: str, first: SiteInput | nn.LayerNorm, h: Tensor) -> Tensor:
        piece = self._piece[0]
        if getattr(type(piece), hook) is getattr(SitePatch, hook) and (hook != "normalise" or piece.norm is None):
            out: Tensor = getattr(piece, hook)(first, h)  # a hook that nobody overrides knows no parameters
            return out
        module = _Hook(piece, hook)
        x, around = (
            (first.x, first.step) if isinstance(first, SiteInput) else (h, first)
        )  # a norm has no input of its own

        def row(parameters: dict[str, Tensor], x_of_row: Tensor, h_of_row: Tensor) -> Tensor:
            result: Tensor = functional_call(module, parameters, (x_of_row, h_of_row, around))
            return result

        found: Tensor = vmap(row)(self._parameters_of_rows, x, h)
        return found

    def pre_norm(self, given: SiteInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between convolution and LayerNorm."""
        return self._each("pre_norm", given, h)

    def normalise(self, norm: nn.LayerNorm, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Apply LayerNorm, or each row's own version of it."""
        return self._each("normalise", norm, h)

    def pre_act(self, given: SiteInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between LayerNorm and the nonlinearity."""
        return self._each("pre_act", given, h)

    def post_act(self, given: SiteInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act after the nonlinearity."""
        return self._each("post_act", given, h)
