"""Writing so that a reader never sees half a file, and reading with errors that name the file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peterrec.errors import ArtifactError, FormatVersionError, StorageError

FORMAT_VERSION = 1


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into a `StorageError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                "the disk is full; nothing was kept of what was being written",
                remedy="free some space, or write to another disk",
                path=path,
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError("may not be written", remedy="choose a place you may write to", path=path) from error
        raise


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends well, and vanishes when it does not.

    The folder is made beside `path`, its files are fsynced, and it is renamed last.

    Raises:
        ArtifactError: `path` exists and `overwrite` is false.
        StorageError: the disk is full or the place is not writable.
    """
    path = path.absolute()
    if path.exists() and not overwrite:
        raise ArtifactError("already exists", remedy="choose another folder, or pass --overwrite", path=path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        with storage_errors(path):
            yield work
            work.chmod(0o755)
            _fsync_tree(work)
            _swap(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _swap(work: Path, path: Path) -> None:
    if path.exists():  # rename cannot replace a folder that is not empty: move it away first
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
        path.rename(old / path.name)
        try:
            work.rename(path)
        except OSError:
            (old / path.name).rename(path)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    else:
        work.rename(path)
    _fsync(path.parent)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name whose file becomes `path`, fsynced, when the block ends well.

    Raises:
        StorageError: the disk is full or the place is not writable.
    """
    with storage_errors(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            _fsync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _fsync(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` through a temporary name, fsync and rename.

    Raises:
        StorageError: the disk is full or the place is not writable.
    """
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_file(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ArtifactError: the file is missing, cut short or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError("is missing", remedy="check the path, or make the artifact again", path=path) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot be read ({error})", remedy="make the artifact again", path=path) from error
    if not isinstance(value, dict):
        raise ArtifactError("is not a JSON object", remedy="make the artifact again", path=path)
    return value


def check_format(meta: dict[str, Any], kind: str, path: Path) -> None:
    """Refuse what is not an artifact of this `kind`, or is one of another format version.

    Raises:
        ArtifactError: another kind of artifact.
        FormatVersionError: a format version that this release does not read.
    """
    if meta.get("kind") != kind:
        raise ArtifactError(
            f"is {meta.get('kind') or 'not an artifact of peterrec'}, not a {kind}",
            remedy="run `peterrec inspect` on the folder to see what it is",
            path=path,
        )
    version = meta.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"has format version {version}; this release reads version {FORMAT_VERSION}",
            remedy="make the artifact again with this release, or install the release that wrote it",
            path=path,
        )


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fsync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        _fsync(path)
    _fsync(folder)
