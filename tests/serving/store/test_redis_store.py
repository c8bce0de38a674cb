from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from peterrec.errors import ConfigError, FormatVersionError, StoreError
from peterrec.serving.store.base import Erased, Event
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
        assert store.delete("u").events == 1
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
    assert store.delete("u").events == 1
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


@pytest.mark.parametrize("version", [1, 5])
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


@pytest.mark.parametrize("kind", ["user", "ids", "events", "dropped"])
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
        assert not any(b":u" in key for key in client.scan_iter())


def test_ids_of_dropped_events_are_dropped(url: str) -> None:
    store = RedisStore(url, 4)
    for i in range(30):
        store.append([Event("u", f'"\\é{i}', 2**70, 0.0)])
    with redis.Redis.from_url(url) as client:
        kept_ids = client.smembers("peterrec:ids:u")
    assert kept_ids == {f'"\\é{i}'.encode() for i in range(30 - len(kept_ids), 30)}
    store.close()


def in_files(server: RedisServer, *texts: bytes) -> list[bytes]:
    files = [path.read_bytes() for path in server.folder.rglob("*") if path.is_file()]
    return [text for text in texts if any(text in content for content in files)]


def finish(store: RedisStore) -> None:
    """Go on with erasures as the service does, until there are none left."""
    until = time.monotonic() + 30
    while store.finish_erasures().pending:
        assert time.monotonic() < until
        time.sleep(0.05)


THEIRS = (b"the-user", b"the-event", b"the-item")


def rewrite(client: redis.Redis) -> None:
    """Have the server write its log anew, and wait for that."""
    client.bgrewriteaof()
    until = time.monotonic() + 20
    while client.info("persistence")["aof_rewrite_in_progress"]:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def erased_from(own_server: RedisServer) -> RedisServer:
    """A server whose files hold somebody who is to be erased, and somebody else."""
    store = RedisStore(own_server.url, 100)
    store.append([Event("the-user", "the-event", "the-item", 1.0), Event("other", "e", "other-item", 1.0)])
    store.close()
    assert len(in_files(own_server, *THEIRS)) == 3
    return own_server


def test_who_is_erased_leaves_the_files_of_the_server(erased_from: RedisServer) -> None:
    store = RedisStore(erased_from.url, 100)
    assert store.delete("the-user") == Erased(1, complete=False)
    finish(store)
    assert in_files(erased_from, *THEIRS, b"other-item") == [b"other-item"]
    store.close()


@pytest.mark.parametrize("moment", ["before the rewrite", "in the rewrite", "after the rewrite"])
def test_an_erasure_goes_on_after_a_kill_of_the_server(erased_from: RedisServer, moment: str) -> None:
    """And of the service: another store goes on, which knows only what stands in the server."""
    store = RedisStore(erased_from.url, 100)
    with redis.Redis.from_url(erased_from.url) as client:
        for _ in range(3):
            rewrite(client)
        if moment == "in the rewrite":
            client.config_set("rdb-key-save-delay", 2_000_000)  # microseconds for each key: it takes its time
        store.delete("the-user")
        if moment == "after the rewrite":
            until = time.monotonic() + 20
            while in_files(erased_from, b"the-item"):
                assert time.monotonic() < until
                time.sleep(0.02)
    erased_from.kill()
    erased_from.start()
    store.close()
    restarted = RedisStore(erased_from.url, 100)
    after_kill = restarted.erasures()
    assert (after_kill.count, after_kill.pending) == (1, 1)
    assert after_kill.since == pytest.approx(time.time(), abs=60)
    finish(restarted)
    assert in_files(erased_from, *THEIRS, b"other-item") == [b"other-item"]
    with redis.Redis.from_url(erased_from.url) as client:
        assert client.info("persistence")["aof_rewrites"] == 1  # counted from the restart, not from before
    restarted.close()


def test_a_rewrite_that_failed_is_asked_for_again(erased_from: RedisServer) -> None:
    store = RedisStore(erased_from.url, 100)
    with redis.Redis.from_url(erased_from.url) as client:
        client.config_set("rdb-key-save-delay", 2_000_000)
        store.delete("the-user")
        child = int(subprocess.check_output(["pgrep", "-P", str(erased_from.process.pid)]).split()[0])
        os.kill(child, signal.SIGKILL)  # as by the kernel, when memory is short
        client.config_set("rdb-key-save-delay", 0)
    assert store.erasures().pending == 1
    finish(store)
    assert in_files(erased_from, *THEIRS) == []
    store.close()


def test_what_was_erased_during_a_rewrite_needs_another_one(erased_from: RedisServer) -> None:
    store = RedisStore(erased_from.url, 100)
    with redis.Redis.from_url(erased_from.url) as client:
        client.config_set("rdb-key-save-delay", 300_000)
        client.bgrewriteaof()  # somebody else's, with the user in it
        store.delete("the-user")
        client.config_set("rdb-key-save-delay", 0)
    finish(store)
    assert in_files(erased_from, *THEIRS) == []
    store.close()


def until_refused(call: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    with contextlib.suppress(StoreError):
        while time.monotonic() < until:
            call()
        raise AssertionError("it was never refused")


def test_a_snapshot_that_failed_is_asked_for_again_though_the_server_refuses_writes(tmp_path: Path) -> None:
    """As it does after a failed one, unless it is told not to."""
    server = RedisServer(tmp_path, appendonly="no", save="3600 1", rdbcompression="no")
    try:
        store = RedisStore(server.url, 100)
        store.append([Event("the-user", "the-event", "the-item", 1.0)])
        with redis.Redis.from_url(server.url) as client:
            client.save()
            client.config_set("rdb-key-save-delay", 2_000_000)
            assert not store.delete("the-user").complete
            child = int(subprocess.check_output(["pgrep", "-P", str(server.process.pid)]).split()[0])
            os.kill(child, signal.SIGKILL)
            client.config_set("rdb-key-save-delay", 0)
        until_refused(lambda: store.append([Event("other", str(time.monotonic()), "x", 1.0)]))
        finish(store)
        assert in_files(server, *THEIRS) == []
        assert store.append([Event("other", "e", "x", 1.0)]) == [True]
        store.close()
    finally:
        server.kill()


def test_snapshots_are_written_anew_too(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, save="3600 1", rdbcompression="no")
    try:
        store = RedisStore(server.url, 100)
        store.append([Event("the-user", "the-event", "the-item", 1.0)])
        with redis.Redis.from_url(server.url) as client:
            client.save()
        assert len(in_files(server, *THEIRS)) == 3
        assert not store.delete("the-user").complete
        finish(store)
        assert in_files(server, *THEIRS) == []
        store.close()
    finally:
        server.kill()


def test_a_server_without_files_has_nothing_pending(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, appendonly="no")
    try:
        store = RedisStore(server.url, 100)
        store.append(events("u", 1))
        assert store.delete("u") == Erased(1, complete=True)
        store.close()
    finally:
        server.kill()


PUSH = """
import sys
from peterrec.serving.store.base import Erased, Event
from peterrec.serving.store.redis_store import RedisStore
store = RedisStore(sys.argv[1], 10_000)
new = 0
for i in range(60):
    mine = Event("u", f"{sys.argv[2]}-{i}", i, float(i % 7))
    new += sum(store.append([mine, Event("u", f"shared-{i}", "x", 1.0)]))
print(new)
"""


@pytest.mark.slow
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
    stored_ids = ids(store.read("u"))
    assert len(stored_ids) == len(set(stored_ids))
    assert {acknowledged_id for event_ids in acknowledged.values() for acknowledged_id in event_ids} <= set(stored_ids)
    assert all((a in set(stored_ids)) == (b in set(stored_ids)) for a, b in pairs)  # none by half
    assert store.append([Event("u", "after", 1, 1e9)]) == [True]
    store.close()
