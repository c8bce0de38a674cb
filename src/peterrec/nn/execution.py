"""Running consecutive blocks, as they are or compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from peterrec.errors import ConfigError
from peterrec.nn.block import at_outputs
from peterrec.nn.dropout import residual_dropout
from peterrec.nn.patch import TaskPatch
from peterrec.nn.receptive_field import BlockSteps
from peterrec.process import forked

VARIANTS = 256  # of a compiled function; past its limit torch runs a function as it is, without a word


def run_blocks(
    blocks: nn.ModuleList | Sequence[Callable[..., Tensor]],
    x: Float[Tensor, "B T C"],
    keep: Bool[Tensor, "B T 1"] | None,
    patch: TaskPatch | None,
    steps: Sequence[BlockSteps | None],
    first: int,
    dropout: float,
) -> Float[Tensor, "B n C"]:
    """Run blocks from number `first`; arguments as in `Backbone.forward_blocks`.

    Args:
        dropout: fraction of the numbers that a block adds to its input which are zeroed.
    """
    for index, block_steps in enumerate(steps, first):
        out = blocks[index](x, keep, patch, index, block_steps)
        if dropout > 0:
            out = residual_dropout(out, x if block_steps is None else at_outputs(x, block_steps), dropout)
        x = out
        keep = keep if keep is None or block_steps is None else at_outputs(keep, block_steps)
    return x


def recomputed_run(blocks: nn.ModuleList, *arguments: Any) -> Float[Tensor, "B n C"]:
    """Run blocks as `run_blocks` does, keeping the input of each only: the rest is made again for the backward pass.

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016.
    """
    checkpointed = [partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
    return run_blocks(checkpointed, *arguments)


def compiled_run(*arguments: Any) -> Float[Tensor, "B n C"]:
    """Run blocks as `run_blocks` does, compiled by torch for each shape, network and patch when it is first met.

    In a forked process they run as they are: what was compiled before has the number of threads in it.

    Raises:
        ConfigError: compiling failed, as it does without a C++ compiler.
    """
    if forked():
        return run_blocks(*arguments)
    try:
        out: Tensor = _compiled()(*arguments)
    except torch._dynamo.exc.TorchDynamoException as error:
        raise ConfigError(
            f"the network cannot be compiled here ({str(error).splitlines()[0]})",
            remedy="install a C++ compiler such as g++, or do not ask for compiling",
        ) from error
    return out


@cache
def _compiled() -> Any:
    import torch._dynamo  # noqa: PLC0415 - takes a second, which only who compiles should pay

    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, VARIANTS)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, VARIANTS)
    return torch.compile(run_blocks, dynamic=False)
