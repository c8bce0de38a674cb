"""Histories of external item ids out of events, for users a model has never seen."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from peterrec.config import EventsConfig
from peterrec.data.catalogue import ItemId
from peterrec.data.hashing import UInt64Array, id_hash
from peterrec.data.prepare.engine import engine
from peterrec.data.prepare.events import SORT_COLUMNS, open_events
from peterrec.data.ties import equal_to_before, order_ties, seconds_of, tie_keys, tied_rows

MEMORY_LIMIT = "2GB"


def read_event_histories(config: EventsConfig) -> tuple[list[str], list[list[ItemId]]]:
    """Return users, in order of their id, and the item ids of each, oldest first: in the order that `prepare` has.

    Raises:
        DataError: the events cannot be used as they are.
    """
    with tempfile.TemporaryDirectory(prefix="peterrec-") as scratch, engine(Path(scratch), MEMORY_LIMIT, None) as db:
        table = open_events(db, config).table
        keys = [name for name in SORT_COLUMNS if name in table.columns]
        events = table.select("user", *keys, "item").order_by("user", *keys).to_pyarrow()
    items = events["item"].take(pa.array(_order(events, keys))).to_pylist()
    starts = np.flatnonzero(~equal_to_before(events["user"]))
    users = events["user"].take(pa.array(starts)).to_pylist()
    ends = [*starts[1:].tolist(), len(items)]
    return users, [items[start:end] for start, end in zip(starts.tolist(), ends, strict=True)]


def _order(events: pa.Table, keys: list[str]) -> Any:
    same = equal_to_before(events["user"], *(events[name] for name in keys))
    tied = np.flatnonzero(tied_rows(same))
    rows = events.take(pa.array(tied))
    hashes = tie_keys(_hashes(rows["user"]), seconds_of(rows["time"]), _hashes(rows["item"]))
    return order_ties(same, tied, hashes, np.zeros(len(tied), dtype=np.int64))


def _hashes(ids: pa.ChunkedArray) -> UInt64Array:
    encoded = ids.combine_chunks().dictionary_encode()
    hashes: UInt64Array = id_hash(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
    return hashes
