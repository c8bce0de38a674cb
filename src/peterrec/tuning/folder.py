"""The folder of a search: whose it is, and whether it can be gone on with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from peterrec.errors import ArtifactError, ConfigError
from peterrec.storage import (
    DESCRIPTIONS,
    FORMAT_VERSION,
    check_format,
    check_output,
    read_json,
    remove_folder,
    storage_errors,
    write_json,
)

DESCRIPTION = DESCRIPTIONS["search"]


@contextlib.contextmanager
def search_folder(path: Path, facts: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make the folder of a search, or go on with the one that is there; no other process may search there meanwhile.

    Args:
        path: of the folder.
        facts: plain values that decide how the search goes: settings, and fingerprints of what it reads.
        resume: go on with what is there; without anything there, begin.
        overwrite: replace a search that is there.

    Raises:
        ArtifactError: something is there, and is not to be replaced or gone on with, or is no search.
        ConfigError: the search there is another, or goes on in another process.
        StorageError: the place is not writable.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ConfigError(
                "another process searches there", remedy="wait for it, or choose another folder", path=path
            ) from None
    try:
        _open(path, facts, resume=resume, overwrite=overwrite)
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()


def _open(path: Path, facts: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    if path.exists() and resume and not overwrite:
        _require_same(path, facts)
        return
    if path.exists() and not overwrite and (path / DESCRIPTION).exists():
        raise ArtifactError(
            "holds a search", remedy="go on with it with --resume, or start over with --overwrite", path=path
        )
    check_output(path, overwrite=overwrite, kind="search")
    with storage_errors(path):
        if path.exists():
            remove_folder(path)
        path.mkdir()
    write_json(path / DESCRIPTION, {"kind": "search", "format_version": FORMAT_VERSION, **facts})


def _require_same(path: Path, facts: Mapping[str, Any]) -> None:
    """Refuse to go on with what is no search, or with one of other settings or inputs."""
    description = read_json(path / DESCRIPTION)
    check_format(description, "search", path)
    changed = [name for name, value in facts.items() if description.get(name) != value]
    if changed:
        raise ConfigError(
            f"the search that is there had another {', '.join(changed)}",
            remedy="go on with the same (trials and time_limit may differ), or start over with --overwrite",
            path=path,
        )
