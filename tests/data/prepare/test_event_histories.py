"""Histories out of events, read some users at a time: whatever the size of a piece, they are the same."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peterrec.config import EventsConfig
from peterrec.data.prepare import event_histories
from whole_histories import read_event_histories


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EventsConfig:
    """A log of users with one to some hundred events, many of them at the same time."""
    rng = np.random.default_rng(0)
    users = np.minimum(rng.geometric(0.05, 3_000), 60)
    table = pa.table(
        {"user_id": users, "item_id": rng.integers(1, 50, 3_000), "timestamp": 10**9 + rng.integers(0, 40, 3_000)}
    )
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pq.write_table(table, path)
    return EventsConfig(paths=(str(path),))


@pytest.mark.slow
def test_the_size_of_a_piece_changes_nothing(config: EventsConfig) -> None:
    expected = read_event_histories(config, at_once=10**6)
    assert len(expected.user_ids) == len(set(expected.user_ids)) > 40
    assert sum(map(len, expected.items)) == 3_000
    for at_once in (1, 100, 2_999):
        assert read_event_histories(config, at_once=at_once) == expected


def test_a_piece_has_whole_users_and_hardly_more_events_than_asked(config: EventsConfig) -> None:
    with event_histories.read_event_histories(config, at_once=200) as stored:
        pieces = list(stored)
        sizes = [sum(map(len, piece.items)) for piece in pieces]
        longest = max(len(items) for piece in pieces for items in piece.items)
    assert len(pieces) > 5
    assert max(sizes) <= 200 + max(200, longest)
