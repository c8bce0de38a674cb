"""Limits of this machine: python benchmarks/limits.py

The best rate of matrix products in fp32 and in bf16, over several shapes, and the bandwidth of memory. A share of these
says how much faster anything could get here.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from worker import tune

# Squares show the machine; the others are a convolution of three taps over 256 windows of 50, at 64 and 256 channels.
SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (12_800, 192, 64), (12_800, 768, 256))
TINY_SHAPES = ((64, 64, 64), (128, 96, 32))
COPIED, TINY_COPIED = 256 * 2**20, 2**20  # bytes
EXACT = 1e-5  # largest relative error that a true fp32 product may have; that of bf16 is about 1e-3


@dataclass(frozen=True)
class Limits:
    """Rates of the machine.

    Attributes:
        fp32: floating-point operations a second of the best matrix product.
        bf16: the same in bfloat16.
        bandwidth: bytes a second, read and written, of a copy.
        threads: of torch.
    """

    fp32: float
    bf16: float
    bandwidth: float
    threads: int

    def rate(self, precision: str) -> float:
        """Return the operations a second of a precision."""
        return self.bf16 if precision == "bf16" else self.fp32

    def best(self, measured: Limits) -> Limits:
        """Return the larger of each: whatever was reached once is possible."""
        fp32, bf16 = max(self.fp32, measured.fp32), max(self.bf16, measured.bf16)
        return Limits(fp32, bf16, max(self.bandwidth, measured.bandwidth), self.threads)

    def __str__(self) -> str:
        fp32, bf16, bandwidth = self.fp32 / 1e9, self.bf16 / 1e9, self.bandwidth / 1e9
        return (
            f"limits with {self.threads} threads: fp32 {fp32:,.0f} GFLOP/s, bf16 {bf16:,.0f} GFLOP/s, "
            f"memory {bandwidth:,.1f} GB/s"
        )


def measure(*, tiny: bool = False) -> Limits:
    """Measure all; a few seconds."""
    shapes, seconds = (TINY_SHAPES, 0.01) if tiny else (SHAPES, 0.4)
    fp32 = max(_rate(shape, torch.float32, seconds) for shape in shapes)
    with _through_onednn() as usable:
        if usable:
            fp32 = max(fp32, *(_rate(shape, torch.float32, seconds) for shape in shapes))
    bf16 = max(_rate(shape, torch.bfloat16, seconds) for shape in shapes)
    source = torch.ones((TINY_COPIED if tiny else COPIED) // 4)
    target = torch.empty_like(source)
    copied = 2 * source.numel() * source.element_size()
    return Limits(fp32, bf16, copied / _fastest(lambda: target.copy_(source), seconds), torch.get_num_threads())


@contextmanager
def _through_onednn() -> Any:
    """Send fp32 products through oneDNN; yields whether they still are true fp32.

    torch hands fp32 to oneDNN only where bf16 arithmetic is allowed. Without AMX oneDNN has no such kernel and computes
    in fp32 after all, on some machines faster than what torch takes else. The product itself is checked too.
    """
    setting: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if setting is None or not hasattr(setting, "fp32_precision") or torch.cpu._is_amx_tile_supported():
        yield False
        return
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        yield _error() < EXACT
    finally:
        setting.fp32_precision = before


def _error() -> float:
    a, b = _matrices((128, 512, 128), torch.float32)
    exact = a.double() @ b.double()
    return float(((a @ b) - exact).abs().max() / exact.abs().max())


def _rate(shape: tuple[int, int, int], dtype: torch.dtype, seconds: float) -> float:
    a, b = _matrices(shape, dtype)
    out = torch.empty(shape[0], shape[2], dtype=dtype)
    rows, inner, columns = shape
    return 2 * rows * inner * columns / _fastest(lambda: torch.mm(a, b, out=out), seconds)


def _matrices(shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows, inner, columns = shape
    a, b = torch.randn(rows, inner, generator=generator), torch.randn(inner, columns, generator=generator)
    return a.to(dtype), b.to(dtype)


def _fastest(run: Callable[[], object], seconds: float) -> float:
    """Return the shortest time of one run: a limit is what can be reached, however busy the machine is."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="sizes at which the numbers mean nothing")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    tune()
    limits = measure(tiny=options.tiny)
    if options.json:
        print(json.dumps(asdict(limits)))
    else:
        print(f"{platform.machine()}, torch {torch.__version__}\n{limits}")


if __name__ == "__main__":
    main()
