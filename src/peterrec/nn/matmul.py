"""Choice of the library that multiplies matrices on the CPU."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from peterrec.nn.process_setting import ProcessSetting

X86 = ("x86_64", "AMD64")


def _setting() -> Any:
    """Return the object whose `fp32_precision` is to be set, None where that would cost precision or do nothing."""
    # Allowed to use bf16, oneDNN does so with AMX, and on ARM; on other chips it multiplies in fp32 as before.
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    onednn: Any = torch.backends.mkldnn
    if amx is None or amx() or platform.machine() not in X86 or not onednn.is_available():
        return None
    setting = getattr(onednn, "matmul", None)  # torch before 2.9 has none
    return setting if hasattr(setting, "fp32_precision") else None


_ONEDNN = ProcessSetting("fp32_precision", "bf16")


@contextmanager
def onednn_matmul(device: torch.device | str = "cpu") -> Iterator[None]:
    """Let oneDNN multiply fp32 matrices on the CPU, where it is as exact as the default.

    torch hands fp32 products to MKL, which is slow on AMD chips (200 of 480 GFLOP/s on an EPYC of 2024), unless they
    may be made in bf16: then they go to oneDNN, which keeps to fp32 on chips without units for bf16 matrices.
    Changes nothing on other chips, nor for other dtypes. The setting is the process's, not the thread's: it is put back
    when the last thread leaves.

    Args:
        device: where the products are made; nothing is done for another one than the CPU.
    """
    setting = _setting() if torch.device(device).type == "cpu" else None
    if setting is None:
        yield
        return
    with _ONEDNN.changed(setting):
        yield
