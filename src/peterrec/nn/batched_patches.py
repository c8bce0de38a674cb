"""Adapter layers at one sublayer for a batch whose rows have different patches."""

from __future__ import annotations

from collections.abc import Callable, Set

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from peterrec.nn.insertion import LayerInput

Stack = dict[str, Tensor]


def select_rows(stack: Tensor, which: Tensor | None) -> Tensor:
    """Return what each row has of a stack; `which` None: the stack itself."""
    return stack.detach() if which is None else stack.detach().index_select(0, which)


class RowsByPatch:
    """The rows of a batch in the order of their patches, as many places for each patch.

    Args:
        which: (B,) which patch is each row's.
        patches: K.
    """

    def __init__(self, which: Int[Tensor, " B"], patches: int) -> None:
        self.patches = patches
        counts = torch.bincount(which, minlength=patches)
        self.rows_per_patch = int(counts.max()) if len(which) else 0
        order = torch.argsort(which, stable=True)
        nth_of_patch = torch.arange(len(which), device=which.device) - (counts.cumsum(0) - counts)[which[order]]
        slots = which[order] * self.rows_per_patch + nth_of_patch
        self.place = torch.empty_like(which).index_copy_(0, order, slots)  # of each row
        self.row = torch.zeros(
            patches * self.rows_per_patch, dtype=torch.int64, device=which.device
        )  # of each place, or any
        self.row.index_copy_(0, slots, order)

    def group(self, x: Float[Tensor, "B n C"]) -> Float[Tensor, "K mn C"]:
        """Return the rows of each patch behind each other."""
        return x.index_select(0, self.row).view(self.patches, -1, x.shape[2])

    def ungroup(self, x: Float[Tensor, "K mn C"], like: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Return the rows in their own order."""
        return x.view(-1, *like.shape[1:]).index_select(0, self.place)


class BatchedBottlenecks:
    """Bottlenecks of all rows at one sublayer: two products for each row, with its own matrices.

    Args:
        place: position, whether in parallel, and whether with a residual: the same for all.
        activation: between the two maps.
        stack: weights of the layers, (K, ...), `up` as (K, r, C).
        which: (B,) which of them is each row's; None: in order.
        sorted_rows: returns the rows by their patches, or None where some have far more than others.
    """

    def __init__(
        self,
        place: tuple[str, bool, bool],
        activation: Callable[[Tensor], Tensor],
        stack: Stack,
        which: Tensor | None,
        sorted_rows: Callable[[], RowsByPatch | None],
    ) -> None:
        self.position, self.parallel, self.residual = place
        self.activation = activation
        self.stack = stack
        self.which = which
        self.sorted_rows = sorted_rows

    def _weight_of_rows(self, name: str) -> Tensor:
        return select_rows(self.stack[name], self.which)

    def _act(self, layer_input: LayerInput, h: Tensor) -> Tensor:
        x = layer_input.current if self.parallel else h
        # At few positions the matrices of all rows are more to copy than the rows are.
        few = self.which is not None and x.shape[1] <= self.stack["net.down.weight"].shape[1]
        if few and not torch.compiler.is_compiling() and (rows := self.sorted_rows()) is not None:
            return self._act_grouped(rows, x, h)
        down, up = self._weight_of_rows("net.down.weight"), self._weight_of_rows("net.up.weight")  # (B, r, C)
        shift = self._weight_of_rows("net.down.bias").unsqueeze(1)
        base = h + self._weight_of_rows("net.up.bias").unsqueeze(1)
        if self.parallel and self.residual:
            base = base + x
        if torch.compiler.is_compiling():
            # Sums that the compiler makes one loop of, with what comes before and after: faster than small products.
            between = self.activation((x.unsqueeze(2) * down.unsqueeze(1)).sum(3) + shift)
            return base + (between.unsqueeze(3) * up.unsqueeze(1)).sum(2)
        # In place: baddbmm would first copy what is added to, which takes as long as the product.
        between = self.activation(torch.bmm(x, down.transpose(1, 2)).add_(shift))
        if torch.is_autocast_enabled(x.device.type):
            return base.add_(torch.bmm(between, up))  # what is added to keeps its bits
        return base.baddbmm_(between, up)

    def _act_grouped(
        self, rows: RowsByPatch, x: Float[Tensor, "B n C"], h: Float[Tensor, "B n C"]
    ) -> Float[Tensor, "B n C"]:
        """Compute the bottlenecks with one product for each patch, over all of its rows."""
        down, up = self.stack["net.down.weight"], self.stack["net.up.weight"]
        sorted_x = rows.group(x)
        between = self.activation(
            torch.baddbmm(self.stack["net.down.bias"].unsqueeze(1), sorted_x, down.transpose(1, 2))
        )
        out = rows.ungroup(torch.baddbmm(self.stack["net.up.bias"].unsqueeze(1), between, up), x)
        out = h + out
        return out + x if self.parallel and self.residual else out

    def pre_norm(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between convolution and LayerNorm."""
        return self._act(layer_input, h) if self.position == "pre_norm" else h

    def normalise(self, norm: nn.LayerNorm, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Apply LayerNorm, or each row's own version of it."""
        if "norm.weight" not in self.stack:
            out: Tensor = norm(h)
            return out
        plain = F.layer_norm(h, norm.normalized_shape, None, None, norm.eps)
        weight = norm.weight + self._weight_of_rows("norm.weight")  # (B, C)
        bias = norm.bias + self._weight_of_rows("norm.bias")
        return torch.addcmul(bias.unsqueeze(1), plain, weight.unsqueeze(1))

    def pre_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between LayerNorm and the nonlinearity."""
        return self._act(layer_input, h) if self.position == "pre_act" else h

    def post_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act after the nonlinearity."""
        return self._act(layer_input, h) if self.position == "post_act" else h


class _Hook(nn.Module):
    """A hook of a layer as a module that can be called, for one row at a time."""

    def __init__(self, layer: nn.Module, hook: str, first: LayerInput | nn.LayerNorm) -> None:
        super().__init__()
        self.layer = layer
        self.hook = hook
        self._first = [first]  # in a list, so that a norm does not become a part of this module

    def forward(self, input_tensors: tuple[Tensor, ...], h: Tensor) -> Tensor:
        """Call the hook on a batch of this one row."""
        first = self._first[0]
        if not isinstance(first, nn.LayerNorm):
            first = first.with_tensors(*(tensor.unsqueeze(0) for tensor in input_tensors))
        out: Tensor = getattr(self.layer, self.hook)(first, h.unsqueeze(0))
        return out.squeeze(0)


class BatchedLayers:
    """Adapter layers of all rows at one sublayer, of any kind: every hook runs with each row's own weights.

    Args:
        layer: any of them.
        weights: of each row, by name.
        unchanged: hooks that use no weights of the layer: they run once for all rows.
    """

    def __init__(self, layer: nn.Module, weights: Stack, unchanged: Set[str]) -> None:
        self._layer = layer
        self._weights = {f"layer.{name}": tensor for name, tensor in weights.items()}
        self._unchanged = unchanged

    def _run(self, hook: str, first: LayerInput | nn.LayerNorm, h: Tensor) -> Tensor:
        if hook in self._unchanged:
            out: Tensor = getattr(self._layer, hook)(first, h)
            return out
        module = _Hook(self._layer, hook, first)
        input_tensors = () if isinstance(first, nn.LayerNorm) else first.tensors()  # a norm has no input of its own

        def run_row(weights: dict[str, Tensor], tensors_of_row: tuple[Tensor, ...], h_of_row: Tensor) -> Tensor:
            result: Tensor = functional_call(module, weights, (tensors_of_row, h_of_row))
            return result

        rows: Tensor = vmap(run_row)(self._weights, input_tensors, h)
        return rows

    def pre_norm(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between convolution and LayerNorm."""
        return self._run("pre_norm", layer_input, h)

    def normalise(self, norm: nn.LayerNorm, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Apply LayerNorm, or each row's own version of it."""
        return self._run("normalise", norm, h)

    def pre_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between LayerNorm and the nonlinearity."""
        return self._run("pre_act", layer_input, h)

    def post_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act after the nonlinearity."""
        return self._run("post_act", layer_input, h)
