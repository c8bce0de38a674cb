"""How long `prepare` takes and how much memory it needs, on generated events: python benchmarks/prepare.py

Each size runs in a process of its own, whose peak resident memory the operating system reports. Memory is bounded if
it does not grow with the number of events once the engine's limit is reached.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peterrec.data.synthetic import write_synthetic_events

CHILD = """
import sys, peterrec
config = peterrec.PrepareConfig(
    events=peterrec.EventsConfig(paths=(sys.argv[1],)), memory_limit=sys.argv[3], threads=int(sys.argv[4])
)
peterrec.prepare(config, sys.argv[2], report=print)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[5_000_000, 10_000_000, 20_000_000, 40_000_000])
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--memory-limit", default="1GB", help="of the engine")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, seed {options.seed}")
    print(f"memory limit of the engine: {options.memory_limit}, {options.threads} threads\n")
    print("| events | users kept | seconds | events/s | peak memory (MiB) | corpus on disk (MiB) |")
    print("|---|---|---|---|---|---|")
    for events in options.events:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), events, options)
        print(
            f"| {events:,} | {found['users']:,} | {found['seconds']:.1f} | {events / found['seconds']:,.0f} "
            f"| {found['peak']:.0f} | {found['disk']:.0f} |",
            flush=True,
        )


def measure(folder: Path, events: int, options: argparse.Namespace) -> dict[str, Any]:
    """Prepare generated events in a child process; memory in MiB."""
    log = write_synthetic_events(folder / "log.parquet", events=events, items=options.items, seed=options.seed)
    corpus = folder / "corpus"
    command = [sys.executable, "-c", CHILD, str(log), str(corpus), options.memory_limit, str(options.threads)]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"prepare failed on {events:,} events")
    manifest = json.loads((corpus / "manifest.json").read_text())
    disk = sum(file.stat().st_size for file in corpus.rglob("*") if file.is_file())
    return {"users": manifest["users"], "seconds": seconds, "peak": usage.ru_maxrss / 1024, "disk": disk / 2**20}


if __name__ == "__main__":
    main()
