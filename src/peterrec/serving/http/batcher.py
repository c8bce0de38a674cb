"""Small jobs of many clients share one run: a bounded queue in front of one thread."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from peterrec.serving.http.errors import busy, stopping

J = TypeVar("J")
R = TypeVar("R")

MAX_RETRY_SECONDS = 60  # seconds
LAST_RUN_WEIGHT = 0.2  # weight of the last run in the measured rate


@dataclass(frozen=True)
class BatchRun:
    """Size and duration of one run, for metrics.

    Attributes:
        jobs: of how many.
        rows: of all of them.
        seconds: in the thread.
    """

    jobs: int
    rows: int
    seconds: float


@dataclass(eq=False)
class _PendingJob(Generic[J, R]):
    job: J
    rows: int
    arrived: float
    future: asyncio.Future[R]


class Batcher(Generic[J, R]):
    """Queue that collects jobs for a moment, runs them together in a thread of its own, and hands the results back.

    Args:
        run: takes the jobs of one run; returns for each its result, or the error that only this one meets. What it
            raises is told to all of them.
        max_rows: of one run; a job with more runs alone.
        max_wait: seconds that the oldest job waits for others.
        max_queue: rows that may wait. A request with more is taken when nothing waits, since it could never be else.
        observe: is told of each run.
    """

    def __init__(
        self,
        run: Callable[[list[J]], Sequence[R | Exception]],
        *,
        max_rows: int,
        max_queue: int,
        max_wait: float = 0.0,
        observe: Callable[[BatchRun], None] | None = None,
    ) -> None:
        self._run = run
        self._max_rows, self._max_queue, self._max_wait = max_rows, max_queue, max_wait
        self._observe = observe or (lambda run: None)
        self._queue: dict[int, _PendingJob[J, R]] = {}  # in order of arrival; whoever gives up is taken out at once
        self._queued = 0
        self._rate = 0.0
        self._closing = False
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1)

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._queued

    async def submit(self, jobs: Sequence[tuple[J, int]]) -> list[R]:
        """Run jobs, each given with its rows; returns when all have their results.

        Who is cancelled takes what has not started out of the queue.

        Raises:
            ApiError: too much waits (429), or the service stops (503).
            Exception: what the first of them to fail met.
        """
        self._admit(sum(rows for _, rows in jobs))
        loop = asyncio.get_running_loop()
        own_jobs = [_PendingJob[J, R](job, rows, loop.time(), loop.create_future()) for job, rows in jobs]
        for pending in own_jobs:
            self._queue[id(pending)] = pending
            self._queued += pending.rows
        if self._worker is None:
            self._worker = loop.create_task(self._serve())
        self._wake.set()
        try:
            return [await pending.future for pending in own_jobs]
        finally:
            for pending in own_jobs:
                self._remove(pending)

    def _admit(self, rows: int) -> None:
        if self._closing:
            raise stopping()
        if self._queued and self._queued + rows > self._max_queue:
            raise busy(self._retry_after())

    def _retry_after(self) -> int:
        seconds = self._queued / self._rate if self._rate else 0.0
        return min(MAX_RETRY_SECONDS, max(1, math.ceil(seconds)))

    def _remove(self, pending: _PendingJob[J, R]) -> None:
        if self._queue.pop(id(pending), None) is not None:
            self._queued -= pending.rows
        if not pending.future.cancel() and not pending.future.cancelled():
            pending.future.exception()  # retrieved, so that asyncio does not report it as lost

    async def close(self) -> None:
        """Take nothing more, finish what waits, and end the thread."""
        self._closing = True
        self._wake.set()
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    async def _serve(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._wait_for_batch()
            if batch := self._next_batch():
                await self._process(batch)

    async def _wait_for_batch(self) -> None:
        """Wait until there is enough for a run, or the oldest has waited long enough."""
        loop = asyncio.get_running_loop()
        until = next(iter(self._queue.values())).arrived + self._max_wait
        while self._queue and self._queued < self._max_rows and not self._closing:
            remaining = until - loop.time()
            if remaining <= 0:
                return
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(remaining):
                    await self._wake.wait()

    def _next_batch(self) -> list[_PendingJob[J, R]]:
        batch: list[_PendingJob[J, R]] = []
        rows = 0
        for pending in list(self._queue.values()):
            if batch and rows + pending.rows > self._max_rows:
                break
            del self._queue[id(pending)]
            self._queued -= pending.rows
            rows += pending.rows
            batch.append(pending)
        return batch

    async def _process(self, batch: list[_PendingJob[J, R]]) -> None:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        results: Sequence[R | Exception]
        try:
            results = await loop.run_in_executor(self._thread, self._run, [pending.job for pending in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} jobs had {len(results)} results")
        except asyncio.CancelledError:  # the service stops without waiting for this run
            for pending in batch:
                if not pending.future.done():
                    pending.future.set_exception(stopping())
            raise
        except Exception as error:
            results = [error] * len(batch)
        seconds = time.perf_counter() - started
        rows = sum(pending.rows for pending in batch)
        rate = rows / max(seconds, 1e-6)
        self._rate = rate if not self._rate else (1 - LAST_RUN_WEIGHT) * self._rate + LAST_RUN_WEIGHT * rate
        self._observe(BatchRun(len(batch), rows, seconds))
        for pending, result in zip(batch, results, strict=True):
            if pending.future.done():
                continue
            if isinstance(result, Exception):
                pending.future.set_exception(_raisable(result))
            else:
                pending.future.set_result(result)


def _raisable(error: Exception) -> Exception:
    """Return an error that can be raised: a future refuses StopIteration."""
    return RuntimeError("a job raised StopIteration") if isinstance(error, StopIteration) else error
