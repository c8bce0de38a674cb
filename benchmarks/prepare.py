"""How long `prepare` takes and how much memory it needs, on generated events: python benchmarks/prepare.py

Each size runs in a process of its own, whose peak resident memory the operating system reports. Memory is bounded if
it does not grow with the number of events once the engine's limit is reached.

Beside it stands what one would write in Polars for the same sequences, as a script for this one file, on its engine in
memory and on its streaming engine: it checks no input, hashes no user, makes no fingerprint, has no tasks, and its
memory has no limit. It needs Polars, which the package does not: pip install -c requirements/constraints.txt polars

Seconds of the CPU are those of user and system, of all threads of the process, with its imports. They tell more than
seconds of a clock where the machine has other work.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

MIN_ITEM_EVENTS, MAX_HISTORY, FIRST_ITEM = 5, 200, 4  # the defaults of `prepare`, for Polars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[5_000_000, 10_000_000, 20_000_000, 40_000_000])
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--memory-limit", default="1GB", help="of the engine")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--tiny", action="store_true", help="a size at which the numbers mean nothing")
    options = parser.parse_args()
    if options.tiny:
        options.events, options.items = [20_000], 500
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, seed {options.seed}")
    print(f"memory limit of the engine: {options.memory_limit}, {options.threads} threads\n")
    print(
        "| events | by | users kept | events kept | seconds | CPU seconds | events/s | peak memory (MiB) | "
        "on disk (MiB) |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for events in options.events:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log.parquet"
            in_own_process(write_log, log, events, options)
            for side in options.sides:
                print(f"| {events:,} | {side} | {row(side, log, events, options)} |", flush=True)


def row(side: str, log: Path, events: int, options: argparse.Namespace) -> str:
    """Measure one side on one log; the cells of its row, or why there are none."""
    if side != PETERREC and importlib.util.find_spec("polars") is None:
        return "skipped: polars is not installed | | | | | |"
    out = log.parent / side.replace(" ", "-").replace(",", "")
    try:
        measured = in_own_process(timed, SIDES[side], log, out, options)
    except BrokenProcessPool:
        return "failed: the process was killed, as when memory is short | | | | | |"
    disk = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 2**20
    return (
        f"{measured['users']:,} | {measured['kept']:,} | {measured['seconds']:.1f} | {measured['cpu']:.1f} | "
        f"{events / measured['seconds']:,.0f} | {measured['peak']:.0f} | {disk:.0f}"
    )


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh interpreter: a forked one would start with the memory of this."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory() -> float:
    """Return the most memory that this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # the system's other number starts with what the parent had
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def cpu_seconds() -> float:
    """Return the seconds of user and system that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(side: Callable[..., tuple[int, int]], log: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one side, imports included; users and events that it kept."""
    start, cpu_start = time.perf_counter(), cpu_seconds()
    users, events = side(log, out, options)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu_start
    return {"users": users, "kept": events, "seconds": seconds, "cpu": cpu, "peak": peak_memory()}


def write_log(path: Path, events: int, options: argparse.Namespace) -> None:
    from large_log import write_large_log

    write_large_log(path, events=events, items=options.items, seed=options.seed)


def by_prepare(log: Path, out: Path, options: argparse.Namespace) -> tuple[int, int]:
    import peterrec

    events = peterrec.EventsConfig(paths=(str(log),), order="item_id")  # both sides order ties so
    config = peterrec.PrepareConfig(events=events, memory_limit=options.memory_limit, threads=options.threads)
    sequences = peterrec.prepare(config, out).sequences
    return len(sequences), len(sequences.items)


def by_hand(log: Path, out: Path, options: argparse.Namespace, engine: Any = "in-memory") -> tuple[int, int]:
    os.environ["POLARS_MAX_THREADS"] = str(options.threads)  # read when it is imported
    import numpy as np
    import polars as pl

    out.mkdir()
    events = pl.scan_parquet(log)
    counted = events.group_by("item_id").agg(count=pl.len()).filter(pl.col("count") >= MIN_ITEM_EVENTS)
    ordered = counted.sort("count", "item_id", descending=[True, False]).with_row_index("index", FIRST_ITEM)
    catalogue = ordered.with_columns(pl.col("index").cast(pl.Int32)).collect(engine=engine)
    catalogue.write_parquet(out / "catalogue.parquet")
    known_events = events.join(catalogue.lazy().select("item_id", "index"), on="item_id")
    user_sequences = known_events.sort("user_id", "timestamp", "item_id").group_by("user_id", maintain_order=True)
    sequences = user_sequences.agg(sequence=pl.col("index").tail(MAX_HISTORY)).collect(engine=engine)
    sequences.write_parquet(out / "sequences.parquet")
    items = sequences["sequence"].explode().to_numpy()
    np.save(out / "items.npy", items)
    lengths = sequences["sequence"].list.len().to_numpy()
    np.save(out / "offsets.npy", np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
    return len(sequences), len(items)


PETERREC = "peterrec prepare"
SIDES: dict[str, Callable[..., tuple[int, int]]] = {
    PETERREC: by_prepare,
    "Polars by hand": by_hand,
    "Polars by hand, streaming": partial(by_hand, engine="streaming"),
}


if __name__ == "__main__":
    main()
