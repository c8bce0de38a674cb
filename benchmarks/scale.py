"""Rates of this machine, and what 10^9 events of 10^8 users over 10^7 items come to at them: python benchmarks/scale.py

- prepare: generated logs of more and more users, ten events each; each in a process of its own, for its peak memory.
- pre-training: steps of 256 users with 50 events and 2,048 negatives, in one thread, with tables of 20,000 and of a
  million items of which only touched rows are updated.
- several ranks: what a rank sends in a step, and one epoch of `pretrain` with two ranks of one thread beside one
  process with one and with two threads.
- answering: vectors of users with 50 events, in one thread, for more and more users, each in a process of its own.
- Spark (where it is installed): `prepare` with one task at a time beside DuckDB with one thread, on the same log.

A rate is of one core of a machine that may be shared: take it for an order of magnitude. What the table at the end says
is these rates times the sizes, and nothing else.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read by torch: threads that spin slow each other down on few cores

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from large_log import write_large_log  # the scripts beside this one
from prepare import by_prepare, in_own_process, peak_memory, timed

EVENTS, USERS, ITEMS = 10**9, 10**8, 10**7
MEAN_EVENTS = EVENTS // USERS
CHANNELS, HISTORY, BATCH = 64, 50, 256


@dataclass(frozen=True)
class Rate:
    """What one core does in a second."""

    work: str
    unit: str
    per_second: float
    amount: float
    assumption: str

    def row(self) -> str:
        """Return its line of the last table."""
        hours = self.amount / self.per_second / 3600
        return f"| {self.work} | {self.per_second:,.0f} {self.unit} | {self.assumption} | {hours:,.1f} |"


def main() -> None:
    """Measure, and print all tables."""
    options = _options()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, seed {options.seed}")
    rates = [prepare_rate(options), pretraining_rate(options), answer_rate(options)]
    with tempfile.TemporaryDirectory() as folder:
        rates += spark_rates(Path(folder), options)
        ranks(Path(folder), options)
    print(f"\n{EVENTS:,} events of {USERS:,} users over {ITEMS:,} items\n")
    print("| work | a core does in a second | assumed | core hours |\n|---|---|---|---|")
    for rate in rates:
        print(rate.row())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000], help="of prepare")
    parser.add_argument("--answered", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="users")
    parser.add_argument("--items", type=int, nargs="+", default=[20_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--small", type=int, default=100_000, help="users for Spark, a tenth of them for ranks")
    parser.add_argument("--memory-limit", default="1GB", help="of the engine")
    parser.add_argument("--threads", type=int, default=2, help="of the engine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="sizes at which the numbers mean nothing")
    options = parser.parse_args()
    if options.tiny:
        vars(options).update(users=[2_000, 4_000], answered=[300, 600], items=[200, 2_000], steps=1, small=1_000)
    return options


def prepare_rate(options: argparse.Namespace) -> Rate:
    """Print the growth of `prepare` with users; the rate is of the largest log."""
    print("\n| prepare: users | events | seconds | events/s and core | peak memory (MiB) |\n|---|---|---|---|---|")
    for users in options.users:
        events = users * MEAN_EVENTS
        with tempfile.TemporaryDirectory() as folder:
            log, items = Path(folder) / "log.parquet", users * ITEMS // USERS
            in_own_process(partial(write_large_log, log, events, users, items, options.seed))
            measured = in_own_process(timed, by_prepare, log, Path(folder) / "corpus", options)
        rate = events / measured["seconds"] / options.threads
        print(
            f"| {users:,} | {events:,} | {measured['seconds']:.1f} | {rate:,.0f} | {measured['peak']:.0f} |", flush=True
        )
    return Rate("prepare (DuckDB)", "events", rate, EVENTS, "one pass")


def pretraining_rate(options: argparse.Namespace) -> Rate:
    """Print the rate of pre-training steps by the size of the catalogue; the rate is of the largest one."""
    print("\n| pre-training: items | targets/s and core | peak memory (MiB) |\n|---|---|---|")
    for items in options.items:
        targets, peak = in_own_process(steps_per_second, items, options.steps, options.tiny)
        print(f"| {items:,} | {targets:,.0f} | {peak:.0f} |", flush=True)
    return Rate("pre-training, one epoch", "targets", targets, EVENTS, "every event is a target")


def steps_per_second(items: int, steps: int, tiny: bool) -> tuple[float, float]:
    """Return the targets of a second in one thread, and the peak memory in MiB."""
    import torch
    from memory import Steps

    torch.set_num_threads(1)
    users, events = (4, 8) if tiny else (BATCH, HISTORY)
    step = Steps(items=items, channels=CHANNELS, batch=users, events=events, loss="sampled", table_updates="rows")
    step()
    return users * events / median(step() for _ in range(steps)), peak_memory()


def spark_rates(folder: Path, options: argparse.Namespace) -> list[Rate]:
    """Print `prepare` by one core of DuckDB and of Spark; the rate of Spark."""
    log = small_log(folder, options.small, options)
    engines = [name for name in ("duckdb", "spark") if name == "duckdb" or find_spec("pyspark") is not None]
    if len(engines) == 1:
        print("\nskipped: pyspark is not installed")
        return []
    print("\n| prepare, one core | events | seconds | events/s |\n|---|---|---|---|")
    rates = {}
    for engine in engines:
        seconds = in_own_process(prepare_with, engine, log, folder / engine, options.memory_limit)
        rates[engine] = options.small * MEAN_EVENTS / seconds
        print(f"| {engine} | {options.small * MEAN_EVENTS:,} | {seconds:.1f} | {rates[engine]:,.0f} |", flush=True)
    return [Rate("prepare (Spark)", "events", rates["spark"], EVENTS, f"with the start, {options.small:,} users")]


def small_log(folder: Path, users: int, options: argparse.Namespace) -> Path:
    """Write a log of some users."""
    return write_large_log(folder / "log.parquet", users * MEAN_EVENTS, users, users * ITEMS // USERS, options.seed)


def prepare_with(engine: str, log: Path, out: Path, memory_limit: str) -> float:
    """Return the seconds of `prepare` on one core of an engine, its start included."""
    import peterrec

    one_core = {"memory_limit": memory_limit, "threads": 1, "engine": engine}
    config = peterrec.PrepareConfig(events=peterrec.EventsConfig(paths=(str(log),)), **one_core)
    start = perf_counter()
    peterrec.prepare(config, out)
    return perf_counter() - start


def ranks(folder: Path, options: argparse.Namespace) -> None:
    """Print what a rank sends in a step, and how long two ranks take beside one process."""
    print("\n| a step: items | all-reduced (MiB) | gathered from each rank (MiB) |\n|---|---|---|")
    for items in options.items:
        dense, rows = in_own_process(bytes_of_step, items, options.tiny)
        print(f"| {items:,} | {dense / 2**20:.2f} | {rows / 2**20:.2f} |", flush=True)
    corpus = folder / "small"
    log = small_log(folder, options.small // 10, options)
    in_own_process(prepare_with, "duckdb", log, corpus, options.memory_limit)
    print("\n| pre-training, one epoch | seconds | beside one thread |\n|---|---|---|")
    first = None
    for name, devices, threads in (("one thread", 1, 1), ("two threads", 1, 2), ("two ranks of one thread", 2, 1)):
        seconds = seconds_of_epoch(corpus, folder / name.replace(" ", "-"), devices, threads)
        first = first or seconds
        print(f"| {name} | {seconds:.1f} | {seconds / first:.2f} |", flush=True)


def bytes_of_step(items: int, tiny: bool) -> tuple[int, int]:
    """Return the bytes of dense gradients, and those of the rows that a rank touches in a step."""
    from memory import Steps

    users, events = (4, 8) if tiny else (BATCH, HISTORY)
    step = Steps(items=items, channels=CHANNELS, batch=users, events=events, loss="sampled", table_updates="rows")
    step()
    gradients = [parameter.grad for parameter in step.network.parameters() if parameter.grad is not None]
    rows = [gradient._indices().numel() for gradient in gradients if gradient.is_sparse]
    dense = sum(gradient.numel() for gradient in gradients if not gradient.is_sparse)
    return 4 * dense, sum(rows) * (8 + 4 * CHANNELS)


def seconds_of_epoch(corpus: Path, out: Path, devices: int, threads: int) -> float:
    """Return the seconds of an epoch of `pretrain`, as its backbone tells them."""
    settings = [f"runner.devices={devices}", "runner.accelerator=cpu", "runner.progress=false", "epochs=1"]
    settings += ["contrastive.weight=0", f"max_length={HISTORY}"]
    command = [sys.executable, "-m", "peterrec", "pretrain", str(corpus), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run(
        command + [part for setting in settings for part in ("--set", setting)],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    training = json.loads((out / "config.json").read_text())["training"]
    return float(sum(row["seconds"] for row in training["curve"]))


def answer_rate(options: argparse.Namespace) -> Rate:
    """Print the rate of users' vectors by the number of users."""
    print("\n| embed: users | users/s and core | peak memory (MiB) |\n|---|---|---|")
    for users in options.answered:
        rate, peak = in_own_process(users_per_second, users, max(options.items), options.seed)
        print(f"| {users:,} | {rate:,.0f} | {peak:.0f} |", flush=True)
    return Rate("embed", "users", rate, USERS, f"the last {HISTORY} events")


def users_per_second(users: int, items: int, seed: int) -> tuple[float, float]:
    """Return the users of a second in one thread, and the peak memory in MiB."""
    import numpy as np
    import torch

    model, events = fresh_model(items), HISTORY
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    seconds, part = 0.0, 10_000
    for start in range(0, users, part):
        histories = rng.integers(items, size=(min(part, users - start), events)).tolist()
        begin = perf_counter()
        model.represent(histories)
        seconds += perf_counter() - begin
    return users / seconds, peak_memory()


def fresh_model(items: int) -> Any:
    """Return a model of the default shape that has learned nothing."""
    import numpy as np
    import pyarrow as pa

    import peterrec
    from peterrec.artifacts.backbone_io import PretrainedBackbone
    from peterrec.data.catalogue import Catalogue
    from peterrec.nn.build import build_backbone
    from peterrec.nn.next_item import NextItemModel

    network = NextItemModel(build_backbone(peterrec.BackboneConfig(channels=CHANNELS), items))
    catalogue = Catalogue(pa.array(np.arange(items)), np.ones(items, dtype=np.int64))
    return peterrec.UserModel(PretrainedBackbone(network, catalogue, HISTORY), device="cpu")


if __name__ == "__main__":
    main()
