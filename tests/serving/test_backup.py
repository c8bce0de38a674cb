"""A copy of a folder of state, made while it is in use."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from builders import file_size_limit
from peterrec.cli.main import execute
from peterrec.errors import ArtifactError, FormatVersionError, StorageError, StoreError
from peterrec.serving.backup import backup
from peterrec.serving.journal import BundleJournal
from peterrec.serving.store.sqlite import SqliteStore
from peterrec.serving.versions import VersionHistory
from serving.store.contract import events, ids

HISTORY = VersionHistory(("v1", "v2"), ("v3",))


def copies(state: Path, name: str, *versions: str) -> None:
    for version in versions:
        folder = state / "bundles" / name / version
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(version)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    copies(state, "age", "v1", "v2", "v3", "given-up")
    journal = BundleJournal(state / "bundles.json")
    journal.start({"shop": "runs/shop"})
    journal.record("age", HISTORY)
    journal.record("shop", None)
    return state


def test_a_copy_has_all_that_was_acknowledged_and_is_opened_as_it_is(state: Path, tmp_path: Path) -> None:
    store = SqliteStore(state / "events.sqlite", 1000)
    store.append([*events("u", *range(500)), *events("v", 1)])
    store.set_opt_out("u", "age", opted_out=True)
    lines = backup(state, tmp_path / "copy")
    store.append(events("u", 600, start=600))
    assert lines == ["bundles: 1", "users with events: 2"]
    copy = SqliteStore(tmp_path / "copy" / "events.sqlite", 1000)
    assert copy.read("u").count == 500
    assert copy.read("u").opted_out == {"age"}
    copy.close()
    journal = BundleJournal(tmp_path / "copy" / "bundles.json")
    assert journal.start({"shop": "runs/shop"}) == {"age": HISTORY, "shop": None}
    versions = [path.name for path in (tmp_path / "copy" / "bundles" / "age").iterdir()]
    assert sorted(versions) == ["v1", "v2", "v3"]
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"events.sqlite", "bundles.json", "bundles"}
    store.close()


def test_a_copy_is_of_one_moment_while_events_come(state: Path, tmp_path: Path) -> None:
    store = SqliteStore(state / "events.sqlite", 100_000)
    store.append(events("u", *range(2_000)))
    finished, written = threading.Event(), [2_000]

    def write() -> None:
        while not finished.is_set():
            store.append(events("u", written[0], written[0] + 0.5, start=written[0]))
            written[0] += 2

    writer = threading.Thread(target=write)
    writer.start()
    before = written[0]
    backup(state, tmp_path / "copy")
    finished.set()
    writer.join()
    copy = SqliteStore(tmp_path / "copy" / "events.sqlite", 100_000)
    copied_ids = ids(copy.read("u"))
    assert before <= len(copied_ids) <= written[0]
    assert copied_ids == [f"e{i}" for i in range(len(copied_ids))]
    copy.close()
    store.close()


def test_the_state_of_a_killed_service_is_copied_and_still_starts(state: Path, tmp_path: Path) -> None:
    store = SqliteStore(state / "events.sqlite", 1000)
    store.append(events("u", 1, 2, 3))
    killed = tmp_path / "killed"
    shutil.copytree(state, killed)  # file and log, as a kill leaves them
    store.close()
    backup(killed, tmp_path / "copy")
    for folder in (killed, tmp_path / "copy"):
        copied_store = SqliteStore(folder / "events.sqlite", 1000)
        assert copied_store.read("u").count == 3
        copied_store.close()


def test_bundles_that_change_meanwhile_are_copied_again(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copytree, calls = shutil.copytree, []

    def changing(source: Path, target: Path) -> None:
        copytree(source, target)
        calls.append(source)
        if len(calls) == 2:
            copies(state, "age", "v4")
            BundleJournal(state / "bundles.json").record("age", VersionHistory(("v4",)))
            shutil.rmtree(state / "bundles" / "age" / "v1")

    monkeypatch.setattr(shutil, "copytree", changing)
    backup(state, tmp_path / "copy")
    assert BundleJournal(tmp_path / "copy" / "bundles.json").versions() == [("age", "v4")]
    assert [path.name for path in (tmp_path / "copy" / "bundles" / "age").iterdir()] == ["v4"]


def test_a_version_without_a_copy_is_left_out_and_said(state: Path, tmp_path: Path) -> None:
    shutil.rmtree(state / "bundles" / "age" / "v1")
    assert backup(state, tmp_path / "copy")[:2] == [
        "bundles: 1", "no version v1 of 'age': its copy is missing or damaged"
    ]  # fmt: skip
    assert {path.name for path in (tmp_path / "copy" / "bundles" / "age").iterdir()} == {"v2", "v3"}


def test_a_copy_that_lacks_the_log_is_not_taken_for_a_whole_one(state: Path, tmp_path: Path) -> None:
    store = SqliteStore(state / "events.sqlite", 1000)
    store.append(events("u", *range(500)))
    (tmp_path / "bad").mkdir()
    shutil.copy(state / "events.sqlite", tmp_path / "bad")
    for _ in range(2):
        with pytest.raises(StoreError, match="copied while it was in use"):
            backup(tmp_path / "bad", tmp_path / "copy")
        with pytest.raises(StoreError, match="copied while it was in use"):
            SqliteStore(tmp_path / "bad" / "events.sqlite", 1000)
    store.close()


def test_what_cannot_be_copied_leaves_nothing(state: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a folder of state"):
        backup(tmp_path, tmp_path / "copy")
    store = SqliteStore(state / "events.sqlite", 1000)
    store.append(events("u", *range(500)))
    with pytest.raises((StoreError, StorageError)), file_size_limit(20_000):
        backup(state, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    (tmp_path / "copy").mkdir()
    with pytest.raises(ArtifactError, match="exists"):
        backup(state, tmp_path / "copy")
    store.close()
    (state / "events.sqlite").write_bytes(b"nothing of ours" * 1000)
    with pytest.raises(StoreError, match="cannot be copied"):
        backup(state, tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "error"), [("user_version=2", FormatVersionError), ("application_id=7", StoreError)]
)
def test_a_file_of_another_release_is_refused(state: Path, tmp_path: Path, change: str, error: type[Exception]) -> None:
    SqliteStore(state / "events.sqlite", 1000).close()
    with contextlib.closing(sqlite3.connect(state / "events.sqlite")) as file:
        file.execute(f"PRAGMA {change}")
    with pytest.raises(error, match=r"version 2|not a store"):
        backup(state, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_from_the_command_line(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["backup", str(state), str(tmp_path / "copy")]) == 0
    output = capsys.readouterr().err
    assert "copied bundles: 1" in output
    assert "no events: they are not in this folder" in output
    assert f"--state {tmp_path / 'copy'}" in output
    assert execute(["backup", str(state), str(tmp_path / "copy")]) == 2
    assert "What to do" in capsys.readouterr().err
