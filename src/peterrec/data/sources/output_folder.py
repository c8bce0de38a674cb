"""The folder that `fetch` and `convert` write: three tables and a description."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from peterrec.errors import ArtifactError
from peterrec.storage import read_json, write_json

TABLES = ("events", "users", "items")
MARKER = "source.json"


def may_replace(out: Path) -> bool:
    """Return whether `out` is an empty folder or was written here: --overwrite must not remove another one."""
    return out.is_dir() and ((out / MARKER).is_file() or not any(out.iterdir()))


def holds_data_set(out: Path, name: str) -> bool:
    """Return whether `out` holds all of the data set of this name."""
    if not all((out / f"{table}.parquet").is_file() for table in TABLES):
        return False
    return (out / MARKER).is_file() and read_json(out / MARKER).get("name") == name


def check_place(out: Path, complaint: str, *, overwrite: bool) -> bool:
    """Return whether a folder will be replaced.

    Args:
        out: where tables are to be written.
        complaint: message of the error, if they cannot be.
        overwrite: what was written here before may be replaced; an empty folder always may.

    Raises:
        ArtifactError: `out` is there and may not be replaced.
    """
    replace = may_replace(out)
    if out.exists() and not (replace and (overwrite or not any(out.iterdir()))):
        remedy = "choose another folder" + (", or pass --overwrite" if replace else "")
        raise ArtifactError(complaint, remedy=remedy, path=out)
    return replace


class TableWriter:
    """Writer of the tables into a folder, the events in as many pieces as they come in.

    Attributes:
        rows: how many rows each table has so far.
    """

    def __init__(self, folder: Path) -> None:
        self.rows = dict.fromkeys(TABLES, 0)
        self._folder = folder
        self._events: pq.ParquetWriter | None = None

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.close()

    def write(self, events: pa.Table) -> None:
        """Write some more events."""
        if self._events is None:
            self._events = pq.ParquetWriter(self._folder / "events.parquet", events.schema, compression="zstd")
        self._events.write_table(events)
        self.rows["events"] += len(events)

    def finish(self, users: pa.Table, items: pa.Table, about: dict[str, Any], notes: tuple[str, ...]) -> None:
        """Write the other tables, and what all of them are."""
        for name, table in (("users", users), ("items", items)):
            pq.write_table(table, self._folder / f"{name}.parquet", compression="zstd")
            self.rows[name] = len(table)
        write_json(self._folder / MARKER, {"kind": "source", **about, "rows": self.rows, "notes": list(notes)})

    def summary(self) -> str:
        """Return a summary of the numbers of events, users and items."""
        return "{events:,} events of {users:,} users with {items:,} items".format(**self.rows)
