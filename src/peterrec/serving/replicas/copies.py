"""Copies of the versions of bundles in a folder that all replicas see, named by their content."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from peterrec.errors import PeterRecError, StorageError
from peterrec.serving.loaded_bundle import LoadedBundle
from peterrec.storage import storage_errors

Named = Callable[[], set[tuple[str, str]]]


class SharedCopies:
    """A folder `NAME/VERSION` for each version; the same version is the same bundle, whoever writes it.

    A copy that nothing names is removed when it was written, or was last named, more than `grace` seconds ago: another
    replica may be about to name it, or to read it. The time of its folder (`mtime`) says when that was.

    Args:
        folder: of the copies; it is made when the first one is written.
        grace: seconds.
        root: below which other services see the folder, too; None: no service on another machine.
    """

    def __init__(self, folder: Path, grace: float, root: Path | None = None) -> None:
        self._folder, self._grace, self._root = folder, grace, root

    def check(self, *, named: bool) -> None:
        """Refuse a root that other services do not share.

        Args:
            named: whether the registry names any version.

        Raises:
            StorageError: the copies that the registry names are not there.
        """
        if named and self._root is not None and not self._folder.is_dir():
            raise StorageError(
                "has no copies of the registry's bundles: it is not the folder that the other replicas have",
                remedy="give all replicas the same `bundle_root`, on a file system that they share",
                path=self._root,
            )

    def path(self, name: str, version: str) -> Path:
        """Return the folder of a version."""
        return self._folder / name / version

    def save(self, loaded: LoadedBundle, can_be_read: Callable[[Path], bool] = Path.is_dir) -> None:
        """Write a version, unless it is there and can be read; its grace begins anew.

        Args:
            loaded: the version.
            can_be_read: says whether its copy is whole.

        Raises:
            StorageError: the disk is full or the place is not writable.
        """
        copy = self.path(loaded.name, loaded.version)
        self.touch(loaded.name, [loaded.version])  # first: from now on nobody removes it
        if copy.exists() and can_be_read(copy):
            return
        if copy.is_file():  # whatever that is
            copy.unlink()
        try:
            with storage_errors(copy):
                loaded.save(copy)
        except (OSError, PeterRecError):
            if not (copy.is_dir() and can_be_read(copy)):  # else another replica has just written it
                raise

    def touch(self, name: str, versions: Iterable[str]) -> None:
        """Let the grace of copies begin now."""
        for version in versions:
            with contextlib.suppress(OSError):
                os.utime(self.path(name, version))

    def clean(self, named: Named) -> None:
        """Remove copies that nothing names, and what was left behind by processes that were killed.

        Args:
            named: asks the registry which names and versions of bundles it names now.
        """
        try:
            listed = named()
            for copy in [*self._folder.glob("*/*"), *self._folder.glob("*/.*")]:
                if (copy.parent.name, copy.name) not in listed and self._is_old(copy):
                    self._remove(copy, named)
        except (OSError, PeterRecError):  # a later change tries it again
            return

    def _is_old(self, copy: Path) -> bool:
        try:
            return copy.stat().st_mtime < time.time() - self._grace
        except FileNotFoundError:
            return False

    def _remove(self, copy: Path, named: Named) -> None:
        """Remove a copy that was not named: moved away first, and back if it was named in between.

        Who names it later sees that it is not there, and writes it again.
        """
        removed = copy.with_name(f".{copy.name.lstrip('.')}.{secrets.token_hex(6)}.old")
        copy.rename(removed)
        if (copy.parent.name, copy.name) in named() and not copy.exists():
            removed.rename(copy)
            return
        shutil.rmtree(removed, ignore_errors=True)
