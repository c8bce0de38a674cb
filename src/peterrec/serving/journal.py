"""Which bundles operators loaded or dropped while the service ran, so that they are still so after a restart."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peterrec.errors import ArtifactError
from peterrec.storage import FORMAT_VERSION, check_format, description_errors, read_json, write_json

KIND = "journal"


@dataclass(frozen=True)
class _Entry:
    """What an operator did to a name last.

    Attributes:
        path: the bundle that was loaded; None: it was dropped.
        given: what the command line said for the name then; None: nothing.
    """

    path: str | None
    given: str | None


class BundleJournal:
    """Remembers the bundles of a service in a file.

    The last word holds: what an operator did, unless the command line says something else for that name than it did
    then.

    Args:
        path: JSON file, made when there is something to remember.

    Raises:
        ArtifactError: the file is damaged, or something else.
        FormatVersionError: a later release wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._given: dict[str, str] = {}
        self._entries = _read(path) if path.exists() else {}

    def start(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the bundles to load: path by name. Entries that the command line overrules are forgotten.

        Args:
            given: those of the command line.

        Raises:
            StorageError: the file cannot be written.
        """
        with self._lock:
            self._given = dict(given)
            holding = {name: entry for name, entry in self._entries.items() if entry.given == given.get(name)}
            if holding != self._entries:
                self._write(holding)
            paths = self._given | {name: entry.path for name, entry in holding.items()}
        return {name: path for name, path in paths.items() if path is not None}

    def record(self, name: str, path: str | Path | None) -> None:
        """Remember, on the disk when this returns, that a bundle was loaded, or with None that it was dropped.

        Raises:
            StorageError: the file cannot be written; what it said before still holds.
        """
        with self._lock:
            entry = _Entry(None if path is None else str(path), self._given.get(name))
            entries = {**self._entries, name: entry}
            if entry.path == entry.given:  # as the command line says: there is nothing to remember
                del entries[name]
            self._write(entries)

    def _write(self, entries: dict[str, _Entry]) -> None:
        bundles = {name: asdict(entry) for name, entry in sorted(entries.items())}
        write_json(self._path, {"kind": KIND, "format_version": FORMAT_VERSION, "bundles": bundles})
        self._entries = entries


def _read(path: Path) -> dict[str, _Entry]:
    try:
        found = read_json(path)
        check_format(found, KIND, path)
        with description_errors(path):
            return {_text(name): _entry(values) for name, values in dict(found["bundles"]).items()}
    except ArtifactError as error:
        remedy = "restore it, or remove it to start with the bundles of the command line only"
        raise type(error)(error.what, remedy=remedy, path=path) from error


def _entry(values: dict[str, Any]) -> _Entry:
    path, given = values["path"], values["given"]
    return _Entry(None if path is None else _text(path), None if given is None else _text(given))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name or a path is not text")
    return value
