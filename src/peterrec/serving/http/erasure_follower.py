"""Erasures of users, here and by other services of the store: no copy in memory outlives the answer to one."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from peterrec.errors import PeterRecError, StoreError
from peterrec.serving.http.errors import ApiError
from peterrec.serving.http.logs import Log
from peterrec.serving.http.thread_pool import BoundedThreadPool

if TYPE_CHECKING:
    from peterrec.serving.store.base import Erasures
    from peterrec.serving.users import Users

T = TypeVar("T")

ERASURE_SECONDS = 1.0  # between two looks at erasures: those that are pending, and those of other services
FOLLOW_SECONDS = 0.2  # between two looks at erasures of services that wait for this one
READERS_SECONDS = 0.05  # between two looks at whether they all have followed


class Caller(Protocol):
    """Runs calls that may have to wait, in threads of the service."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]:
        """Return the result of a call."""


class ErasureFollower:
    """Follows the erasures of a store while the service runs.

    Args:
        users: whose copies in memory are dropped.
        log: for faults.

    Attributes:
        pending: erased users that files of the store may still hold, when they were last looked at.
    """

    def __init__(self, users: Users, log: Log) -> None:
        self._users, self._log = users, log
        self._threads = BoundedThreadPool(1)  # nothing else keeps it busy
        self._closed = False
        self.pending = 0

    async def follow(self) -> None:
        """Continue pending erasures every second, and drop copies of users that another service erased.

        Where services wait for each other they are followed several times a second.
        """
        finished_at = -math.inf
        while not self._closed:
            finish = time.monotonic() - finished_at >= ERASURE_SECONDS
            try:
                erasures = await self._threads.run(self._finish if finish else self._look)
            except (PeterRecError, ApiError):
                pass  # it is counted, and `readyz` says so
            except Exception as error:
                self._log.failure("erasures", error)
            else:
                self.pending = erasures.pending
            finished_at = time.monotonic() if finish else finished_at
            await asyncio.sleep(ERASURE_SECONDS if self._users.readers is None else FOLLOW_SECONDS)

    def _look(self) -> Erasures:
        return self._users.follow_erasures(finish=False)

    def _finish(self) -> Erasures:
        return self._users.follow_erasures()

    async def fence(self) -> None:
        """Drop all copies of users while other services do not hear from this one: they wait for it no longer."""
        dropped = True
        while self._users.readers is not None and not self._closed:
            if self._users.may_copy:
                dropped = False
            elif not dropped:
                await asyncio.to_thread(self._users.forget_copies)
                dropped = True
                self._log.write("copies dropped", "warning", message="the store of events has not answered for a while")
            await asyncio.sleep(FOLLOW_SECONDS)

    async def wait_for_readers(self, call: Caller) -> None:
        """Wait until no other service has a copy of a user that was erased before this call."""
        readers = self._users.readers
        if readers is None:
            return
        count = (await call(self._users.store.erasures)).count
        while await call(lambda: readers.behind(count)):
            await asyncio.sleep(READERS_SECONDS)

    async def close(self) -> None:
        """Follow no longer, and tell the others."""
        self._closed = True
        await self._threads.close()
        with contextlib.suppress(StoreError):  # they wait a little longer then
            if self._users.readers is not None:
                self._users.readers.close()
