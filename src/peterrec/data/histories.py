"""Histories to embed, predict or recommend for: from JSON lines, or from a file of events."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa

from peterrec.config import ColumnsConfig, EventsConfig, PreprocessingConfig, with_settings
from peterrec.data.catalogue import ItemId
from peterrec.data.frames import FrameFiles, id_type, ids_as
from peterrec.data.history_lines import EXAMPLE, LineReader, ReadHistory, parse_line
from peterrec.data.ids import HistoryFeatures, UserHistories
from peterrec.data.stored_histories import EVENTS_AT_ONCE, StoredHistories
from peterrec.data.user_lines import UserLines
from peterrec.errors import DataError

JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
ANSWER_COLUMNS = {"label", "labels", "probability", "prediction", "rank", "score", "vector", "known_events"}


def read_histories(
    source: str | Path | TextIO,
    *,
    events: EventsConfig | None = None,
    allow_empty: bool = False,
    preprocessing: PreprocessingConfig | None = None,
    at_once: int | None = None,
) -> StoredHistories:
    """Read histories, from JSON lines or from events: what a model reads of them.

    Memory holds those of some users. All are read and checked before this returns.

    Args:
        source: an open text stream or a file ending in .jsonl, .ndjson or .json with one object a line, such as
            `{"user": "u1", "items": ["i1", "i2"]}`, items oldest first, with `times` and `features` of the events
            where they are told (`history_lines`); or files of events, as `EventsConfig.paths`.
        events: what the columns of a file of events are called; its `paths` are replaced by `source`.
        allow_empty: accept users without items.
        preprocessing: of the model that is asked: what its settings filter by and JSON lines do not tell, they are
            assumed to meet.
        at_once: events held in memory at a time (a user with more is one piece); `EVENTS_AT_ONCE` if not given.

    Returns:
        Histories on disk, in the order of the lines; of events, in that of the users' ids. To be closed, as a context.

    Raises:
        DataError: no such file, or a line or the events cannot be used; the message names the file and line.
        ConfigError: a bound of time does not fit the times, or the events do not fit in the memory they may use.
        StorageError: there is no room for them on disk.
    """
    at_once = EVENTS_AT_ONCE if at_once is None else at_once
    if not isinstance(source, str | Path):
        name = str(getattr(source, "name", "the input"))
        return _stored_lines(source, name, allow_empty, preprocessing, at_once)
    path = Path(source)
    if path.suffix.lower() in JSON_ENDINGS and not path.is_dir():
        try:
            with path.open(encoding="utf-8-sig") as lines:  # some editors put a byte order mark first
                return _stored_lines(lines, path, allow_empty, preprocessing, at_once)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})", remedy="check the path", path=path) from error
    return _read_events(str(source), events, preprocessing, at_once)


class FrameHistories(NamedTuple):
    """Histories of the users of a DataFrame.

    Attributes:
        items: of N users, external ids, oldest first.
        user_ids: (N,) in the type of the column.
        columns: what the columns are called.
        notes: what was left out of the histories, and what was assumed, in words.
        features: of the events, where a model reads some.
    """

    items: list[list[ItemId]]
    user_ids: pa.Array
    columns: ColumnsConfig
    notes: tuple[str, ...]
    features: HistoryFeatures | None = None


class StoredFrame(NamedTuple):
    """The same on disk, to be closed.

    Attributes:
        histories: of the users, whose ids are texts.
        user_type: of the ids in the DataFrame.
        columns: what the columns are called.
    """

    histories: StoredHistories
    user_type: pa.DataType
    columns: ColumnsConfig


def read_frame(
    events: Any, columns: Mapping[str, Any] | None = None, preprocessing: PreprocessingConfig | None = None
) -> StoredFrame:
    """Read histories from a DataFrame of events, as `read_histories` does from a file with the same rows.

    Args:
        events: DataFrame of a library that narwhals reads.
        columns: what its columns are called (`user`, `item`, `time`, ...: `ColumnsConfig`), where that differs from
            the events that were prepared.
        preprocessing: of the model that is asked.

    Raises:
        DataError: the events cannot be used, or users or items are called as a column of answers.
        ConfigError: `columns` names no column of events.
    """
    prepared = ColumnsConfig() if preprocessing is None else preprocessing.columns
    names = with_settings(ColumnsConfig, prepared, dict(columns or {}))
    columns_read = (names.user, names.item, names.time, names.order, names.domain)
    used = [name for name in (*columns_read, *(feature.column for feature in names.features)) if name is not None]
    for name in (names.user, names.item):
        if name in ANSWER_COLUMNS:
            raise DataError(f"the column {name!r} is called as one of the answers", remedy="rename it in the DataFrame")
    with FrameFiles(Path(tempfile.gettempdir())) as frames, frames.named_in_errors():
        path = frames.write(events, "events", used)
        reading = with_settings(EventsConfig, None, {"paths": (str(path),), **(columns or {})})
        user_type = id_type(path, names.user)
        return StoredFrame(_read_events(str(path), reading, preprocessing, EVENTS_AT_ONCE), user_type, names)


def frame_histories(
    events: Any, columns: Mapping[str, Any] | None = None, preprocessing: PreprocessingConfig | None = None
) -> FrameHistories:
    """Read histories from a DataFrame into memory; arguments and errors as those of `read_frame`."""
    stored, user_type, names = read_frame(events, columns, preprocessing)
    with stored:
        pieces = list(stored)
    user_ids = [user for piece in pieces for user in piece.user_ids]
    items = [history for piece in pieces for history in piece.items]
    features = None
    if pieces and pieces[0].features is not None:
        pieces_features = [piece.features for piece in pieces if piece.features is not None]
        codes = [row for piece in pieces_features for row in piece.codes]
        features = HistoryFeatures(codes, [row for piece in pieces_features for row in piece.seconds])
    return FrameHistories(items, ids_as(user_ids, user_type), names, stored.notes, features)


def _stored_lines(
    lines: Iterable[str],
    path: str | Path,
    allow_empty: bool,
    preprocessing: PreprocessingConfig | None,
    at_once: int,
) -> StoredHistories:
    reader = LineReader(preprocessing)
    with contextlib.ExitStack() as on_error:
        stored = on_error.enter_context(StoredHistories())
        _read_lines(lines, path, allow_empty, stored, at_once, reader)
        on_error.pop_all()
    stored.notes = reader.notes()
    return stored


def _read_events(
    source: str, events: EventsConfig | None, preprocessing: PreprocessingConfig | None, at_once: int
) -> StoredHistories:
    from peterrec.data.prepare import read_event_histories  # noqa: PLC0415 - the engine is not needed for JSON lines

    config = EventsConfig(paths=(source,)) if events is None else events.model_copy(update={"paths": (source,)})
    explicit = config.ids if "ids" in config.model_fields_set or preprocessing is None else preprocessing.columns.ids
    # Never guessed again: the catalogue tells integers from text, and matches either by its text.
    ids = "text" if explicit == "auto" else explicit
    return read_event_histories(config.model_copy(update={"ids": ids}), preprocessing, at_once=at_once)


def _read_lines(
    lines: Iterable[str],
    path: str | Path,
    allow_empty: bool,
    stored: StoredHistories,
    at_once: int,
    reader: LineReader,
) -> None:
    number, size, piece = 0, 0, _empty_piece(reader)
    with UserLines() as user_lines:
        try:
            for number, text in enumerate(lines, start=1):
                if not text.strip():
                    continue
                place = f"{path}, line {number}"
                line = parse_line(text, place, allow_empty)
                _refuse_second_line(line.user, number, user_lines.add(line.user, number), path)
                _append(piece, line.user, reader.read(line, place))
                size += 1 + len(line.items)
                if size >= at_once:
                    stored.append(piece)
                    size, piece = 0, _empty_piece(reader)
        except UnicodeDecodeError as error:
            place = f"{path}, after line {number}"
            raise DataError("is not UTF-8 text", remedy="save the file as UTF-8", path=place) from error
    if piece.user_ids:
        stored.append(piece)
    if not stored.users:
        raise DataError("there are no histories", remedy=f"write one line per user, such as {EXAMPLE}", path=path)


def _empty_piece(reader: LineReader) -> UserHistories:
    return UserHistories([], [], None if reader.encoder is None else HistoryFeatures([], []))


def _append(piece: UserHistories, user: str, history: ReadHistory) -> None:
    piece.user_ids.append(user)
    piece.items.append(history.items)
    if piece.features is not None:
        piece.features.codes.append(history.codes)
        piece.features.seconds.append(history.seconds)


def _refuse_second_line(user: str, number: int, first: int, path: str | Path) -> None:
    if first != number:
        raise DataError(
            f"user {user!r} was already on line {first}",
            remedy="give each user one line with all of the user's items",
            path=f"{path}, line {number}",
        )
