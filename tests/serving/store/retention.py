"""The contract of every store about the events that it retains, and about their times."""

from __future__ import annotations

import time

import pytest

from peterrec.serving.store.base import Erasures, Event, EventStore
from serving.store.common import KEEP, Clock, Open, events, ids


class RetentionContract:
    """Subclasses give the fixture `open_store`: a store that keeps so many events, empty at first."""

    @pytest.fixture
    def store(self, open_store: Open) -> EventStore:
        return open_store(KEEP)

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock()
        monkeypatch.setattr(time, "time", clock)
        return clock

    # ------------------------------------------------------------ only the newest are kept

    def test_the_oldest_are_dropped_when_there_are_a_quarter_too_many(self, store: EventStore) -> None:
        store.append(events("u", *range(KEEP + 2)))
        before = store.read("u")
        assert before.count == KEEP + 2
        assert store.append(events("u", 10, start=10)) == [True]
        read = store.read("u", before.revision, before.count)
        assert read.revision != before.revision
        assert (read.start, ids(read)) == (0, [f"e{i}" for i in range(3, 11)])

    def test_many_at_once_are_dropped_too(self, store: EventStore) -> None:
        assert all(store.append(events("u", *range(100, 0, -1))))
        assert ids(store.read("u")) == [f"e{i}" for i in range(KEEP - 1, -1, -1)]

    def test_what_was_dropped_does_not_come_again(self, store: EventStore) -> None:
        store.append(events("u", *range(1, 12)))
        before = store.read("u")
        new = store.append([*events("u", *range(1, 12)), *events("u", 0.5, 2.5, 3, start=20)])
        # Another one, whose timestamp is that of the newest that was dropped, may be a new one, and is kept.
        assert new == [False] * 13 + [True]
        assert ids(store.read("u")) == ["e22", *ids(before)]

    def test_a_dropped_event_does_not_return_as_the_newest(self, store: EventStore) -> None:
        store.append(events("u", *range(KEEP + 3)))
        before = store.read("u")
        duplicates = [
            Event("u", "e0", "item-0", None),
            Event("u", "e1", "item-1", 99.0),
            Event("u", "e2", "item-2", 2.0),
        ]
        assert store.append(duplicates) == [False] * 3
        assert store.read("u") == before

    def test_ids_are_known_of_as_many_dropped_events_as_are_kept(self, store: EventStore) -> None:
        for i in range(4 * KEEP):
            assert store.append(events("u", i, start=i)) == [True]
        kept_ids = ids(store.read("u"))
        dropped = [f"e{i}" for i in range(4 * KEEP - len(kept_ids))]
        assert store.append([Event("u", event_id, "x", 1000.0) for event_id in dropped[-KEEP:]]) == [False] * KEEP
        assert store.append([Event("u", dropped[-KEEP - 1], "x", 1000.0)]) == [True]

    # ------------------------------------------------------------ time

    def test_an_event_without_a_timestamp_gets_that_of_now(self, store: EventStore, clock: Clock) -> None:
        clock.now = 5000.25
        assert store.append([Event("u", "a", "x", None), Event("v", "a", "x", None)]) == [True, True]
        for user in "uv":
            assert store.read(user).events == [Event(user, "a", "x", 5000.25)]

    def test_events_without_timestamps_are_as_they_came(self, store: EventStore, clock: Clock) -> None:
        clock.now = 1e9
        assert store.append([Event("u", f"e{i}", f"item-{7 * i % 5}", None) for i in range(4)]) == [True] * 4
        stored = store.read("u")
        assert ids(stored) == ["e0", "e1", "e2", "e3"]
        assert stored.events[-1].timestamp == pytest.approx(1e9, abs=1e-4)

    @pytest.mark.parametrize("newest", [1e9, 2e12, 1e300])
    def test_a_clock_that_is_set_back_neither_reorders_nor_drops(
        self, store: EventStore, clock: Clock, newest: float
    ) -> None:
        clock.now = newest
        store.append([Event("u", f"e{i}", "x", None) for i in range(KEEP + 3)])  # some are dropped
        for back, name in enumerate("abc"):
            clock.now = newest - 3600 * (back + 1)
            assert store.append([Event("u", name, "x", None)]) == [True]
        read = store.read("u")
        assert ids(read) == [*(f"e{i}" for i in range(6, KEEP + 3)), "a", "b", "c"]
        assert read.events[-1].timestamp == pytest.approx(newest, rel=1e-9)

    def test_an_event_that_is_sent_again_without_a_timestamp_is_the_same(self, store: EventStore, clock: Clock) -> None:
        store.append([Event("u", "a", "x", None)])
        before = store.read("u")
        clock.now += 100
        assert store.append([Event("u", "a", "x", None)]) == [False]
        assert store.read("u") == before

    # ------------------------------------------------------------ erasing

    def test_erasures_are_counted_and_come_to_an_end(self, store: EventStore) -> None:
        before = store.erasures().count
        store.append([*events("u", 1, 2), *events("v", 1)])
        for user in "uv":
            store.delete(user)
        store.delete("nobody")
        assert store.erasures().count == before + 2
        until = time.monotonic() + 20
        while store.finish_erasures().pending:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert store.erasures() == Erasures(before + 2, 0, None)

    def test_revisions_are_those_of_reading(self, store: EventStore) -> None:
        store.append([*events("u", 1), *events("v", 1)])
        assert store.revisions(["v", "nobody", "u"]) == [store.read("v").revision, "", store.read("u").revision]
        assert store.revisions([]) == []

    def test_a_stream_of_equal_timestamps_goes_on_after_dropping(self, store: EventStore) -> None:
        for i in range(40):
            assert store.append(events("u", 0, start=i)) == [True]
        assert KEEP <= store.read("u").count <= KEEP + 2
