"""Histories of external item ids out of events, for users a model has never seen."""

from __future__ import annotations

import tempfile
from pathlib import Path

from peterrec.config import EventsConfig
from peterrec.data.catalogue import ItemId
from peterrec.data.prepare.engine import engine
from peterrec.data.prepare.events import open_events
from peterrec.data.prepare.sequences import ordered
from peterrec.errors import ConfigError

MEMORY_LIMIT = "2GB"


def read_event_histories(config: EventsConfig) -> tuple[list[str], list[list[ItemId]]]:
    """Return users, in order of their id, and the item ids of each, oldest first.

    Raises:
        DataError: the events cannot be used as they are.
        ConfigError: they do not fit in the memory they may use.
    """
    try:
        return _read(config)
    except ConfigError as error:  # here, no setting says how much that is
        raise ConfigError(error.what, remedy="give the events of fewer users at a time") from error


def _read(config: EventsConfig) -> tuple[list[str], list[list[ItemId]]]:
    with tempfile.TemporaryDirectory(prefix="peterrec-") as scratch, engine(Path(scratch), MEMORY_LIMIT, None) as db:
        table = open_events(db, config).table
        keys = [name for name in ("time", "order") if name in table.columns]
        grouped = table.group_by("user").aggregate(events=ordered(table, keys, "item"))
        items = grouped["events"].map(lambda event: event["item"])
        found = grouped.select("user", items=items).order_by("user").to_pyarrow()
    return found["user"].to_pylist(), found["items"].to_pylist()
