"""A large log of events without structure, written a batch at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FIRST_TIME = 1_000_000_000


def write_large_log(
    path: Path, events: int, users: int | None = None, items: int = 200_000, seed: int = 0, batch: int = 1_000_000
) -> Path:
    """Write `user_id`, `item_id` and `timestamp` (seconds), all int64, to a Parquet file; memory is bounded by `batch`.

    Rows are in order of time with users mixed, as in a real log; item popularity falls like a Zipf law.

    Args:
        path: of the file.
        events: rows.
        users: distinct users at most; one for every 20 events if not given.
        items: distinct items at most.
        seed: the same seed and `batch` give the same rows.
        batch: rows of a row group.
    """
    users = max(1, events // 20) if users is None else users
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(1.0 / (np.arange(items) + 10.0))  # shifted, so that no item dwarfs all others
    cumulative /= cumulative[-1]
    ids = rng.permutation(items) + 1  # popularity must not be legible from the id
    schema = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("timestamp", pa.int64())])
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, events, batch):
            rows = min(batch, events - start)
            ranks = np.minimum(np.searchsorted(cumulative, rng.random(rows), side="right"), items - 1)
            user_ids = rng.integers(1, users + 1, size=rows)
            times = FIRST_TIME + start + np.sort(rng.integers(rows, size=rows))
            writer.write_table(pa.table([user_ids, ids[ranks], times], schema=schema), row_group_size=batch)
    return path
