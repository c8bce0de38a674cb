"""Services that may have copies of users in memory: an erasure is acknowledged when none of them has one."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import MutableSequence
from typing import Protocol

from peterrec.serving.store.redis_client import RedisClient
from peterrec.serving.store.redis_store import PREFIX

READERS = f"{PREFIX}readers"
READER_SECONDS = 5.0  # after its last word a service has no copies, or has ended
LAPSE_SECONDS = 2.5  # after the last word that reached the server, for dropping copies: well before the others know
RENEW_SECONDS = 1.0
NO_COPIES = 2**62  # erasures that a worker has followed which has ended, or has not begun
TIMEOUT = 1.0  # of a call; shorter than what is left before the lapse

FOLLOW = """
-- KEYS: of the readers. ARGV: id of one, the erasures that it has followed, seconds for which that holds.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
redis.call('HDEL', KEYS[1], ARGV[1])  -- first, which a server whose memory is full allows
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.6f', ARGV[2], now + tonumber(ARGV[3])))
"""

BEHIND = """
-- KEYS: of the readers. ARGV: id of the one that asks, a number of erasures. Returns how many others have not
-- followed so many; those whose time is over are removed.
local time = redis.call('TIME')
local now, behind = tonumber(time[1]) + tonumber(time[2]) / 1000000, 0
local rows = redis.call('HGETALL', KEYS[1])
for place = 1, #rows, 2 do
    local followed, expiry = string.match(rows[place + 1], '^(%d+) (.+)$')
    if tonumber(expiry) < now then
        redis.call('HDEL', KEYS[1], rows[place])
    elseif rows[place] ~= ARGV[1] and tonumber(followed) < tonumber(ARGV[2]) then
        behind = behind + 1
    end
end
return behind
"""


class Readers(Protocol):
    """Services of one store that keep copies of its users in memory, and this one among them.

    Calls raise `StoreError` where the others cannot be reached.
    """

    @property
    def lapsed(self) -> bool:
        """Whether the others may take this service for one without copies: it keeps none then."""

    def follow(self, count: int) -> None:
        """Tell the others that there is no copy here of users who were erased.

        Args:
            count: erasures of the store; of the users of these there is no copy.
        """

    def behind(self, count: int) -> int:
        """Return how many other services may have copies of users who were erased.

        Args:
            count: erasures of the store, as `follow` has it.
        """

    def close(self) -> None:
        """Leave: this service has no copies any more."""


class RedisReaders:
    """`Readers` in a Redis server, beside the events: a hash of erasures followed, and until when that holds.

    Args:
        url: of the server, as `RedisStore` has it.

    Raises:
        ConfigError: not such an address.
    """

    def __init__(self, url: str) -> None:
        self._server = RedisClient(url, TIMEOUT)
        self._follow = self._server.redis.register_script(FOLLOW)
        self._behind = self._server.redis.register_script(BEHIND)
        self._identity = secrets.token_hex(8)
        self._followed, self._renewed_at = -1, -math.inf

    @property
    def lapsed(self) -> bool:
        """Whether the others may take this service for one without copies; see `Readers`."""
        return time.monotonic() - self._renewed_at > LAPSE_SECONDS

    def follow(self, count: int) -> None:
        """Tell the others that there is no copy here of users who were erased; see `Readers`."""
        call_time = time.monotonic()
        if count == self._followed and call_time - self._renewed_at < RENEW_SECONDS:
            return
        with self._server.errors():
            self._follow(keys=[READERS], args=[self._identity, count, READER_SECONDS])
        self._followed, self._renewed_at = count, call_time

    def behind(self, count: int) -> int:
        """Return how many other services may have copies of users who were erased; see `Readers`."""
        with self._server.errors():
            return int(self._behind(keys=[READERS], args=[self._identity, count]))

    def close(self) -> None:
        """Leave: this service has no copies any more; see `Readers`."""
        with self._server.errors():
            self._server.redis.hdel(READERS, self._identity)
        self._server.close()


class WorkerReaders:
    """`Readers` among the workers of one service: a number in shared memory for each, the erasures it has followed.

    The process that starts the workers writes `NO_COPIES` for one that has ended, so that nobody has to be waited for.

    Args:
        followed: of all workers.
        worker: number of this one.
    """

    def __init__(self, followed: MutableSequence[int], worker: int) -> None:
        self._followed, self._worker = followed, worker
        self._started = False

    @property
    def lapsed(self) -> bool:
        """Whether the others may take this worker for one without copies; see `Readers`."""
        return not self._started

    def follow(self, count: int) -> None:
        """Tell the others that there is no copy here of users who were erased; see `Readers`."""
        self._followed[self._worker] = count
        self._started = True

    def behind(self, count: int) -> int:
        """Return how many other workers may have copies of users who were erased; see `Readers`."""
        return sum(followed < count for worker, followed in enumerate(self._followed) if worker != self._worker)

    def close(self) -> None:
        """Leave: this worker has no copies any more; see `Readers`."""
        self._started = False
        self._followed[self._worker] = NO_COPIES
