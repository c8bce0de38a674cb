"""The arithmetic that networks answer with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from peterrec.errors import ConfigError

Precision = Literal["fp32", "bf16"]


def checked_precision(precision: Precision, device: torch.device) -> Precision:
    """Return the precision.

    Raises:
        ConfigError: there is no such, or not on this device.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"no such precision: {precision!r}", remedy="use fp32 or bf16")
    if precision != "fp32" and not torch.amp.is_autocast_available(device.type):
        raise ConfigError(f"precision {precision} is not possible on {device.type}", remedy="use fp32")
    return precision


def arithmetic(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context of a precision: bf16 multiplies matrices in bfloat16, and `stored` says what else is."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)


def stored(x: Float[Tensor, " *n"]) -> Float[Tensor, " *n"]:
    """Return hidden states as blocks hand them on: where answers are made in bf16, in bfloat16, else as they are.

    Additions and LayerNorms between the matrix products are passes over memory, of half as much then. In training the
    sum of all blocks stays in fp32.
    """
    if torch.is_grad_enabled() or not torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(torch.get_autocast_dtype(x.device.type))
