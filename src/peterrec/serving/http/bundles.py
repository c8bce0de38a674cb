"""Bundles that come and go while the service answers; what is loaded is loaded again after a restart."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from peterrec.serving.http.bundle_operations import BundleOperations, failed_bundle
from peterrec.serving.http.logs import Log
from peterrec.serving.requests import VersionInfo

if TYPE_CHECKING:
    from peterrec.serving.engine import Engine
    from peterrec.serving.journal import BundleJournal
    from peterrec.serving.loaded_bundle import LoadedBundle
    from peterrec.serving.registry import Staged
    from peterrec.serving.versions import VersionHistory


class Bundles(BundleOperations):
    """Bundles of one service, remembered in its folder of state.

    Args:
        engine: answers with the bundles.
        journal: is told what is loaded.
        root: folder that bundles are loaded from.
        copies: folder for copies of what operators loaded or rolled back to.
        log: gets a line for each change.
    """

    def __init__(self, engine: Engine, journal: BundleJournal, root: str, copies: Path, log: Log) -> None:
        super().__init__(engine, root, log)
        self._journal = journal
        self._copies = copies.resolve()

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
                failure = failed_bundle(name, version, copy, error)
                self._log.write("bundle failed", "error", **asdict(failure))
                if version == history.active:
                    self.failed = {**self.failed, name: failure}
                    return
        self._engine.activate(self._engine.stage_versions(versions, history))

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

    def _change(self, staged: Staged, *, roll_back: bool) -> VersionInfo:
        """Make a change that a restart will find: on the disk first, then in memory, where it cannot fail.

        Each version has a copy, for its own folder may be written anew or removed. What fails on the way leaves the
        answers, the memory and what is remembered as they were.

        A copy is left alone, for while it is replaced there is none; only that of the version that will answer is
        written anew if it cannot be read.
        """
        del roll_back  # its history has it
        name, history = staged.name, staged.history
        new = [version for version in history.versions if not self._copy(name, version).exists()]
        if history.active not in new and not self._can_be_read(name, history.active, self._copy(name, history.active)):
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

    def _copy(self, name: str, version: str) -> Path:
        return self._copies / name / version

    def _tidy(self, name: str, versions: Sequence[str]) -> None:
        """Remove copies that nothing remembers any more."""
        for copy in (self._copies / name).glob("*"):
            if copy.name not in versions:
                shutil.rmtree(copy, ignore_errors=True)
