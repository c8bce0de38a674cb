"""Several processes, and one that is killed."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from peterrec.errors import StoreError
from peterrec.serving.store.sqlite import SqliteStore
from serving.store.contract import ids

TESTS = Path(__file__).parents[2]


PUSH = """
    import json, pathlib, sys
    from peterrec.serving.store.base import Event
    from peterrec.serving.store.sqlite import SqliteStore

    store = SqliteStore(pathlib.Path(sys.argv[1]), 1_000_000, timeout=60)
    for i in range(int(sys.argv[3])):
        batch = [Event("u", f"{sys.argv[2]}-{i}-{j}", i, float(i % 7)) for j in range(5)]
        new = store.append([*batch, Event("shared", str(i), "x", 1.0)])
        print(json.dumps([i, sum(new)]), flush=True)
"""


def start(path: Path, name: str, calls: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(PUSH), str(path), name, str(calls)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_several_processes_may_share_a_file_even_a_new_one(path: Path) -> None:
    processes = [start(path, name, 40) for name in "abc"]
    lines = [line for process in processes for line in process.communicate(timeout=120)[0].splitlines()]
    assert [process.returncode for process in processes] == [0, 0, 0]
    store = SqliteStore(path, 1_000_000)
    assert sum(json.loads(line)[1] for line in lines) == store.read("u").count + store.read("shared").count
    assert (store.read("u").count, store.read("shared").count) == (3 * 40 * 5, 40)
    store.close()


@pytest.mark.slow
def test_stores_that_open_a_file_at_once_do_not_take_it_for_a_copy(path: Path) -> None:
    def open_and_close(_: int) -> None:
        at_once.wait()
        SqliteStore(file, 10).close()

    with ThreadPoolExecutor(6) as threads:
        for attempt in range(30):
            file, at_once = path.with_name(f"{attempt}.sqlite"), threading.Barrier(6)
            for _ in range(3):
                list(threads.map(open_and_close, range(6)))


def test_a_file_is_in_use_until_the_last_store_of_it_is_closed(path: Path) -> None:
    first, last = SqliteStore(path, 10), SqliteStore(path, 10)
    first.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # as happens sooner or later
    copy = shutil.copy(path, path.with_name("copy.sqlite"))
    with pytest.raises(StoreError, match="copied while it was in use"):
        SqliteStore(copy, 10)
    last.close()
    SqliteStore(shutil.copy(path, path.with_name("whole.sqlite")), 10).close()


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    acknowledged: list[int] = []
    for attempt in range(3):
        process = start(path, str(attempt), 1_000_000)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(20 + 30 * attempt)]
        process.send_signal(signal.SIGKILL)
        lines += [line for line in process.stdout.read().splitlines() if line.endswith("]")]
        process.wait()
        process.stdout.close()
        acknowledged.append(len(lines))
        store = SqliteStore(path, 1_000_000)
        stored_ids = ids(store.read("u"))
        assert len(stored_ids) == len(set(stored_ids))
        for earlier, calls in enumerate(acknowledged):
            mine = [event_id for event_id in stored_ids if event_id.startswith(f"{earlier}-")]
            kept_numbers = {int(event_id.split("-")[1]) for event_id in mine}
            assert set(range(calls)) <= kept_numbers <= set(range(calls + 1))  # one may not have been told any more
            assert len(mine) == 5 * len(kept_numbers)  # and is there as a whole
        store.close()
