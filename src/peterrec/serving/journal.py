"""The journal of a service: bundles that operators loaded, rolled back and dropped, for the next start."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peterrec.errors import ArtifactError, PeterRecError
from peterrec.serving.versions import VersionHistory
from peterrec.storage import check_format, description_errors, read_json, write_json

KIND = "journal"
JOURNAL_VERSION = 1


@dataclass(frozen=True)
class _Entry:
    """Last change of one bundle by an operator.

    Attributes:
        history: of its versions; None: it was dropped.
        command_line: path that the command line had for the name at that time; None: none.
    """

    history: VersionHistory | None
    command_line: str | None

    def holds_for(self, command_line: str | None) -> bool:
        """Return whether the command line has the same path now; earlier releases recorded the absolute path."""
        path = None if command_line is None else str(Path(command_line).resolve())
        return self.command_line in (command_line, path)


class BundleJournal:
    """The bundles of a service in a JSON file, by version and not by path: a folder of state may be moved.

    The change of an operator holds unless the command line now has another path for that name than it had then.

    Args:
        path: JSON file, made when there is a change to record.

    Raises:
        ArtifactError: the file is damaged, or something else.
        FormatVersionError: a later release wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._command_line: dict[str, str] = {}
        self._entries = _read(path) if path.exists() else {}

    def start(self, command_line: Mapping[str, str]) -> dict[str, VersionHistory | None]:
        """Return the recorded changes that still hold, by name; None: the bundle was dropped.

        Args:
            command_line: path by name of its bundles, as written, so that all may be moved together.
        """
        with self._lock:
            self._command_line = dict(command_line)
            return {name: entry.history for name, entry in self._valid_entries().items()}

    def confirm(self) -> None:
        """Remove entries that the command line of `start` overrides.

        Raises:
            StorageError: the file cannot be written.
        """
        with self._lock:
            holding = self._valid_entries()
            if holding != self._entries:
                self._write(holding)

    def _valid_entries(self) -> dict[str, _Entry]:
        return {name: entry for name, entry in self._entries.items() if entry.holds_for(self._command_line.get(name))}

    def refers_to(self, name: str, version: str) -> bool:
        """Return whether the file on the disk names a version; True where it cannot be read."""
        try:
            return (name, version) in BundleJournal(self._path).versions() if self._path.exists() else False
        except (PeterRecError, OSError):
            return True

    def versions(self) -> list[tuple[str, str]]:
        """Return name and version of all bundles in the journal."""
        histories = {name: entry.history for name, entry in self._entries.items() if entry.history is not None}
        return [(name, version) for name, history in histories.items() for version in history.versions]

    def record(self, name: str, history: VersionHistory | None) -> None:
        """Record the versions of a bundle, or with None that it was dropped; on the disk when this returns.

        Raises:
            StorageError: the file cannot be written; it is left as it was.
        """
        with self._lock:
            entries = {**self._entries, name: _Entry(history, self._command_line.get(name))}
            if history is None and name not in self._command_line:  # there is nothing to record
                del entries[name]
            self._write(entries)

    def _write(self, entries: dict[str, _Entry]) -> None:
        bundles = {name: _to_json(entry) for name, entry in sorted(entries.items())}
        write_json(self._path, {"kind": KIND, "format_version": JOURNAL_VERSION, "bundles": bundles})
        self._entries = entries


def _to_json(entry: _Entry) -> dict[str, Any]:
    history = entry.history or VersionHistory(())
    return {"answered": list(history.answered), "withdrawn": list(history.withdrawn), "given": entry.command_line}


def _read(path: Path) -> dict[str, _Entry]:
    try:
        tree = read_json(path)
        check_format(tree, KIND, path, supported=JOURNAL_VERSION)
        with description_errors(path):
            return {_checked_text(name): _parse_entry(values) for name, values in dict(tree["bundles"]).items()}
    except ArtifactError as error:
        remedy = "restore it, or remove it to start with the bundles of the command line only"
        raise type(error)(error.message, remedy=remedy, path=path) from error


def _parse_entry(values: dict[str, Any]) -> _Entry:
    command_line = None if values["given"] is None else _checked_text(values["given"])
    if "path" in values:  # as earlier releases wrote it: the copy is in a folder of the version's name
        version = None if values["path"] is None else Path(_checked_text(values["path"])).name
        return _Entry(None if version is None else VersionHistory((version,)), command_line)
    answered, withdrawn = (
        tuple(_checked_text(version) for version in values[name]) for name in ("answered", "withdrawn")
    )
    if len({*answered, *withdrawn}) < len(answered) + len(withdrawn):
        raise ValueError("a version is named twice")
    return _Entry(VersionHistory(answered, withdrawn) if answered else None, command_line)


def _checked_text(value: object) -> str:
    """Return a name of a bundle or a version, or a path.

    Raises:
        TypeError: it is not text.
    """
    if not isinstance(value, str):
        raise TypeError("a name or a path is not text")
    return value
