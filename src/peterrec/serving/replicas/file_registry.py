"""A registry of bundles in a file, for the workers of one service; what operators change is in its journal, too."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from peterrec.errors import PeterRecError, StoreError
from peterrec.serving.journal import BundleJournal
from peterrec.serving.replicas.base import Entry, Listing, pack_history, unpack_entry
from peterrec.serving.state_folder import JOURNAL, REGISTRY
from peterrec.serving.versions import VersionHistory
from peterrec.storage import read_json, write_json


class FileRegistry:
    """A `SharedRegistry` in a folder of state, from one start of the service to its end.

    It begins with what the journal remembers. Each change is made under a lock of the file, in the journal first.

    Args:
        state: the folder; `create` has made the file.
        command_line: folders of bundles by name, as they are written there.
    """

    identity = ""

    def __init__(self, state: Path, command_line: Mapping[str, str]) -> None:
        self._path, self._journal_path = state / REGISTRY, state / JOURNAL
        self._command_line = dict(command_line)
        self._lock = FileLock(f"{self._path}.lock", thread_local=False)

    def create(self) -> None:
        """Write the file with what operators changed before this start, as far as the command line leaves it valid.

        Raises:
            ArtifactError, FormatVersionError: the journal is damaged.
            StorageError: the file cannot be written.
        """
        remembered = BundleJournal(self._journal_path).start(self._command_line)
        entries = {name: f"0 {secrets.token_hex(8)} {pack_history(history)}" for name, history in remembered.items()}
        with self._lock:
            write_json(self._path, {"state": secrets.token_hex(8), "generation": 0, "entries": entries})

    def confirm(self) -> None:
        """Remove entries of the journal that the command line overrides.

        Raises:
            StorageError: the journal cannot be written.
        """
        with self._lock:
            self._open_journal().confirm()

    def read(self, state: str) -> Listing | None:
        """Return all entries, or None if nothing has changed; see `SharedRegistry`."""
        tree = self._read()
        if tree["state"] == state:
            return None
        entries = {name: unpack_entry(text) for name, text in sorted(tree["entries"].items())}
        return Listing(tree["state"], int(tree["generation"]), entries)

    def publish(
        self, name: str, before: Entry | None, history: VersionHistory | None, *, seed: bool = False
    ) -> int | None:
        """Replace the entry of a name in one step; see `SharedRegistry`."""
        with self._lock:
            tree = self._read()
            if tree["entries"].get(name) != (None if before is None else before.text):
                return None
            if not seed:  # a bundle of the command line is no operator's
                self._open_journal().record(name, history)
            generation = int(tree["generation"]) + 1
            mark = f"{generation} {secrets.token_hex(8)}"
            entries = {**tree["entries"], name: f"{mark} {pack_history(history)}"}
            write_json(self._path, {"state": mark, "generation": generation, "entries": entries})
            return generation

    def close(self) -> None:
        """Close nothing: no file stays open."""

    def _open_journal(self) -> BundleJournal:
        journal = BundleJournal(self._journal_path)  # as it is now: all workers write it
        journal.start(self._command_line)
        return journal

    def _read(self) -> dict[str, Any]:
        try:
            return read_json(self._path)
        except PeterRecError as error:
            raise StoreError(error.message, remedy="start the service again", path=self._path) from error
