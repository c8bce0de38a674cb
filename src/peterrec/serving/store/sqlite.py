"""Events in one SQLite file."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peterrec.data.catalogue import ItemId
from peterrec.data.hashing import id_hash
from peterrec.errors import StoreError
from peterrec.serving.store.base import Erased, Erasures, Event, Read
from peterrec.serving.store.sqlite_file import SqliteFile
from peterrec.serving.store.sqlite_tables import DROPPED, EVENTS, OPT_OUTS, SHARDS, UPGRADES, USERS, create_tables
from peterrec.serving.store.values import (
    checked_events,
    checked_text,
    event_ties,
    max_events,
    new_revision,
    pack_features,
    try_finish,
    with_timestamps,
)

HALF = 1 << 63
INTEGERS = range(-HALF, HALF)


@dataclass
class _User:
    """A row of a users table."""

    number: int
    revision: str
    count: int
    arrived: int
    newest: float
    newest_tie: int
    dropped: float | None


@dataclass(eq=False)
class _Call:
    """One call of `append`: its events, and which of them were new once they are stored."""

    events: list[Event]
    now: float
    new: list[bool] = field(default_factory=list)
    stored: bool = False


class SqliteStore:
    """An `EventStore` in one file: for one service, or several on one machine.

    Args:
        path: of the file, in a folder that is there; made if need be.
        keep_events: newest events that are kept of a user; more are dropped when there are a quarter too many.
        timeout: seconds to wait for another writer.

    Raises:
        StoreError: the file cannot be opened, or is something else.
        FormatVersionError: another release made it.
    """

    def __init__(self, path: Path, keep_events: int, *, timeout: float = 5.0) -> None:
        self._keep_events = keep_events
        self._file = SqliteFile(path, timeout, create_tables, UPGRADES)
        self.finish_erasures()
        self._waiting: deque[_Call] = deque()

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Store events, all of them or none; see `EventStore`."""
        if not events:
            return []
        call = _Call(checked_events(events), time.time())
        self._waiting.append(call)
        try:
            with self._file.exclusive() as connection:
                if not call.stored:
                    self._commit_waiting(connection, call)
        except StoreError:  # perhaps only this thread waited too long, and another one stored its events
            if not call.stored:
                raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(call)
        return call.new

    def _commit_waiting(self, connection: sqlite3.Connection, own_call: _Call) -> None:
        """Insert the events of all waiting calls in one transaction (group commit).

        If it fails, each other call is tried again by its own thread.
        """
        with self._file.transaction(connection):
            calls: list[_Call] = []
            with contextlib.suppress(IndexError):  # a thread that waited too long may remove its call meanwhile
                while True:
                    calls.append(self._waiting.popleft())
            if own_call not in calls:  # another thread had taken it, and failed
                calls.append(own_call)
            for call in calls:
                call.new = self._insert(connection, call)
        for call in calls:
            call.stored = True

    def _insert(self, connection: sqlite3.Connection, call: _Call) -> list[bool]:
        by_user: dict[str, list[int]] = {}
        for place, event in enumerate(call.events):
            by_user.setdefault(event.user, []).append(place)
        shards = {user: _Shard(connection, user) for user in by_user}
        rows = {user: shard.find(user) or shard.add(user) for user, shard in shards.items()}
        timed = with_timestamps(call.events, {user: row.newest for user, row in rows.items()}, call.now)
        ties = [tie - HALF for tie in event_ties(timed)]
        new = [False] * len(timed)
        for user, places in by_user.items():
            for place in places:
                new[place] = shards[user].insert(rows[user], timed[place], ties[place])
            shards[user].update(rows[user], self._keep_events)
        return new

    def read(self, user: str, revision: str = "", after: int = 0) -> Read:
        """Return a user's events; see `EventStore`."""
        checked_text(user, "user")
        with self._file.reading() as connection:
            shard = _Shard(connection, user)
            row = shard.find(user)
            opted_out = shard.opted_out(user)
            if row is None:
                return Read("", 0, [], opted_out)
            start = after if revision == row.revision and 0 <= after <= row.count else 0
            return Read(row.revision, start, shard.last(row, user, row.count - start), opted_out)

    def delete(self, user: str) -> Erased:
        """Erase a user from the file and its log; see `EventStore`."""
        checked_text(user, "user")
        with self._file.writing() as connection:
            shard = _Shard(connection, user)
            row = shard.find(user)
            if row is not None or shard.opted_out(user):
                shard.rewrite_without(user, row)
                connection.execute("INSERT INTO pending_erasures (since) VALUES (?)", (time.time(),))
                connection.execute("UPDATE counters SET erasures = erasures + 1")
        return Erased(0 if row is None else row.count, complete=try_finish(self.finish_erasures))

    def set_opt_out(self, user: str, task: str, *, opted_out: bool) -> None:
        """Keep whether a task is not to be answered about a user; see `EventStore`."""
        checked_text(user, "user")
        checked_text(task, "task")
        with self._file.writing() as connection:
            _Shard(connection, user).set_opt_out(user, task, opted_out=opted_out)

    def erasures(self) -> Erasures:
        """Return counts of all erasures; see `EventStore`."""
        with self._file.reading() as connection:
            return _erasures(connection)

    def finish_erasures(self) -> Erasures:
        """Empty the log of the file, which may hold erased events; see `EventStore`."""
        with self._file.reading() as connection:
            (last,) = connection.execute("SELECT max(number) FROM pending_erasures").fetchone()
        if last is not None and self._file.checkpoint():
            with self._file.writing() as connection:
                connection.execute("DELETE FROM pending_erasures WHERE number <= ?", (last,))
        return self.erasures()

    def revisions(self, users: Sequence[str]) -> list[str]:
        """Return the revisions of users; see `EventStore`."""
        with self._file.reading() as connection:
            rows = [_Shard(connection, user).find(user) for user in users]
        return ["" if row is None else row.revision for row in rows]

    def check(self) -> None:
        """Write to the file, without changing anything; see `EventStore`."""
        with self._file.writing() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute(f"PRAGMA user_version={version}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _erasures(connection: sqlite3.Connection) -> Erasures:
    (count,) = connection.execute("SELECT erasures FROM counters").fetchone()
    return Erasures(count, *connection.execute("SELECT count(*), min(since) FROM pending_erasures").fetchone())


class _Shard:
    """The tables that a user is in."""

    def __init__(self, connection: sqlite3.Connection, user: str) -> None:
        shard = zlib.crc32(user.encode()) % SHARDS
        self._connection = connection
        self._users, self._events, self._dropped = f"users_{shard}", f"events_{shard}", f"dropped_{shard}"
        self._opt_outs = f"opt_outs_{shard}"

    def find(self, user: str) -> _User | None:
        columns = "number, revision, count, arrived, newest, newest_tie, dropped"
        row = self._connection.execute(f"SELECT {columns} FROM {self._users} WHERE user = ?", (user,)).fetchone()
        return None if row is None else _User(*row)

    def opted_out(self, user: str) -> frozenset[str]:
        rows = self._connection.execute(f"SELECT task FROM {self._opt_outs} WHERE user = ?", (user,))
        return frozenset(task for (task,) in rows)

    def set_opt_out(self, user: str, task: str, *, opted_out: bool) -> None:
        statement = f"DELETE FROM {self._opt_outs} WHERE user = ? AND task = ?"
        if opted_out:
            statement = f"INSERT INTO {self._opt_outs} VALUES (?, ?) ON CONFLICT (user, task) DO NOTHING"
        self._connection.execute(statement, (user, task))

    def add(self, user: str) -> _User:
        row = _User(0, new_revision(), 0, 0, float("-inf"), -HALF, None)
        row.number = self._connection.execute(
            f"INSERT INTO {self._users} (user, revision, count, arrived, newest, newest_tie) VALUES (?, ?, 0, 0, ?, ?)",
            (user, row.revision, row.newest, row.newest_tie),
        ).lastrowid  # type: ignore[assignment]  # there is one after an INSERT
        return row

    def insert(self, row: _User, event: Event, tie: int) -> bool:
        """Insert an event with a timestamp if it is new; changes `row`, not yet its table."""
        assert event.timestamp is not None
        if row.dropped is not None and (event.timestamp < row.dropped or self._was_dropped(row, event)):
            return False
        item = event.item if isinstance(event.item, str) or event.item in INTEGERS else str(event.item).encode()
        features = pack_features(event.features)
        inserted = self._connection.execute(
            f"INSERT INTO {self._events} VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user, event_id) DO NOTHING",
            (row.number, event.timestamp, tie, row.arrived, event.event_id, item, event.domain, features),
        ).rowcount
        if not inserted:
            return False
        if (event.timestamp, tie) < (row.newest, row.newest_tie):
            row.revision = new_revision()
        else:
            row.newest, row.newest_tie = event.timestamp, tie
        row.arrived += 1
        row.count += 1
        return True

    def _was_dropped(self, row: _User, event: Event) -> bool:
        cursor = self._connection.execute(
            f"SELECT 1 FROM {self._dropped} WHERE user = ? AND id_hash = ?", (row.number, *_hashes([event.event_id]))
        )
        return cursor.fetchone() is not None

    def update(self, row: _User, keep: int) -> None:
        """Drop the oldest events if there are too many, and write `row`."""
        if row.count > max_events(keep):
            events_of_user = f"FROM {self._events} WHERE user = ?"
            last = self._connection.execute(
                f"SELECT timestamp, tie, arrival {events_of_user} ORDER BY timestamp, tie, arrival LIMIT 1 OFFSET ?",
                (row.number, row.count - keep - 1),
            ).fetchone()
            oldest_events = f"{events_of_user} AND (timestamp, tie, arrival) <= (?, ?, ?)"
            self._remember_dropped(row, oldest_events, last, keep)
            self._connection.execute(f"DELETE {oldest_events}", (row.number, *last))
            row.count, row.dropped, row.revision = keep, last[0], new_revision()
        self._connection.execute(
            f"UPDATE {self._users} SET revision = ?, count = ?, arrived = ?, newest = ?, newest_tie = ?, dropped = ?"
            " WHERE number = ?",
            (row.revision, row.count, row.arrived, row.newest, row.newest_tie, row.dropped, row.number),
        )

    def _remember_dropped(self, row: _User, condition: str, last: tuple[float, int, int], keep: int) -> None:
        """Keep hashes of the ids of events that are dropped, the newest `keep` of all of them."""
        rows = self._connection.execute(f"SELECT event_id, arrival {condition}", (row.number, *last)).fetchall()
        hashes = _hashes([event_id for event_id, _ in rows])
        self._connection.executemany(
            f"INSERT OR IGNORE INTO {self._dropped} VALUES (?, ?, ?)",
            [(row.number, number, arrival) for number, (_, arrival) in zip(hashes, rows, strict=True)],
        )
        self._connection.execute(
            f"DELETE FROM {self._dropped} WHERE user = ? AND id_hash NOT IN"
            f" (SELECT id_hash FROM {self._dropped} WHERE user = ? ORDER BY arrival DESC LIMIT ?)",
            (row.number, row.number, keep),
        )

    def last(self, row: _User, user: str, count: int) -> list[Event]:
        """Return the last `count` events, oldest first."""
        rows = self._connection.execute(
            f"SELECT event_id, item, timestamp, domain, features FROM {self._events} WHERE user = ?"
            " ORDER BY timestamp DESC, tie DESC, arrival DESC LIMIT ?",
            (row.number, count),
        ).fetchall()
        return [
            Event(user, event_id, _item(item), timestamp, domain, None if features is None else json.loads(features))
            for event_id, item, timestamp, domain, features in reversed(rows)
        ]

    def rewrite_without(self, user: str, row: _User | None) -> None:
        """Erase a user: the tables are written anew, and the pages of the old ones overwritten with zeros."""
        self._rewrite(OPT_OUTS, self._opt_outs, "user", user, "1, 2")
        if row is not None:
            self._rewrite(USERS, self._users, "number", row.number, "1")
            self._rewrite(EVENTS, self._events, "user", row.number, "1, 2, 3, 4")
            self._rewrite(DROPPED, self._dropped, "user", row.number, "1, 2")

    def _rewrite(self, schema: str, name: str, column: str, value: str | int, key: str) -> None:
        self._connection.execute(schema.format(name="renewed"))
        # In the order of the primary key, so that no row moves again.
        self._connection.execute(
            f"INSERT INTO renewed SELECT * FROM {name} WHERE {column} <> ? ORDER BY {key}", (value,)
        )
        self._connection.execute(f"DROP TABLE {name}")
        self._connection.execute(f"ALTER TABLE renewed RENAME TO {name}")


def _hashes(event_ids: Sequence[str]) -> list[int]:
    """Return hashes of ids as the signed integers that SQLite has."""
    return [int(number) - HALF for number in id_hash(event_ids)]


def _item(stored: str | int | bytes) -> ItemId:
    return int(stored) if isinstance(stored, bytes) else stored
