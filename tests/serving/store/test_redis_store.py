from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from peterrec.errors import ConfigError, FormatVersionError, StoreError
from peterrec.serving.store.base import Event
from peterrec.serving.store.redis_store import RedisStore
from serving.store.contract import Open, StoreContract, events, ids
from serving.store.servers import DURABLE, RedisServer


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may kill."""
    server = RedisServer(tmp_path, **DURABLE, rdbcompression="no")
    yield server
    server.kill()


class TestRedis(StoreContract):
    @pytest.fixture
    def open_store(self, url: str) -> Iterator[Open]:
        opened = []

        def open_(keep: int) -> RedisStore:
            opened.append(RedisStore(url, keep))
            return opened[-1]

        yield open_
        for store in opened:
            store.close()


@pytest.fixture
def store(url: str) -> Iterator[RedisStore]:
    store = RedisStore(url, 1000)
    yield store
    store.close()


def test_a_server_that_loses_nothing_is_not_warned_of(store: RedisStore) -> None:
    assert store.warnings == []


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"appendonly": "no"}, "appendonly no"),
        ({"appendfsync": "everysec"}, "appendfsync everysec"),
        ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, "allkeys-lru"),
    ],
)
def test_settings_that_lose_events_are_warned_of(tmp_path: Path, settings: dict[str, str], warning: str) -> None:
    server = RedisServer(tmp_path, **(DURABLE | settings))
    try:
        store = RedisStore(server.url, 10)
        assert len(store.warnings) == 1
        assert warning in store.warnings[0]
        assert store.append(events("u", 1)) == [True]
        assert store.delete("u") == 1
        store.close()
    finally:
        server.kill()


def test_a_server_that_does_not_tell_its_settings_is_used_all_the_same(own_server: RedisServer) -> None:
    with redis.Redis.from_url(own_server.url) as client:
        client.acl_setuser("default", enabled=True, reset_passwords=False, commands=["-config", "-bgrewriteaof"])
    store = RedisStore(own_server.url, 10)
    assert len(store.warnings) == 1
    assert "does not tell" in store.warnings[0]
    assert store.append(events("u", 1)) == [True]
    assert store.delete("u") == 1
    store.close()


@pytest.mark.parametrize("url", ["redis://:secret@host:port/0", "redis://:secret@host?no_such_option=secret"])
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="address") as error:
        RedisStore(url, 10)
    assert "secret" not in str(error.value)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not answer"):
        RedisStore(f"unix://:secret@{tmp_path}/none.sock", 10)


def test_a_wrong_password(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, requirepass="right")
    try:
        with pytest.raises(StoreError, match="password") as error:
            RedisStore(server.url.replace("redis://", "redis://:secret@"), 10)
        assert "secret" not in str(error.value)
    finally:
        server.kill()


def test_a_server_that_hangs_is_given_up(own_server: RedisServer) -> None:
    store = RedisStore(own_server.url, 10, timeout=0.2)
    own_server.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(StoreError, match="does not answer"):
            store.append(events("u", 1))
        assert time.monotonic() - began < 5
    finally:
        own_server.process.send_signal(signal.SIGCONT)
    store.append(events("u", 1))  # whether the first one arrived or not
    assert store.read("u").count == 1
    store.close()


@pytest.mark.parametrize("version", [1, 3])
def test_what_another_release_wrote_is_refused(url: str, version: int) -> None:
    with redis.Redis.from_url(url) as client:
        client.set("peterrec:version", version)
    with pytest.raises(FormatVersionError, match=f"version {version};"):
        RedisStore(url, 10)


def test_a_full_server_keeps_nothing_of_a_call_and_works_again_later(own_server: RedisServer) -> None:
    store = RedisStore(own_server.url, 100)
    with redis.Redis.from_url(own_server.url) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match="memory"):
            store.append(events("u", 1, 2))
        with pytest.raises(StoreError, match="memory"):
            store.check()
        assert store.read("u").count == 0
        client.config_set("maxmemory", 0)
    assert store.append(events("u", 1, 2)) == [True, True]
    store.close()


@pytest.mark.parametrize("kind", ["user", "ids", "events"])
def test_a_key_of_something_else_fails_a_call_before_anything_is_written(
    store: RedisStore, url: str, kind: str
) -> None:
    with redis.Redis.from_url(url) as client:
        client.set(f"peterrec:{kind}:b", "not ours")
        with pytest.raises(StoreError, match="refused"):
            store.append([*events("a", 1), *events("b", 1)])
        assert store.read("a").count == 0
        client.delete(f"peterrec:{kind}:b")
    assert store.append([*events("a", 1), *events("b", 1)]) == [True, True]


def test_all_keys_have_the_prefix_and_are_gone_after_erasing(store: RedisStore, url: str) -> None:
    store.append(events("u", 1, 2))
    store.delete("u")
    with redis.Redis.from_url(url) as client:
        assert client.keys() == [b"peterrec:version"]


def test_ids_of_dropped_events_are_dropped(url: str) -> None:
    store = RedisStore(url, 4)
    for i in range(30):
        store.append([Event("u", f'"\\é{i}', 2**70, 0.0)])
    with redis.Redis.from_url(url) as client:
        kept = client.smembers("peterrec:ids:u")
    assert kept == {f'"\\é{i}'.encode() for i in range(30 - len(kept), 30)}
    store.close()


def test_who_is_erased_leaves_the_files_of_the_server(own_server: RedisServer) -> None:
    store = RedisStore(own_server.url, 100)
    store.append([Event("the-user", "the-event", "the-item", 1.0), Event("other", "e", "other-item", 1.0)])

    def in_files(text: bytes) -> bool:
        return any(text in path.read_bytes() for path in own_server.folder.rglob("*") if path.is_file())

    assert in_files(b"the-item")
    store.delete("the-user")
    until = time.monotonic() + 20
    while any(map(in_files, (b"the-user", b"the-event", b"the-item"))) and time.monotonic() < until:
        time.sleep(0.05)
        store.check()
    assert not any(map(in_files, (b"the-user", b"the-event", b"the-item")))
    assert in_files(b"other-item")
    store.close()


PUSH = """
import sys
from peterrec.serving.store.base import Event
from peterrec.serving.store.redis_store import RedisStore
store = RedisStore(sys.argv[1], 10_000)
new = 0
for i in range(60):
    mine = Event("u", f"{sys.argv[2]}-{i}", i, float(i % 7))
    new += sum(store.append([mine, Event("u", f"shared-{i}", "x", 1.0)]))
print(new)
"""


def test_several_processes_append_at_once(store: RedisStore, url: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PUSH), url]
    processes = [subprocess.Popen([*command, name], stdout=subprocess.PIPE) for name in "ab"]
    new = sum(int(process.communicate(timeout=120)[0]) for process in processes)
    assert new == store.read("u").count == 3 * 60
    assert len(set(ids(store.read("u")))) == 3 * 60


def test_a_killed_server_keeps_what_was_acknowledged_and_is_found_again(own_server: RedisServer) -> None:
    store = RedisStore(own_server.url, 10_000)
    acknowledged: dict[int, list[str]] = {0: [], 1: [], 2: []}
    pairs: list[tuple[str, str]] = []

    def push(thread: int) -> None:
        for i in range(100_000):
            pair = [Event("u", f"{thread}-{i}-{part}", i, float(i)) for part in "ab"]
            pairs.append((pair[0].event_id, pair[1].event_id))
            try:
                store.append(pair)
            except StoreError:
                return
            acknowledged[thread] += [event.event_id for event in pair]

    threads = [threading.Thread(target=push, args=(thread,)) for thread in acknowledged]
    for thread in threads:
        thread.start()
    while min(map(len, acknowledged.values())) < 100:
        time.sleep(0.005)
    own_server.kill()
    for thread in threads:
        thread.join()
    with pytest.raises(StoreError, match="does not answer"):
        store.read("u")
    own_server.start()
    found = ids(store.read("u"))
    assert len(found) == len(set(found))
    assert {one for each in acknowledged.values() for one in each} <= set(found)
    assert all((a in set(found)) == (b in set(found)) for a, b in pairs)  # none by half
    assert store.append([Event("u", "after", 1, 1e9)]) == [True]
    store.close()
