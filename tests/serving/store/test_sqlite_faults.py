"""Full, locked, damaged, removed: a clear error, never half a call, and it works again afterwards."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from peterrec.errors import FormatVersionError, StoreError
from peterrec.serving.store.base import Erased, Event
from peterrec.serving.store.sqlite import SqliteStore
from serving.store.contract import events, ids

TESTS = Path(__file__).parents[2]


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, 1000, timeout=0.2)
    yield store
    store.close()


def run(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


FULL = """
    import sys, pathlib
    from builders import file_size_limit
    from peterrec.errors import StoreError
    from peterrec.serving.store.base import Event
    from peterrec.serving.store.sqlite import SqliteStore

    path = pathlib.Path(sys.argv[1])
    store = SqliteStore(path, 10_000)

    def batch(name):
        return [Event("u", f"{name}-{i}", "x" * 200, 1.0) for i in range(100)]

    kept, refused = [], []
    sizes = [path.with_name(path.name + ending).stat().st_size for ending in ("", "-wal", "-shm")]
    with file_size_limit(max(sizes) + 100_000):
        for name in range(60):
            try:
                store.append(batch(name))
                kept.append(name)
            except StoreError as error:
                assert "nothing of this call was kept" in str(error), error
                assert "What to do" in str(error)
                refused.append(name)
        assert kept and refused, (kept, refused)
        found = {e.event_id.split("-")[0] for e in store.read("u").events}  # reading goes on
        assert found == {str(name) for name in kept}, (found, kept)
        assert store.read("u").count == 100 * len(kept)
        try:
            store.check()
        except StoreError:
            pass
    store.check()
    for name in refused:
        assert store.append(batch(name)) == [True] * 100
    for name in kept:
        assert store.append(batch(name)) == [False] * 100
    store.close()
"""


@pytest.mark.slow
def test_a_full_disk_refuses_whole_calls_and_is_forgotten_when_there_is_space_again(path: Path) -> None:
    finished = run(FULL, path)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start(path: Path) -> None:
    code = """
        import sys, pathlib
        from builders import file_size_limit
        from peterrec.errors import StoreError
        from peterrec.serving.store.sqlite import SqliteStore
        with file_size_limit(20_000):
            try:
                SqliteStore(pathlib.Path(sys.argv[1]), 10)
            except StoreError:
                pass
            else:
                raise AssertionError("opened")
        SqliteStore(pathlib.Path(sys.argv[1]), 10).close()
    """
    finished = run(code, path)
    assert finished.returncode == 0, finished.stderr


def test_a_file_that_another_program_locks(store: SqliteStore, path: Path) -> None:
    store.append(events("u", 1))
    with sqlite3.connect(path, isolation_level=None) as other_program:
        other_program.execute("BEGIN IMMEDIATE")
        for call in (lambda: store.append(events("u", 2, start=1)), store.check, lambda: store.delete("u")):
            with pytest.raises(StoreError, match="locked by another program"):
                call()
        assert ids(store.read("u")) == ["e0"]  # no writer holds readers up
        other_program.execute("ROLLBACK")
    other_program.close()
    assert store.append(events("u", 2, start=1)) == [True]


@pytest.mark.parametrize("content", [b"no database at all" * 1000, b"SQLite format 3\0" + bytes(range(256)) * 60])
def test_a_file_that_is_something_else_is_refused_and_stays(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"is not a store|is damaged"):
        SqliteStore(path, 10)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused_and_stays(path: Path) -> None:
    with sqlite3.connect(path) as other_program:
        other_program.execute("CREATE TABLE theirs (a)")
    other_program.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a store of events"):
        SqliteStore(path, 10)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [1, 5])
def test_what_another_release_wrote_is_refused(store: SqliteStore, path: Path, version: int) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={version}")
    connection.close()
    with pytest.raises(FormatVersionError, match=f"version {version};"):
        SqliteStore(path, 10)


@pytest.mark.parametrize("version", [2, 3])
def test_a_file_of_an_earlier_version_is_brought_up_to_date(path: Path, version: int) -> None:
    store = SqliteStore(path, 4)
    store.append(events("u", *range(12)))
    before = store.read("u")
    store.close()
    with sqlite3.connect(path) as file:  # what these versions had not
        for shard in range(64):
            file.execute(f"ALTER TABLE events_{shard} DROP COLUMN features")
            file.execute(f"DROP TABLE opt_outs_{shard}")
        absent = (*(f"dropped_{shard}" for shard in range(64)), "pending_erasures", "counters", "in_use")
        for table in absent if version == 2 else ():
            file.execute(f"DROP TABLE {table}")
        file.execute(f"PRAGMA user_version={version}")
    file.close()
    store = SqliteStore(path, 4)
    assert store.read("u") == before
    store.append(events("u", *range(12, 20), start=12))
    assert store.append(events("u", 99, start=12)) == [False]
    store.append([Event("v", "1", "x", 1.0, features={"type": "view"})])
    assert store.read("v").events[0].features == {"type": "view"}
    store.set_opt_out("v", "age", opted_out=True)
    assert store.read("v").opted_out == {"age"}
    assert store.delete("u").complete
    store.close()
    SqliteStore(path, 4).close()  # marked as in use, once


def test_the_file_has_nothing_of_someone_erased_who_only_opted_out(path: Path) -> None:
    store = SqliteStore(path, 4)
    store.set_opt_out("someone-secret", "age", opted_out=True)
    assert store.delete("someone-secret") == Erased(0, complete=True)
    assert store.erasures().count == 1
    store.close()
    assert b"someone-secret" not in path.read_bytes()


@pytest.mark.parametrize("killed", [False, True])
def test_a_copy_without_the_log_is_refused(path: Path, tmp_path: Path, killed: bool) -> None:
    """Copied while a service used it: the last events are in the log only."""
    code = """
        import os, sys, pathlib
        from serving.store.contract import events
        from peterrec.serving.store.sqlite import SqliteStore
        store = SqliteStore(pathlib.Path(sys.argv[1]), 1000)
        store.append(events("u", *range(500)))
        os._exit(0)  # as by a kill
    """
    if killed:
        assert run(code, path).returncode == 0
    else:
        store = SqliteStore(path, 1000)
        store.append(events("u", *range(500)))
    copies = [tmp_path / name for name in ("without", "with")]
    for copy in copies:
        copy.mkdir()
        shutil.copy(path, copy)
    shutil.copy(f"{path}-wal", copies[1])
    with pytest.raises(StoreError, match=r"copied while it was in use(.|\n)*peterrec backup") as error:
        SqliteStore(copies[0] / path.name, 1000)
    copy_store = SqliteStore(copies[1] / path.name, 1000)
    assert copy_store.read("u").count == 500
    copy_store.close()
    forced = re.search(r"sqlite3 (\S+) '(.+)'", str(error.value))
    assert forced is not None
    with sqlite3.connect(copies[0] / forced[1]) as file:
        file.execute(forced[2])
    file.close()
    copy_store = SqliteStore(copies[0] / path.name, 1000)
    assert copy_store.read("u").count < 500
    copy_store.close()
    if not killed:
        store.close()
        shutil.copy(path, tmp_path / "closed.sqlite")
        closed = SqliteStore(tmp_path / "closed.sqlite", 1000)
        assert closed.read("u").count == 500
        closed.close()


def test_a_copy_without_the_log_is_refused_where_the_file_was_too(path: Path, tmp_path: Path) -> None:
    """Copied over the file, it may be the same file to the system."""
    store = SqliteStore(path, 1000)
    store.append(events("u", *range(500)))
    shutil.copy(path, tmp_path / "copy")
    store.close()
    assert {file.name for file in path.parent.iterdir()} == {path.name, "copy"}
    shutil.copy(tmp_path / "copy", path)
    with pytest.raises(StoreError, match="copied while it was in use"):
        SqliteStore(path, 1000)


def test_a_file_whose_log_another_program_took_in_is_whole(path: Path, tmp_path: Path) -> None:
    """Such as sqlite3, with which somebody looks at it after a kill."""
    store = SqliteStore(path, 1000)
    store.append(events("u", 1, 2, 3))
    killed = tmp_path / "killed"
    killed.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, killed)
    store.close()
    with sqlite3.connect(killed / path.name) as other_program:
        other_program.execute("SELECT count(*) FROM users_0").fetchall()
    other_program.close()
    assert not (killed / f"{path.name}-wal").exists()
    reopened = SqliteStore(killed / path.name, 1000)
    assert reopened.read("u").count == 3
    reopened.close()


@pytest.mark.parametrize("from_page", [1, 100])
def test_a_damaged_file(store: SqliteStore, path: Path, from_page: int) -> None:
    for i in range(20):
        store.append([Event(f"u{i}-{j}", "e", "x" * 100, 1.0) for j in range(200)])
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096 * from_page)
        file.write(b"\xa5" * (size - 4096 * from_page))

    def use() -> None:
        damaged = SqliteStore(path, 1000)
        try:
            for i in range(100):
                damaged.read(f"u{i}-1")
                damaged.append([Event(f"u{i}-1", "new", "x", 1.0)])
        finally:
            damaged.close()

    with pytest.raises(StoreError, match=r"damaged.*\n.*restore it from a backup"):
        use()


def test_a_place_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(tmp_path, 10)
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(tmp_path / "none" / "events.sqlite", 10)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_that_may_not_be_written(store: SqliteStore, path: Path) -> None:
    store.append(events("u", 1))
    with pytest.raises(StoreError, match="Permission denied"):
        as_nobody(path)


def as_nobody(path: Path) -> None:
    os.seteuid(65534)
    try:
        SqliteStore(path, 10)
    finally:
        os.seteuid(0)


def test_a_file_that_was_removed_takes_no_events_that_would_be_lost(store: SqliteStore, path: Path) -> None:
    store.append(events("u", 1))
    path.rename(path.with_name("moved"))
    for call in (lambda: store.append(events("u", 2, start=1)), lambda: store.read("u"), store.check):
        with pytest.raises(StoreError, match="removed or replaced"):
            call()
    path.with_name("moved").rename(path)
    assert store.append(events("u", 2, start=1)) == [True]


def test_a_forked_process_may_not_use_it(store: SqliteStore) -> None:
    store.append(events("u", 1))
    child = os.fork()
    if not child:
        try:
            store.read("u")
        except StoreError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_log_that_was_removed_is_noticed_before_events_are_acknowledged(tmp_path):
    store = SqliteStore(tmp_path / "events.sqlite", 10)
    store.append([Event("anna", "a", "item-1", 1.0)])
    (tmp_path / "events.sqlite-wal").unlink()
    with pytest.raises(StoreError, match="lost its log"):
        store.append([Event("anna", "b", "item-2", 2.0)])
    store.close()
