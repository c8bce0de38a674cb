"""Histories as JSON lines: one object a user, with items, and with times and features of events if they are told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from peterrec.config import PreprocessingConfig
from peterrec.data.catalogue import ItemId
from peterrec.data.event_features import EventValues
from peterrec.data.event_values import Problem, features_problem, length_problem, seconds_array
from peterrec.data.history_reader import HistoryReader, UserEvents
from peterrec.data.preprocessing import assumptions, encoder_of
from peterrec.data.sequences import IntArray
from peterrec.data.ties import FloatArray
from peterrec.errors import DataError

EXAMPLE = '{"user": "u1", "items": ["i1", "i2"]}'
FEATURES = (
    'write a list for each column, {"type": ["view", null]}, or an object for each event, [{"type": "view"}, null]'
)


class HistoryLine(NamedTuple):
    """The events of one user, as a line has them.

    Attributes:
        user: id, as text.
        items: T external ids, oldest first.
        seconds: (T,) times since 1970; None: none are told.
        features: of T events, what each says beside its item, by column; None: nothing is told.
    """

    user: str
    items: list[ItemId]
    seconds: FloatArray | None = None
    features: list[EventValues | None] | None = None


class ReadHistory(NamedTuple):
    """Events of a line that a model reads.

    Attributes:
        items: external ids, oldest first.
        codes: of the features of these events (`EventFeatureEncoder.encode`), without gaps.
        seconds: of these events; NaN where no times are told.
    """

    items: list[ItemId]
    codes: list[int]
    seconds: list[float]


class LineReader:
    """The rules by which a model reads lines, as the service reads requests; it counts what they tell.

    Args:
        preprocessing: of the model; None: all events are read, by their items alone.

    Attributes:
        left_out: events that are not read, for their time.
    """

    def __init__(self, preprocessing: PreprocessingConfig | None) -> None:
        self.preprocessing = preprocessing
        self.encoder = encoder_of(preprocessing)
        self.left_out = 0
        self._reader = HistoryReader.for_model(preprocessing, "skip")
        self._all_tell_times = True
        self._some_tell_features = False

    def read(self, line: HistoryLine, place: str) -> ReadHistory:
        """Return what the model reads of a line.

        Raises:
            DataError: a feature that the model does not read, or a value that its column cannot have.
        """
        events = [None] * len(line.items) if line.features is None else line.features
        _refuse(features_problem(events, self.encoder), place)
        self._all_tell_times &= line.seconds is not None or not line.items
        self._some_tell_features |= line.features is not None or line.seconds is not None
        codes: IntArray = np.zeros(len(events), dtype=np.int64)
        if self.encoder is not None:
            codes = self.encoder.encode_values(events, line.seconds)
        seconds = np.full(len(events), np.nan) if line.seconds is None else line.seconds
        # Which item it is matters to no filter: any code will do.
        is_read = self._reader.chosen(UserEvents(np.zeros(len(events), dtype=np.int64), line.seconds))
        self.left_out += int((~is_read).sum())
        items = [item for item, read in zip(line.items, is_read.tolist(), strict=True) if read]
        return ReadHistory(items, codes[is_read].tolist(), seconds[is_read].tolist())

    def notes(self) -> tuple[str, ...]:
        """Return in words what was left out of the lines read so far, and what was assumed of them."""
        left_out = f"{self.left_out:,} events are left out, as they were when data were prepared"
        features, times = self._some_tell_features, self._all_tell_times
        assumed = assumptions(self.preprocessing, times=times, domains=False, features=features)
        return (*([left_out] if self.left_out else []), *(f"assumed: {line}" for line in assumed))


def parse_line(text: str, place: str, allow_empty: bool) -> HistoryLine:
    """Return the events of a line of JSON; `place` is what an error says of where it stands.

    Raises:
        DataError: it is something else, has no items, and they are not allowed to be missing, or times and features
            that are not those of the items.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON ({error})", remedy=f"write one object a line: {EXAMPLE}", path=place) from error
    if not isinstance(value, dict) or "user" not in value or "items" not in value:
        raise DataError("is not an object with `user` and `items`", remedy=f"write e.g. {EXAMPLE}", path=place)
    user, items = value["user"], value["items"]
    if not _is_id(user) or user == "":
        wrong = f"the user {user!r} is not a text or an integer of 64 bits"
        raise DataError(wrong, remedy=f"write e.g. {EXAMPLE}", path=place)
    if not isinstance(items, list) or not all(_is_id(item) for item in items):
        wrong = "`items` is not a list of texts or integers of 64 bits"
        raise DataError(wrong, remedy=f"write e.g. {EXAMPLE}", path=place)
    if not items and not allow_empty:
        remedy = "leave out users without items, or allow them: allow_empty (--allow-empty)"
        raise DataError(f"user {user!r} has no items", remedy=remedy, path=place)
    seconds = _seconds(value.get("times"), len(items), place)
    return HistoryLine(str(user), items, seconds, _features(value.get("features"), len(items), place))


def _seconds(times: Any, events: int, place: str) -> FloatArray | None:
    if times is None:
        return None
    if not isinstance(times, list) or any(
        isinstance(time, bool) or not isinstance(time, int | float) for time in times
    ):
        raise DataError("`times` is not a list of numbers", remedy="write seconds since 1970", path=place)
    _refuse(length_problem("times", times, events), place)
    seconds = seconds_array(times)
    if isinstance(seconds, Problem):
        raise DataError(seconds.message, remedy=seconds.remedy, path=place)
    return seconds


def _features(features: Any, events: int, place: str) -> list[EventValues | None] | None:
    """Return the features of each event; a list for each column, or an object for each event, as the service has it."""
    if features is None:
        return None
    columns = list(features.values()) if isinstance(features, Mapping) else []
    if not isinstance(features, Mapping | list) or not all(isinstance(column, list) for column in columns):
        raise DataError("`features` is neither lists by column nor a list of objects", remedy=FEATURES, path=place)
    for values in columns if isinstance(features, Mapping) else [features]:
        _refuse(length_problem("features", values, events), place)
    if isinstance(features, Mapping):
        features = [dict(zip(features, values, strict=True)) for values in zip(*columns, strict=True)]
        features = features or [None] * events  # there is no column
    for event in features:
        for value in event.values() if isinstance(event, dict) else ():
            if value is not None and not isinstance(value, str | int | float):
                wrong = f"a feature is {value!r:.40}, not a text, a number, true, false or null"
                raise DataError(wrong, remedy=FEATURES, path=place)
    return list(features)


def _refuse(problem: Problem | None, place: str) -> None:
    if problem is not None:
        raise DataError(problem.message, remedy=problem.remedy, path=place)


def _is_id(value: Any) -> bool:
    """Return whether a value can be an id: a text that has a UTF-8 form, or an integer of 64 bits."""
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
