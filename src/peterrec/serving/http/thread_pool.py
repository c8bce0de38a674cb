"""Thread pool for calls that may have to wait for a disk or another machine, with a bounded queue and a breaker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from peterrec.errors import StoreError
from peterrec.serving.http.errors import busy, stopping

T = TypeVar("T")

POOL_THREADS = 8
HANG_SECONDS = 1.0  # after which an error of the store means that it hangs
OPEN_SECONDS = 1.0  # for which nobody else waits for it then


class CircuitBreaker:
    """Circuit breaker that fails calls at once for a moment after the store hung; one slow failure opens it."""

    def __init__(self) -> None:
        self._open_until = 0.0

    def call(self, work: Callable[[], T]) -> T:
        """Run something and return its result.

        Raises:
            StoreError: the breaker is open, or what the call raised.
        """
        started = time.monotonic()
        if started < self._open_until:
            raise StoreError("does not answer in time", remedy="try again shortly")
        try:
            return work()
        except StoreError:
            if time.monotonic() - started >= HANG_SECONDS:
                self._open_until = time.monotonic() + OPEN_SECONDS
            raise


class BoundedThreadPool:
    """Threads that run calls through a circuit breaker; past a bound calls are refused.

    Args:
        max_pending: calls that may wait or run at a time.
    """

    def __init__(self, max_pending: int) -> None:
        self._max_pending = max_pending
        self._pending = 0
        self._breaker = CircuitBreaker()
        self._closing = False
        self._threads = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="calls")

    async def run(self, work: Callable[[], T]) -> T:
        """Run something and return its result. A cancelled call that has not started is taken out.

        Raises:
            ApiError: too much waits (429), or the service stops (503).
            StoreError: the store hung a moment ago, or what the call raised.
        """
        if self._closing:
            raise stopping()
        if self._pending >= self._max_pending:
            raise busy(1)
        self._pending += 1
        try:
            return await asyncio.wrap_future(self._threads.submit(self._breaker.call, work))
        finally:
            self._pending -= 1

    async def close(self) -> None:
        """Take nothing more; hanging calls are not waited for."""
        self._closing = True
        self._threads.shutdown(wait=False, cancel_futures=True)
