"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from peterrec.config import OptimConfig


class RowwiseAdamW(torch.optim.AdamW):
    """AdamW; of a table with a sparse gradient, only the rows that have one are updated, at a fraction of the cost.

    For such rows: no momentum, and one second moment a row, the mean over its channels (as in row-wise Adagrad, Gupta
    et al., 2014; Naumov et al., DLRM, 2019), averaged over the steps that touch the row, from the first of them on.
    With weight decay a row shrinks when it is touched. The state of a table is two numbers a row, not two tables.
    """

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update everything; arguments as in torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse = [
            (group, p, p.grad)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and p.grad.is_sparse
        ]
        for _, p, _ in sparse:
            p.grad = None  # AdamW refuses sparse gradients
        super().step()
        for group, p, gradient in sparse:
            self._update_rows(group, p, gradient)
            p.grad = gradient
        return loss

    @torch.no_grad()
    def _update_rows(self, group: dict[str, Any], table: nn.Parameter, gradient: Tensor) -> None:
        rows, gradients = gradient._indices().squeeze(0), gradient._values()
        state = self.state[table]
        if not state:  # AdamW wants a `step` of every state, and leaves its dtype and device alone when it loads one
            state["step"] = torch.zeros(len(table), dtype=torch.int32)
            state["mean_square"] = torch.zeros(len(table), dtype=table.dtype, device=table.device)
        state["step"] = state["step"].to(table.device)
        beta = group["betas"][1]
        steps = state["step"][rows] + 1
        mean_square = torch.lerp(gradients.square().mean(1), state["mean_square"][rows], beta)
        state["step"][rows], state["mean_square"][rows] = steps, mean_square
        scale = (mean_square / (1.0 - beta**steps)).sqrt_().add_(group["eps"])
        values = table.index_select(0, rows).mul_(1.0 - group["lr"] * group["weight_decay"])
        table.index_copy_(0, rows, values.addcdiv_(gradients, scale.unsqueeze(1), value=-group["lr"]))


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: OptimConfig, slower: Collection[nn.Parameter] = (), factor: float = 1.0
) -> torch.optim.Optimizer:
    """Make an AdamW (Loshchilov and Hutter, ICLR 2019) that does not decay vectors, i.e. biases and norms.

    Args:
        parameters: to train, those that are frozen are left out.
        config: of the optimiser.
        slower: those of the parameters that learn at a part of the rate.
        factor: this part.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    slow = {id(parameter) for parameter in slower}
    groups = [
        {
            "params": [p for p in trainable if (p.dim() > 1) == is_matrix and (id(p) in slow) == is_slow],
            "weight_decay": config.weight_decay if is_matrix else 0.0,
            "lr": config.lr * (factor if is_slow else 1.0),
        }
        for is_slow in (False, True)
        for is_matrix in (True, False)
    ]
    # One pass over memory instead of eight. Not on a GPU, where it would take the unscaling of 16-bit gradients over.
    fused = all(parameter.device.type == "cpu" for parameter in trainable)
    return RowwiseAdamW([group for group in groups if group["params"]], lr=config.lr, fused=fused or None)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], longest: float) -> None:
    """Shrink all gradients together to a norm of at most `longest`; torch's own does not take sparse ones."""
    gradients = [p.grad._values() if p.grad.is_sparse else p.grad for p in parameters if p.grad is not None]
    if gradients:
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        factor = (longest / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)


def make_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig, steps: int) -> LambdaLR:
    """Make a schedule: linear warm-up over the first share of `steps`, then cosine to zero or constant."""
    warmup = max(1, round(config.warmup_fraction * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if config.schedule == "constant":
            return 1.0
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return 0.5 * (1.0 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)
