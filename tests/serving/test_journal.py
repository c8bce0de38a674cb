from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from builders import file_size_limit
from peterrec.errors import ArtifactError, FormatVersionError, StorageError
from peterrec.serving.journal import BundleJournal

GIVEN = {"age": "runs/age", "music": "runs/music"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "bundles.json"


def test_without_changes_the_command_line_holds_and_nothing_is_written(path: Path) -> None:
    assert BundleJournal(path).start(GIVEN) == GIVEN
    assert not path.parent.exists()


def test_what_operators_did_holds_after_a_restart(path: Path) -> None:
    journal = BundleJournal(path)
    journal.start(GIVEN)
    journal.record("age", path.parent / "age-2")
    journal.record("music", None)
    journal.record("shop", "new/shop")
    journal.record("gone", "new/gone")
    journal.record("gone", None)
    assert BundleJournal(path).start(GIVEN) == {"age": str(path.parent / "age-2"), "shop": "new/shop"}
    assert BundleJournal(path).start(GIVEN) == {"age": str(path.parent / "age-2"), "shop": "new/shop"}


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ({"age": "runs/age-3"}, {"age": "runs/age-3"}),  # it says something else: that is newer
        ({"age": "runs/age"}, {"age": "loaded/age"}),
        ({}, {}),  # it no longer says anything of the name
    ],
)
def test_a_changed_command_line_is_the_last_word(path: Path, later: dict[str, str], expected: dict[str, str]) -> None:
    journal = BundleJournal(path)
    journal.start({"age": "runs/age"})
    journal.record("age", "loaded/age")
    assert BundleJournal(path).start(later) == expected


def test_a_name_that_was_added_gives_way_to_a_new_command_line_and_stays_so(path: Path) -> None:
    journal = BundleJournal(path)
    journal.start({})
    journal.record("shop", "loaded/shop")
    assert BundleJournal(path).start({"shop": "given/shop"}) == {"shop": "given/shop"}
    assert BundleJournal(path).start({}) == {}  # what was overruled once does not come back


def test_going_back_to_the_command_line_leaves_nothing_to_remember(path: Path) -> None:
    journal = BundleJournal(path)
    journal.start(GIVEN)
    journal.record("age", None)
    journal.record("age", "runs/age")
    assert json.loads(path.read_text())["bundles"] == {}
    assert BundleJournal(path).start(GIVEN) == GIVEN


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"kind": "journal", "format_version": 1}',
        b'{"kind": "bundle", "format_version": 1, "bundles": {}}',
        b'{"kind": "journal", "format_version": 1, "bundles": 3}',
        b'{"kind": "journal", "format_version": 1, "bundles": {"age": "runs/age"}}',
        b'{"kind": "journal", "format_version": 1, "bundles": {"age": {"path": 3, "given": null}}}',
        b'{"kind": "journal", "format_version": 1, "bundles": {"age": {"path": null}}}',
    ],
)
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bundles.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="remove it to start with the bundles of the command line"):
        BundleJournal(path)
    assert path.read_bytes() == content


def test_what_a_later_release_wrote_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bundles.json"
    path.write_text('{"kind": "journal", "format_version": 99, "bundles": {}}')
    with pytest.raises(FormatVersionError, match="99"):
        BundleJournal(path)


def test_a_full_disk_keeps_what_was_there(path: Path) -> None:
    journal = BundleJournal(path)
    journal.record("age", "a")
    before = path.read_bytes()
    with file_size_limit(50), pytest.raises(StorageError, match="full"):
        journal.record("age", "b")
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["bundles.json"]
    journal.record("music", "m")
    assert BundleJournal(path).start({}) == {"age": "a", "music": "m"}


def test_several_threads_record_at_once(path: Path) -> None:
    journal = BundleJournal(path)
    names: list[Any] = [f"task-{i}" for i in range(12)]
    threads = [threading.Thread(target=journal.record, args=(name, f"of/{name}")) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert BundleJournal(path).start({}) == {name: f"of/{name}" for name in names}
