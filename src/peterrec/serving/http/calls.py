"""Calls that may have to wait, for a disk or another machine: in threads, bounded, and not again and again in vain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from peterrec.errors import StoreError
from peterrec.serving.http.errors import busy, stopping

T = TypeVar("T")

THREADS = 8
HANGS = 1.0  # seconds after which an error of the store means that it hangs
PAUSE = 1.0  # seconds for which nobody else waits for it then


class Calls:
    """Runs calls in some threads; they do not wait for each other, and answers do not wait for them.

    Args:
        most: calls that may wait or run at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pending = 0
        self._hangs_until = 0.0
        self._closing = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="calls")

    async def run(self, work: Callable[[], T]) -> T:
        """Run something and return its result. Who is cancelled before it started takes it out.

        Raises:
            ApiError: too much waits (429), or the service stops (503).
            StoreError: the store hung a moment ago, or what the call raised.
        """
        if self._closing:
            raise stopping()
        if self._pending >= self._most:
            raise busy(1)
        self._pending += 1
        try:
            return await asyncio.wrap_future(self._threads.submit(self._guarded, work))
        finally:
            self._pending -= 1

    def _guarded(self, work: Callable[[], T]) -> T:
        started = time.monotonic()
        if started < self._hangs_until:
            raise StoreError("does not answer in time", remedy="try again shortly")
        try:
            return work()
        except StoreError:
            if time.monotonic() - started >= HANGS:
                self._hangs_until = time.monotonic() + PAUSE
            raise

    async def close(self) -> None:
        """Take nothing more; what hangs is not waited for."""
        self._closing = True
        self._threads.shutdown(wait=False, cancel_futures=True)
