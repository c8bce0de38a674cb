"""The simplest store of events: lists in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from data.prepare.oracle import tie_of
from peterrec.errors import StoreError
from peterrec.serving.store.base import Erased, Erasures, Event, Read
from peterrec.serving.store.values import checked_events, checked_text


class Oracle:
    def __init__(self, keep: int) -> None:
        self.keep, self.lock, self.closed, self.changes = keep, threading.RLock(), False, 0
        self.users: dict[str, list[Event]] = {}
        self.revision_of: dict[str, str] = {}
        self.dropped: dict[str, float] = {}
        self.arrived: dict[str, list[str]] = {}  # ids of a user's events, as they came
        self.dropped_ids: dict[str, list[str]] = {}
        self.erased = 0
        self.opted_out: dict[str, set[str]] = {}

    def append(self, events: Sequence[Event]) -> list[bool]:
        self.check()
        with self.lock:
            newest = {user: mine[-1].timestamp for user, mine in self.users.items() if mine}
            new = []
            for event in checked_events(events):
                last = newest.get(event.user, -1e400)
                timestamp = max(time.time(), last + 1e-6) if event.timestamp is None else event.timestamp
                newest[event.user] = max(last, timestamp)
                new.append(self._insert(replace(event, timestamp=timestamp)))
            for user in {event.user for event in events}:
                mine = self.users[user]
                if len(mine) > 1.25 * self.keep:
                    self.dropped[user] = mine[-self.keep - 1].timestamp
                    newly_dropped = [*self.dropped_ids.get(user, ()), *(event.event_id for event in mine[: -self.keep])]
                    self.dropped_ids[user] = sorted(newly_dropped, key=self.arrived[user].index)[-self.keep :]
                    del mine[: -self.keep]
                    self._change(user)
            return new

    def _insert(self, event: Event) -> bool:
        if event.user not in self.users:
            self._change(event.user)
        mine = self.users.setdefault(event.user, [])
        too_old = event.timestamp < self.dropped.get(event.user, float("-inf"))
        known_ids = [*self.dropped_ids.get(event.user, ()), *(stored.event_id for stored in mine)]
        if too_old or event.event_id in known_ids:
            return False
        ids = self.arrived.setdefault(event.user, [])
        self.arrived[event.user] = [*(earlier_id for earlier_id in ids if earlier_id != event.event_id), event.event_id]
        mine.append(event)
        mine.sort(key=lambda e: (e.timestamp, tie_of(e.user, e.timestamp + 0.0, e.item)))
        if mine[-1] is not event:
            self._change(event.user)
        return True

    def _change(self, user: str) -> None:
        self.changes += 1
        self.revision_of[user] = str(self.changes)

    def read(self, user: str, revision: str = "", after: int = 0) -> Read:
        self.check()
        checked_text(user, "user")
        with self.lock:
            mine, now = self.users.get(user, []), self.revision_of.get(user, "")
            start = after if revision == now and 0 <= after <= len(mine) else 0
            return Read(now, start, mine[start:], frozenset(self.opted_out.get(user, ())))

    def delete(self, user: str) -> Erased:
        self.check()
        checked_text(user, "user")
        with self.lock:
            self.erased += user in self.users or bool(self.opted_out.get(user))
            self.opted_out.pop(user, None)
            for field in (self.revision_of, self.dropped, self.arrived, self.dropped_ids):
                field.pop(user, None)
            return Erased(len(self.users.pop(user, [])), complete=True)

    def set_opt_out(self, user: str, task: str, *, opted_out: bool) -> None:
        self.check()
        checked_text(user, "user")
        checked_text(task, "task")
        with self.lock:
            tasks = self.opted_out.setdefault(user, set())
            (tasks.add if opted_out else tasks.discard)(task)

    def erasures(self) -> Erasures:
        self.check()
        return Erasures(self.erased, 0, None)

    def finish_erasures(self) -> Erasures:
        return self.erasures()

    def revisions(self, users: Sequence[str]) -> list[str]:
        self.check()
        return [self.revision_of.get(user, "") for user in users]

    def check(self) -> None:
        if self.closed:
            raise StoreError("is closed")

    def close(self) -> None:
        self.closed = True
