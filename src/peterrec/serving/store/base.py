"""The protocol of a store of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from peterrec.data.catalogue import ItemId
from peterrec.data.event_features import EventValues


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a user.

    Attributes:
        user: id of the user.
        event_id: one of the user's own: the same one twice is the same event.
        item: external id, kept as it came (text or integer).
        timestamp: seconds since 1970, finite. A user's events are in the order of these; equal ones in that of a hash
            of user, timestamp and item, as `prepare` has them (`data.ties`), and those of one item as they came. None
            of an event that is to be kept: now, but behind the user's newest event (`values.next_timestamp`), whatever
            the clock says.
        domain: of the item, where there are several; None: unknown.
        features: what the event says beside its item, by the columns of the prepared log; None: nothing.
    """

    user: str
    event_id: str
    item: ItemId
    timestamp: float | None
    domain: str | None = None
    features: EventValues | None = None


@dataclass(frozen=True)
class Read:
    """A user's events from some place on.

    Attributes:
        revision: changes whenever earlier events are no longer where they were: one came late, some were dropped, the
            user was erased. Empty for a user who is not stored.
        start: how many events come before the first of these.
        events: in order, oldest first.
        opted_out: names of tasks that are not to be answered about the user, who need not be stored.
    """

    revision: str
    start: int
    events: list[Event]
    opted_out: frozenset[str] = frozenset()

    @property
    def count(self) -> int:
        """Events of the user."""
        return self.start + len(self.events)


@dataclass(frozen=True)
class Erased:
    """Result of erasing a user.

    Attributes:
        events: how many there were.
        complete: whether they are gone from all files of the store too; else that is `pending`.
    """

    events: int
    complete: bool


@dataclass(frozen=True)
class Erasures:
    """All erasures of a store.

    Attributes:
        count: users that were ever erased; it changes when copies in memory must be checked.
        pending: erased users whose bytes may still be in files of the store.
        since: seconds since 1970 of the longest pending one.
    """

    count: int
    pending: int
    since: float | None


class EventStore(Protocol):
    """Events of users. All calls may come from several threads.

    Every call raises `StoreError` where the store does not answer, or is full.
    """

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Store events, all of them or none; return for each whether it is new.

        When this returns they survive a crash of the process. An event whose id its user already has is not stored
        again, whatever its other fields are: the ids of all stored events are known, and of as many of the events that
        were dropped last. Neither is an event that is older than events that were dropped for newer ones.

        Raises:
            StoreError: they could not be kept; none of them was.
            RequestError: one of them is not what `Event` says; none of them was kept.
        """

    def read(self, user: str, revision: str = "", after: int = 0) -> Read:
        """Return a user's events: those behind the first `after` if `revision` is still the user's, else all."""

    def delete(self, user: str) -> Erased:
        """Erase a user; no call returns its events or opt-outs any more when this returns.

        Until its bytes are gone from the files of the store too, the erasure is pending: the store records it, without
        the user, until `finish_erasures` succeeds.
        """

    def set_opt_out(self, user: str, task: str, *, opted_out: bool) -> None:
        """Keep whether a task is not to be answered about a user; every read from then on says so.

        Args:
            user: id, who need not be stored.
            task: name.
            opted_out: false: it may be answered again.
        """

    def erasures(self) -> Erasures:
        """Return counts of all erasures."""

    def finish_erasures(self) -> Erasures:
        """Remove erased users from the files of the store, and return the erasures that are left.

        It is called again and again while an erasure is pending.
        """

    def revisions(self, users: Sequence[str]) -> list[str]:
        """Return the revision of each user; empty for a user who is not stored."""

    def check(self) -> None:
        """Check that the store can be written; it raises `StoreError` if not."""

    def close(self) -> None:
        """Close files and connections."""
