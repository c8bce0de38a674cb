from __future__ import annotations

import random
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from peterrec.errors import StoreError
from peterrec.serving.store import sqlite, sqlite_file
from peterrec.serving.store.base import Erased, Erasures, Event
from peterrec.serving.store.sqlite import SqliteStore
from serving.store.contract import Open, StoreContract, events, ids

TESTS = Path(__file__).parents[2]


class TestSqlite(StoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Iterator[Open]:
        opened = []

        def open_(keep: int) -> SqliteStore:
            opened.append(SqliteStore(tmp_path / "events.sqlite", keep))
            return opened[-1]

        yield open_
        for store in opened:
            store.close()


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, 1000, timeout=0.2)
    yield store
    store.close()


def raw(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


@pytest.mark.slow
def test_who_is_erased_is_in_no_byte_of_the_files(store: SqliteStore, path: Path) -> None:
    # Many users whose events come mixed and late: SQLite moves rows between pages, and leaves copies behind.
    rng = random.Random(1)
    names = [f"user-{i:03d}-{secrets.token_hex(rng.randint(2, 20))}" for i in range(150)]
    mixed = [i for i in range(150) for _ in range(rng.randint(1, 120))]
    rng.shuffle(mixed)
    for start in range(0, len(mixed), 50):
        batch = [(at, user) for at, user in enumerate(mixed[start : start + 50], start)]
        store.append(
            [
                Event(names[u], f"event-{u:03d}-{secrets.token_hex(9)}", f"item-{u:03d}-{at}", at - 100 * rng.random())
                for at, u in batch
            ]
        )
    rng.shuffle(names)
    for name in names[:50]:
        number = name.split("-")[1]
        texts = [f"{kind}-{number}-".encode() for kind in ("user", "event", "item")]
        assert all(text in raw(path) for text in texts)
        erased = store.delete(name)
        assert erased.events > 0
        assert erased.complete
        assert [text for text in texts if text in raw(path)] == []
    assert all(store.read(name).count for name in names[50:])


def test_an_erasure_is_pending_while_the_log_is_read_and_goes_on_after_a_restart(
    store: SqliteStore, path: Path
) -> None:
    store.append(events("the-user", 1, 2))
    with sqlite3.connect(path, isolation_level=None) as other_program:
        other_program.execute("BEGIN")
        other_program.execute("SELECT count(*) FROM users_0").fetchall()
        began = time.time()
        assert store.delete("the-user") == Erased(2, complete=False)
        assert store.read("the-user").count == 0
        pending = store.finish_erasures()
        assert (pending.count, pending.pending) == (1, 1)
        assert pending.since == pytest.approx(began, abs=30)
        assert b"the-user" in raw(path)
        assert store.delete("the-user") == Erased(0, complete=False)
        other_program.execute("COMMIT")
    other_program.close()
    reopened = SqliteStore(path, 1000)
    assert reopened.erasures() == Erasures(1, 0, None)
    assert b"the-user" not in raw(path)
    reopened.close()


def test_an_erasure_whose_end_fails_is_pending_and_no_error(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> bool:
        raise StoreError("the disk is full")

    store.append(events("u", 1, 2))
    with monkeypatch.context() as full:
        full.setattr(store._file, "checkpoint", fail)
        assert store.delete("u") == Erased(2, complete=False)
    assert store.read("u").count == 0
    assert store.finish_erasures() == Erasures(1, 0, None)


def test_events_are_kept_quickly_while_an_erasure_is_pending(store: SqliteStore, path: Path) -> None:
    """A long reader delays the erasure, and no other call."""
    patient = SqliteStore(path, 1000, timeout=30)
    patient.append(events("the-user", 1, 2))
    with sqlite3.connect(path, isolation_level=None) as other_program:
        other_program.execute("BEGIN")
        other_program.execute("SELECT count(*) FROM users_0").fetchall()
        began = time.monotonic()
        assert not patient.delete("the-user").complete
        assert patient.finish_erasures().pending == 1
        assert patient.append(events("u", 1)) == [True]
        assert time.monotonic() - began < 10
        other_program.execute("COMMIT")
    other_program.close()
    patient.close()


def test_what_is_remembered_of_dropped_events_is_erased_too(path: Path) -> None:
    store = SqliteStore(path, 4)
    store.append(events("u", *range(50)))
    store.append(events("other", *range(50)))
    store.delete("u")
    store.close()
    with sqlite3.connect(path) as file:
        count = sum(file.execute(f"SELECT count(*) FROM dropped_{shard}").fetchone()[0] for shard in range(64))
        rows = [row for shard in range(64) for row in file.execute(f"SELECT user FROM users_{shard}")]
    file.close()
    assert (count, rows) == (4, [("other",)])


def test_only_the_owner_may_read_the_files(store: SqliteStore, path: Path) -> None:
    store.append(events("u", 1))
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


@pytest.mark.slow
def test_the_log_does_not_grow_while_somebody_is_always_reading(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "MAX_LOG_BYTES", 1 << 20)
    store.append(events("u", *range(500)))
    finished = threading.Event()

    def read() -> None:
        while not finished.is_set():
            store.read("u")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    largest = 0
    for i in range(30):
        store.append([Event(f"{i}-{j}", "e", "x" * 3000, 0.0) for j in range(50)])
        largest = max(largest, path.with_name("events.sqlite-wal").stat().st_size)
    finished.set()
    for reader in readers:
        reader.join()
    assert largest < 8 << 20


def test_calls_that_wait_share_a_commit(path: Path) -> None:
    store = SqliteStore(path, 1000)
    statements: list[str] = []
    assert store._file._writer is not None
    store._file._writer.set_trace_callback(statements.append)
    with sqlite3.connect(path, isolation_level=None) as other_program, ThreadPoolExecutor(6) as pool:
        other_program.execute("BEGIN IMMEDIATE")
        calls = [pool.submit(store.append, events(f"u{i % 3}", 1, 2, start=i)) for i in range(6)]
        until = time.monotonic() + 10
        while len(store._waiting) < 6 and time.monotonic() < until:
            time.sleep(0.01)
        other_program.execute("ROLLBACK")
        new = [call.result() for call in calls]
    other_program.close()
    assert statements.count("COMMIT") == 1
    assert sum(map(sum, new)) == sum(store.read(f"u{i}").count for i in range(3)) == 12
    store.close()


def test_a_call_that_fails_takes_no_other_with_it_unnoticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    insert = sqlite._Shard.insert

    def failing(shard: sqlite._Shard, row: sqlite._User, event: Event, tie: int) -> bool:
        if event.event_id == "e13":
            raise sqlite3.OperationalError("imitated")
        return insert(shard, row, event, tie)

    monkeypatch.setattr(sqlite._Shard, "insert", failing)
    store = SqliteStore(path, 1000)
    with sqlite3.connect(path, isolation_level=None) as other_program, ThreadPoolExecutor(8) as pool:
        other_program.execute("BEGIN IMMEDIATE")
        calls = [pool.submit(store.append, events("u", 1, 2, start=2 * i)) for i in range(8)]
        time.sleep(0.1)
        other_program.execute("ROLLBACK")
        refused = [i for i, call in enumerate(calls) if call.exception() is not None]
    other_program.close()
    assert 6 in refused
    assert len(refused) < 8
    assert set(ids(store.read("u"))) == {f"e{j}" for i in range(8) if i not in refused for j in (2 * i, 2 * i + 1)}
    store.close()


def test_a_reader_does_not_wait_for_a_writer(store: SqliteStore, path: Path) -> None:
    store.append(events("u", 1, 2))
    with store._file.writing() as connection:
        connection.execute("DELETE FROM events_0")
        began = time.monotonic()
        counts: list[int] = []
        thread = threading.Thread(target=lambda: counts.append(store.read("u").count))
        thread.start()
        thread.join(5)
        assert counts == [2]
        assert time.monotonic() - began < 5
