"""Events in Redis, for services on several machines."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from peterrec.errors import ConfigError, FormatVersionError, StoreError
from peterrec.serving.store.base import Event, Read
from peterrec.serving.store.scripts import APPEND, DELETE, READ
from peterrec.serving.store.values import (
    checked_events,
    checked_text,
    most_events,
    new_revision,
    pack_item,
    ties_of,
    unpack_item,
)

PREFIX = "peterrec:"
VERSION = 2
ORDER_DIGITS = 32  # of a member: tie and number of arrival
REWRITE_LOG, REWRITE_SNAPSHOT = "BGREWRITEAOF", "BGSAVE SCHEDULE"


class RedisStore:
    """An `EventStore` in a Redis server (not in a Redis Cluster: one call may be about many users).

    An acknowledged event survives a crash of the server if that is set to `appendonly yes` and `appendfsync always`.
    Who is erased is gone from the server's memory at once, and from its files when it has written them anew; the store
    asks for that at once, and the server does it in the background.

    Args:
        url: `redis://user:password@host:port/number`, `rediss://` (TLS) or `unix://path?db=number`.
        keep_events: newest events that are kept of a user; more are dropped when there are a quarter too many.
        timeout: seconds to wait for a connection or an answer.

    Attributes:
        warnings: settings of the server by which it may lose acknowledged events.

    Raises:
        ConfigError: not such an address.
        StoreError: no answer from there.
        FormatVersionError: another release has written there.
    """

    def __init__(self, url: str, keep_events: int, *, timeout: float = 5.0) -> None:
        self._keep = keep_events
        self._closed = False
        self._due: set[str] = set()  # commands by which the server's files lose who was erased
        try:
            self._client = redis.Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),  # an append that was sent twice would not say any more what is new
            )
            known = self._client.connection_pool.connection_kwargs
            self._where = known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}"
            self._client.connection_pool.make_connection()  # options that there are not show here
        except (ValueError, TypeError) as error:  # the message does not repeat the address: it may hold a password
            remedy = "write redis://host:port/number, rediss://... or unix://path"
            raise ConfigError(f"the address of the Redis store is not valid ({error})", remedy=remedy) from None
        self._append, self._read, self._delete = map(self._client.register_script, (APPEND, READ, DELETE))
        with self._errors():
            self._check_version()
            self.warnings = self._what_may_be_lost()

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Keep events, all of them or none; see `EventStore`."""
        if not events:
            return []
        numbers: dict[str, int] = {}
        arguments: list[str | int] = [new_revision(), self._keep, most_events(self._keep)]
        checked = checked_events(events)
        for event, tie in zip(checked, ties_of(checked), strict=True):
            number = numbers.setdefault(event.user, len(numbers) + 1)
            value = json.dumps([event.event_id, pack_item(event.item), event.domain], ensure_ascii=False)
            arguments += [number, repr(event.timestamp), f"{tie:016x}", event.event_id, value]
        with self._errors():
            new = self._append(keys=[key for user in numbers for key in _keys(user)], args=arguments)
        return [bool(each) for each in new]

    def read(self, user: str, revision: str = "", after: int = 0) -> Read:
        """Return a user's events; see `EventStore`."""
        checked_text(user, "user")
        with self._errors():
            found, start, rows = self._read(keys=_keys(user), args=[revision, after])
        events = [_event(user, *row) for row in zip(rows[::2], rows[1::2], strict=True)]
        return Read(found.decode(), int(start), events)

    def delete(self, user: str) -> int:
        """Erase all that is known of a user; see `EventStore` and above about the server's files."""
        checked_text(user, "user")
        with self._errors():
            count = int(self._delete(keys=_keys(user)))
            if self._client.info("persistence").get("aof_enabled"):
                self._due.add(REWRITE_LOG)
            if self._setting("save"):
                self._due.add(REWRITE_SNAPSHOT)
            self._rewrite_files()
        return count

    def check(self) -> None:
        """Write to the server; see `EventStore`."""
        with self._errors():
            self._client.set(f"{PREFIX}checked", 1)
            self._rewrite_files()

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self._client.close()
        self._client.connection_pool.disconnect()

    # ------------------------------------------------------------ the server

    def _rewrite_files(self) -> None:
        """Ask for what is due; the server refuses while it is at the same, which may have begun too early for us."""
        for command in list(self._due):
            with contextlib.suppress(redis.ResponseError):
                self._client.execute_command(*command.split())  # type: ignore[no-untyped-call]
                self._due.discard(command)

    def _check_version(self) -> None:
        key = f"{PREFIX}version"
        self._client.set(key, VERSION, nx=True)
        version = int(self._client.get(key) or VERSION)
        if version != VERSION:
            raise FormatVersionError(
                f"has format version {version}; this release reads version {VERSION}",
                remedy="use the release that wrote it, or another database number, and send the events again",
                path=self._where,
            )

    def _setting(self, name: str) -> str | None:
        """Return a setting of the server; None if it may not be asked."""
        try:
            found: Any = self._client.config_get(name)
        except redis.ResponseError:
            return None
        texts = {_text(key): _text(value) for key, value in found.items()}
        return texts.get(name)

    def _what_may_be_lost(self) -> list[str]:
        log, sync = self._setting("appendonly"), self._setting("appendfsync")
        memory, policy = self._setting("maxmemory"), self._setting("maxmemory-policy") or "noeviction"
        found = []
        if log is None:
            found.append("Redis does not tell whether it keeps a log: see that appendonly is yes, appendfsync always")
        elif log != "yes":
            found.append("Redis keeps no log (appendonly no): a crash of it loses acknowledged events")
        elif sync != "always":
            found.append(f"Redis writes its log late (appendfsync {sync}): a crash of it loses the last events")
        if memory not in (None, "0") and policy.startswith("allkeys"):
            found.append(f"Redis drops keys when its memory is full (maxmemory-policy {policy}): set it to noeviction")
        return found

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        if self._closed:
            raise StoreError("is closed", remedy="open the store again", path=self._where)
        try:
            yield
        except redis.AuthenticationError as error:
            raise self._error("refuses the user or the password", "correct them in its address", error) from error
        except redis.OutOfMemoryError as error:
            raise self._error("has no memory left", "give it more, or erase users", error) from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise self._error("does not answer", "see that the server runs and can be reached", error) from error
        except redis.RedisError as error:
            raise self._error("refused", "see the server's log and settings", error) from error

    def _error(self, what: str, remedy: str, error: Exception) -> StoreError:
        return StoreError(f"the Redis server {what} ({error})", remedy=remedy, path=self._where)


def _keys(user: str) -> list[str]:
    return [f"{PREFIX}{kind}:{user}" for kind in ("user", "ids", "events")]


def _event(user: str, member: bytes, score: bytes) -> Event:
    event_id, packed, domain = json.loads(member[ORDER_DIGITS:])
    return Event(user, event_id, unpack_item(packed), float(score), domain)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
