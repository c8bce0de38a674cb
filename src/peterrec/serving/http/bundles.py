"""Bundles that come and go while the service answers; what is loaded is loaded again after a restart."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from peterrec.errors import PeterRecError, RequestError, UnknownTaskError
from peterrec.serving.http.errors import ApiError, as_api_error
from peterrec.serving.http.logs import Log
from peterrec.serving.requests import FailedBundle, VersionInfo

if TYPE_CHECKING:
    from peterrec.serving.engine import Engine
    from peterrec.serving.journal import BundleJournal
    from peterrec.serving.loaded_bundle import LoadedBundle
    from peterrec.serving.registry import Staged
    from peterrec.serving.versions import VersionHistory


class Bundles:
    """Operations on bundles. Every call may take long, and is made by one thread.

    Args:
        engine: answers with the bundles.
        journal: is told what is loaded.
        root: folder that bundles are loaded from.
        copies: folder for copies of what operators loaded or rolled back to.
        log: gets a line for each change.
    """

    def __init__(self, engine: Engine, journal: BundleJournal, root: str, copies: Path, log: Log) -> None:
        self._engine, self._journal, self._log = engine, journal, log
        self._root = Path(root).resolve()
        self._copies = copies.resolve()
        # By name: what could not be loaded after a restart. Replaced, not changed: another thread may look through it.
        self.failed: dict[str, FailedBundle] = {}

    def find(self, path: str) -> Path:
        """Return the folder that a client means.

        Raises:
            ApiError: it is not below the root (403), or no path at all (422).
        """
        try:
            folder = (self._root / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ApiError(422, "invalid_request", "path: is not a path", "name a folder") from error
        if not folder.is_relative_to(self._root):
            raise ApiError(403, "forbidden", "path: is not below the bundle root", "copy the bundle there, and load it")
        return folder

    def start(self, command_line: Mapping[str, str]) -> None:
        """Load the bundles of the command line, and what operators made of them and of others before this start.

        Args:
            command_line: folders of its bundles by name, as they are written there.

        Raises:
            PeterRecError: one of the command line cannot be loaded.
        """
        remembered = self._journal.start(command_line)
        for name, path in command_line.items():
            if name not in remembered:
                self._engine.load(name, Path(path).resolve())
        self._journal.confirm()  # only now: a mistake of the command line overrules nothing
        for name, history in remembered.items():
            change = "dropped it" if history is None else f"let version {history.active} answer"
            self._log.write("bundle remembered", name=name, message=f"an operator {change} before this start")
            if history is not None:
                self._restore(name, history)
        for folder in self._copies.glob("*"):  # what was written when the service was killed
            history = remembered.get(folder.name)
            self._tidy(folder.name, () if history is None else history.versions)

    def _restore(self, name: str, history: VersionHistory) -> None:
        """Load the copies of a bundle's versions, as they were before a restart.

        Where the active one cannot be loaded the bundle is listed as failed, and the others answer; where an older one
        cannot, it is given up.
        """
        versions: list[LoadedBundle] = []
        for version in history.versions:
            copy = self._copy(name, version)
            try:
                versions.append(self._engine.read(name, copy, version))
            except Exception as error:
                failure = _failed_bundle(name, version, copy, error)
                self._log.write("bundle failed", "error", **asdict(failure))
                if version == history.active:
                    self.failed = {**self.failed, name: failure}
                    return
        self._engine.activate(self._engine.stage_versions(versions, history))

    def load(self, name: str, path: str) -> VersionInfo:
        """Load or replace a bundle."""
        folder = self.find(path)
        if not _looks_like_bundle(folder):
            raise ApiError(
                404, "no_bundle", "path: there is no bundle in this folder", "name one that has been written"
            )
        try:
            staged = self._engine.stage(name, folder)
        except PeterRecError as error:
            raise self._client_error(error, path) from error
        info = self._change(staged)
        self._log.write("bundle loaded", name=name, version=info.version, kind=info.kind, index=info.index)
        return info

    def roll_back(self, name: str, version: str | None) -> VersionInfo:
        """Activate another version.

        Raises:
            ApiError: there is no such version (404).
        """
        self.check_loaded([name])
        try:
            staged = self._engine.stage_roll_back(name, version)
        except UnknownTaskError:
            raise
        except RequestError as error:
            raise ApiError(404, "unknown_version", error.message, error.remedy) from error
        info = self._change(staged)
        self._log.write("bundle rolled back", name=name, version=info.version)
        return info

    def drop(self, name: str) -> None:
        """Forget a bundle."""
        if name not in self.failed:
            self._engine.versions(name)  # who is not there is not written about
        self._journal.record(name, None)
        if name in self.failed:
            self._forget_failure(name)
        else:
            self._engine.drop(name)
        self._tidy(name, ())
        self._log.write("bundle dropped", name=name)

    def _change(self, staged: Staged) -> VersionInfo:
        """Make a change that a restart will find: on the disk first, then in memory, where it cannot fail.

        Each version has a copy, for its own folder may be written anew or removed. What fails on the way leaves the
        answers, the memory and what is remembered as they were.

        A copy is left alone, for while it is replaced there is none; only that of the version that will answer is
        written anew if it cannot be read.
        """
        name, history = staged.name, staged.history
        new = [version for version in history.versions if not self._copy(name, version).exists()]
        if history.active not in new and not self._can_be_read(name, history.active):
            new.append(history.active)
        try:
            for version in new:
                copy = self._copy(name, version)
                if copy.is_file():  # whatever that is
                    copy.unlink()
                staged.versions[version].save(copy)
            self._journal.record(name, history)
        except BaseException:
            for version in new:
                if not self._journal.refers_to(name, version):  # it may be written, and what came after failed
                    shutil.rmtree(self._copy(name, version), ignore_errors=True)
            raise
        info = self._engine.activate(staged)
        self._forget_failure(name)
        self._tidy(name, history.versions)
        return info

    def check_loaded(self, names: Iterable[str]) -> None:
        """Refuse names of bundles that are there but cannot answer.

        Raises:
            ApiError: one of them could not be loaded after a restart (503).
        """
        for name in names:
            if name in self.failed:
                message = f"the bundle {name!r} could not be loaded after a restart"
                raise ApiError(
                    503, "bundle_failed", message, "its operator sees why at GET /v1/bundles and loads it again"
                )

    def _forget_failure(self, name: str) -> None:
        self.failed = {failed_name: failure for failed_name, failure in self.failed.items() if failed_name != name}

    def _can_be_read(self, name: str, version: str) -> bool:
        try:
            self._engine.read(name, self._copy(name, version), version)
        except PeterRecError:
            return False
        return True

    def _copy(self, name: str, version: str) -> Path:
        return self._copies / name / version

    def _tidy(self, name: str, versions: Sequence[str]) -> None:
        """Remove copies that nothing remembers any more."""
        for copy in (self._copies / name).glob("*"):
            if copy.name not in versions:
                shutil.rmtree(copy, ignore_errors=True)

    def _client_error(self, error: PeterRecError, path: str) -> ApiError:
        """Return the error with the file it is about, named as the client did: not where the root is."""
        api_error = as_api_error(error)
        client_path = path
        if error.path is not None and Path(error.path).is_relative_to(self._root):
            client_path = str(Path(error.path).relative_to(self._root))
        api_error.message = f"{client_path}: {api_error.message}"
        return api_error


def _failed_bundle(name: str, version: str, copy: Path, error: Exception) -> FailedBundle:
    if isinstance(error, PeterRecError):
        return FailedBundle(name, version, error.message, error.remedy, str(error.path or copy))
    message = f"cannot be loaded ({type(error).__name__}: {error})"
    return FailedBundle(name, version, message, "load the bundle again", str(copy))


def _looks_like_bundle(folder: Path) -> bool:
    """Return whether it may be a bundle: a description, and nothing that cannot be read to an end, such as a pipe."""
    try:
        content = list(folder.iterdir())
        return any(path.suffix == ".json" for path in content) and all(
            path.is_file() or path.is_dir() for path in content
        )
    except OSError:  # such as a name that is too long
        return False
