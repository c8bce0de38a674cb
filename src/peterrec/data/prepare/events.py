"""Raw events of any files as one table of a known form: ids as ids, times that compare, bad rows refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ibis

from peterrec.config import EventsConfig
from peterrec.data.catalogue import IdType
from peterrec.data.prepare.columns import (
    IdCounts,
    check_fractions,
    check_types,
    decide_id_type,
    id_flags,
    is_mark,
    read_id,
    without_mark,
)
from peterrec.data.prepare.duplicates import refuse_equal_files, repeated_path_warnings, similar_file_warnings
from peterrec.data.prepare.engine import Engine, scalars
from peterrec.data.prepare.feature_columns import check_feature_types, feature_columns, read_feature
from peterrec.data.prepare.files import FILE, UNREAD, InputFile, describe, directives, find_files
from peterrec.data.prepare.plausibility import event_warnings, suspicious_flags
from peterrec.data.prepare.sortable import (
    SortKind,
    ValueCounts,
    count_flags,
    count_values,
    decide_sort_kind,
    integer_flags,
    read_sortable,
)
from peterrec.data.prepare.units import unit_flags, unit_of
from peterrec.errors import ConfigError, DataError

Reader = Callable[[Any], Any]
SORT_COLUMNS = ("time", "order", "line")  # what orders a user's events, where the table has it
USER_INTEGER = "user_integer"  # column of the users' ids where these are integers, which engines join by more quickly
WRITTEN = "written_"  # before the name of a column: its values as they stand in the file


@dataclass(frozen=True)
class Events:
    """Checked events.

    Attributes:
        table: expression with the columns user (text), item (text or int64), time (int64, float64, decimal, or
            timestamp in UTC, of nanoseconds where some of them need it) and, where the configuration names them, order
            domain (text) and line; and user_integer, where user ids are integers. No value is null.
        item_kind: what item ids are.
        time_kind: how times compare.
        units_per_second: of numeric times; None for moments.
        files: where the events come from.
        rows: events in `table`.
        dropped: rows left out by `invalid_rows: drop`.
        drop_reason: why.
        warnings: what looks wrong though it can be read.
    """

    table: Any
    item_kind: IdType
    time_kind: SortKind
    units_per_second: float | None
    files: tuple[InputFile, ...]
    rows: int
    dropped: int
    drop_reason: str = ""
    warnings: tuple[str, ...] = ()


def open_events(engine: Engine, config: EventsConfig, name: str = "events") -> Events:
    """Read files of events into tables of the engine (called `name`...) and check every row.

    Raises:
        DataError: no such file, two with equal content, a missing column, a wrong type, rows without a user, item or
            time, no rows at all, or ids that are integers in one file and text in another. The message names the file.
        ConfigError: the format of times does not say what they are.
    """
    check_time_format(config.time_format)
    files = _describe_all(config)
    refuse_equal_files(files)
    by_lines = config.ties == "lines"
    groups = [[file] for file in files] if by_lines else _group_by_form(files)
    raw = [
        engine.read(name, group, read_columns(config), config.time_format, file_number=number if by_lines else None)
        for number, group in enumerate(groups)
    ]
    events = check_events(engine, raw, groups, config)
    return replace(events, warnings=(*repeated_path_warnings(config.paths), *events.warnings))


def check_events(
    engine: Engine, raw: Sequence[Any], groups: Sequence[Sequence[InputFile]], config: EventsConfig
) -> Events:
    """Decide how raw events are to be read, and check every row.

    Args:
        engine: of the tables.
        raw: tables as `Engine.read` returns them.
        groups: of each table, the files that it is of.
        config: how they are to be read.

    Raises:
        DataError: as `open_events`, but for what is said of files without their rows.
    """
    marked = [_with_missing_values(table, config) for table in raw]
    typed = [group[0].kind == "parquet" for group in groups]
    readers, item_kind, time_kind = _readers(engine, marked, typed, config)
    written = [f"{WRITTEN}{column}" for column in event_columns(config)]
    tables = [
        engine.rows(table.select(FILE, *written, **{name: read(table) for name, read in readers.items()}), reused=True)
        for table in marked
    ]
    all_rows = tables[0] if len(tables) == 1 else ibis.union(*tables)
    unneeded = {*feature_columns(config), *(["user"] if USER_INTEGER in readers else [])}  # no text for each row
    required = [name for name in readers if name not in unneeded]
    complete = all_rows.drop_null(required)
    valid = complete.select(*readers)
    counts = _count_rows(all_rows, required)
    dropped, reason = _check_rows(all_rows, config) if counts["invalid"] else (0, "")
    files = tuple(file for group in groups for file in group)
    if not counts["rows"]:
        raise DataError("there are no events in the input", remedy="name a file with events", path=files[0].path)
    warnings = (
        *(similar_file_warnings(complete) if len(files) > 1 else ()),
        *event_warnings(engine, valid, counts, event_columns(config)),
    )
    unit = None if counts["largest"] is None else unit_of(counts["largest"])
    return Events(valid, item_kind, time_kind, unit, files, counts["rows"], dropped, reason, warnings)


def _count_rows(table: Any, columns: Sequence[str]) -> dict[str, Any]:
    """Return how many rows are valid, and invalid, and look wrong, and the largest of numeric times."""
    is_valid = ibis.and_(*(table[name].notnull() for name in columns))
    conditions = {"rows": is_valid, "invalid": ~is_valid}
    conditions |= {name: is_valid & flag for name, flag in suspicious_flags(table).items()}
    counts = {name: condition.cast("int64").sum().fill_null(0) for name, condition in conditions.items()}
    if table["time"].type().is_timestamp():
        return scalars(table.aggregate(**counts)) | {"largest": None}
    size = table["time"].cast("float64").abs()
    extremes = {end: getattr(size, end)(where=is_valid).fill_null(0.0) for end in ("min", "max")}
    totals = scalars(table.aggregate(**counts, **extremes))
    smallest, largest = totals.pop("min"), totals.pop("max")
    if unit_of(smallest) != unit_of(largest):  # seldom, so that no other log is asked what unit each time is of
        units = {name: (is_valid & flag).cast("int64").sum() for name, flag in unit_flags(table["time"]).items()}
        totals |= scalars(table.aggregate(**units))
    return totals | {"largest": largest}


def check_time_format(time_format: str | None) -> None:
    """Refuse a format of times that does not say what they are.

    Raises:
        ConfigError: it has names of zones, or nanoseconds beside an offset.
    """
    letters = directives(time_format or "")
    if "Z" in letters:
        raise ConfigError(
            f"time_format is {time_format!r}: names of zones are not read, for one name is several zones",
            remedy="use %z for offsets such as +02:00, or leave the zone out: times without one are UTC",
        )
    if "n" in letters and "z" in letters:
        raise ConfigError(
            f"time_format is {time_format!r}: nanoseconds with an offset would be rounded",
            remedy="use %f, or write the times in UTC and leave out %z",
        )


def _with_missing_values(raw: Any, config: EventsConfig) -> Any:
    """Return raw values, null where a mark stands, and again as they stand in the file, for messages."""
    values = {name: without_mark(raw[name], config.missing) for name in read_columns(config)}
    written = {f"{WRITTEN}{name}": raw[name].cast("string") for name in event_columns(config)}
    if UNREAD in raw.columns:
        written[f"{WRITTEN}time"] = ibis.coalesce(raw[UNREAD], written[f"{WRITTEN}time"])
    line = ["line"] if "line" in raw.columns else []
    return raw.select(FILE, *line, **values, **written)


def _describe_all(config: EventsConfig) -> tuple[InputFile, ...]:
    columns = read_columns(config)
    files = tuple(
        describe(path, list(columns.values()), separator=config.separator, columns=config.columns)
        for path in find_files(config.paths)
    )
    for file in files:
        check_columns(file, config)
    return files


def check_columns(file: InputFile, config: EventsConfig) -> None:
    """Refuse a file whose columns cannot be what they are to be; errors as in `check_types` and `check_fractions`."""
    sortable = [column for column in (config.time, config.order) if column is not None]
    check_types(file, [config.user, config.item], sortable)
    for column in sortable:
        check_fractions(file, column)
    check_feature_types(file, [*feature_columns(config).values()])


def event_columns(config: EventsConfig) -> dict[str, str]:
    """Return what columns of events are called in files: user, item, time, and order and domain where named."""
    names = {"user": config.user, "item": config.item, "time": config.time}
    optional = {"order": config.order, "domain": config.domain}
    return names | {name: column for name, column in optional.items() if column is not None}


def read_columns(config: EventsConfig) -> dict[str, str]:
    """Return what all columns that are read are called in files: those of `event_columns`, and of features."""
    return event_columns(config) | feature_columns(config)


def _group_by_form(files: Sequence[InputFile]) -> list[list[InputFile]]:
    """Group files that can be read as one table."""
    groups: dict[Any, list[InputFile]] = {}
    for file in files:
        key = (file.kind, file.columns, tuple(str(t) for t in file.types), file.separator, file.header)
        groups.setdefault(key, []).append(file)
    return list(groups.values())


def _readers(
    engine: Engine, raw: Sequence[Any], typed: Sequence[bool], config: EventsConfig
) -> tuple[dict[str, Reader], IdType, SortKind]:
    """Decide, over all files, how each column is to be read."""
    sortable = ["time"] if config.order is None else ["time", "order"]
    ids: dict[str, list[IdCounts]] = {"user": [], "item": []}
    values: dict[str, list[ValueCounts]] = {name: [] for name in sortable}
    for table, is_typed in zip(raw, typed, strict=True):
        flags = id_flags(table, [*ids], typed=is_typed)
        for name in sortable:
            flags |= integer_flags(table, name)
        rows = count_flags(engine, table, flags)
        for name, id_counts in ids.items():
            id_counts += [IdCounts(row[FILE], row[f"present_{name}"], row[f"integer_{name}"]) for row in rows]
        for name in sortable:
            values[name] += count_values(engine, table, name, rows)
    user_kind, item_kind = (decide_id_type(counts, name, config.ids) for name, counts in ids.items())
    types = [table["time"].type() for table in raw]
    read_already = all(type_.is_timestamp() or type_.is_date() for type_ in types)  # whatever is in them
    time_kind: SortKind = "time" if read_already else decide_sort_kind(values["time"], "time", config.time)
    readers: dict[str, Reader] = {
        "user": lambda table: read_id(table["user"], user_kind).cast("string"),
        "item": lambda table: read_id(table["item"], item_kind),
        "time": _reader("time", time_kind, values["time"]),
    }
    if user_kind == "integer":
        readers[USER_INTEGER] = lambda table: read_id(table["user"], user_kind)
    if config.order is not None:
        order_kind = decide_sort_kind(values["order"], "order", config.order, text_allowed=True)
        readers["order"] = _reader("order", order_kind, values["order"])
    if config.ties == "lines":
        readers["line"] = lambda table: table["line"]
    if config.domain is not None:
        readers["domain"] = lambda table: table["domain"].cast("string").nullif("")
    readers |= {name: _feature_reader(name) for name in feature_columns(config)}
    return readers, item_kind, time_kind


def _feature_reader(name: str) -> Reader:
    return lambda table: read_feature(table[name])


def _reader(column: str, kind: SortKind, counts: Sequence[ValueCounts]) -> Reader:
    nanoseconds = any(file.fine for file in counts)
    return lambda table: read_sortable(table[column], kind, nanoseconds=nanoseconds)


def _check_rows(table: Any, config: EventsConfig) -> tuple[int, str]:
    """Return how many rows have a missing or unreadable value, and why they are dropped.

    Raises:
        DataError: there are some, and they are not to be dropped.
    """
    columns = event_columns(config)
    bad = table.filter(ibis.or_(*(table[name].isnull() for name in columns)))
    marked = ibis.or_(*(is_mark(bad[f"{WRITTEN}{name}"], config.missing).fill_null(True) for name in columns))
    by_file = bad.group_by(FILE).aggregate(
        rows=bad.count(),
        marked=marked.cast("int64").sum(),
        **{name: bad[name].isnull().cast("int64").sum() for name in columns},
    )
    rows = by_file.order_by(FILE).to_pyarrow().to_pylist()
    if rows and config.invalid_rows == "error":
        raise _unusable_rows_error(rows[0], bad.filter(bad[FILE] == rows[0][FILE]), config)
    marks = ", ".join(map(repr, config.missing))
    about_marks = f" ({sum(row['marked'] for row in rows):,} rows: empty, {marks})" if marks else ""
    return sum(row["rows"] for row in rows), f"a value is missing{about_marks} or unreadable"


def _unusable_rows_error(counts: dict[str, Any], bad: Any, config: EventsConfig) -> DataError:
    """Return the error about the unusable rows of a file, with one of them as it stands there."""
    columns = event_columns(config)
    wanted = _MISSING_VALUES if config.ids != "integer" else _MISSING_VALUES | _MISSING_INTEGER_IDS
    parts = [f"{counts[name]:,} without {wanted[name]} ({columns[name]!r})" for name in columns if counts[name]]
    written = bad.select(**{name: bad[f"{WRITTEN}{name}"] for name in columns})
    row = written.order_by([*columns]).limit(1).to_pyarrow().to_pylist()[0]
    values = ", ".join(f"{column} {_shortened(row[name])}" for name, column in columns.items())
    times = f" (a time must be written as {config.time_format})" if config.time_format else _TIMES
    about_times = times if counts["time"] else ""
    return DataError(
        f"{counts['rows']:,} row{'s' if counts['rows'] > 1 else ''} cannot be used: {', '.join(parts)}; such as "
        f"{values}",
        remedy=f"correct them, or leave them out: invalid_rows drop (--invalid-rows drop){about_times}",
        path=counts[FILE],
    )


def _shortened(value: str | None) -> str:
    text = value or ""
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")


_LONGEST = 60
_TIMES = (
    " (times are numbers of at most 20 digits before and 18 after the point, or as in 2001-02-28 12:00:00.5+02:00; "
    "names of zones are not read, nor anything finer than a nanosecond or, beside nanoseconds, outside 1678 to 2261)"
)
_MISSING_VALUES = {
    "user": "a user id",
    "item": "an item id",
    "time": "a readable, finite time",
    "order": "a value to order by",
    "domain": "a domain",
}
_MISSING_INTEGER_IDS = {"user": "an integer user id", "item": "an integer item id"}
