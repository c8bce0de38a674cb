"""The arithmetic that networks answer with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from peterrec.errors import ConfigError
from peterrec.nn.process_setting import ProcessSetting

Precision = Literal["fp32", "bf16"]
_CUDNN = ProcessSetting("allow_tf32", False)


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
    """Return the context of a precision.

    bf16 multiplies matrices in bfloat16, and `to_autocast_dtype` says what else is. On a GPU torch lets convolutions
    round what they multiply to TF32 (10 bits, errors of 1e-3), unless it is told not to; fp32 here is fp32, so that
    answers are those of a CPU, and of states event by event, whose products are no convolutions.
    """
    if precision != "fp32":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext() if device.type != "cuda" or _chosen_otherwise() else _CUDNN.changed(torch.backends.cudnn)


def _chosen_otherwise() -> bool:
    """Return whether somebody set the precision of convolutions alone (torch 2.9), which then is as they want it."""
    try:
        _ = torch.backends.cudnn.allow_tf32  # refuses to be read then, and would overwrite it if it were set
    except RuntimeError:
        return True
    return False


def to_autocast_dtype(x: Float[Tensor, " *n"]) -> Float[Tensor, " *n"]:
    """Return hidden states as blocks hand them on: where answers are made in bf16, in bfloat16, else as they are.

    Additions and LayerNorms between the matrix products are passes over memory, of half as much then. In training the
    sum of all blocks stays in fp32.
    """
    if torch.is_grad_enabled() or not torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(torch.get_autocast_dtype(x.device.type))
