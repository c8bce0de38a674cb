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
        kept: folder for copies of what operators loaded or rolled back to.
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
        self._remember(info, before)
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
        self._remember(info, before)
        self._log.write("bundle rolled back", name=name, version=info.version)
        return info

    def drop(self, name: str) -> None:
        """Forget a bundle."""
        self._engine.versions(name)  # who is not there is not written about
        self._journal.record(name, None)
        self._engine.drop(name)
        self._tidy(name)
        self._log.write("bundle dropped", name=name)

    def _remember(self, info: VersionInfo, before: VersionInfo | None) -> None:
        """Keep a copy of the version that answers now, for a restart; if that fails, the one before answers again.

        Its own folder may be written anew or removed before that.
        """
        copy = self._kept / info.name / info.version
        try:
            self._engine.save(info.name, copy)
            self._journal.record(info.name, str(copy))
        except PeterRecError:
            if before is None:
                self._engine.drop(info.name)
            elif before.version != info.version:
                self._engine.roll_back(info.name, before.version)
            raise
        self._tidy(info.name, but=copy)

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
    """Return whether it may be a bundle: a description, and nothing that cannot be read to an end, such as a pipe."""
    try:
        content = list(folder.iterdir())
        return any(one.suffix == ".json" for one in content) and all(one.is_file() or one.is_dir() for one in content)
    except OSError:  # such as a name that is too long
        return False
