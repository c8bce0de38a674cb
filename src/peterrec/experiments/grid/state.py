"""State of a grid on disk: which units are done, which cells cannot be had, which failed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from peterrec.errors import ArtifactError
from peterrec.experiments.grid.plan import Unit
from peterrec.report.grid.cells import CellKey
from peterrec.storage import DESCRIPTIONS, FORMAT_VERSION, read_json, storage_errors, write_json

Note = Literal["skipped", "failed"]
NOTES: tuple[Note, ...] = ("skipped", "failed")
MARKER, LOCK, HOLDER = "grid.json", ".lock", "lock"  # HOLDER names the process that has the lock
FOLDERS = ("data", "corpora", "backbones", "bundles", "cells")


def check_folder(out: Path) -> None:
    """Refuse a folder that is there, is not empty and is not of a grid.

    Raises:
        ArtifactError: it is one of those.
    """
    if (out / MARKER).is_file() or not out.exists():
        return
    if not out.is_dir() or any(path.name not in (LOCK, HOLDER) for path in out.iterdir()):
        raise ArtifactError("is there and is not a grid of experiments", remedy="choose another folder", path=out)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the folder of a grid, and keep other runs out of it; the lock ends with this process, however that ends.

    Raises:
        ArtifactError: another run has it.
        StorageError: the place is not writable.
    """
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / LOCK).touch()
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        holder = (out / HOLDER).read_text().strip() if (out / HOLDER).is_file() else ""
        raise ArtifactError(
            f"another run (process {holder or 'unknown'}) is at work in it",
            remedy="wait for it, stop it, or choose another folder",
            path=out,
        ) from error
    try:
        (out / HOLDER).write_text(f"{os.getpid()}\n")  # not in the locked file, which Windows lets nobody else read
        yield
    finally:
        lock.release()


def open_folder(out: Path, *, overwrite: bool) -> None:
    """Mark a folder as one of a grid, and clear away what a killed run left; with `overwrite` all of an older grid."""
    for path in [path for pattern in (".*.tmp", ".*.old") for path in out.rglob(pattern)]:
        # One may lie in another, which went before it.
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if overwrite:
        for name in FOLDERS:
            shutil.rmtree(out / name, ignore_errors=True)
    write_json(out / MARKER, {"kind": "grid"})


def is_done(out: Path, unit: Unit) -> bool:
    """Return whether all of a unit is there, made with the same inputs, or known to be impossible with them."""
    if unit.cells:
        return all(is_finished(out, key, unit) or _has_note(out, key, unit, "skipped") for key in unit.cells)
    made_with = _read(out / unit.marker).get("inputs")
    return bool(made_with == unit.inputs) and _is_current(_read(out / unit.place / DESCRIPTIONS[unit.kind]))


def is_finished(out: Path, key: CellKey, unit: Unit) -> bool:
    """Return whether a cell has a result of the same inputs, and the test users with it."""
    folder = out / key.folder
    cell = _read(folder / DESCRIPTIONS["cell"])
    return (folder / "users.parquet").is_file() and _is_current(cell) and bool(cell.get("inputs") == unit.inputs)


def _is_current(description: dict[str, Any]) -> bool:
    """Return whether a description is there and of this release's format; what another wrote is made again."""
    return description.get("format_version") == FORMAT_VERSION


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ArtifactError:
        return {}  # not there, or damaged: made again


def mark(out: Path, unit: Unit) -> None:
    """Note with which inputs a corpus or backbone was made."""
    write_json(out / unit.marker, {"inputs": unit.inputs})


def note(out: Path, unit: Unit, kind: Note, reason: str, trace: str = "") -> None:
    """Note beside the places of a unit's cells why they cannot be had, or how they failed."""
    for key in unit.cells:
        write_json(_note_path(out, key, kind), {"inputs": unit.inputs, "reason": reason, "trace": trace.splitlines()})


def remove_notes(out: Path, key: CellKey) -> None:
    """Remove notes of a cell that is finished now."""
    for kind in NOTES:
        _note_path(out, key, kind).unlink(missing_ok=True)


def why_missing(out: Path, key: CellKey, unit: Unit) -> str:
    """Return why a cell cannot be had or how it failed with the same inputs; empty if nobody tried."""
    if _has_note(out, key, unit, "skipped"):
        return str(_read(_note_path(out, key, "skipped"))["reason"])
    if _has_note(out, key, unit, "failed"):
        return f"failed: {_read(_note_path(out, key, 'failed'))['reason'].splitlines()[0]}"
    return ""


def _has_note(out: Path, key: CellKey, unit: Unit, kind: Note) -> bool:
    return bool(_read(_note_path(out, key, kind)).get("inputs") == unit.inputs)


def _note_path(out: Path, key: CellKey, kind: Note) -> Path:
    path = out / key.folder
    return path.with_name(f"{path.name}.{kind}.json")
