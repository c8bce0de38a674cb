"""A copy of the state of a service, made while it runs."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from pathlib import Path

from peterrec.arguments import checked
from peterrec.errors import ArtifactError, FormatVersionError, StorageError, StoreError
from peterrec.serving.journal import BundleJournal
from peterrec.serving.state_folder import COPIES, EVENTS, JOURNAL, LOCK
from peterrec.serving.store.in_use import InUseMark, wal_path
from peterrec.serving.store.sqlite_file import APPLICATION, VERSION
from peterrec.serving.store.sqlite_tables import SHARDS
from peterrec.storage import FULL, new_folder, storage_errors

ATTEMPTS = 10
HEADER = ("application_id", "user_version")


@checked
def backup(state: str | Path, out: str | Path) -> list[str]:
    """Copy a folder of state, while a service uses it or not; a service can start with the copy.

    The events are those of one moment, with all that were acknowledged before the call. A copy of the files alone
    loses the events in the log of `events.sqlite`.

    Args:
        state: folder of a service, as `--state` has it.
        out: folder of the copy; it appears only when everything is in it.

    Returns:
        Lines of text about the bundles and events that were copied, and about versions that have no copy.

    Raises:
        ArtifactError: `state` is no such folder, or `out` exists.
        StoreError: the events cannot be read.
        FormatVersionError: another release wrote them.
        StorageError: the disk is full or the place is not writable.
    """
    state = Path(state)
    if not any((state / name).is_file() for name in (EVENTS, JOURNAL, LOCK)):
        raise ArtifactError("is not a folder of state", remedy="name what `serve --state` was given", path=state)
    copied: list[str] = []
    with new_folder(Path(out)) as folder:
        if (state / JOURNAL).is_file():
            copied += _copy_bundles(state, folder)
        if (state / EVENTS).is_file():
            copied.append(f"users with events: {_copy_events(state / EVENTS, folder / EVENTS):,}")
        else:
            copied.append("no events: they are not in this folder, but in Redis")
    return copied


def _copy_bundles(state: Path, folder: Path) -> list[str]:
    """Copy the journal and all versions that it names; after a change meanwhile they are copied again.

    Returns:
        Lines of text about the bundles that were copied, and about versions that have no copy.
    """
    for _ in range(ATTEMPTS):
        shutil.copyfile(state / JOURNAL, folder / JOURNAL)
        versions = BundleJournal(folder / JOURNAL).versions()
        missing = [version for version in versions if not _copy_version(state, folder, *version)]
        if (state / JOURNAL).read_bytes() == (folder / JOURNAL).read_bytes():
            names = {name for name, version in versions if (name, version) not in missing}
            lacking = [f"no version {version} of {name!r}: its copy is missing or damaged" for name, version in missing]
            return [f"bundles: {len(names):,}", *lacking]
        shutil.rmtree(folder / COPIES, ignore_errors=True)
    raise StorageError("its bundles change all the time", remedy="try again later", path=state)


def _copy_version(state: Path, folder: Path, name: str, version: str) -> bool:
    """Copy the folder of a version; return whether it was there: it may be replaced or dropped meanwhile."""
    copy = folder / COPIES / name / version
    with storage_errors(copy):
        try:
            shutil.copytree(state / COPIES / name / version, copy)
        except FileNotFoundError:
            return False
        except shutil.Error as error:
            reasons = " ".join(str(reason) for *_, reason in error.args[0])  # the only trace of the cause
            if any(os.strerror(number) in reasons for number in FULL):
                raise OSError(errno.ENOSPC, "the disk is full") from error
            return False
    return True


def _copy_events(source: Path, target: Path) -> int:
    """Copy the events of a moment with SQLite's backup; return the number of users."""
    mark, has_log = InUseMark(source), wal_path(source).exists()
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=rw", uri=True)) as live,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            target.chmod(0o600)
            _check_version(live, source)
            live.execute("BEGIN IMMEDIATE")  # no service opens it meanwhile
            mark.check(live, has_log=has_log)
            live.rollback()
            live.backup(copy)  # in one step, of one moment; others may write meanwhile
            InUseMark.clear(copy)
            counts = (copy.execute(f"SELECT count(*) FROM users_{shard}").fetchone()[0] for shard in range(SHARDS))
            return sum(int(count) for count in counts)
    except sqlite3.Error as error:
        raise StoreError(f"cannot be copied ({error})", remedy="see that it is whole", path=source) from error


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in HEADER)
    if application != APPLICATION:
        raise StoreError("is not a store of events", remedy="name what `serve --state` was given", path=path)
    if version != VERSION:
        raise FormatVersionError(
            f"has format version {version}; this release copies version {VERSION}",
            remedy="copy it with the release that serves it, or start the service with this one first",
            path=path,
        )
