"""Helpers of the tests of stores."""

from __future__ import annotations

from collections.abc import Callable

from peterrec.serving.store.base import Event, EventStore, Read

KEEP = 8  # events; the eleventh makes the store drop the oldest three
Open = Callable[..., EventStore]


class Clock:
    """A clock in place of `time.time`."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def events(user: str, *timestamps: float, start: int = 0) -> list[Event]:
    return [Event(user, f"e{start + i}", f"item-{start + i}", float(at)) for i, at in enumerate(timestamps)]


def ids(read: Read) -> list[str]:
    return [event.event_id for event in read.events]
