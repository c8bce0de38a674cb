"""Timing several programs in turns: each in a process of its own, only one of them at work at any moment.

A side has its own virtual environment, allocator and threads, so a library is measured as its users run it. Turns make
a slow minute of the machine slow for all alike: what is compared is the ratio.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

import numpy as np

FOLDER = Path(__file__).parent
# Threads of OpenMP spin at the end of every parallel region; with a busy neighbour on the other core they spin against
# it, and everything takes many times as long.
SPIN = {"GOMP_SPINCOUNT": "1000"}
TUNED = {"PETERREC_BENCH_TUNED": "1"}


class SideError(RuntimeError):
    """A side cannot do what it was asked."""


class Side:
    """One worker process with one job.

    Args:
        label: for tables and messages.
        script: of the worker.
        python: of its virtual environment.
        tuned: whether its allocator keeps freed memory.
        env: further variables of its environment.
    """

    def __init__(
        self,
        label: str,
        script: Path,
        python: str = sys.executable,
        *,
        tuned: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.label = label
        outer = {name: value for name, value in os.environ.items() if name not in TUNED}
        changed = SPIN | (TUNED if tuned else {}) | {"PYTHONPATH": str(FOLDER)} | dict(env or {})
        self._process = subprocess.Popen(
            [python, str(script)], env=outer | changed, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, job: str, sizes: Mapping[str, Any]) -> None:
        """Build a job in the worker.

        Raises:
            SideError: it cannot.
        """
        self._ask({"job": job, "sizes": dict(sizes)})

    def go(self, times: int) -> list[float]:
        """Run the job and return the seconds of each time.

        Raises:
            SideError: it failed.
        """
        seconds: list[float] = self._ask({"go": times})["seconds"]
        return seconds

    @property
    def alive(self) -> bool:
        """Whether the process has not ended by itself."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # it ended by itself, with something still on its way
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SideError(f"{self.label}: the worker ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideError(f"{self.label}: {answer['error']}")
        return answer


@dataclass(frozen=True)
class Times:
    """Seconds of one side in each round; rounds of different sides belong together."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return median(self.rounds)


@dataclass(frozen=True)
class Ratio:
    """How many times as long one side takes as another.

    Attributes:
        value: ratio of the medians.
        low: 10 % of the rounds' own ratios are below this,
        high: and 10 % above this.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} .. {self.high:.2f})"


def ratio(slow: Times, fast: Times, units: tuple[float, float] = (1.0, 1.0)) -> Ratio:
    """Compare two sides of one `interleave`.

    Args:
        slow: the numerator.
        fast: the denominator.
        units: how much work one run of each does, where that differs.
    """
    scale = units[1] / units[0]
    ratios = np.array(slow.rounds) / np.array(fast.rounds) * scale
    low, high = np.quantile(ratios, (0.1, 0.9))
    return Ratio(slow.median / fast.median * scale, float(low), float(high))


COLD = 2  # runs at the beginning of a turn that do not count


def interleave(sides: Sequence[Side], rounds: int, repeats: int) -> list[Times]:
    """Let sides take turns; a round of a side counts with the median of its repeats.

    Each turn begins with runs that do not count: a process that had to wait is slow at first, and what is asked is how
    fast it goes on.

    Raises:
        SideError: a job failed.
    """
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, times in zip(sides, seconds, strict=True):
            times.append(median(side.go(COLD + repeats)[COLD:]))
    return [Times(tuple(times)) for times in seconds]


def in_turns(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Let actions that can share a process take turns in this one.

    Args:
        actions: by name; each runs twice before anything is counted.
        rounds: of all actions, in their order.

    Returns:
        Seconds of each action in every round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()
        action()
    for _ in range(rounds):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - start)
    return seconds
