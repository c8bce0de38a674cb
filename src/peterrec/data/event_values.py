"""Times and features of one user's events, as requests and JSON lines bring them: checked in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from peterrec.arguments import describe
from peterrec.data.event_features import EventFeatureEncoder, EventValues
from peterrec.data.ties import FloatArray


class Problem(NamedTuple):
    """Fault of the values of events, and what to do about it."""

    message: str
    remedy: str


def length_problem(name: str, values: Sequence[Any] | None, events: int) -> Problem | None:
    """Return what is wrong with the number of values, of which there is one for each event, or none are told."""
    if values is None or len(values) == events:
        return None
    message = f"there are {events:,} items, and {len(values):,} {name}"
    return Problem(message, f"give one for each item, or leave `{name}` out")


def seconds_array(times: Sequence[Any]) -> FloatArray | Problem:
    """Return times as (T,) float64, or what is wrong with them."""
    try:
        seconds = np.asarray(times, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        seconds = np.full(len(times), np.nan)
    if not np.isfinite(seconds).all():
        return Problem("a time is not a finite number", "send seconds since 1970")
    if (seconds[1:] < seconds[:-1]).any():
        return Problem("the times decrease", "send the oldest event first")
    return seconds


def features_problem(events: Sequence[EventValues | None], encoder: EventFeatureEncoder | None) -> Problem | None:
    """Return what is wrong with the features of events: none are told, or a mapping from columns of the prepared log.

    Args:
        events: what each says.
        encoder: of the model; None: it reads items alone.
    """
    columns = () if encoder is None else tuple(encoder.columns.values())
    for event in events:
        if event is None:
            continue
        if not isinstance(event, Mapping):
            return Problem(f"features of an event are {describe(event)}", 'pass e.g. {"type": "view"}')
        unread = [name for name in event if name not in columns]
        wrong = None if encoder is None else encoder.wrong_value(event)
        if unread or wrong:
            remedy = f"the model reads {', '.join(map(repr, columns))}" if columns else "the model reads items alone"
            return Problem(wrong or f"there is no feature {unread[0]!r} of events", remedy)
    return None
