"""The measurements of `gpu.py`, one section a process: rows as lines of JSON on stdout."""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

GIB = 2**30
MEASURED = 0.4  # seconds that something is repeated for
CALLS = (2, 300)  # least and most
LAST_WORDS = 200  # characters of an error
Row = dict[str, Any]
Runs = Callable[[], object]


@dataclass(frozen=True)
class Settings:
    """What `gpu.py` asks for.

    Attributes:
        device: cuda or cpu.
        tiny: sizes at which the numbers mean nothing.
        compile: whether compiled forms are measured.
        seconds: after which the process is ended.
        data: folder of events.parquet of ml-1m.
    """

    device: str
    tiny: bool
    compile: bool
    seconds: float
    data: str | None


class Bench:
    """Rows of a section, each tried by itself, for as long as there is time.

    Args:
        settings: of the section.
        answers: where rows are written.
    """

    def __init__(self, settings: Settings, answers: Any) -> None:
        self.settings = settings
        self.answers = answers
        self.end = time.monotonic() + settings.seconds

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the process is ended."""
        return self.end - time.monotonic()

    def say(self, row: Row) -> None:
        """Hand a row on."""
        self.answers.write(json.dumps(row) + "\n")

    def attempt(self, row: Row, measure: Callable[[], Row], least: float = 2.0) -> bool:
        """Say a row with what is measured, or with why it could not be; return whether it could.

        Args:
            row: what is measured.
            measure: returns the numbers.
            least: seconds that must be left.
        """
        if self.remaining_seconds < least:
            self.say(row | {"note": "not tried: no time left"})
            return False
        self.free()
        try:
            numbers = measure()
        except torch.OutOfMemoryError:
            self.say(row | {"note": "out of memory"})
            return False
        except Exception as error:  # another row may still be measured
            lines = str(error).splitlines() or [""]
            self.say(row | {"note": f"FAILED: {type(error).__name__}: {lines[0][:LAST_WORDS]}"})
            return False
        self.say(row | numbers | ({"GiB": self.peak() / GIB} if self.on_gpu else {}))
        return True

    @property
    def on_gpu(self) -> bool:
        """Whether there is a memory of the device to look at."""
        return self.settings.device.startswith("cuda")

    def free(self) -> None:
        """Give back what the last row took, and begin to watch memory anew."""
        gc.collect()  # an error holds what was there when it was raised
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        """Return the most bytes of tensors since `free`."""
        return torch.cuda.max_memory_allocated()

    def wait(self) -> None:
        """Wait for the device, which works while Python goes on."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, do: Runs) -> float:
        """Return the seconds of a call, of as many as fit; the first ones, which allocate and compile, do not count."""
        for _ in range(1 if self.settings.tiny else 2):
            do()
        single = self._timed(do, 1)
        seconds = 0.01 if self.settings.tiny else MEASURED
        return self._timed(do, min(max(int(seconds / max(single, 1e-9)), CALLS[0]), CALLS[1]))

    def _timed(self, do: Runs, calls: int) -> float:
        self.wait()
        start = time.perf_counter()
        for _ in range(calls):
            do()
        self.wait()
        return (time.perf_counter() - start) / calls


def limit(bench: Bench) -> None:
    """Measure matrix products in every arithmetic, and a copy of memory."""
    squares = [64] if bench.settings.tiny else [1024, 2048, 4096, 8192, 16384]
    shapes = [(n, n, n) for n in squares] + [(4096 if bench.settings.tiny else 1_048_576, 3 * d, d) for d in (64, 256)]
    for name, dtype, setting in (
        ("fp32", torch.float32, "highest"), ("tf32", torch.float32, "high"), ("bf16", torch.bfloat16, "highest"),
    ):  # fmt: skip
        for shape in shapes:
            row = {"what": name, "shape": " x ".join(map(str, shape)), "limit": name}
            torch.set_float32_matmul_precision(setting)
            bench.attempt(row, lambda shape=shape, dtype=dtype: _product(bench, shape, dtype))
    torch.set_float32_matmul_precision("highest")
    bench.attempt({"what": "copy of memory", "shape": ""}, lambda: _copy(bench))


def _product(bench: Bench, shape: tuple[int, int, int], dtype: torch.dtype) -> Row:
    rows, inner, columns = shape
    a, b = _random(bench, (rows, inner), dtype), _random(bench, (inner, columns), dtype)
    out = torch.empty(rows, columns, dtype=dtype, device=bench.settings.device)
    flops = 2 * rows * inner * columns / bench.seconds(lambda: torch.mm(a, b, out=out))
    return {"flops": flops, "rate": f"{flops / 1e12:.3g} TFLOP/s"}


def _random(bench: Bench, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, device=bench.settings.device).to(dtype)


def _copy(bench: Bench) -> Row:
    source = torch.ones(2**12 if bench.settings.tiny else 2**29, device=bench.settings.device)
    target = torch.empty_like(source)
    moved = 2 * source.numel() * source.element_size()
    return {"rate": f"{moved / bench.seconds(lambda: target.copy_(source)) / 1e12:.3g} TB/s"}


def sections() -> Iterator[tuple[str, Callable[[Bench], None]]]:
    """Yield the sections by name; what needs peterrec is imported when it is asked for."""
    yield "limit", limit
    import gpu_jobs

    yield from gpu_jobs.SECTIONS.items()


def machine(device: str) -> str:
    """Return in words what is measured on."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    if not device.startswith("cuda"):
        return f"{platform.machine()}, {torch.get_num_threads()} threads, {versions}"
    of_device = torch.cuda.get_device_properties(0)
    return f"{of_device.name}, {of_device.total_memory / GIB:.0f} GiB, {os.cpu_count()} cores beside it, {versions}"


def main() -> None:
    name, settings = sys.argv[1], Settings(**json.loads(sys.argv[2]))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not get between the answers
    bench = Bench(settings, answers)
    bench.say({"machine": machine(settings.device)})
    torch.manual_seed(0)
    next(measure for section, measure in sections() if section == name)(bench)


if __name__ == "__main__":
    main()
