"""Throughput and latency of the service at increasing rates, and where it bends: python benchmarks/serve_load.py

Starts `peterrec serve` on a loopback address with a backbone and bundles of random weights (which cost the same as
others) and asks it over HTTP at a rate for some seconds, then at the next. Requests leave when they are due, whether or
not the ones before are answered, and latency counts from when a request was due: a service that cannot keep up is seen
as slow, not as idle. The knee is the highest rate that was answered in full (99 % of it), without an error, with a p99
of 100 ms or less.

The clients share the two cores with the service. Nothing but loopback addresses is ever asked, for a bounded time.
CPU ms is what the service spent on the processors for each request that was answered, in all its threads and workers:
of all columns the one that means something while others use the machine too.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import quantiles

import numpy as np
import pyarrow as pa
import torch

ITEMS, EVENTS, USERS, TASKS = 20_000, 50, 2_000, 10
SLOW_MS = 100.0
KINDS = ("predict", "user", "events", "mixed")


@dataclass
class Observations:
    """Answers and errors at one rate."""

    milliseconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = float("nan")  # of the service, while they were asked


def main() -> None:
    options = _options()
    hardware = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    print(
        f"{date.today().isoformat()}, {hardware}; {TASKS} tasks, d=64, 8 blocks, histories of {EVENTS} events, seed 0, "
        f"workers: {options.workers}"
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), options) as (port, process):
        asyncio.run(fill(port))
        for kind in options.kinds:
            print(f"\n{kind}\n\n| rate asked (1/s) | answered (1/s) | p50 ms | p95 ms | p99 ms | CPU ms | errors |")
            print("|---|---|---|---|---|---|---|", flush=True)
            knee = 0.0
            for rate in options.rates:
                before = cpu_seconds(process)
                observed = asyncio.run(load(port, kind, rate, options.seconds, options.connections))
                observed.cpu_seconds = cpu_seconds(process) - before
                row = summary(kind, rate, observed, options.seconds)
                rows.append(row)
                print("| " + " | ".join(row["cells"]) + " |", flush=True)
                knee = max(knee, rate if row["kept"] else 0.0)
            print(f"\nthe knee: {f'{knee:,.0f} requests a second' if knee else 'below the lowest rate'}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rates", nargs="*", type=float, default=[100, 200, 400, 600, 800, 1000, 1300])
    parser.add_argument("--seconds", type=float, default=5.0, help="at each rate, at most 60")
    parser.add_argument("--connections", type=int, default=256, help="at most 1000")
    parser.add_argument("--workers", type=int, default=1, help="processes of the service")
    parser.add_argument("--tiny", action="store_true", help="sizes at which the numbers mean nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/speed/serve_load.json"))
    options = parser.parse_args()
    if options.tiny:
        options.rates, options.seconds = [20.0], 1.0
    options.seconds, options.connections = min(options.seconds, 60.0), min(options.connections, 1000)
    return options


# ---------------------------------------------------------------- the service


@contextmanager
def service(folder: Path, options: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """Start the service and yield its port and the id of its process; it is stopped by SIGTERM at the end."""
    arguments = write_artifacts(folder, small=options.tiny)
    command = [sys.executable, "-m", "peterrec", "serve", *arguments, "--port", "0", "--state", str(folder / "state")]
    command += ["--workers", str(options.workers)] if options.workers > 1 else []
    log = folder / "log"
    with log.open("w") as sink:
        process = subprocess.Popen(command, stderr=sink, stdout=sink)
    try:
        yield port_of(log, process), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def port_of(log: Path, process: subprocess.Popen[bytes]) -> int:
    for _ in range(600):
        text = log.read_text()
        if match := re.search(r"http://127\.0\.0\.1:(\d+)", text):
            return int(match[1])
        if process.poll() is not None:
            raise SystemExit(text)
        time.sleep(0.1)
    raise SystemExit("the service did not start in a minute")


def cpu_seconds(process: int) -> float:
    """Return the CPU time so far of a process and its workers, all threads; nan where the system has no /proc."""
    folder = Path(f"/proc/{process}")
    try:
        user, system = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
        workers = (folder / "task" / str(process) / "children").read_text(encoding="utf-8").split()
    except OSError:
        return float("nan")
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") + sum(cpu_seconds(int(worker)) for worker in workers)


def write_artifacts(folder: Path, *, small: bool) -> list[str]:
    from peterrec.artifacts.backbone_io import PretrainedBackbone, save_backbone
    from peterrec.artifacts.bundle_io import Bundle, save_bundle
    from peterrec.config import BackboneConfig, PatchConfig
    from peterrec.data.catalogue import Catalogue
    from peterrec.nn.backbone import Backbone
    from peterrec.nn.heads import ClassificationHead
    from peterrec.nn.next_item import NextItemModel
    from peterrec.nn.patch import Patch

    channels = 16 if small else 64
    config = BackboneConfig(channels=channels, dilations=(1, 4) * 4)
    catalogue = Catalogue(pa.array([f"item-{i}" for i in range(ITEMS)]), np.arange(ITEMS, 0, -1))
    network = NextItemModel(Backbone(config, ITEMS, seed=0), seed=0)
    pretrained = PretrainedBackbone(network, catalogue, 2 * EVENTS, "skip", {"users": 0, "metrics": {}})
    save_backbone(folder / "backbone", pretrained)
    arguments = [str(folder / "backbone")]
    for task in range(TASKS):
        generator = torch.Generator().manual_seed(task)
        patch = Patch(PatchConfig(bottleneck=channels // 8, init="random"), config, generator)
        head = ClassificationHead(channels, 3, generator)
        bundle = Bundle(
            f"task-{task}", "classification", "patch", patch, patch.config, head, ("a", "b", "c"), None, 2 * EVENTS,
            pretrained.fingerprint, catalogue.fingerprint, 1, {}, metrics={"valid": {}},
        )  # fmt: skip
        save_bundle(folder / f"task-{task}", bundle)
        arguments += ["--bundle", f"task-{task}={folder / f'task-{task}'}"]
    return arguments


# ---------------------------------------------------------------- the clients


async def fill(port: int) -> None:
    """Give the stored users their events."""
    rng = random.Random(0)
    client = Client(port, 1)
    for first in range(0, USERS, 20):
        events = [
            {"id": f"e{i}", "user": f"user-{user}", "item": f"item-{rng.randrange(ITEMS)}"}
            for user in range(first, first + 20)
            for i in range(EVENTS)
        ]
        status, _ = await client.ask("POST", "/v1/events", {"events": events})
        assert status == 200, status
    await client.close()


async def load(port: int, kind: str, rate: float, seconds: float, connections: int) -> Observations:
    """Ask at a rate for some seconds."""
    gc.collect()
    gc.freeze()  # the client's own pauses are not the service's
    rng, observed, client = random.Random(1), Observations(), Client(port, connections)
    start, tasks = time.perf_counter() + 0.1, []
    for i in range(round(rate * seconds)):
        due = start + i / rate
        if (ahead := due - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        tasks.append(asyncio.create_task(send_request(client, kind, rng, due, observed)))
    await asyncio.wait(tasks, timeout=30)
    await client.close()
    return observed


async def send_request(client: Client, kind: str, rng: random.Random, due: float, observed: Observations) -> None:
    if kind == "mixed":
        kind = rng.choice(["predict", "user", "events"])
    tasks = [f"task-{rng.randrange(TASKS)}"]
    user = f"user-{rng.randrange(USERS)}"
    if kind == "predict":
        items = [f"item-{rng.randrange(ITEMS)}" for _ in range(EVENTS)]
        call = client.ask("POST", "/v1/predict", {"requests": [{"items": items, "tasks": tasks}]})
    elif kind == "user":
        call = client.ask("POST", f"/v1/users/{user}/predict", {"tasks": tasks})
    else:
        event = {"id": f"{rng.getrandbits(64):x}", "user": user, "item": f"item-{rng.randrange(ITEMS)}"}
        call = client.ask("POST", "/v1/events", {"events": [event]})
    try:
        status, _ = await call
        observed.statuses[str(status)] += 1
        if status == 200:
            observed.milliseconds.append(1e3 * (time.perf_counter() - due))
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        observed.statuses[type(error).__name__] += 1


class Client:
    """Keeps connections to a loopback port open and asks over whichever is free; plain HTTP/1.1, no library's cost."""

    def __init__(self, port: int, connections: int) -> None:
        self.port = port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.allowed = asyncio.Semaphore(connections)

    async def ask(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        data = json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        async with self.allowed:
            reader, writer = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            answer = await reader.readexactly(int(headers.get("content-length", "0")))
            if headers.get("connection") == "close":
                writer.close()
            else:
                self.free.append((reader, writer))
            return int(first.split()[1]), answer

    async def close(self) -> None:
        for _, writer in self.free:
            writer.close()


def summary(kind: str, rate: float, observed: Observations, seconds: float) -> dict[str, object]:
    """Return the line of one rate."""
    answered = len(observed.milliseconds) / seconds
    cuts = quantiles(observed.milliseconds, n=100) if len(observed.milliseconds) > 1 else [float("nan")] * 99
    p50, p95, p99 = cuts[49], cuts[94], cuts[98]
    errors = {status: count for status, count in sorted(observed.statuses.items()) if status != "200"}
    lost = round(rate * seconds) - sum(observed.statuses.values())
    if lost:
        errors["no answer"] = lost
    error_text = ", ".join(f"{count} x {status}" for status, count in errors.items()) or "none"
    cpu_ms = 1e3 * observed.cpu_seconds / max(1, sum(observed.statuses.values()))
    latencies = [f"{milliseconds:,.1f}" for milliseconds in (p50, p95, p99)]
    cells = [f"{rate:,.0f}", f"{answered:,.0f}", *latencies, f"{cpu_ms:.2f}", error_text]
    sustained = not errors and answered >= 0.99 * rate and p99 <= SLOW_MS
    return {"kind": kind, "rate": rate, "answered": answered, "p50": p50, "p95": p95, "p99": p99,
            "cpu_ms": cpu_ms, "errors": errors, "kept": sustained, "cells": cells}  # fmt: skip


if __name__ == "__main__":
    main()
