"""Events in Redis, for services on several machines."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

import redis

from peterrec.errors import FormatVersionError, StoreError
from peterrec.serving.store.base import Erased, Erasures, Event, Read
from peterrec.serving.store.redis_client import RedisClient
from peterrec.serving.store.scripts import APPEND, DELETE, READ, RECORD
from peterrec.serving.store.values import (
    checked_events,
    checked_text,
    event_ties,
    max_events,
    new_revision,
    pack_item,
    try_finish,
    unpack_item,
    with_timestamps,
)

PREFIX = "peterrec:"
VERSION = 4
UPGRADABLE_VERSIONS = (2, 3)  # versions that lack only keys which this version makes when it needs them
COUNT, PENDING, REWRITE = f"{PREFIX}erasures", f"{PREFIX}pending-erasures", f"{PREFIX}rewrite"
MIN_VERSION = 7  # of Redis that erasures need: earlier ones do not have the counters that FILES names
ATTEMPTS = 100  # at an append, while others change the same users
ORDER_DIGITS = 32  # of a member: tie and number of arrival
# How the server's files are rewritten: command; counter, status and progress flags in `INFO persistence`.
FILES = {
    "log": (
        "BGREWRITEAOF",
        "aof_rewrites",
        "aof_last_bgrewrite_status",
        ("aof_rewrite_in_progress", "aof_rewrite_scheduled"),
    ),
    "snapshot": ("BGSAVE SCHEDULE", "rdb_saves", "rdb_last_bgsave_status", ("rdb_bgsave_in_progress",)),
}


class RedisStore:
    """An `EventStore` in a Redis server (not in a Redis Cluster: one call may be about many users).

    An acknowledged event survives a crash of the server if that is set to `appendonly yes` and `appendfsync always`.
    An erased user is gone from the server's memory at once, and from its files when it has rewritten them. The store
    requests that at once, and the server does it in the background. Pending erasures are recorded in the server until
    the rewrite was seen to be done, so that no restart forgets them.

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
        self._keep_events = keep_events
        self._server = RedisClient(url, timeout)
        self._client, self._address, self._errors = self._server.redis, self._server.address, self._server.errors
        scripts = map(self._client.register_script, (APPEND, READ, DELETE, RECORD))
        self._append, self._read, self._delete, self._record = scripts
        with self._errors():
            self._check_version()
            self.warnings = self._durability_warnings()

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Store events, all of them or none; see `EventStore`."""
        if not events:
            return []
        checked, now = checked_events(events), time.time()
        for _ in range(ATTEMPTS):
            new = self._try_append(checked, now)
            if new is not None:
                return new
        raise StoreError("is busy with other writes about the same users", remedy="try again", path=self._address)

    def _try_append(self, events: Sequence[Event], now: float) -> list[bool] | None:
        """Store events; None: another client changed a user meanwhile, whose newest event determines a timestamp."""
        numbers = {user: number for number, user in enumerate(dict.fromkeys(event.user for event in events), 1)}
        untimed = list(dict.fromkeys(event.user for event in events if event.timestamp is None))
        with self._errors():
            newest = dict(zip(untimed, self._newest(untimed), strict=True))
        newest_times = {user: float(newest.get(user) or "-inf") for user in numbers}
        timed = with_timestamps(events, newest_times, now)
        arguments: list[str | int] = [new_revision(), self._keep_events, max_events(self._keep_events)]
        arguments += [newest.get(user, "any") for user in numbers]
        for event, tie in zip(timed, event_ties(timed), strict=True):
            features = [] if event.features is None else [event.features]
            value = json.dumps([event.event_id, pack_item(event.item), event.domain, *features], ensure_ascii=False)
            arguments += [numbers[event.user], repr(event.timestamp), f"{tie:016x}", event.event_id, value]
        with self._errors():
            new = self._append(keys=[key for user in numbers for key in _keys(user)], args=arguments)
        return [bool(flag) for flag in new] if new else None

    def _newest(self, users: Sequence[str]) -> list[str]:
        """Return the timestamp of each user's last event, as the server has it; empty for a user without events."""
        with self._client.pipeline(transaction=False) as pipeline:
            for user in users:
                pipeline.hget(_keys(user)[0], "newest")
            return [_text(value or b"") for value in pipeline.execute()] if users else []

    def read(self, user: str, revision: str = "", after: int = 0) -> Read:
        """Return a user's events; see `EventStore`."""
        checked_text(user, "user")
        with self._errors(), self._client.pipeline(transaction=False) as pipeline:
            self._read(keys=_keys(user), args=[revision, after], client=pipeline)
            pipeline.smembers(_opt_outs_key(user))
            (current_revision, start, rows), tasks = pipeline.execute()
        events = [_event(user, *row) for row in zip(rows[::2], rows[1::2], strict=True)]
        return Read(current_revision.decode(), int(start), events, frozenset(map(_text, tasks)))

    def delete(self, user: str) -> Erased:
        """Erase a user; see `EventStore`, and above about the server's files."""
        checked_text(user, "user")
        with self._errors():
            keys, number = [*_keys(user), COUNT, PENDING, _opt_outs_key(user)], secrets.token_hex(8)
            count = int(self._delete(keys=keys, args=[number, repr(time.time())]))
        return Erased(count, complete=try_finish(self.finish_erasures))

    def set_opt_out(self, user: str, task: str, *, opted_out: bool) -> None:
        """Keep whether a task is not to be answered about a user; see `EventStore`."""
        checked_text(user, "user")
        checked_text(task, "task")
        with self._errors():
            (self._client.sadd if opted_out else self._client.srem)(_opt_outs_key(user), task)

    def erasures(self) -> Erasures:
        """Return counts of all erasures; see `EventStore`."""
        with self._errors():
            count, pending = self._client.get(COUNT), self._client.hvals(PENDING)
        return Erasures(int(count or 0), len(pending), min(map(float, pending), default=None))

    def finish_erasures(self) -> Erasures:
        """Have the server rewrite its files, and check that it did; see `EventStore`."""
        with self._errors():
            pending = [_text(number) for number in self._client.hkeys(PENDING)]  # before the state of the server
            if pending:
                self._rewrite_files(pending)
        return self.erasures()

    def revisions(self, users: Sequence[str]) -> list[str]:
        """Return the revision of each user; see `EventStore`."""
        with self._errors(), self._client.pipeline(transaction=False) as pipeline:
            for user in users:
                pipeline.hget(_keys(user)[0], "revision")
            return [_text(value or b"") for value in pipeline.execute()] if users else []

    def check(self) -> None:
        """Write to the server; see `EventStore`."""
        with self._errors():
            self._client.set(f"{PREFIX}checked", 1)

    def close(self) -> None:
        """Close all connections."""
        self._server.close()

    # ------------------------------------------------------------ the server

    def _rewrite_files(self, pending: list[str]) -> None:
        """Take the next step of rewriting the server's files, one kind after the other.

        The state of the rewrite is stored in the server, with the id of its run and its count of files written: a file
        whose writing began after an erasure has nothing of the user, and a server that ended has finished none.
        """
        info = self._client.info("persistence") | self._client.info("server")
        if any(int(info.get(flag, 0)) for *_, flags in FILES.values() for flag in flags):
            return  # a rewrite is in progress, perhaps one that began too early
        rewrite: dict[str, Any] = json.loads(self._client.get(REWRITE) or b"{}")
        if rewrite.get("run") != info["run_id"]:
            rewrite = {"run": info["run_id"], "erasures": pending, "done": []}
        elif self._rewrite_succeeded(rewrite["kind"], rewrite["count"], info):
            rewrite["done"].append(rewrite["kind"])
        else:  # it failed, or was never requested; a server whose snapshot failed would not write another record
            self._request_rewrite(rewrite["kind"])
            return
        todo = [kind for kind in FILES if kind not in rewrite["done"] and self._has_files(kind, info)]
        if not todo:
            self._client.hdel(PENDING, *rewrite["erasures"])
            self._client.delete(REWRITE)
            return
        rewrite |= {"kind": todo[0], "count": int(info.get(FILES[todo[0]][1], 0))}
        self._record(keys=[REWRITE], args=[json.dumps(rewrite)])
        self._request_rewrite(todo[0])

    def _request_rewrite(self, kind: str) -> None:
        with contextlib.suppress(redis.ResponseError):  # it cannot now: the next call requests it again
            self._client.execute_command(*FILES[kind][0].split())  # type: ignore[no-untyped-call]

    def _has_files(self, kind: str, info: dict[str, Any]) -> bool:
        """Return whether the server has files of a kind; also a snapshot that it loaded, or that was made by hand."""
        if kind == "log":
            return bool(info.get("aof_enabled"))
        snapshots = int(info.get("rdb_saves", 0)) + int(info.get("rdb_last_load_keys_loaded", 0))
        return snapshots > 0 or self._setting("save") != ""  # None: it may not be asked

    def _rewrite_succeeded(self, kind: str, count: int, info: dict[str, Any]) -> bool:
        """Return whether a file was rewritten since the server had counted `count` of them."""
        _, counter, status, _ = FILES[kind]
        return info.get(status) == "ok" and int(info.get(counter, 0)) > count

    def _check_version(self) -> None:
        key = f"{PREFIX}version"
        self._client.set(key, VERSION, nx=True)
        version = int(self._client.get(key) or VERSION)
        if version in UPGRADABLE_VERSIONS:
            self._client.set(key, VERSION)
        elif version != VERSION:
            raise FormatVersionError(
                f"has format version {version}; this release reads version {VERSION}",
                remedy="use the release that wrote it, or another database number, and send the events again",
                path=self._address,
            )

    def _setting(self, name: str) -> str | None:
        """Return a setting of the server; None if it may not be asked."""
        try:
            settings: Any = self._client.config_get(name)
        except redis.ResponseError:
            return None
        texts = {_text(key): _text(value) for key, value in settings.items()}
        return texts.get(name)

    def _durability_warnings(self) -> list[str]:
        log, sync = self._setting("appendonly"), self._setting("appendfsync")
        memory, policy = self._setting("maxmemory"), self._setting("maxmemory-policy") or "noeviction"
        warnings = []
        if log is None:
            warnings.append(
                "Redis does not tell whether it keeps a log: see that appendonly is yes, appendfsync always"
            )
        elif log != "yes":
            warnings.append("Redis keeps no log (appendonly no): a crash of it loses acknowledged events and erasures")
        elif sync != "always":
            warnings.append(
                f"Redis writes its log late (appendfsync {sync}): a crash loses the last events and erasures"
            )
        if memory not in (None, "0") and policy.startswith("allkeys"):
            warnings.append(
                f"Redis drops keys when its memory is full (maxmemory-policy {policy}): set it to noeviction"
            )
        if int(str(self._client.info("server")["redis_version"]).split(".")[0]) < MIN_VERSION:
            warnings.append(
                f"Redis before {MIN_VERSION} does not tell when its files were written anew: erasures stay pending"
            )
        return warnings


def _keys(user: str) -> list[str]:
    return [f"{PREFIX}{kind}:{user}" for kind in ("user", "ids", "events", "dropped")]


def _opt_outs_key(user: str) -> str:
    return f"{PREFIX}opt-outs:{user}"


def _event(user: str, member: bytes, score: bytes) -> Event:
    event_id, packed, domain, *features = json.loads(member[ORDER_DIGITS:])
    return Event(user, event_id, unpack_item(packed), float(score), domain, *features)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
