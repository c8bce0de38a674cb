"""How long threads that wait for each other should stay awake: python benchmarks/waiting.py

A step of pre-training with `GOMP_SPINCOUNT` as `peterrec.tune_process` sets it where nothing else runs, and as it does
beside other work, in turns; first alone, then beside a process that keeps one core busy.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any

from sides import FOLDER, Side, interleave, ratio
from worker import Sizes

from peterrec.process import LONG_SPINS, SHORT_SPINS

NETWORK = Sizes(dilations=(1, 4) * 2, batch=128, loss="sampled", contrastive_users=64)
SMALL = {"d=64, 16 events": replace(NETWORK, events=16), "d=64, 50 events": replace(NETWORK, events=50)}
LARGE = {"d=256, 50 events": replace(NETWORK, events=50, channels=256)}  # would take minutes beside a busy core


def main() -> None:
    options = _options()
    print(f"| step, {os.cpu_count()} cores | beside | {SHORT_SPINS} / {LONG_SPINS} spins (10 .. 90 %) |")
    print("|---|---|---|")
    for place, neighbour, shapes in (("nothing", nullcontext, SMALL | LARGE), ("a busy core", _busy_core, SMALL)):
        for shape, sizes in shapes.items():
            with neighbour():
                compared = str(_compare(_tiny(sizes) if options.tiny else sizes, options.rounds))
            print(f"| {shape} | {place} | {compared} |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="sizes at which the numbers mean nothing")
    options = parser.parse_args()
    options.rounds = 1 if options.tiny else options.rounds
    return options


def _tiny(sizes: Sizes) -> Sizes:
    return replace(sizes, events=6, channels=16, items=50, batch=8, negatives=20, contrastive_users=4)


def _compare(sizes: Sizes, rounds: int) -> Any:
    """Return how many times as long the step takes with threads that give their core away soon."""
    with ExitStack() as stack:
        sides = [
            stack.enter_context(Side(spins, FOLDER / "ours_side.py", tuned=True, env={"GOMP_SPINCOUNT": spins}))
            for spins in (SHORT_SPINS, LONG_SPINS)
        ]
        for side in sides:
            side.start("pretrain", asdict(sizes))
        short, long = interleave(sides, rounds, repeats=5)
    return ratio(short, long)


@contextmanager
def _busy_core() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        try:
            yield
        finally:
            neighbour.kill()


if __name__ == "__main__":
    main()
