"""Histories that are read some users at a time, as one object in memory: what a test can compare."""

from __future__ import annotations

from typing import Any, NamedTuple

from peterrec.data import histories, prepare

AT_ONCE = 3  # events: nearly every user is a piece of its own


class WholeHistories(NamedTuple):
    """All users, all items, and the notes."""

    user_ids: list[str]
    items: list[list[str | int]]
    notes: tuple[str, ...]


def read_event_histories(*arguments: Any, at_once: int = AT_ONCE) -> WholeHistories:
    """Read all histories of a log."""
    return _in_memory(prepare.read_event_histories(*arguments, at_once=at_once))


def read_histories(*arguments: Any, at_once: int = AT_ONCE, **settings: Any) -> WholeHistories:
    """Read all histories of lines or of a log."""
    return _in_memory(histories.read_histories(*arguments, at_once=at_once, **settings))


def _in_memory(stored: histories.StoredHistories) -> WholeHistories:
    with stored:
        pieces = list(stored)
        user_ids = [user for piece in pieces for user in piece.user_ids]
        items = [history for piece in pieces for history in piece.items]
        assert (stored.users, stored.events) == (len(user_ids), sum(map(len, items)))
        return WholeHistories(user_ids, items, stored.notes)
