"""What a reader of a public data set gives back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

Report = Callable[[str], None]


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


def sha256(data: bytes) -> str:
    """Return the sha256 of `data` as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
