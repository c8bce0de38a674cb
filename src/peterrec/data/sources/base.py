"""Results of reading a public data set, or files in a public format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

Report = Callable[[str], None]
Write = Callable[[pa.Table], None]
"""Takes some more events; all pieces have the same columns."""


@dataclass(frozen=True)
class SourceTables:
    """A public data set as three tables.

    Attributes:
        events: one row per event: `user_id`, `item_id`, `timestamp` and what else the data set knows of an event.
        users: one row per user.
        items: one row per item.
        digest: checksum of the file the tables were read from, as `sha256:...` or `md5:...`.
        notes: what the reader found and decided, one sentence each.
    """

    events: pa.Table
    users: pa.Table
    items: pa.Table
    digest: str
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Converted:
    """Users and items of converted files, whose events are already written.

    Attributes:
        users: one row per user.
        items: one row per item, or per item and domain.
        files: the files that were read.
        notes: what the reader found and decided, one sentence each.
    """

    users: pa.Table
    items: pa.Table
    files: tuple[Path, ...]
    notes: tuple[str, ...]


Fill = Callable[[Write], Converted]
"""Reads the files, hands on their events a piece at a time, and returns the rest."""


def sha256(data: bytes) -> str:
    """Return the sha256 of `data` as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
