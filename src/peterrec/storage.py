"""Files written so that a reader never sees half of one, and read with errors that name the file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peterrec.errors import ArtifactError, ConfigError, FormatVersionError, StorageError
from peterrec.process import require_one_process

FORMAT_VERSION = 2
"""Of corpora, backbones, bundles, cells and benchmarks; 1: settings had other names (CHANGELOG.md)."""

DESCRIPTIONS = {
    "corpus": "manifest.json",
    "backbone": "config.json",
    "bundle": "adapter_config.json",
    "joint": "joint.json",
    "cell": "cell.json",
    "benchmark": "benchmark.json",
    "search": "search.json",
    "migration": "migration.json",
    "graph": "graph.json",
    "table of answers": "_answers.json",  # beside files of Parquet, whose readers do not look at such names
}
"""The file that says what an artifact is, by kind."""
MAKERS = {
    "corpus": "peterrec prepare",
    "backbone": "peterrec pretrain",
    "bundle": "peterrec adapt",
    "benchmark": "peterrec benchmark build",
    "migration": "peterrec migrate",
    "graph": "peterrec export",
}
"""The verb that writes an artifact, by kind."""
HASH_DIGITS = 12  # that a message shows of a fingerprint: enough to tell those of one disk apart

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_PLACE = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into a `StorageError`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL or (error.errno is None and "requested and" in str(error)):  # the latter: np.save
            raise StorageError(
                "the disk is full; nothing was kept of what was being written",
                remedy="free some space, or write to another disk",
                path=path,
            ) from error
        if error.errno in REFUSED:
            raise StorageError("may not be written", remedy="choose a place you may write to", path=path) from error
        if error.errno in NO_PLACE:
            problem = f"cannot be written ({error.strerror or error})"
            raise StorageError(problem, remedy="choose another path", path=path) from error
        raise


def check_output(path: Path, *, overwrite: bool, kind: str | None = None) -> None:
    """Refuse an output that is there, unless it may be replaced.

    Args:
        path: where an artifact is to be written.
        overwrite: what is there may be replaced,
        kind: but only if it is an artifact of this kind, or an empty folder. None: whatever it is.

    Raises:
        ArtifactError: it may not.
        ConfigError: a launcher such as torchrun started several processes, all of which would write there.
    """
    require_one_process()
    if not path.exists():
        return
    if not overwrite:
        raise ArtifactError("already exists", remedy="choose another folder, or pass --overwrite", path=path)
    empty = path.is_dir() and not any(path.iterdir())
    if kind is not None and not empty and not _is_kind(path, kind):
        raise ArtifactError(
            f"is there and is not a {kind}, so --overwrite does not replace it",
            remedy="choose another folder, or remove it yourself",
            path=path,
        )


def _is_kind(path: Path, kind: str) -> bool:
    """Return whether a folder is an artifact of a kind, whole or damaged."""
    description = path / DESCRIPTIONS[kind]
    try:
        return description.is_file() and bool(read_json(description).get("kind") == kind)
    except ArtifactError:
        return True


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False, kind: str | None = None) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends well, and vanishes when it does not.

    The folder is made beside `path`, its files are fsynced, and it is renamed last. A symbolic link at `path` stays:
    the folder that it points to is made or replaced.

    Raises:
        ArtifactError: `path` may not be replaced (`check_output`).
        StorageError: the disk is full or the place is not writable.
    """
    path = path.absolute()
    check_output(path, overwrite=overwrite, kind=kind)
    target = _resolve_link(path)
    with storage_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = _temporary_name(target, "tmp")
        work.mkdir()
    try:
        with storage_errors(path):
            yield work
            _fsync_tree(work)
            _swap(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _resolve_link(path: Path) -> Path:
    """Return where a symbolic link points in the end, there or not; any other path as it is.

    Raises:
        StorageError: the link leads back to itself.
    """
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        problem = "is a symbolic link that leads back to itself"
        raise StorageError(problem, remedy="remove it, or choose another path", path=path)
    return target


def _temporary_name(path: Path, ending: str) -> Path:
    # Made by the caller in the plain way, so that the user's umask decides who may read it.
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.{ending}")


def _swap(work: Path, path: Path) -> None:
    old = _temporary_name(path, "old")
    try:
        if path.exists():  # rename cannot replace a folder that is not empty: move it away first
            path.rename(old)
        work.rename(path)
    except BaseException:  # Ctrl-C too: what was there comes back
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    finally:
        if path.exists():
            _remove(old)
    _fsync(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name whose file becomes `path`, fsynced, when the block ends well.

    Folders above `path` are made where they are missing. A symbolic link at `path` stays: the file that it points to is
    made or replaced.

    Raises:
        StorageError: the disk is full or the place is not writable.
    """
    target = _resolve_link(path)
    with storage_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_name(target, "tmp")
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            _fsync(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _fsync(target.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it; of a symbolic link, the folder that it points to as well."""
    shutil.rmtree(os.path.realpath(path))
    if path.is_symlink():
        path.unlink()


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
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"cannot be read ({error})", remedy="make the artifact again", path=path) from error
    if not isinstance(value, dict):
        raise ArtifactError("is not a JSON object", remedy="make the artifact again", path=path)
    return value


def read_artifact(path: Path, kind: str) -> dict[str, Any]:
    """Read the file that says what an artifact is.

    Args:
        path: folder of the artifact.
        kind: that it must be of, a key of `DESCRIPTIONS`.

    Returns:
        The description, of this kind and of the format version that is read here.

    Raises:
        ArtifactError: there is no such folder, it is another kind of artifact (which the message names), or damaged.
        FormatVersionError: a format version that this release does not read.
    """
    description = path / DESCRIPTIONS[kind]
    if not description.exists():
        raise _absent(path, kind)
    meta = read_json(description)
    check_format(meta, kind, path)
    return meta


def kind_of(path: Path) -> str | None:
    """Return the kind of the artifact in a folder, by the file that describes it; None if there is none."""
    return next((kind for kind, name in DESCRIPTIONS.items() if (path / name).is_file() and _is_kind(path, kind)), None)


def _absent(path: Path, kind: str) -> ArtifactError:
    """Return the error for a folder without the description of a kind."""
    remedy = f"name the folder that `{MAKERS[kind]}` wrote" if kind in MAKERS else "check the path"
    actual, inner = kind_of(path), path / kind
    if actual is not None:
        return _of_another_kind(actual, kind, path)
    if kind_of(inner) == kind:  # a folder of `peterrec run`
        return ArtifactError(f"is no {kind}, but has one in it", remedy=f"name {inner}", path=path)
    if path.name and path.with_name(f"{path.name}.training").exists():  # `.` and `/` have no name
        remedy = "run the pretrain or adapt that makes it again, with --resume"
        return ArtifactError("is not finished: only its resume point is there", remedy=remedy, path=path)
    if not path.exists():
        return ArtifactError(f"is missing; a {kind} is wanted", remedy=f"check the path: {remedy}", path=path)
    if not path.is_dir():
        return ArtifactError(f"is a file; a {kind}, which is a folder, is wanted", remedy=remedy, path=path)
    return ArtifactError(f"is missing, so this is no {kind}", remedy=remedy, path=path / DESCRIPTIONS[kind])


def _of_another_kind(actual: str, kind: str, path: Path) -> ArtifactError:
    names = {"joint": "joint training of several tasks"}
    made_by = f"name the folder that `{MAKERS[kind]}` wrote" if kind in MAKERS else "name another folder"
    return ArtifactError(f"is a {names.get(actual, actual)}; a {kind} is wanted", remedy=made_by, path=path)


def short_hash(fingerprint: str) -> str:
    """Return as much of a fingerprint as a message shows."""
    return fingerprint[:HASH_DIGITS]


@contextlib.contextmanager
def description_errors(path: Path) -> Iterator[None]:
    """Turn what a changed or damaged description (a JSON file of an artifact) causes into an `ArtifactError`."""
    remedy = "make the artifact again"
    try:
        yield
    except KeyError as error:
        raise ArtifactError(f"lacks the key {error}", remedy=remedy, path=path) from error
    except (TypeError, ValueError, ConfigError) as error:
        problem = error.message if isinstance(error, ConfigError) else str(error)
        raise ArtifactError(f"cannot be used ({problem})", remedy=remedy, path=path) from error


def check_format(meta: dict[str, Any], kind: str, path: Path, *, supported: int = FORMAT_VERSION) -> None:
    """Refuse what is not an artifact of this `kind`, or is one of another format version.

    Raises:
        ArtifactError: another kind of artifact.
        FormatVersionError: a format version that this release does not read.
    """
    if meta.get("kind") != kind:
        if meta.get("kind") in DESCRIPTIONS:
            raise _of_another_kind(str(meta["kind"]), kind, path)
        raise ArtifactError(
            f"is no artifact of peterrec; a {kind} is wanted",
            remedy=f"name the folder that `{MAKERS[kind]}` wrote" if kind in MAKERS else "check the path",
            path=path,
        )
    version = meta.get("format_version")
    if version != supported:
        raise FormatVersionError(
            f"has format version {version}; this release reads version {supported}",
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
