"""What a store of events promises, in the fewest words: lists in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from data.prepare.oracle import tie_of
from peterrec.errors import StoreError
from peterrec.serving.store.base import Event, Read
from peterrec.serving.store.values import checked_events, checked_text


class Oracle:
    def __init__(self, keep: int) -> None:
        self.keep, self.lock, self.closed, self.changes = keep, threading.RLock(), False, 0
        self.users: dict[str, list[Event]] = {}
        self.revisions: dict[str, str] = {}
        self.dropped: dict[str, float] = {}

    def append(self, events: Sequence[Event]) -> list[bool]:
        self.check()
        with self.lock:
            new = [self._insert(event) for event in checked_events(events)]
            for user in {event.user for event in events}:
                mine = self.users[user]
                if len(mine) > 1.25 * self.keep:
                    self.dropped[user] = mine[-self.keep - 1].timestamp
                    del mine[: -self.keep]
                    self._change(user)
            return new

    def _insert(self, event: Event) -> bool:
        if event.user not in self.users:
            self._change(event.user)
        mine = self.users.setdefault(event.user, [])
        too_old = event.timestamp < self.dropped.get(event.user, float("-inf"))
        if too_old or event.event_id in [other.event_id for other in mine]:
            return False
        mine.append(event)
        mine.sort(key=lambda e: (e.timestamp, tie_of(e.user, e.timestamp + 0.0, e.item)))
        if mine[-1] is not event:
            self._change(event.user)
        return True

    def _change(self, user: str) -> None:
        self.changes += 1
        self.revisions[user] = str(self.changes)

    def read(self, user: str, revision: str = "", after: int = 0) -> Read:
        self.check()
        checked_text(user, "user")
        with self.lock:
            mine, now = self.users.get(user, []), self.revisions.get(user, "")
            start = after if revision == now and 0 <= after <= len(mine) else 0
            return Read(now, start, mine[start:])

    def delete(self, user: str) -> int:
        self.check()
        checked_text(user, "user")
        with self.lock:
            self.revisions.pop(user, None)
            self.dropped.pop(user, None)
            return len(self.users.pop(user, []))

    def check(self) -> None:
        if self.closed:
            raise StoreError("is closed")

    def close(self) -> None:
        self.closed = True
