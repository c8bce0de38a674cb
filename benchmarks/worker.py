"""The worker's half of `sides.py`: jobs answered over lines of JSON on stdin and stdout.

Runs in whatever virtual environment the side has, so it imports nothing but NumPy and the standard library.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
SPECIAL = 4  # indices below the first item in peterrec; peers get the same numbers, which are items to them


@dataclass(frozen=True)
class Sizes:
    """Sizes that a job is done with. Every worker reads the same ones and heeds those that mean something to it."""

    channels: int = 64
    dilations: tuple[int, ...] = (1, 4) * 4
    kernel: int = 3
    events: int = 50
    batch: int = 256
    items: int = 20_000
    negatives: int = 2_048
    classes: int = 10
    top: int = 10
    precision: str = "fp32"
    compile: bool = False
    full_pass: bool = False  # of a representation: every position, not only those that the last one depends on
    loss: str = "full"  # of pre-training: full or sampled
    last_only: bool = False  # of pre-training: only the last item of a row is a target
    contrastive_users: int = 0  # of pre-training: told from each other beside it; 0: nobody
    table_updates: str = "auto"  # of pre-training: dense, rows, or auto
    draw: bool = False  # of pre-training: batches are drawn in the step, as a training does
    strategy: str = "patch"
    anomaly: str = "shipped"  # autograd's anomaly mode in RecBole: as it is after its import, or off

    @classmethod
    def read(cls, tree: Mapping[str, Any]) -> Sizes:
        """Build from JSON, which has no tuples."""
        unknown = set(tree) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown sizes: {', '.join(sorted(unknown))}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in tree.items()})


Job = Callable[[], object]
Jobs = Mapping[str, Callable[[Sizes], Job]]


def histories(sizes: Sizes, extra: int = 0, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return (batch, events + extra) item indices, `SPECIAL` and up: the same numbers for every side."""
    rng = np.random.default_rng(seed)
    return rng.integers(SPECIAL, SPECIAL + sizes.items, (sizes.batch, sizes.events + extra))


def tune() -> None:
    """Keep freed memory in the process if asked to: fresh pages for every large tensor cost more than some layers.

    To be called before anything large is allocated. Does nothing with another C library than glibc.
    """
    if os.environ.get("PETERREC_BENCH_TUNED") != "1":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)


def serve(jobs: Jobs) -> None:
    """Answer requests until stdin ends: one that names a job builds it, one with `go` runs it so many times."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not get between the answers
    job: Job | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "job" in request:
                job = None  # its memory goes before the next one takes any
                job = jobs[request["job"]](Sizes.read(request["sizes"]))
                answer: dict[str, Any] = {"ready": True}
            elif job is None:
                raise RuntimeError("no job was asked for yet")
            else:
                answer = {"seconds": [_timed(job) for _ in range(request["go"])]}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


def _timed(job: Job) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start
