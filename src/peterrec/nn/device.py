"""Choice of the device that networks run on."""

from __future__ import annotations

import torch

from peterrec.errors import ConfigError


def find_device(device: str) -> torch.device:
    """Return the device of a name; `auto`: the GPU, if there is one.

    Raises:
        ConfigError: no such device in this machine or this build of torch.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # unknown, or not in this machine or this build of torch
        raise ConfigError(f"no such device: {device!r}", remedy="use auto, cpu or cuda") from error
