from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from builders import file_size_limit
from peterrec.errors import ArtifactError, FormatVersionError, StorageError
from peterrec.serving.journal import BundleJournal
from peterrec.serving.versions import VersionHistory

BUNDLE_FOLDERS = {"age": "runs/age", "music": "runs/music"}
FIRST, SECOND = VersionHistory(("v1",)), VersionHistory(("v1", "v3"), ("v2",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "bundles.json"


def test_without_changes_the_command_line_holds_and_nothing_is_written(path: Path) -> None:
    assert BundleJournal(path).start(BUNDLE_FOLDERS) == {}
    assert not path.parent.exists()


def test_what_operators_did_holds_after_a_restart(path: Path) -> None:
    journal = BundleJournal(path)
    journal.start(BUNDLE_FOLDERS)
    journal.record("age", FIRST)
    journal.record("age", SECOND)
    journal.record("music", None)
    journal.record("shop", FIRST)
    journal.record("gone", FIRST)
    journal.record("gone", None)
    assert BundleJournal(path).start(BUNDLE_FOLDERS) == {"age": SECOND, "music": None, "shop": FIRST}
    assert BundleJournal(path).start(BUNDLE_FOLDERS) == {"age": SECOND, "music": None, "shop": FIRST}
    assert BundleJournal(path).versions() == [("age", "v2"), ("age", "v1"), ("age", "v3"), ("shop", "v1")]


def test_it_names_no_folder_of_its_own_so_that_it_may_be_moved(path: Path) -> None:
    journal = BundleJournal(path)
    journal.record("age", SECOND)
    assert str(path.parent) not in path.read_text()


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ({"age": "runs/age-3"}, {}),  # it says something else: that is newer
        ({"age": "runs/age"}, {"age": SECOND}),
        ({}, {}),  # it no longer says anything of the name
    ],
)
def test_a_changed_command_line_is_the_last_word(
    path: Path, later: dict[str, str], expected: dict[str, VersionHistory]
) -> None:
    journal = BundleJournal(path)
    journal.start({"age": "runs/age"})
    journal.record("age", SECOND)
    assert BundleJournal(path).start(later) == expected


def test_a_name_that_was_added_gives_way_to_a_new_command_line_and_stays_so(path: Path) -> None:
    journal = BundleJournal(path)
    journal.start({})
    journal.record("shop", FIRST)
    journal = BundleJournal(path)
    assert journal.start({"shop": "given/shop"}) == {}
    assert BundleJournal(path).start({}) == {"shop": FIRST}  # not before the command line was seen to be right
    journal.confirm()
    assert BundleJournal(path).start({}) == {}  # what was overruled once does not come back


def test_a_command_line_of_relative_paths_is_the_same_elsewhere(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    journal = BundleJournal(path)
    journal.start({"age": "runs/age"})
    journal.record("age", SECOND)
    monkeypatch.chdir(tmp_path / "there")
    assert BundleJournal(path).start({"age": "runs/age"}) == {"age": SECOND}


def test_what_an_earlier_release_wrote_is_read(path: Path) -> None:
    path.parent.mkdir()
    bundles = {
        "age": {"path": "/elsewhere/state/bundles/age/v1", "given": str(Path("runs/age").resolve())},
        "music": {"path": None, "given": "runs/music"},
    }
    path.write_text(json.dumps({"kind": "journal", "format_version": 1, "bundles": bundles}))
    assert BundleJournal(path).start(BUNDLE_FOLDERS) == {"age": FIRST, "music": None}


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
        b'{"kind": "journal", "format_version": 1,'
        b' "bundles": {"age": {"answered": [3], "withdrawn": [], "given": null}}}',
        b'{"kind": "journal", "format_version": 1, "bundles": {"age": {"answered": ["v"], "given": null}}}',
        b'{"kind": "journal", "format_version": 1,'
        b' "bundles": {"age": {"answered": ["v"], "withdrawn": ["v"], "given": null}}}',
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
    journal.record("age", FIRST)
    before = path.read_bytes()
    with file_size_limit(50), pytest.raises(StorageError, match="full"):
        journal.record("age", SECOND)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["bundles.json"]
    journal.record("music", SECOND)
    assert BundleJournal(path).start({}) == {"age": FIRST, "music": SECOND}


def test_several_threads_record_at_once(path: Path) -> None:
    journal = BundleJournal(path)
    names: list[Any] = [f"task-{i}" for i in range(12)]
    threads = [threading.Thread(target=journal.record, args=(name, VersionHistory((name,)))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert BundleJournal(path).start({}) == {name: VersionHistory((name,)) for name in names}
