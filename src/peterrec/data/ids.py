"""Histories as they are given: lists of item ids, understood or refused before anything is looked up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa

from peterrec.arguments import TEXTS, describe, is_frame, unordered
from peterrec.errors import DataError

HISTORIES = "pass a list of item ids for each user, e.g. [['item-1', 'item-2'], ['item-3']]"
HISTORY = "pass e.g. ['item-1', 'item-2']"
FRAMES = (
    f"{HISTORIES}; DataFrames of events are read by predict, recommend and embed of a UserModel, events in a file by "
    "the functions peterrec.predict, recommend and embed"
)
NUMBERS = (
    "ids are texts or integers: make whole numbers integers (pandas: astype('Int64')) and leave out what is missing"
)
MISSING = "leave out events without an item"
PLAIN = {int, str}  # not bool, which is no id


class HistoryFeatures(NamedTuple):
    """Features of the events of histories, beside their items.

    Attributes:
        codes: of each event of each user (`EventFeatureEncoder.encode`), without gaps.
        seconds: of each event, since 1970.
    """

    codes: list[list[int]]
    seconds: list[list[float]]


class UserHistories(NamedTuple):
    """Histories of users, by user.

    Attributes:
        user_ids: distinct users, as text.
        items: for each user the external item ids, oldest first.
        features: of their events, where a model reads some.
    """

    user_ids: list[str]
    items: list[list[str | int]]
    features: HistoryFeatures | None = None

    def split(self, users_at_once: int) -> Iterator[UserHistories]:
        """Yield the same users in order, so many at a time."""
        for start in range(0, len(self.user_ids), users_at_once):
            rows = slice(start, start + users_at_once)
            features = self.features
            if features is not None:
                features = HistoryFeatures(features.codes[rows], features.seconds[rows])
            yield UserHistories(self.user_ids[rows], self.items[rows], features)


def as_histories(histories: Any) -> list[Sequence[str | int]]:
    """Return histories as lists of texts and integers.

    Understood are lists, tuples and iterators (of lists, tuples, arrays, series), 2-dimensional arrays of ids, and
    arrays and series of lists.

    Raises:
        DataError: it is something else, or a history or an id in it is; the message says which, and what to pass.
    """
    if is_frame(histories):
        raise DataError(f"a history is a list of item ids, and histories are {describe(histories)}", remedy=FRAMES)
    rows = list(histories) if isinstance(histories, Iterator) else _as_list(histories)
    if rows is None:
        description = "one text" if isinstance(histories, TEXTS) else describe(histories)
        raise DataError(f"a history is a list of item ids, and histories are {description}", remedy=HISTORIES)
    return [as_history(row, f"history {number}") for number, row in enumerate(rows)]


def as_history(history: Any, name: str = "a history") -> Sequence[str | int]:
    """Return one history as a list of texts and integers.

    Args:
        history: a list, tuple, array or series of ids.
        name: what an error calls it.

    Raises:
        DataError: it is something else, or an element is no id; the message has the element and its place.
    """
    if isinstance(history, list | tuple) and set(map(type, history)) <= PLAIN:
        return history
    items = _as_list(history)
    if items is None:
        description = "not one text" if isinstance(history, TEXTS) else f"and {name} is {describe(history)}"
        raise DataError(f"a history is a list of item ids, {description}", remedy=HISTORY)
    return [_as_id(item, place, name) for place, item in enumerate(items)]


def _as_list(value: Any) -> list[Any] | None:
    """Return the elements of a list, an array or a series; None if it is nothing of the kind."""
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return value.to_pylist()  # type: ignore[no-any-return]
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim == 2 else value.tolist() if value.ndim == 1 else None
    if isinstance(value, (*TEXTS, Mapping)) or unordered(value):
        return None
    if isinstance(value, Sequence):
        return list(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist") and getattr(value, "ndim", 1) in (1, 2):
        return list(value.tolist())  # a series of pandas, a tensor
    if hasattr(value, "dtype") and hasattr(value, "to_list"):
        return list(value.to_list())  # a series of polars
    return None


def _as_id(item: Any, place: int, name: str) -> str | int:
    if type(item) in PLAIN:
        return item  # type: ignore[no-any-return]
    if isinstance(item, str):
        return str.__str__(item)
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        return int(item)
    return _refuse(item, f"item {place} of {name}")


def _refuse(item: Any, place: str) -> NoReturn:
    remedy = "ids are texts or integers: convert others with str() as they were when the model was trained"
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        remedy = MISSING
    elif isinstance(item, float | np.floating):
        remedy = NUMBERS
    elif isinstance(item, TEXTS):
        remedy = "decode bytes to text"
    elif _as_list(item) is not None:
        remedy = "a history is a flat list of ids, " + HISTORIES
    raise DataError(f"{place} is {item!r:.60}, which is no id", remedy=remedy)
