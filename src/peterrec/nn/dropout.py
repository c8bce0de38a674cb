"""Dropout of what a block adds to its input, in fewer passes over memory than torch's own."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def residual_dropout(
    out: Float[Tensor, " *n"], residual: Float[Tensor, " *n"] | None, fraction: float
) -> Float[Tensor, " *n"]:
    """Return `residual + F.dropout(out - residual)`; without a residual, `F.dropout(out)`.

    On a CPU, where drawing a number for each element is most of the cost, the elements to drop are drawn instead, with
    replacement: -n ln(1 - fraction) of n, so that each is dropped with the probability asked for.

    Args:
        out: a sum of the residual and what is added to it.
        residual: what it was added to.
        fraction: of what is added that is zeroed; the rest is scaled to the same mean.
    """
    if out.device.type != "cpu" or not out.is_contiguous() or torch.compiler.is_compiling():
        return F.dropout(out, fraction) if residual is None else residual + F.dropout(out - residual, fraction)
    count = round(-out.numel() * math.log1p(-fraction))
    indices = torch.randint(out.numel(), (count,))
    dropped: Tensor = _ResidualDropout.apply(out, residual, indices, 1.0 / (1.0 - fraction))  # type: ignore[no-untyped-call]
    return dropped


class _ResidualDropout(torch.autograd.Function):
    """Sum whose second part is scaled, or zeroed at some indices."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, residual: Tensor | None, indices: Int[Tensor, " k"], scale: float) -> Tensor:
        """Return residual + scale * (out - residual), at the indices the residual."""
        ctx.save_for_backward(indices)
        ctx.scale, ctx.has_residual = scale, residual is not None
        if residual is None:
            return _filled(out * scale, indices)
        dropped = torch.lerp(residual, out, scale)
        dropped.view(-1)[indices] = residual.reshape(-1)[indices]
        return dropped

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradients of both parts."""
        (gradient,), (indices,) = gradients, ctx.saved_tensors
        gradient = gradient.contiguous()
        out = _filled(gradient * ctx.scale, indices)
        return out, gradient - out if ctx.has_residual else None, None, None


def _filled(values: Tensor, indices: Int[Tensor, " k"]) -> Tensor:
    """Zero some elements, in place."""
    values.view(-1).index_fill_(0, indices, 0.0)
    return values
