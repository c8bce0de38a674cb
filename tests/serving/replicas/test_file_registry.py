"""The registry of bundles that the workers of one service share, and its journal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from peterrec.errors import StoreError
from peterrec.serving.journal import BundleJournal
from peterrec.serving.replicas.base import Entry, Listing
from peterrec.serving.replicas.file_registry import FileRegistry
from peterrec.serving.replicas.readers import NO_COPIES, WorkerReaders
from peterrec.serving.state_folder import JOURNAL
from peterrec.serving.versions import VersionHistory

FIRST, SECOND = VersionHistory(("v1",)), VersionHistory(("v1", "v2"), ("v0",))


def created(state: Path, **command_line: str) -> FileRegistry:
    state.mkdir(exist_ok=True)
    registry = FileRegistry(state, command_line)
    registry.create()
    return registry


def listing(registry: FileRegistry) -> Listing:
    content = registry.read("")
    assert content is not None
    return content


def journal(state: Path, **command_line: str) -> dict[str, VersionHistory | None]:
    return BundleJournal(state / JOURNAL).start(command_line)


def test_what_one_worker_publishes_all_read_and_the_journal_has(tmp_path: Path) -> None:
    registry, second_worker = created(tmp_path), FileRegistry(tmp_path, {})
    before = listing(second_worker)
    assert registry.publish("age", None, FIRST) == 1
    now = second_worker.read(before.state)
    assert now is not None
    assert (now.generation, now.active) == (1, {"age": "v1"})
    assert second_worker.read(now.state) is None
    assert registry.publish("age", None, SECOND) is None
    assert second_worker.publish("age", now.entries["age"], SECOND) == 2
    assert journal(tmp_path) == {"age": SECOND}
    assert registry.publish("age", listing(registry).entries["age"], None) == 3
    assert listing(second_worker).active == {}
    assert journal(tmp_path) == {}


def test_bundles_of_the_command_line_are_no_operators_until_one_changes_them(tmp_path: Path) -> None:
    registry = created(tmp_path, age="folder")
    registry.publish("age", None, FIRST, seed=True)
    assert listing(registry).active == {"age": "v1"}
    assert journal(tmp_path, age="folder") == {}
    registry.publish("age", listing(registry).entries["age"], None)
    assert journal(tmp_path, age="folder") == {"age": None}
    restarted = created(tmp_path, age="folder")
    assert listing(restarted).entries["age"].history is None
    overridden = created(tmp_path, age="another folder")
    assert listing(overridden).entries == {}
    assert journal(tmp_path, age="folder") == {"age": None}  # a mistake of the command line overrules nothing
    overridden.confirm()
    assert journal(tmp_path, age="folder") == {}


def test_of_changes_at_once_each_is_made_once(tmp_path: Path) -> None:
    created(tmp_path)

    def add(number: int) -> None:
        registry = FileRegistry(tmp_path, {})
        while True:
            before: Entry | None = listing(registry).entries.get("age")
            history = VersionHistory((*(before.history.answered if before and before.history else ()), f"v{number}"))
            if registry.publish("age", before, history):
                return

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(12)))
    history = listing(FileRegistry(tmp_path, {})).entries["age"].history
    assert history is not None
    assert sorted(history.answered) == sorted(f"v{number}" for number in range(12))


def test_a_file_that_is_gone_is_no_registry_without_bundles(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is missing"):
        FileRegistry(tmp_path, {}).read("")


def test_workers_wait_for_each_other_until_they_have_followed_or_ended() -> None:
    followed = [NO_COPIES, NO_COPIES]
    first, second = WorkerReaders(followed, 0), WorkerReaders(followed, 1)
    assert first.lapsed
    assert first.behind(1) == 0
    first.follow(0)
    second.follow(0)
    assert not first.lapsed
    assert (first.behind(0), first.behind(1)) == (0, 1)
    second.follow(1)
    assert (first.behind(1), second.behind(1)) == (0, 1)
    first.close()
    assert second.behind(1) == 0
