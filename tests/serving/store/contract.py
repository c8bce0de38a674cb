"""The contract of every store of events. A test class of each store inherits these."""

from __future__ import annotations

import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.prepare.oracle import tie_of
from peterrec.errors import RequestError, StoreError
from peterrec.serving.store.base import Erased, Event, EventStore, Read
from serving.store.common import KEEP, Clock, Open, events, ids
from serving.store.oracle import Oracle
from serving.store.retention import RetentionContract


class StoreContract(RetentionContract):
    """Subclasses give the fixture `open_store`: a store that keeps so many events, empty at first."""

    def test_someone_unknown_has_no_events_and_no_revision(self, store: EventStore) -> None:
        assert store.read("nobody") == Read("", 0, [])
        assert store.read("nobody", "a revision", 3) == Read("", 0, [])
        assert store.delete("nobody") == Erased(0, complete=True)
        assert store.append([]) == []

    def test_events_are_in_the_order_of_their_timestamps(self, store: EventStore) -> None:
        assert store.append(events("u", 3, 1, 2)) == [True] * 3
        assert store.append(events("u", 2.5, start=3)) == [True]
        assert ids(store.read("u")) == ["e1", "e2", "e3", "e0"]
        assert [event.timestamp for event in store.read("u").events] == [1.0, 2.0, 2.5, 3.0]

    @pytest.mark.parametrize("seed", range(4))
    def test_equal_timestamps_are_in_the_order_of_the_hash_of_prepare_however_they_come(
        self, store: EventStore, seed: int
    ) -> None:
        draw = random.Random(seed)
        tied = [Event("u", f"e{i}", item, 2.5) for i, item in enumerate(["a", "b", 7, "日本", -(2**70), "", "c"])]
        expected = sorted(tied, key=lambda event: tie_of("u", 2.5, event.item))
        draw.shuffle(tied)
        first = draw.randrange(len(tied))
        store.append([*tied[:first], Event("u", "last", "x", 9.0)])
        store.append(tied[first:])
        assert store.read("u").events == [*expected, Event("u", "last", "x", 9.0)]

    def test_the_same_item_at_the_same_time_is_as_it_came(self, store: EventStore) -> None:
        tied = [Event("u", f"e{i}", "x", 0.0) for i in (3, 1, 2)]
        store.append(tied)
        stored = store.read("u")
        store.append([Event("u", "e0", "x", -0.0)])  # the same time
        read = store.read("u", stored.revision, 3)
        assert (read.start, ids(read)) == (3, ["e0"])
        assert ids(stored) == ["e3", "e1", "e2"]

    def test_a_tied_event_changes_the_revision_unless_it_goes_to_the_end(self, store: EventStore) -> None:
        tied = sorted(events("u", 1, 1, 1, 1), key=lambda event: tie_of("u", 1.0, event.item))
        store.append(tied[1:3])
        before = store.read("u")
        store.append(tied[3:])
        after_append = store.read("u", before.revision, 2)
        assert (after_append.start, after_append.events) == (2, tied[3:])
        store.append(tied[:1])
        after_insert = store.read("u", before.revision, 3)
        assert after_insert.revision != before.revision
        assert (after_insert.start, after_insert.events) == (0, tied)
        store.append([replace(tied[0], event_id="later", timestamp=2.0)])
        store.append([replace(tied[0], event_id="tied", timestamp=1.0, item=tied[3].item)])
        # Before the last event, if behind those of its time.
        assert store.read("u", after_insert.revision, 5).start == 0

    def test_a_domain_comes_back_as_it_was(self, store: EventStore) -> None:
        with_domains = [
            Event("u", str(i), "x", float(i), domain) for i, domain in enumerate(["books", None, "", 'é "日本"'])
        ]
        store.append(with_domains)
        assert store.read("u").events == with_domains

    def test_features_come_back_as_they_were(self, store: EventStore) -> None:
        values = [{"type": 'é "日本"', "amount": 1.5, "n": -(2**70), "new": False}, None, {"amount": 7}]
        with_features = [Event("u", str(i), "x", float(i), "shop", features) for i, features in enumerate(values)]
        store.append(with_features)
        assert store.read("u").events == with_features
        # What is not values is not kept.
        store.append([Event("v", "1", "x", 1.0, features={"type": None}), Event("v", "2", "x", 2.0, features={})])
        assert [event.features for event in store.read("v").events] == [None, None]

    @pytest.mark.parametrize("timestamp", [0.0, -5.25, 1700000000.123456, 1e300, 5e-324, 0.1 + 0.2])
    def test_a_timestamp_comes_back_as_it_was(self, store: EventStore, timestamp: float) -> None:
        event = Event("u", "e", "item", timestamp)
        store.append([event])
        assert store.read("u").events == [event]

    def test_an_item_keeps_its_type_and_every_digit(self, store: EventStore) -> None:
        items = ["5", 5, 0, -7, 2**63 - 1, 2**63, -(2**70), "i5", "", "a\0b", "日本 🎬", 'say "hi"; --']
        for start in range(0, len(items), KEEP):
            store.delete("u")
            part = items[start : start + KEEP]
            store.append([Event("u", str(i), item, float(i)) for i, item in enumerate(part)])
            stored_items = [event.item for event in store.read("u").events]
            assert stored_items == part
            assert [type(item) for item in stored_items] == [type(item) for item in part]

    def test_any_text_is_an_id(self, store: EventStore) -> None:
        names = [
            "",
            "a",
            "A",
            "a ",
            "a:ids",
            "ids:a",
            "user:a",
            "'; DROP TABLE users_0; --",
            "é",
            "e\u0301",
            "\0",
            "🎬",
        ]
        for name in names:
            assert store.append([Event(name, name, f"of {name}", 1.0)]) == [True]
        for name in names:
            assert store.read(name).events == [Event(name, name, f"of {name}", 1.0)]

    # ------------------------------------------------------------ the same event twice

    def test_an_event_of_the_same_id_is_kept_once_as_it_came_first(self, store: EventStore) -> None:
        first, duplicate = Event("u", "e", "x", 1.0), Event("u", "e", "other", 9.0)
        assert store.append([first, duplicate]) == [True, False]
        before = store.read("u")
        assert store.append([duplicate, Event("u", "f", "y", 2.0), first]) == [False, True, False]
        assert store.read("u").events == [first, Event("u", "f", "y", 2.0)]
        assert store.read("u").revision == before.revision

    def test_another_user_may_have_the_same_event_ids(self, store: EventStore) -> None:
        assert store.append([Event("a", "e", "x", 1.0), Event("b", "e", "y", 1.0)]) == [True, True]
        assert store.read("a").events == [Event("a", "e", "x", 1.0)]

    # ------------------------------------------------------------ revisions

    def test_what_is_new_is_read_behind_what_is_known(self, store: EventStore) -> None:
        store.append(events("u", 1, 2))
        before = store.read("u")
        store.append(events("u", 2.5, 3, start=2))
        new_events = store.read("u", before.revision, before.count)
        assert (new_events.revision, new_events.start, ids(new_events), new_events.count) == (
            before.revision,
            2,
            ["e2", "e3"],
            4,
        )
        assert store.read("u", before.revision, 4) == Read(before.revision, 4, [])

    @pytest.mark.parametrize("after", [-1, 3, 10**6])
    def test_more_than_there_are_events_cannot_be_left_out(self, store: EventStore, after: int) -> None:
        store.append(events("u", 1, 2))
        read = store.read("u", store.read("u").revision, after)
        assert (read.start, ids(read)) == (0, ["e0", "e1"])

    def test_an_event_that_comes_late_changes_the_revision(self, store: EventStore) -> None:
        store.append([*events("u", 1, 3), *events("other", 1, 3)])
        before, other_user = store.read("u"), store.read("other")
        store.append([*events("u", 2, start=2), *events("other", 3, start=2)])
        read = store.read("u", before.revision, before.count)
        assert read.revision != before.revision
        assert (read.start, ids(read)) == (0, ["e0", "e2", "e1"])
        assert store.read("other", other_user.revision, 2).start == 2  # of somebody else in the same call it does not

    def test_an_erased_user_who_comes_again_has_another_revision(self, store: EventStore) -> None:
        store.append(events("u", 1, 2))
        before = store.read("u")
        assert store.delete("u").events == 2
        assert store.read("u", before.revision, 2) == Read("", 0, [])
        assert store.append(events("u", 1, 2)) == [True, True]
        read = store.read("u", before.revision, 2)
        assert read.revision not in ("", before.revision)
        assert (read.start, ids(read)) == (0, ["e0", "e1"])

    def test_erasing_leaves_others_alone(self, store: EventStore) -> None:
        store.append([event for i in range(200) for event in events(f"u{i}", 1, 2)])
        before = store.read("u7")
        assert store.delete("u8").events == 2
        assert store.delete("u8").events == 0
        assert all(store.read(f"u{i}").count == 2 * (i != 8) for i in range(200))
        assert store.read("u7", before.revision, 2) == Read(before.revision, 2, [])
        assert store.append([*events("u7", 1), *events("u7", 5, start=9)]) == [False, True]

    # ------------------------------------------------------------ bad events

    @pytest.mark.parametrize(
        "wrong",
        [
            {"timestamp": float("nan")},
            {"timestamp": float("inf")},
            {"timestamp": 10**400},
            {"timestamp": "yesterday"},
            {"user": "\ud800"},
            {"event_id": "a\udfff"},
            {"item": "\ud800"},
            {"item": True},
            {"item": 1.5},
            {"item": None},
            {"item": 10**5000},
            {"event_id": 7},
            {"domain": 7},
            {"domain": "\ud800"},
            {"features": ["view"]},
            {"features": {"type": "\ud800"}},
            {"features": {7: "view"}},
            {"features": {"amount": float("nan")}},
            {"features": {"amount": 10**400}},
            {"features": {"type": ["view"]}},
            {"features": {str(number): 1 for number in range(51)}},
        ],
    )
    def test_one_bad_event_and_none_of_the_call_is_kept(self, store: EventStore, wrong: dict[str, Any]) -> None:
        bad = replace(events("u", 2, start=1)[0], **wrong)
        with pytest.raises(RequestError):
            store.append([*events("u", 1), bad])
        assert store.read("u") == Read("", 0, [])

    def test_nobody_is_called_half_a_character(self, store: EventStore) -> None:
        for call in (store.read, store.delete):
            with pytest.raises(RequestError, match="not valid text"):
                call("\ud800")

    # ------------------------------------------------------------ opt-outs

    def test_what_a_user_has_opted_out_of_is_read_with_the_events(self, store: EventStore) -> None:
        store.append(events("u", 1, 2))
        before = store.read("u")
        for task in ("age", "geschlecht ü", "age"):
            store.set_opt_out("u", task, opted_out=True)
        assert store.read("u") == replace(before, opted_out=frozenset({"age", "geschlecht ü"}))
        assert store.read("u", before.revision, 1).opted_out == {"age", "geschlecht ü"}
        assert store.read("v").opted_out == frozenset()
        for task in ("age", "never"):
            store.set_opt_out("u", task, opted_out=False)
        assert store.read("u").opted_out == {"geschlecht ü"}

    def test_someone_without_events_may_opt_out_and_is_erased(self, store: EventStore) -> None:
        store.set_opt_out("u", "age", opted_out=True)
        assert store.read("u") == Read("", 0, [], frozenset({"age"}))
        store.append(events("u", 1))
        assert store.read("u").opted_out == {"age"}
        assert store.delete("u").events == 1
        assert store.read("u") == Read("", 0, [])

    def test_opt_outs_are_of_texts(self, store: EventStore) -> None:
        for user, task in (("\ud800", "age"), ("u", "\ud800")):
            with pytest.raises(RequestError, match="not valid text"):
                store.set_opt_out(user, task, opted_out=True)

    # ------------------------------------------------------------ threads, the end

    def test_many_threads_append_and_read_at_once(self, open_store: Open) -> None:
        store, rounds, threads = open_store(1000), 25, 6
        halves: list[int] = []
        finished = threading.Event()

        def watch() -> None:
            while not finished.is_set():
                if store.read("shared").count % 2:  # events come in pairs
                    halves.append(1)

        def push(thread: int) -> int:
            new = 0
            for i in range(rounds):
                pair = [Event("shared", f"{i}-{part}", f"x{thread}", 1.0) for part in "ab"]
                new += sum(store.append([*pair, Event(f"own-{thread}", str(i), i, float(i))]))
            return new

        with ThreadPoolExecutor(threads + 1) as pool:
            watching = pool.submit(watch)
            pushing = [pool.submit(push, thread) for thread in range(threads)]
            total = sum(future.result() for future in pushing)
            finished.set()
            watching.result()
        assert not halves
        assert total == threads * rounds + 2 * rounds  # each shared event was new to one thread only
        assert store.read("shared").count == 2 * rounds
        assert all([e.item for e in store.read(f"own-{t}").events] == list(range(rounds)) for t in range(threads))

    def test_check_changes_nothing(self, store: EventStore) -> None:
        store.append(events("u", 1, 2))
        before = store.read("u")
        store.check()
        assert store.read("u") == before

    def test_a_closed_store_says_so_and_another_has_what_was_kept(self, store: EventStore, open_store: Open) -> None:
        store.append(events("u", 1, 2))
        before = store.read("u")
        store.close()
        store.close()
        for call in (
            store.check,
            lambda: store.read("u"),
            lambda: store.append(events("u", 3)),
            lambda: store.delete("u"),
            lambda: store.revisions(["u"]),
            store.erasures,
            store.finish_erasures,
        ):
            with pytest.raises(StoreError, match="closed"):
                call()
        assert open_store(KEEP).read("u") == before

    # ------------------------------------------------------------ anything at all

    # Each example has users of its own, and each store a class of its own.
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors])
    @given(data=st.data())
    def test_any_calls_answer_as_the_oracle_does(self, store: EventStore, clock: Clock, data: st.DataObject) -> None:
        oracle, run = Oracle(KEEP), uuid.uuid4().hex
        caches: dict[str, Read] = {}
        user_ids = st.integers(0, 1).map(lambda i: f"{run}-{i}")
        event = st.builds(
            Event,
            user_ids,
            st.integers(0, 40).map(str),
            st.sampled_from(["x", 1]),
            st.one_of(st.none(), st.integers(0, 12).map(float)),
        )
        for _ in range(data.draw(st.integers(1, 8))):
            action = data.draw(st.sampled_from(["append", "append", "read", "delete"]))
            clock.now = float(data.draw(st.integers(0, 12)))
            if action == "append":
                batch = data.draw(st.lists(event, max_size=14))
                assert store.append(batch) == oracle.append(batch)
            elif action == "delete":
                user = data.draw(user_ids)
                assert store.delete(user).events == oracle.delete(user).events
            for user in (f"{run}-0", f"{run}-1"):
                self.catch_up(store, oracle, caches, user)

    @staticmethod
    def catch_up(store: EventStore, oracle: Oracle, caches: dict[str, Read], user: str) -> None:
        """Read what is not in memory yet: with that, everything must be."""
        cached = caches.get(user, Read("", 0, []))
        read = store.read(user, cached.revision, cached.count)
        expected = oracle.read(user)
        assert [*cached.events[: read.start], *read.events] == expected.events
        assert bool(read.revision) == bool(expected.revision)
        caches[user] = Read(read.revision, 0, expected.events)
