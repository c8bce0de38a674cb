"""How soon pre-training starts, and whether the loader keeps ahead of it: python benchmarks/loading.py

Corpora of generated users are written as `prepare` writes them. A start-up is everything between the folder and the
first batch: opening, holding users out, cutting windows, ordering the first epoch. Each runs in a process of its own,
whose peak resident memory the operating system reports: pages of mapped files that were touched are part of it, and so
are Python and its libraries, which are given beside it. The files were just written, so no disk is waited for.

The loader is then timed in turns with training steps on the same batches, in this process, on the first of the sizes
and with histories that fill the windows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from itertools import chain, islice, repeat
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from prepare import in_own_process, peak_memory  # the script beside this one

from peterrec.config import BackboneConfig, PretrainConfig
from peterrec.data.batching import EpochStream
from peterrec.data.catalogue import Catalogue
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import FIRST_ITEM
from peterrec.nn.losses import LogUniformSampler
from peterrec.storage import FORMAT_VERSION
from peterrec.training.objectives import Batch, ExampleSource, objective_of
from peterrec.training.optim import make_optimizer
from peterrec.training.pretrain import _hold_out, _network
from peterrec.training.pretrain_module import PretrainModule

USERS_AT_ONCE = 1_000_000
KINDS = ("causal", "noncausal")
PARTS = ("open", "hold out", "cut windows", "first batch")
LONG = 100  # events of a user with whom most windows are full


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--events", type=int, default=20, help="of a user, in the mean")
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=20, help="of some batches from the loader and a training step")
    parser.add_argument("--batches", type=int, default=20, help="of the loader in a round")
    parser.add_argument("--rare-items", choices=["drop", "unk"], default="drop", help="what the manifest says of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep the corpora here; without it nothing is left behind")
    parser.add_argument("--tiny", action="store_true", help="sizes at which the numbers mean nothing")
    options = parser.parse_args()
    if options.tiny:
        options.users, options.items, options.rounds, options.batches = [300], 100, 1, 2
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch {torch.__version__}"
    )
    print(f"{options.events} events a user, {options.items:,} items, rare items: {options.rare_items}, ", end="")
    print(f"seed {options.seed}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        print_start_ups(out, options)
        print_loader(out, options)


def print_start_ups(out: Path, options: argparse.Namespace) -> None:
    parts = " | ".join(f"{part} (s)" for part in PARTS)
    print(f"| users | windows | start-up (s) | {parts} | peak memory (MiB) | of it before (MiB) |")
    print("|---|---|---|---|---|---|---|---|---|")
    for users in options.users:
        corpus = out / f"{users}-users"
        write_corpus(corpus, users, options.events, options)
        measured = in_own_process(start_up, corpus, settings("causal", options))
        seconds = [measured[part] for part in PARTS]
        print(
            f"| {users:,} | {measured['windows']:,} | {sum(seconds):.2f} | {' | '.join(f'{s:.2f}' for s in seconds)} "
            f"| {measured['peak']:,.0f} | {measured['before']:,.0f} |",
            flush=True,
        )


def write_corpus(folder: Path, users: int, events: int, options: argparse.Namespace) -> None:
    """Write what pre-training reads of a corpus: manifest, catalogue and cache; lengths differ by up to twice."""
    (folder / "cache").mkdir(parents=True)
    rng = np.random.default_rng(options.seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 2 * events, users))])
    np.save(folder / "cache" / "offsets.npy", offsets)
    np.save(folder / "cache" / "user_hashes.npy", rng.integers(0, 2**64, users, dtype=np.uint64))
    path = folder / "cache" / "items.npy"
    items = np.lib.format.open_memmap(path, "w+", dtype=np.int32, shape=(int(offsets[-1]),))
    for first in range(0, users, USERS_AT_ONCE):
        rows = slice(offsets[first], offsets[min(users, first + USERS_AT_ONCE)])
        items[rows] = FIRST_ITEM + options.items * rng.random(rows.stop - rows.start) ** 3  # some are frequent
    catalogue = Catalogue(pa.array(range(options.items)), np.arange(options.items, 0, -1))
    catalogue.write(folder / "catalogue.parquet")
    manifest = {
        "kind": "corpus",
        "format_version": FORMAT_VERSION,
        "fingerprint": "generated",
        "catalogue_fingerprint": catalogue.fingerprint,
        "users": users,
        "rare_items": options.rare_items,
        "tasks": [],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def settings(kind: str, options: argparse.Namespace) -> PretrainConfig:
    """Return the default network, on 256 windows of 50."""
    size: dict[str, Any] = {"channels": 8, "dilations": (1,)} if options.tiny else {}
    backbone = BackboneConfig(kind=kind, **size)
    batch_size = 16 if options.tiny else 256
    return PretrainConfig(backbone=backbone, loss="sampled", max_length=50, batch_size=batch_size, seed=options.seed)


def start_up(folder: Path, config: PretrainConfig) -> dict[str, float]:
    """Do what `pretrain` does before its first step; seconds of each part, and memory in MiB."""
    before, clock = peak_memory(), [time.perf_counter()]
    corpus = Corpus.open(folder)
    items = len(corpus.catalogue)
    clock.append(time.perf_counter())
    rows, _ = _hold_out(corpus, config)
    clock.append(time.perf_counter())
    objective = objective_of(config, items)
    windows = objective.windows(corpus.sequences, rows)
    clock.append(time.perf_counter())
    source = ExampleSource(objective, windows, LogUniformSampler(items), corpus.sequences)
    next(iter(EpochStream(source, config.batch_size_for(0), config.seed)))
    clock.append(time.perf_counter())
    seconds = dict(zip(PARTS, np.diff(clock).tolist(), strict=True))
    return seconds | {"windows": len(windows.starts), "before": before, "peak": peak_memory()}


def print_loader(out: Path, options: argparse.Namespace) -> None:
    print("\n| objective | events a user | mean window | loader (windows/s) | training step (windows/s) | ratio |")
    print("|---|---|---|---|---|---|")
    users = options.users[0]
    long = out / f"{users}-users-long"
    write_corpus(long, users, LONG, options)
    for folder, events in ((out / f"{users}-users", options.events), (long, LONG)):
        for kind in KINDS:
            measured = in_turns(Corpus.open(folder), settings(kind, options), options)
            print(
                f"| {kind} | {events} | {measured['width']:.1f} | {measured['loader']:,.0f} | {measured['step']:,.0f} "
                f"| {measured['loader'] / measured['step']:.0f} |",
                flush=True,
            )


def in_turns(corpus: Corpus, config: PretrainConfig, options: argparse.Namespace) -> dict[str, float]:
    """Time the loader and a training step in turns; medians of windows a second."""
    items = len(corpus.catalogue)
    objective, sampler = objective_of(config, items), LogUniformSampler(items)
    rows, _ = _hold_out(corpus, config)
    windows = objective.windows(corpus.sequences, rows)
    source = ExampleSource(objective, windows, sampler, corpus.sequences)
    stream = EpochStream(source, config.batch_size_for(0), config.seed)
    module = PretrainModule(_network(corpus, config, rows), config, sampler)
    optimizer = make_optimizer(module.parameters(), config.optim)
    batches = chain.from_iterable(repeat(stream))  # epochs without end
    step(module, optimizer, next(batches))  # the first one of a process is slow
    speeds: dict[str, list[float]] = {"loader": [], "step": []}
    for _ in range(options.rounds):
        start = time.perf_counter()
        loaded = list(islice(batches, options.batches))
        between = time.perf_counter()
        step(module, optimizer, loaded[-1])
        end = time.perf_counter()
        speeds["loader"].append(sum(len(batch["inputs"]) for batch in loaded) / (between - start))
        speeds["step"].append(len(loaded[-1]["inputs"]) / (end - between))
    return {name: median(values) for name, values in speeds.items()} | {"width": float(windows.lengths.mean())}


def step(module: PretrainModule, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Train on one batch, with the hooks that the runner calls."""
    optimizer.zero_grad()
    module.training_step(batch, 0).backward()
    module.on_after_backward()
    module.configure_gradient_clipping(optimizer, module.optim.clip_norm)
    optimizer.step()


if __name__ == "__main__":
    main()
