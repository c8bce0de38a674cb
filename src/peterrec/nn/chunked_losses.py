"""The softmax losses of pre-training, with gradients made in the forward pass, a few rows at a time.

The logits of all rows never exist at once, and none is made twice: while those of a chunk are at hand, so are its
gradients (Liger kernel, Hsu et al., 2024, does the same on GPUs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from peterrec.nn.matmul import onednn_matmul

LOGITS = 2**22  # made at once, 16 MiB: more would leave the cache
MOST_ROWS = 512
LEAST_ROWS = 32  # fewer are slower, as every chunk reads the whole table; 25 MiB of logits for 200,000 items

# Writes what the product does not give into the logits (n, M) of some rows; returns the column of each row's positive.
Finish = Callable[[Tensor, slice], Tensor]


def chunked_full_softmax_loss(
    hidden: Float[Tensor, "N C"],
    positives: Int[Tensor, " N"],
    weight: Float[Tensor, "V C"],
    bias: Float[Tensor, " V"],
) -> Float[Tensor, ""]:
    """Compute the cross-entropy over the whole catalogue (paper, eq. 3).

    Can be differentiated once. Under autocast, matrices are multiplied in its dtype; all else is fp32 or wider.

    Args:
        hidden: hidden states, N > 0.
        positives: 0-based positions of the items to predict.
        weight: a vector for each item.
        bias: of each item.

    Returns:
        Mean over the N positions, fp32 (float64 if an input is).
    """
    apply: Any = _FullSoftmax.apply
    return cast(Tensor, apply(hidden, weight, bias, positives, torch.is_grad_enabled()))


def chunked_sampled_softmax_loss(
    hidden: Float[Tensor, "N C"],
    positives: Int[Tensor, " N"],
    weight: Float[Tensor, "V C"],
    bias: Float[Tensor, " V"],
    negatives: Int[Tensor, " S"],
    log_expected: Float[Tensor, " S"],
) -> Float[Tensor, ""]:
    """Compute the cross-entropy whose sum over the catalogue is estimated from S negatives that all rows share.

    A negative's logit is lowered by the log of its expected count among the draws (logQ correction: Bengio and Senecal,
    2008), and one that equals the row's positive is masked (accidental hit). The negatives then estimate the sum over
    all items but the positive without bias, so the positive itself stands uncorrected beside them: the loss tends to
    that over the whole catalogue as S grows. The authors' code draws without replacement and lowers the positive's
    logit too; with replacement, where an expected count can be above one, that would push frequent items beyond their
    share.

    An item drawn k times counts k times, but its logit is made once. Can be differentiated once, and not by
    `log_expected`. Under autocast, matrices are multiplied in its dtype; all else is fp32 or wider.

    Args:
        hidden: hidden states, N > 0.
        positives: 0-based positions of the items to predict.
        weight: a vector for each item.
        bias: of each item.
        negatives: 0-based positions of the drawn items, S > 0.
        log_expected: log of the expected count of each of them.

    Returns:
        Mean over the N positions, fp32 (float64 if an input is).
    """
    apply: Any = _SampledSoftmax.apply
    return cast(Tensor, apply(hidden, weight, bias, positives, negatives, log_expected, torch.is_grad_enabled()))


# ---------------------------------------------------------------- rows against a table, a chunk at a time


class _Needed(NamedTuple):
    """Flags of the gradients that are needed."""

    hidden: bool
    weight: bool
    bias: bool

    @classmethod
    def by(cls, ctx: Any, grad_enabled: bool) -> _Needed:
        # Within `forward` gradients are off, and `needs_input_grad` does not say whether they were off outside.
        hidden, weight, bias = ctx.needs_input_grad[:3]
        return cls(hidden and grad_enabled, weight and grad_enabled, bias and grad_enabled)


class _Result(NamedTuple):
    """The mean loss and its gradients."""

    loss: Float[Tensor, ""]
    by_positive: Float[Tensor, " N"]  # by the logit of each row's positive
    hidden: Float[Tensor, "N C"] | None
    table: Float[Tensor, "M C"] | None
    bias: Float[Tensor, " M"] | None


def _dtypes(hidden: Tensor, weight: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """Return the dtype of products, and that of all else."""
    exact = torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)
    device = hidden.device.type
    if exact == torch.float32 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device), exact
    return exact, exact


def _logits(x: Tensor, table: Tensor, bias: Tensor, out: Tensor) -> None:
    if x.dtype == out.dtype:
        torch.addmm(bias, x, table.T, out=out)
    else:
        torch.add(torch.mm(x, table.T), bias, out=out)


def _add_product(total: Tensor, first: Tensor, second: Tensor) -> None:
    if first.dtype == total.dtype:
        total.addmm_(first, second)
    else:
        total += torch.mm(first, second)


def _over_chunks(
    hidden: Float[Tensor, "N C"],
    table: Float[Tensor, "M C"],
    bias: Float[Tensor, " M"],
    finish: Finish,
    needed: _Needed,
) -> _Result:
    """Compute the mean cross-entropy of each row's positive among the rows of a table, and its gradients."""
    product, exact = _dtypes(hidden, table)
    count, rows = len(hidden), max(LEAST_ROWS, min(MOST_ROWS, LOGITS // len(table)))
    x, w, bias = hidden.to(product), table.to(product), bias.to(exact)
    buffer = x.new_empty(min(rows, count), len(w), dtype=exact)
    losses, by_positive = x.new_empty(count, dtype=exact), x.new_empty(count, dtype=exact)
    by_hidden = x.new_empty(x.shape, dtype=exact) if needed.hidden else None
    by_table = w.new_zeros(w.shape, dtype=exact) if needed.weight else None
    by_bias = torch.zeros_like(bias) if needed.bias else None
    with onednn_matmul(hidden.device):
        for start in range(0, count, rows):
            chunk_rows = slice(start, start + rows)
            shares = buffer[: len(x[chunk_rows])]
            _logits(x[chunk_rows], w, bias, shares)
            losses[chunk_rows], by_positive[chunk_rows] = _softmax_(shares, finish(shares, chunk_rows))
            factors = shares.to(product) if needed.hidden or needed.weight else shares
            if by_hidden is not None:
                by_hidden[chunk_rows] = torch.mm(factors, w)
            if by_table is not None:
                _add_product(by_table, factors.T, x[chunk_rows])
            if by_bias is not None:
                by_bias += shares.sum(0)
    gradients = [None if total is None else total.div_(count) for total in (by_hidden, by_table, by_bias)]
    return _Result(losses.mean(), by_positive.div_(count), *gradients)


def _softmax_(logits: Float[Tensor, "n M"], columns: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Return each row's loss, and its derivative by the positive's logit; `logits` become the derivatives by them."""
    positive = (torch.arange(len(logits), device=logits.device), columns)
    positive_logits, largest = logits[positive], logits.amax(1)
    torch.softmax(logits, 1, out=logits)
    losses = largest - positive_logits - logits.amax(1).log()  # the largest share is 1 / sum of exp(logit - most)
    derivative = logits[positive] - 1.0
    logits[positive] = derivative
    return losses, derivative


def _require_no_graph() -> None:
    # `once_differentiable` would refuse only where what comes from above has a graph, and else say "no dependence".
    if torch.is_grad_enabled():
        raise RuntimeError("a loss in chunks can be differentiated once only: not with create_graph")


def _scaled(gradient: Tensor | None, upstream: Tensor, like: torch.dtype) -> Tensor | None:
    # Kept wide until here, because a loss scaler multiplies by so much that half precision holds the product only.
    if gradient is None:
        return None
    if upstream.device.type == "cpu" and upstream.item() == 1.0:  # as ever, without a scaler: no second copy of a table
        return gradient.to(like)
    return (gradient * upstream).to(like)


# ---------------------------------------------------------------- the two losses


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, positives: Tensor, grad_enabled: bool
    ) -> Tensor:
        result = _over_chunks(
            hidden, weight, bias, lambda logits, chunk_rows: positives[chunk_rows], _Needed.by(ctx, grad_enabled)
        )
        ctx.save_for_backward(result.hidden, result.table, result.bias)
        ctx.dtypes = hidden.dtype, weight.dtype, bias.dtype
        return result.loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        _require_no_graph()
        gradients = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *(_scaled(gradient, upstream, dtype) for gradient, dtype in gradients), None, None


def _log_weights(log_expected: Float[Tensor, " S"], item_of_draw: Int[Tensor, " S"], count: int) -> Float[Tensor, " U"]:
    """Return the log of the sum of 1 / expected over the draws of each item."""
    log_inverse = -log_expected
    largest = log_inverse.new_full((count,), float("-inf")).scatter_reduce(0, item_of_draw, log_inverse, "amax")
    return (
        largest
        + log_inverse.new_zeros(count).index_add(0, item_of_draw, (log_inverse - largest[item_of_draw]).exp()).log()
    )


class _SampledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        positives: Tensor,
        negatives: Tensor,
        log_expected: Tensor,
        grad_enabled: bool,
    ) -> Tensor:
        exact = _dtypes(hidden, weight)[1]
        drawn, which = cast(Any, torch.unique)(negatives, return_inverse=True)
        offsets = bias[drawn].to(exact) + _log_weights(log_expected.to(exact), which, len(drawn))
        vectors = weight.index_select(0, positives).to(exact)  # (N, C)
        logits = (hidden * vectors).sum(1, dtype=exact) + bias[positives]
        # A last column is left for the positives. The hit of a row without one is there, and written over.
        place = torch.searchsorted(drawn, positives).clamp_(max=len(drawn) - 1)
        hits = torch.where(drawn[place] == positives, place, len(drawn))

        def finish(chunk: Tensor, chunk_rows: slice) -> Tensor:
            chunk[torch.arange(len(chunk), device=chunk.device), hits[chunk_rows]] = float("-inf")
            chunk[:, -1] = logits[chunk_rows]
            return torch.full_like(hits[chunk_rows], len(drawn))

        table = torch.cat([weight.index_select(0, drawn), weight.new_zeros(1, weight.shape[1])])
        needed = _Needed.by(ctx, grad_enabled)
        result = _over_chunks(hidden, table, torch.cat([offsets, offsets.new_zeros(1)]), finish, needed)
        by_hidden = result.hidden
        if by_hidden is not None:
            by_hidden.addcmul_(result.by_positive.unsqueeze(1), vectors)
        ctx.save_for_backward(hidden, positives, drawn, result.by_positive, by_hidden, result.table, result.bias)
        ctx.dtypes, ctx.items = (hidden.dtype, weight.dtype, bias.dtype), len(weight)
        return result.loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        _require_no_graph()
        hidden, positives, drawn, by_positive, by_hidden, by_table, by_bias = ctx.saved_tensors
        by_positive = by_positive * upstream

        def dense(gradient: Tensor | None, at_positives: Tensor) -> Tensor | None:
            if gradient is None:
                return None
            total = gradient.new_zeros(ctx.items, *gradient.shape[1:]).index_add_(0, positives, at_positives)
            return total.index_add_(0, drawn, gradient[:-1] * upstream)

        by_weight = dense(by_table, by_positive.unsqueeze(1) * hidden)
        gradients = _scaled(by_hidden, upstream, ctx.dtypes[0]), by_weight, dense(by_bias, by_positive)
        narrowed = (None if g is None else g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True))
        return *narrowed, None, None, None, None
