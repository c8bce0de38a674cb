"""Histories to embed, predict or recommend for: from JSON lines, or from a file of events."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from peterrec.config import ColumnsConfig, EventsConfig, PreprocessingConfig, with_settings
from peterrec.data.catalogue import ItemId
from peterrec.data.frames import FrameFiles, id_type, ids_as
from peterrec.data.ids import UserHistories
from peterrec.data.preprocessing import assumptions
from peterrec.errors import DataError

JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
EXAMPLE = '{"user": "u1", "items": ["i1", "i2"]}'


def read_histories(
    source: str | Path | TextIO,
    *,
    events: EventsConfig | None = None,
    allow_empty: bool = False,
    preprocessing: PreprocessingConfig | None = None,
) -> UserHistories:
    """Read histories, from JSON lines or from events: what a model reads of them.

    Args:
        source: an open text stream or a file ending in .jsonl, .ndjson or .json with one object a line, such as
            `{"user": "u1", "items": ["i1", "i2"]}`, items oldest first; or files of events, as `EventsConfig.paths`.
        events: what the columns of a file of events are called; its `paths` are replaced by `source`.
        allow_empty: accept users without items.
        preprocessing: of the model that is asked: what its settings filter by, JSON lines are assumed to meet.

    Raises:
        DataError: no such file, or a line or the events cannot be used; the message names the file and line.
    """
    if not isinstance(source, str | Path):
        return _with_assumptions(
            _read_lines(source, str(getattr(source, "name", "the input")), allow_empty), preprocessing
        )
    path = Path(source)
    if path.suffix.lower() in JSON_ENDINGS and not path.is_dir():
        try:
            with path.open(encoding="utf-8-sig") as lines:  # some editors put a byte order mark first
                return _with_assumptions(_read_lines(lines, path, allow_empty), preprocessing)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})", remedy="check the path", path=path) from error
    return _read_events(str(source), events, preprocessing)


def frame_histories(
    events: Any, columns: Mapping[str, Any] | None = None, preprocessing: PreprocessingConfig | None = None
) -> tuple[UserHistories, pa.Array, ColumnsConfig]:
    """Read histories from a DataFrame of events: what a model reads of them.

    Args:
        events: DataFrame of a library that narwhals reads.
        columns: what its columns are called (`user`, `item`, `time`, ...: `ColumnsConfig`), where that differs from
            the events that were prepared.
        preprocessing: of the model that is asked.

    Returns:
        The histories of N users; their (N,) ids in the type of the column; and what the columns are called.

    Raises:
        DataError: the events cannot be used; the message says why.
        ConfigError: `columns` names no column of events.
    """
    prepared = ColumnsConfig() if preprocessing is None else preprocessing.columns
    names = with_settings(ColumnsConfig, prepared, dict(columns or {}))
    used = [name for name in (names.user, names.item, names.time, names.order, names.domain) if name is not None]
    with FrameFiles(Path(tempfile.gettempdir())) as frames, frames.named_in_errors():
        path = frames.write(events, "events", used)
        reading = with_settings(EventsConfig, None, {"paths": (str(path),), **(columns or {})})
        users = _read_events(str(path), reading, preprocessing)
        return users, ids_as(users.user_ids, id_type(path, names.user)), names


def _with_assumptions(histories: UserHistories, preprocessing: PreprocessingConfig | None) -> UserHistories:
    lines = assumptions(preprocessing, times=False, domains=False)
    return histories._replace(notes=tuple(f"assumed: {line}" for line in lines))


def _read_events(source: str, events: EventsConfig | None, preprocessing: PreprocessingConfig | None) -> UserHistories:
    from peterrec.data.prepare import read_event_histories  # noqa: PLC0415 - the engine is not needed for JSON lines

    config = EventsConfig(paths=(source,)) if events is None else events.model_copy(update={"paths": (source,)})
    explicit = config.ids if "ids" in config.model_fields_set or preprocessing is None else preprocessing.columns.ids
    # Never guessed again: the catalogue tells integers from text, and matches either by its text.
    ids = "text" if explicit == "auto" else explicit
    return read_event_histories(config.model_copy(update={"ids": ids}), preprocessing)


def _read_lines(lines: Iterable[str], path: str | Path, allow_empty: bool) -> UserHistories:
    line_of_user: dict[str, int] = {}
    items: list[list[ItemId]] = []
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            user, history = parse_history(line, f"{path}, line {number}", allow_empty)
            if user in line_of_user:
                raise DataError(
                    f"user {user!r} was already on line {line_of_user[user]}",
                    remedy="give each user one line with all of the user's items",
                    path=f"{path}, line {number}",
                )
            line_of_user[user] = number
            items.append(history)
    except UnicodeDecodeError as error:
        place = f"{path}, after line {number}"
        raise DataError("is not UTF-8 text", remedy="save the file as UTF-8", path=place) from error
    if not line_of_user:
        raise DataError("there are no histories", remedy=f"write one line per user, such as {EXAMPLE}", path=path)
    return UserHistories(list(line_of_user), items)


def parse_history(line: str, place: str, allow_empty: bool) -> tuple[str, list[ItemId]]:
    """Return the user and the items of a line of JSON; `place` is what an error says of where it stands.

    Raises:
        DataError: it is something else, or has no items, and they are not allowed to be missing.
    """
    try:
        value = json.loads(line)
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
    return str(user), items


def _is_id(value: Any) -> bool:
    """Return whether a value can be an id: a text that has a UTF-8 form, or an integer of 64 bits."""
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
