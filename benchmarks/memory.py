"""Time and memory of large catalogues: python benchmarks/memory.py

Pre-training steps (batch of 256 users, 50 events) with 20,000 and with a million items and the same negatives: time of
a step, all in one process and in turns; and the most memory, each in a process of its own, above what the process had
needed before the network was made. Then the full softmax over 20,000 and over 200,000 items. Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

MIB = 2**20


class Steps:
    """A network in training, one step at a call."""

    def __init__(self, items: int, channels: int, batch: int, events: int, **settings: Any) -> None:
        import torch

        from peterrec.config import BackboneConfig, PretrainConfig
        from peterrec.nn.backbone import Backbone
        from peterrec.nn.losses import LogUniformSampler
        from peterrec.nn.next_item import NextItemModel
        from peterrec.training.optim import clip_gradients, make_optimizer
        from peterrec.training.pretrain_module import PretrainModule

        backbone = BackboneConfig(channels=channels, dilations=(1, 4) * 4, tie_weights=True)
        paper: dict[str, Any] = {"item_init": "random", "contrastive": {"weight": 0.0}, "dropout": 0.0}
        config = PretrainConfig(backbone=backbone, max_length=events, **paper, **settings)
        self.network = NextItemModel(Backbone(config.backbone, items))
        self.sampler = LogUniformSampler(items) if config.loss == "sampled" else None
        self.module = PretrainModule(self.network, config, self.sampler)
        self.optimizer, self.clip = make_optimizer(self.network.parameters(), config.optim), clip_gradients
        self.generator = torch.Generator().manual_seed(0)
        self.shape, self.items, self.negatives = (batch, events + 1), items, config.negatives

    def __call__(self) -> float:
        """Do one step; returns its seconds, without the making of the batch."""
        import torch

        popular = LogUniform(self.items, self.generator)
        tokens = popular(self.shape[0] * self.shape[1]).view(self.shape) + 4
        batch = {"inputs": tokens[:, :-1].contiguous(), "targets": tokens[:, 1:].contiguous()}
        if self.sampler is not None:
            batch["negatives"] = self.sampler.sample(self.negatives, self.generator)
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss: torch.Tensor = self.module.training_step(batch, 0)
        loss.backward()
        self.module.on_after_backward()
        self.clip(self.network.parameters(), 1.0)
        self.optimizer.step()
        return time.perf_counter() - start


def LogUniform(items: int, generator: Any) -> Any:  # noqa: N802 - a sampler
    """Return a function that draws items as a log does: few often, most hardly ever."""
    from peterrec.nn.losses import LogUniformSampler

    sampler = LogUniformSampler(items)
    return lambda count: sampler.sample(count, generator)


def peak() -> float:
    """Return the most memory of this process so far, in MiB."""
    # Not `ru_maxrss`: that begins with what the parent had needed.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(case: dict[str, Any], steps: int) -> float:
    """Return the MiB that a few steps need at most, in a process of their own."""
    command = [sys.executable, __file__, "--case", repr(case), "--steps", str(steps)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def one_case(case: dict[str, Any], steps: int) -> None:
    """Print the rise of the most memory; tables and their update's state are part of it."""
    Steps(**dict(case, items=50, batch=2))()  # what torch allocates once, for whatever network
    before = peak()
    step = Steps(**case)
    for _ in range(steps):
        step()
    print(peak() - before)


def in_turns(cases: list[dict[str, Any]], rounds: int) -> list[float]:
    """Return the median seconds of a step of each case."""
    steps = [Steps(**case) for case in cases]
    for step in steps:
        step()
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for times, step in zip(seconds, steps, strict=True):
            times.append(step())
    return [median(times) for times in seconds]


def compare(title: str, cases: dict[str, dict[str, Any]], rounds: int) -> None:
    """Print a table of cases; the first is what the others are compared with."""
    print(f"\n{title}\n\n| | step, relative | memory, MiB | tables, MiB | beside them, MiB |\n|---|---|---|---|---|")
    seconds = in_turns(list(cases.values()), rounds)
    for (name, case), times in zip(cases.items(), seconds, strict=True):
        peak, table = measure(case, 3), (case["items"] + 4) * case["channels"] * 4 / MIB
        print(f"| {name} | {times / seconds[0]:.2f} | {peak:.0f} | {table:.0f} | {peak - table:.0f} |", flush=True)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        import ast

        one_case(ast.literal_eval(options.case), options.steps)
        return
    few_items, many_items, more_items = (200, 2_000, 1_000) if options.tiny else (20_000, 1_000_000, 200_000)
    rounds = 1 if options.tiny else options.rounds
    batch = {"batch": 4, "events": 8} if options.tiny else {"batch": 256, "events": 50}
    for channels in (8,) if options.tiny else (64, 256):
        settings = {"channels": channels, "loss": "sampled", "table_updates": "rows", **batch}
        cases = {
            f"{few_items:,} items, touched rows": settings | {"items": few_items},
            f"{many_items:,} items, touched rows": settings | {"items": many_items},
            f"{many_items:,} items, touched rows, recomputed": settings
            | {"items": many_items, "runner": {"gradient_checkpointing": True}},
            f"{many_items:,} items, dense AdamW": settings | {"items": many_items, "table_updates": "dense"},
        }
        compare(f"Sampled softmax, 2,048 negatives, d={channels}", cases, rounds if channels < 256 else rounds // 3)
    full = {"channels": 8 if options.tiny else 64, "loss": "full", **batch}
    names = {f"{n:,} items": full | {"items": n} for n in (few_items, more_items)}
    compare(f"Full softmax, d={full['channels']}", names, max(1, rounds // 5))


if __name__ == "__main__":
    main()
