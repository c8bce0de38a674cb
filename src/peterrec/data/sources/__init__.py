"""Public data sets, each fetched by name into a folder of Parquet files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from peterrec.data.sources.base import Report, SourceTables
from peterrec.data.sources.ml_1m import fetch_ml_1m
from peterrec.data.sources.ta_feng import fetch_ta_feng
from peterrec.errors import ArtifactError, FetchError
from peterrec.storage import new_folder, read_json, write_json

SOURCES: dict[str, Callable[[Path | None, Report], SourceTables]] = {"ml-1m": fetch_ml_1m, "ta-feng": fetch_ta_feng}
TABLES = ("events", "users", "items")
MARKER = "source.json"


def fetch(
    name: str,
    out: str | Path,
    *,
    source_file: str | Path | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Fetch a public data set into the folder `out`: `events`, `users` and `items.parquet`, and `source.json`.

    A folder that already holds this data set is used as it is.

    Args:
        name: one of `SOURCES`.
        out: the folder; it appears only when everything is in it.
        source_file: read this file instead of downloading.
        overwrite: fetch again, and replace what a former fetch wrote to `out`.
        report: called with one sentence at a time about what is done and found.

    Returns:
        The folder.

    Raises:
        FetchError: no such data set, or it could not be downloaded, or it is not the expected file.
        DataError: the file is not in the format of the data set.
        ArtifactError: `out` holds something else.
        StorageError: the disk is full or the place is not writable.
    """
    report = report or _silent
    out = Path(out)
    if name not in SOURCES:
        raise FetchError(
            f"no public data set is called {name!r}", remedy=f"choose one of: {', '.join(sorted(SOURCES))}"
        )
    replace = _may_replace(out)
    if replace and not overwrite and _holds(out, name):
        report(f"{out} already holds {name}; it is used as it is (--overwrite fetches it again)")
        return out
    if out.exists() and not (replace and (overwrite or not any(out.iterdir()))):
        raise ArtifactError(
            f"already exists and is not the data set {name}",
            remedy="choose another folder" + (", or pass --overwrite" if replace else ""),
            path=out,
        )
    tables = SOURCES[name](Path(source_file) if source_file is not None else None, report)
    for note in tables.notes:
        report(note)
    _write(name, tables, out, replace)
    report(f"{out} holds {len(tables.events):,} events of {len(tables.users):,} users with {len(tables.items):,} items")
    return out


def _silent(_: str) -> None:
    pass


def _may_replace(out: Path) -> bool:
    """Say whether `out` is a folder that is empty or that a fetch wrote: --overwrite must not remove another one."""
    return out.is_dir() and ((out / MARKER).is_file() or not any(out.iterdir()))


def _holds(out: Path, name: str) -> bool:
    if not all((out / f"{table}.parquet").is_file() for table in TABLES):
        return False
    return (out / MARKER).is_file() and read_json(out / MARKER).get("name") == name


def _write(name: str, tables: SourceTables, out: Path, overwrite: bool) -> None:
    algorithm, _, digest = tables.digest.partition(":")
    rows: dict[str, int] = {}
    with new_folder(out, overwrite=overwrite) as folder:
        for table in TABLES:
            content = getattr(tables, table)
            pq.write_table(content, folder / f"{table}.parquet", compression="zstd")
            rows[table] = len(content)
        notes = list(tables.notes)
        write_json(folder / MARKER, {"kind": "source", "name": name, algorithm: digest, "rows": rows, "notes": notes})
