"""Bundles that come and go while the service answers; what is loaded is loaded again after a restart."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from peterrec.errors import PeterRecError, RequestError, UnknownTaskError
from peterrec.serving.http.errors import ApiError, as_api_error
from peterrec.serving.http.logs import Log
from peterrec.serving.requests import VersionInfo

if TYPE_CHECKING:
    from peterrec.serving.engine import Engine
    from peterrec.serving.journal import BundleJournal


class Bundles:
    """What operators do. Every call may take long, and is made by one thread.

    Args:
        engine: answers with the bundles.
        journal: is told what is loaded.
        root: folder that bundles are loaded from.
        kept: folder for copies of versions that were rolled back to: their own folders may have other content by now.
        log: gets a line for each change.
    """

    def __init__(self, engine: Engine, journal: BundleJournal, root: str, kept: Path, log: Log) -> None:
        self._engine, self._journal, self._log = engine, journal, log
        self._root = Path(root).resolve()
        self._kept = kept.resolve()

    def find(self, path: str) -> Path:
        """Return the folder that a client means.

        Raises:
            ApiError: it is not below the root (403), or no path at all (422).
        """
        try:
            found = (self._root / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ApiError(422, "invalid_request", "path: is not a path", "name a folder") from error
        if not found.is_relative_to(self._root):
            raise ApiError(403, "forbidden", "path: is not below the bundle root", "copy the bundle there, and load it")
        return found

    def load(self, name: str, path: str) -> VersionInfo:
        """Load or replace a bundle. What cannot be remembered is not kept: a restart would not bring it back."""
        folder = self.find(path)
        if not _described(folder):
            raise ApiError(
                404, "no_bundle", "path: there is no bundle in this folder", "name one that has been written"
            )
        before = self._active(name)
        try:
            info = self._engine.load(name, folder)
        except PeterRecError as error:
            raise self._told(error, path) from error
        try:
            self._journal.record(name, str(folder))
        except PeterRecError:
            if before is None:
                self._engine.drop(name)
            else:
                self._engine.roll_back(name, before.version)
            raise
        self._tidy(name)
        self._log.write("bundle loaded", name=name, version=info.version, kind=info.kind, index=info.index)
        return info

    def roll_back(self, name: str, version: str | None) -> VersionInfo:
        """Let another version answer. What cannot be remembered does not hold.

        Raises:
            ApiError: there is no such version (404).
        """
        before = self._active(name)
        try:
            info = self._engine.roll_back(name, version)
        except UnknownTaskError:
            raise
        except RequestError as error:
            raise ApiError(404, "unknown_version", error.what, error.remedy) from error
        try:
            copy = self._kept / name / info.version
            self._engine.save(name, copy)
            self._journal.record(name, str(copy))
        except PeterRecError:
            if before is not None:
                self._engine.roll_back(name, before.version)
            raise
        self._tidy(name, but=copy)
        self._log.write("bundle rolled back", name=name, version=info.version)
        return info

    def drop(self, name: str) -> None:
        """Forget a bundle."""
        self._engine.versions(name)  # who is not there is not written about
        self._journal.record(name, None)
        self._engine.drop(name)
        self._tidy(name)
        self._log.write("bundle dropped", name=name)

    def _tidy(self, name: str, but: Path | None = None) -> None:
        """Remove copies that nothing remembers any more."""
        for copy in (self._kept / name).glob("*"):
            if copy != but:
                shutil.rmtree(copy, ignore_errors=True)

    def _active(self, name: str) -> VersionInfo | None:
        try:
            return next((one for one in self._engine.versions(name) if one.active), None)
        except UnknownTaskError:
            return None

    def _told(self, error: PeterRecError, path: str) -> ApiError:
        """Return the error with the file it is about, named as the client did: not where the root is."""
        told = as_api_error(error)
        where = path
        if error.path is not None and Path(error.path).is_relative_to(self._root):
            where = str(Path(error.path).relative_to(self._root))
        told.message = f"{where}: {told.message}"
        return told


def _described(folder: Path) -> bool:
    try:
        return any(folder.glob("*.json"))
    except OSError:  # such as a name that is too long
        return False
