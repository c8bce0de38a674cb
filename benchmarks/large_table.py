"""What a step and a resume point cost beside a table of many items: `python benchmarks/large_table.py`."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from peterrec.config import OptimConfig
from peterrec.nn.losses import LogUniformSampler
from peterrec.nn.sparse_table import TouchedRows
from peterrec.process import tune_process
from peterrec.training.optim import make_optimizer
from peterrec.training.work_folder import AtomicCheckpoints

REPEATS = 20


def milliseconds(do: Callable[[], object]) -> float:
    """Return the time of the fastest of some calls, after one that does not count: the machine may do other things."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        do()
        times.append(1000 * (time.perf_counter() - start))
    return min(times[1:])


def measure(items: int, channels: int, rows: int, events: int, negatives: int) -> str:
    """Return the line of a table."""
    generator = torch.Generator().manual_seed(0)
    sampler = LogUniformSampler(items)
    indices = [sampler.sample(count, generator) for count in (rows * events, rows * events, negatives)]
    table = nn.Parameter(torch.zeros(items, channels))
    optimizer = make_optimizer([table], OptimConfig())

    def take() -> Tensor:
        return TouchedRows.from_indices(table, *indices).values

    def update() -> None:
        touched = TouchedRows.from_indices(table, *indices)
        touched.values.grad = torch.ones_like(touched.values)
        touched.hand_over()
        optimizer.step()

    taking, updating = milliseconds(take), milliseconds(update)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        state = {"table": table.detach(), "optimizer": optimizer.state_dict()}
        AtomicCheckpoints().save_checkpoint(state, Path(folder) / "point")
        seconds = time.perf_counter() - start
    return f"| {items:,} | {len(take()):,} | {taking:.1f} ms | {updating:.1f} ms | {seconds:.1f} s |"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--channels", type=int, default=64)
    options = parser.parse_args()
    tune_process()  # as the command line does
    print("| items | touched rows | taking them | with the update | resume point |\n|---|---|---|---|---|")
    for items in options.items:
        print(measure(items, options.channels, rows=128, events=100, negatives=2048))


if __name__ == "__main__":
    main()
