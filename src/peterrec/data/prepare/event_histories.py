"""Histories of external item ids out of events, for users a model has never seen, as `prepare` would have them."""

from __future__ import annotations

import contextlib
import functools
import operator
import tempfile
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa

from peterrec.config import EventFeatureConfig, EventsConfig, PreprocessingConfig
from peterrec.data.event_features import EventFeatureEncoder
from peterrec.data.hashing import UInt64Array, id_hash
from peterrec.data.ids import HistoryFeatures, UserHistories
from peterrec.data.prepare.engine import EngineMemoryError
from peterrec.data.prepare.event_filters import earlier_than, source_filters, target_filter
from peterrec.data.prepare.events import SORT_COLUMNS, Events, open_events
from peterrec.data.prepare.feature_columns import FeatureRows, check_times, feature_names, without_column
from peterrec.data.prepare.files import describe, find_files
from peterrec.data.prepare.open_engine import open_engine
from peterrec.data.prepare.units import NAMES
from peterrec.data.preprocessing import assumptions, filters_times
from peterrec.data.sequences import IntArray
from peterrec.data.stored_histories import EVENTS_AT_ONCE, StoredHistories
from peterrec.data.ties import equal_to_before, order_ties, seconds_of, tie_keys, tied_rows
from peterrec.errors import WARNING, ConfigError, DataError

MEMORY_LIMIT = "1GB"  # what does not fit spills: twenty million events are sorted as fast with it as with 2GB


def read_event_histories(
    config: EventsConfig, preprocessing: PreprocessingConfig | None = None, *, at_once: int = EVENTS_AT_ONCE
) -> StoredHistories:
    """Read the events of a log that a model reads, in the order that `prepare` has.

    Args:
        config: where the events are. Columns that are not named are those of the log that was prepared.
        preprocessing: of the model that is asked; None keeps every event.
        at_once: events held in memory at a time (a user with more is one piece).

    Returns:
        Histories on disk, in the order of the users' ids; to be closed, as a context.

    Raises:
        DataError: the events cannot be used as they are.
        ConfigError: a bound of time does not fit the times, or the events do not fit in the memory they may use.
        StorageError: there is no room for them on disk.
    """
    try:
        return _read(config, preprocessing, at_once)
    except EngineMemoryError as error:  # here, no setting says how much that is
        raise ConfigError(error.message, remedy="give the events of fewer users at a time") from error


def _read(config: EventsConfig, preprocessing: PreprocessingConfig | None, at_once: int) -> StoredHistories:
    config, notes = resolve_columns(config, preprocessing)
    with (
        contextlib.ExitStack() as on_error,
        tempfile.TemporaryDirectory(prefix="peterrec-") as scratch,
        open_engine(Path(scratch), MEMORY_LIMIT, None) as engine,
    ):
        stored = on_error.enter_context(StoredHistories())
        events = open_events(engine, config)
        notes += [f"{WARNING}{warning}" for warning in events.warnings]
        check_unit(events, config, preprocessing)
        is_read = read_condition(events, preprocessing)
        table = events.table if is_read is None else events.table.mutate(keep=is_read)
        keys = [name for name in SORT_COLUMNS if name in table.columns]
        encoder = EventFeatureEncoder(config.features) if config.features else None
        check_times(encoder, events.time_kind, config.time)
        required = [name for name in ("user", *keys, "item", "keep") if name in table.columns]
        names = [*required, *feature_names(table.columns)]
        rows = table.select(*names).order_by("user", *keys).to_pyarrow_batches(chunk_size=at_once)
        for piece in _whole_users(rows, at_once):
            stored.append(_histories(piece, keys, events.units_per_second, encoder))
        on_error.pop_all()
    left_out = events.rows - stored.events
    if left_out:
        notes.append(f"{left_out:,} of {events.rows:,} events are left out, as they were when data were prepared")
    stored.notes = tuple(notes)
    return stored


def _whole_users(batches: Iterable[pa.RecordBatch], at_once: int) -> Iterator[pa.Table]:
    """Yield the rows of some users at a time, about `at_once` of them: never a user's in two tables.

    Args:
        batches: rows in order of their `user`.
        at_once: rows of a table; those of a user with more are one table.
    """
    waiting: pa.Table | None = None
    for batch in batches:
        for start in range(0, batch.num_rows, at_once):
            rows = pa.Table.from_batches([batch.slice(start, at_once)])
            waiting = rows if waiting is None else pa.concat_tables([waiting, rows])
            last_user = int(np.flatnonzero(~equal_to_before(waiting["user"]))[-1])
            if last_user and len(waiting) >= at_once:
                yield waiting.slice(0, last_user)
                waiting = waiting.slice(last_user)
    if waiting is not None:
        yield waiting


def _histories(
    rows: pa.Table, keys: list[str], unit: float | None, encoder: EventFeatureEncoder | None
) -> UserHistories:
    """Return what is read of events, which are in order but for ties."""
    features = None if encoder is None else FeatureRows(rows, seconds_of(rows["time"], unit))
    codes = np.zeros(len(rows), dtype=np.int64)
    if features is not None and encoder is not None:
        codes = features.codes(encoder)
    order = _event_order(rows, keys, unit, codes)
    keep = rows["keep"].to_numpy()[order] if "keep" in rows.column_names else np.ones(len(rows), dtype=bool)
    starts = np.flatnonzero(~equal_to_before(rows["user"]))
    ends = np.cumsum(np.add.reduceat(keep.astype(np.int64), starts)).tolist()
    users = rows["user"].take(pa.array(starts)).to_pylist()
    read = order[keep]
    items = _cut(rows["item"].take(pa.array(read)).to_pylist(), ends)
    if features is None:
        return UserHistories(users, items)
    event_features = HistoryFeatures(_cut(codes[read].tolist(), ends), _cut(features.seconds[read].tolist(), ends))
    return UserHistories(users, items, event_features)


def _cut(values: list[Any], ends: list[int]) -> list[list[Any]]:
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def resolve_columns(config: EventsConfig, preprocessing: PreprocessingConfig | None) -> tuple[EventsConfig, list[str]]:
    """Return how files are to be read, and in words what they lack.

    Args:
        config: where they are. Columns that are not named are those of the log that was prepared.
        preprocessing: of the model that is asked.

    Raises:
        DataError: as in `describe`.
    """
    if preprocessing is None:
        return config, []
    named = {name: getattr(config, name) for name in config.model_fields_set}
    columns = preprocessing.columns.model_dump() | named
    needed = [columns[name] for name in ("user", "item", "time")]
    paths = find_files(config.paths)
    if columns["columns"] is not None and "columns" not in named and _has_header(paths[0], needed):
        columns["columns"] = None
    files = [describe(path, needed, separator=columns["separator"], columns=columns["columns"]) for path in paths]
    return without_absent_columns(columns, named, {name for file in files for name in file.columns}, preprocessing)


def without_absent_columns(
    columns: dict[str, Any], named: Container[str], present: Container[str], preprocessing: PreprocessingConfig | None
) -> tuple[EventsConfig, list[str]]:
    """Return settings of events without columns that can be done without, and in words what is so assumed.

    Args:
        columns: fields of `EventsConfig`.
        named: those that were given, and are not done without.
        present: names of columns that are there.
        preprocessing: of the model that is asked.
    """
    notes = []
    for name in ("order", "domain"):
        column = columns[name]
        if column is not None and name not in named and column not in present:
            columns = columns | {name: None}
            if name == "order":
                notes.append(f"there is no column {column!r}: events with equal times stand in the order of a hash")
    features = [EventFeatureConfig.model_validate(feature) for feature in columns.get("features", ())]
    read = {feature.column for feature in features if feature.column is not None}
    absent = {column for column in read if column not in present}
    notes += [f"there is no column {column!r}: that feature of events is missing" for column in sorted(absent)]
    features = [without_column(feature) if feature.column in absent else feature for feature in features]
    columns = columns | {"features": tuple(features)}
    assumed = assumptions(preprocessing, times=True, domains=columns["domain"] is not None)
    return EventsConfig.model_validate(columns), [*notes, *(f"assumed: {line}" for line in assumed)]


def _has_header(path: Path, needed: list[str]) -> bool:
    """Return whether a file names the columns itself, although the log that was prepared did not."""
    return set(needed) <= set(describe(path, []).columns)


def read_condition(events: Events, preprocessing: PreprocessingConfig | None) -> Any | None:
    """Return the condition that a model reads an event; None if it reads all.

    Raises:
        ConfigError: a bound of time does not fit the times.
    """
    if preprocessing is None:
        return None
    table, kind = events.table, events.time_kind
    source, first = preprocessing.source, preprocessing.first_target
    if "domain" not in table.columns:
        source = source.model_copy(update={"domains": None, "exclude_domains": ()})
    conditions = [event_filter.condition for event_filter in source_filters(table, source, kind)]
    if preprocessing.cut.until is not None:
        conditions.append(earlier_than(table, preprocessing.cut.until, kind, "until"))
    if first is not None and not first.separate_files and (first.domains is None or "domain" in table.columns):
        target_time = target_filter(table, first, kind, "of the task").ifelse(table["time"], None)
        first_time = target_time.min().over(ibis.window(group_by="user"))
        conditions.append(first_time.isnull() | (table["time"] < first_time))
    return functools.reduce(operator.and_, conditions) if conditions else None


def check_unit(events: Events, config: EventsConfig, preprocessing: PreprocessingConfig | None) -> None:
    """Refuse times of another unit than those of the log that was prepared, where bounds of time are to be applied.

    Raises:
        DataError: the message names both units.
    """
    unit = events.units_per_second
    if unit is None or preprocessing is None or not filters_times(preprocessing):
        return
    if unit != preprocessing.units_per_second:
        raise DataError(
            f"its times ({config.time!r}) look like {NAMES[unit]}, those of the log that was prepared like "
            f"{NAMES.get(preprocessing.units_per_second, 'another unit')}, and some events are to be left out by time",
            remedy="write the times in the same unit",
            path=events.files[0].path,
        )


def _event_order(rows: pa.Table, keys: list[str], unit: float | None, codes: IntArray) -> IntArray:
    same_as_before = equal_to_before(rows["user"], *(rows[name] for name in keys))
    tied = np.flatnonzero(tied_rows(same_as_before))
    events = rows.take(pa.array(tied))
    hashes = tie_keys(_id_hashes(events["user"]), seconds_of(events["time"], unit), _id_hashes(events["item"]))
    return order_ties(same_as_before, tied, hashes, codes[tied])


def _id_hashes(ids: pa.ChunkedArray) -> UInt64Array:
    encoded = ids.combine_chunks().dictionary_encode()
    hashes: UInt64Array = id_hash(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
    return hashes
