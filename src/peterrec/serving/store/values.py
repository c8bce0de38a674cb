"""Checks and conversions of events that all stores share: done before anything is written."""

from __future__ import annotations

import json
import math
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from peterrec.data.catalogue import ItemId
from peterrec.data.event_features import EventValues
from peterrec.data.hashing import id_hash
from peterrec.data.ties import tie_keys
from peterrec.errors import RequestError, StoreError
from peterrec.serving.store.base import Erasures, Event

SLACK = 1.25  # a user may have this many times the events that are kept, so that dropping is not done at every event
MICROSECOND = 1e-6
MAX_FEATURES = 50  # of an event
FEATURES = "send texts, finite numbers, true or false, by the name of the column"
DIGITS = 4_000  # of an integer: Python turns no longer ones into text (`sys.set_int_max_str_digits`)


def try_finish(finish_erasures: Callable[[], Erasures]) -> bool:
    """Try to finish erasures; after a failure they stay pending, and erased users cannot be read either way."""
    try:
        return finish_erasures().pending == 0
    except StoreError:
        return False


def new_revision() -> str:
    """Return a revision that no user ever had."""
    return secrets.token_hex(8)


def max_events(keep: int) -> int:
    """Return how many events a user may have before all but the newest `keep` are dropped."""
    return int(keep * SLACK)


def checked_events(events: Sequence[Event]) -> list[Event]:
    """Return the events as they can be stored: their timestamps as floats.

    Raises:
        RequestError: an id is not text that can be encoded, an item is neither text nor an integer, or a timestamp is
            not a finite number.
    """
    return [_checked(event) for event in events]


def _checked(event: Event) -> Event:
    checked_text(event.user, "user")
    checked_text(event.event_id, "event")
    if event.domain is not None:
        checked_text(event.domain, "domain")
    if isinstance(event.item, str):
        checked_text(event.item, "item")
    elif type(event.item) is not int or abs(event.item) >= 10**DIGITS:  # a bool is no id
        raise RequestError("an item is neither text nor an integer", remedy=f"at most {DIGITS} digits")
    timestamp = None if event.timestamp is None else _finite(event.timestamp)
    return replace(event, timestamp=timestamp, features=_checked_features(event.features))


def _checked_features(features: EventValues | None) -> EventValues | None:
    """Return features without those that are not told; None where none is.

    Raises:
        RequestError: a value is neither a text, a finite number, true nor false; or there are too many.
    """
    if features is None:
        return None
    if not isinstance(features, Mapping) or len(features) > MAX_FEATURES:
        raise RequestError(f"features of an event are no mapping of at most {MAX_FEATURES}", remedy=FEATURES)
    present = {name: value for name, value in features.items() if value is not None}
    for name, value in present.items():
        checked_text(name, "feature")
        if isinstance(value, str):
            checked_text(value, "feature")
        elif type(value) not in (bool, int, float) or not -sys.float_info.max <= value <= sys.float_info.max:
            raise RequestError(f"the feature {name!r} of an event is {value!r:.40}", remedy=FEATURES)
    return present or None


def pack_features(features: EventValues | None) -> str | None:
    """Encode features as text; None where there are none."""
    return None if features is None else json.dumps(features, ensure_ascii=False)


def next_timestamp(now: float, newest: float) -> float:
    """Return the time of an event without one: now, or just behind the user's newest event if that is later.

    So a clock that is set back neither puts the event before others nor has it dropped.
    """
    return max(now, newest + MICROSECOND, math.nextafter(newest, math.inf))


def event_ties(events: Sequence[Event]) -> list[int]:
    """Return the keys that order events of a user with equal timestamps, as in `prepare`: 64 bits for each event."""
    users, items = id_hash([event.user for event in events]), id_hash([event.item for event in events])
    return [
        int(key) for key in tie_keys(users, np.array([event.timestamp for event in events], dtype=np.float64), items)
    ]


def checked_text(text: str, kind: str) -> str:
    """Return an id if it is text that can be stored.

    Raises:
        RequestError: it is not text, or holds half of a surrogate pair, which no encoding has.
    """
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        raise RequestError(f"an id of the kind `{kind}` is not valid text", remedy="send Unicode text") from None
    return text


def with_timestamps(events: Sequence[Event], newest: Mapping[str, float], now: float) -> list[Event]:
    """Return the events, all with a timestamp: events without one get the next one of their user.

    Args:
        events: in the order in which they came.
        newest: timestamp of the last event of each of their users; minus infinity where there is none.
        now: by the clock.
    """
    last, timed = dict(newest), []
    for event in events:
        timestamp = next_timestamp(now, last[event.user]) if event.timestamp is None else event.timestamp
        last[event.user] = max(last[event.user], timestamp)
        timed.append(replace(event, timestamp=timestamp))
    return timed


def _finite(timestamp: float) -> float:
    try:
        value = float(timestamp)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise RequestError("a timestamp is not a finite number", remedy="send seconds since 1970")
    return value


def pack_item(item: ItemId) -> str:
    """Encode an item as text, with a prefix for its type: text, or an integer of any size."""
    return f"i{item}" if isinstance(item, int) else f"t{item}"


def unpack_item(packed: str) -> ItemId:
    """Decode the text of `pack_item`."""
    return int(packed[1:]) if packed[0] == "i" else packed[1:]
