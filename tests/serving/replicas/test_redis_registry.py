"""The registry of bundles on a real Redis server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from peterrec.errors import StoreError
from peterrec.serving.replicas.base import Entry, Listing
from peterrec.serving.replicas.redis_registry import RedisRegistry
from peterrec.serving.versions import VersionHistory
from serving.store.servers import RedisServer

OWNER = ("backbone", "catalogue")
FIRST, SECOND = VersionHistory(("v1",)), VersionHistory(("v1", "v2"), ("v0",))


@pytest.fixture
def registry(server: RedisServer) -> Iterator[RedisRegistry]:
    opened = RedisRegistry(server.url, OWNER)
    yield opened
    opened.close()


def entry(registry: RedisRegistry, name: str) -> Entry:
    listing = registry.read("")
    assert listing is not None
    return listing.entries[name]


def test_what_one_replica_publishes_all_read(registry: RedisRegistry, server: RedisServer) -> None:
    second_registry = RedisRegistry(server.url, OWNER)
    assert second_registry.identity == registry.identity
    empty = second_registry.read("")
    assert empty == Listing("empty", 0, {})
    assert registry.publish("age", None, FIRST) == 1
    assert registry.publish("性别", None, SECOND) == 2
    listing = second_registry.read(empty.state)
    assert listing is not None
    assert (listing.generation, listing.active) == (2, {"age": "v1", "性别": "v2"})
    assert listing.entries["性别"].history == SECOND
    assert second_registry.read(listing.state) is None
    assert second_registry.publish("age", listing.entries["age"], None) == 3
    dropped = registry.read(listing.state)
    assert dropped is not None
    assert (dropped.active, dropped.entries["age"].history) == ({"性别": "v2"}, None)
    second_registry.close()


def test_an_entry_that_has_changed_is_not_replaced(registry: RedisRegistry) -> None:
    assert registry.publish("age", None, FIRST) == 1
    before = entry(registry, "age")
    assert registry.publish("age", None, SECOND) is None
    assert registry.publish("age", before, SECOND) == 2
    assert registry.publish("age", before, FIRST) is None
    assert registry.publish("age", entry(registry, "age"), FIRST) == 3
    assert registry.publish("age", before, SECOND) is None  # the same history, but of another change
    assert entry(registry, "age").history == FIRST


def test_of_changes_at_once_each_is_made_once(registry: RedisRegistry) -> None:
    def add(number: int) -> None:
        while True:
            listing = registry.read("")
            assert listing is not None
            before = listing.entries.get("age")
            history = VersionHistory((*(before.history.answered if before and before.history else ()), f"v{number}"))
            if registry.publish("age", before, history):
                return

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(24)))
    history = entry(registry, "age").history
    assert history is not None
    assert sorted(history.answered) == sorted(f"v{number}" for number in range(24))
    assert entry(registry, "age").generation == 24


def test_backbones_have_registries_of_their_own(registry: RedisRegistry, server: RedisServer) -> None:
    second_registry = RedisRegistry(server.url, ("other backbone", "catalogue"))
    registry.publish("age", None, FIRST)
    listing = second_registry.read("")
    assert listing is not None
    assert not listing.entries
    assert second_registry.identity != registry.identity
    second_registry.close()


def test_a_registry_that_was_emptied_is_not_taken_for_one_without_bundles(
    registry: RedisRegistry, server: RedisServer
) -> None:
    registry.publish("age", None, FIRST)
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    for call in (lambda: registry.read(""), lambda: registry.publish("age", None, FIRST)):
        with pytest.raises(StoreError, match="has lost the registry"):
            call()


def test_a_server_that_does_not_answer(server: RedisServer) -> None:
    registry = RedisRegistry(server.url, OWNER)
    server.kill()
    try:
        with pytest.raises(StoreError, match="does not answer"):
            registry.read("")
    finally:
        server.start()
    registry.publish("age", None, FIRST)  # it connects again
    registry.close()
    with pytest.raises(StoreError, match="is closed"):
        registry.read("")
