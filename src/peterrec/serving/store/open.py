"""A store of events by its name."""

from __future__ import annotations

import errno
from pathlib import Path

from peterrec.errors import ConfigError, StoreError
from peterrec.serving.state_folder import EVENTS
from peterrec.serving.store.base import EventStore
from peterrec.serving.store.redis_store import RedisStore
from peterrec.serving.store.sqlite import SqliteStore

REDIS = ("redis://", "rediss://", "unix://")


def check_store(store: str) -> None:
    """Refuse what names no store, before anything is made.

    Raises:
        ConfigError: it names none.
    """
    if store != "sqlite" and not store.startswith(REDIS):
        raise ConfigError(
            "`store` names no store of events", remedy="write sqlite, redis://..., rediss://... or unix://..."
        )


def open_store(store: str, state: Path, keep_events: int) -> EventStore:
    """Open the store that a service keeps its events in.

    Several services may share one, of either kind: what they hold in memory follows the revisions of the store.

    Args:
        store: `sqlite`: the file `events.sqlite` in the folder `state`; or the address of a Redis server.
        state: folder, made if it is not there.
        keep_events: newest events that are kept of a user.

    Raises:
        ConfigError: it names no store.
        StoreError: it cannot be opened.
        FormatVersionError: another release has written it.
    """
    check_store(store)
    if store.startswith(REDIS):
        return RedisStore(store, keep_events)
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = "the disk is full" if error.errno == errno.ENOSPC else f"cannot be made ({error.strerror})"
        raise StoreError(message, remedy="choose another folder for `state`", path=state) from error
    return SqliteStore(state / EVENTS, keep_events)
