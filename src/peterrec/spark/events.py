"""Events of a Spark DataFrame, checked and grouped by user: what `read_event_histories` does, by Spark."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ibis

from peterrec.config import ColumnsConfig, EventsConfig, PreprocessingConfig
from peterrec.data.catalogue import IdType
from peterrec.data.prepare import event_histories, events
from peterrec.data.prepare.columns import read_id
from peterrec.data.prepare.engine import Engine, scalars
from peterrec.data.prepare.events import Events
from peterrec.data.prepare.files import FILE, WHICH_COLUMNS
from peterrec.data.prepare.plausibility import event_warnings, suspicious_flags
from peterrec.data.prepare.sortable import SortKind, count_values, decide_sort_kind, read_sortable
from peterrec.data.prepare.units import NAMES, NANOSECONDS_A_SECOND, UNITS
from peterrec.data.preprocessing import assumptions, filters_times
from peterrec.errors import WARNING, ConfigError, DataError

SOURCE = "the DataFrame"
WHOLE_NUMBERS = ("ByteType", "ShortType", "IntegerType", "LongType")
TIMES = (*WHOLE_NUMBERS, "FloatType", "DoubleType", "DateType", "TimestampType", "TimestampNTZType")


@dataclass(frozen=True)
class GroupedEvents:
    """Events by user.

    Attributes:
        dataframe: of Spark: user (text), events (array of structs: time, [order,] item, [keep0, ...]; sorted), and
            read_events: how many there were of the user. An event is in it if it is read for some bundle.
        keeps: of each bundle, the field that says whether an event is read for it; None: all of `events` are.
        sort_columns: fields that order events.
        units_per_second: of the times, where they are numbers.
        notes: what is assumed, and what looks wrong, in words.
    """

    dataframe: Any
    keeps: tuple[str | None, ...]
    sort_columns: tuple[str, ...]
    units_per_second: float | None
    notes: tuple[str, ...]


def resolve_columns(
    columns: Sequence[str], named: EventsConfig | None, preprocessing: PreprocessingConfig | None
) -> tuple[EventsConfig, list[str]]:
    """Return which columns of a DataFrame are read, and in words what it lacks.

    Args:
        columns: of the DataFrame.
        named: settings that were given.
        preprocessing: of the model: what is not named is as it was then, if it is there.

    Raises:
        DataError: a column is not there.
        ConfigError: a setting cannot be followed on Spark.
    """
    settings = {} if named is None else {name: getattr(named, name) for name in named.model_fields_set}
    settings.pop("paths", None)
    prepared = ColumnsConfig() if preprocessing is None else preprocessing.columns
    resolved = prepared.model_dump() | settings
    notes = []
    for name in ("order", "domain"):
        column = resolved[name]
        if column is not None and name not in settings and column not in columns:
            resolved[name] = None
            if name == "order":
                notes.append(f"there is no column {column!r}: events with equal times stand in the order of a hash")
    resolved["ids"] = "text" if resolved["ids"] == "auto" else resolved["ids"]
    config = EventsConfig.model_validate(resolved | {"paths": (SOURCE,)})
    mapping = event_columns(config)
    missing = [column for column in mapping.values() if column not in columns]
    if missing:
        raise DataError(
            f"{SOURCE} does not have the column{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}; it "
            f"has {', '.join(map(repr, columns))}",
            remedy=WHICH_COLUMNS,
        )
    if config.ties == "lines":
        raise ConfigError(
            "events with equal times are to stand in the order of their lines (ties: lines), which Spark does not keep",
            remedy="number them in a column and name it as order, or set ties to hash",
        )
    assumed = assumptions(preprocessing, times=True, domains=config.domain is not None)
    return config, [*notes, *(f"assumed: {line}" for line in assumed)]


def event_columns(config: EventsConfig) -> dict[str, str]:
    """Return what each column of events is called: user, item, time, and order and domain where they are named."""
    names = ("user", "item", "time", "order", "domain")
    return {name: getattr(config, name) for name in names if getattr(config, name) is not None}


def group_events(
    dataframe: Any, config: EventsConfig, preprocessings: Sequence[PreprocessingConfig | None]
) -> GroupedEvents:
    """Check events, in a few passes over them, and plan what gathers those of each user.

    Args:
        dataframe: of Spark.
        config: how they are read: see `resolve_columns`.
        preprocessings: of each bundle that is asked.

    Raises:
        DataError: the events cannot be used as they are.
        ConfigError: a bound of time does not fit the times, or a setting cannot be followed on Spark.
    """
    session = dataframe.sparkSession
    with _view(session, _named(dataframe, config)) as (engine, raw):
        checked, unit = _check(engine, raw, config)
        for preprocessing in preprocessings:
            _check_unit(unit, config, preprocessing)
        conditions = [
            event_histories._conditions(checked, preprocessing).get("keep") for preprocessing in preprocessings
        ]
        keeps = {f"keep{place}": condition for place, condition in enumerate(conditions) if condition is not None}
        sort_columns = tuple(name for name in ("time", "order") if name in checked.table.columns)
        table = checked.table.mutate(**keeps).select("user", *sort_columns, "item", *keeps)
        rows = session.sql(engine.connection.compile(table))
    notes = tuple(f"{WARNING}{warning}" for warning in checked.warnings)
    fields = tuple(f"keep{place}" if condition is not None else None for place, condition in enumerate(conditions))
    grouped, fields = _grouped(rows, sort_columns, fields)
    return GroupedEvents(grouped, fields, sort_columns, unit, notes)


def _named(dataframe: Any, config: EventsConfig) -> Any:
    from pyspark.sql import functions  # noqa: PLC0415 - an extra

    types = {field.name: field.dataType for field in dataframe.schema.fields}
    for role, column in event_columns(config).items():
        _check_type(role, column, types[column])
    named = [functions.col(quoted(column)).alias(role) for role, column in event_columns(config).items()]
    return dataframe.select(functions.lit(SOURCE).alias(FILE), *named)


def quoted(column: str) -> str:
    """Return the name of a column as Spark reads it, whatever is in it."""
    escaped = column.replace("`", "``")
    return f"`{escaped}`"


def _check_type(role: str, column: str, type_: Any) -> None:
    name = type(type_).__name__
    is_whole = name in WHOLE_NUMBERS or (name == "DecimalType" and type_.scale == 0)
    if role in ("user", "item") and not (is_whole or name in ("StringType", "VarcharType", "CharType")):
        problem = f"column {column!r} of {SOURCE} is of type {type_.simpleString()}; ids are text or integers"
        raise DataError(problem, remedy="convert it to text or to integers")
    if role in ("time", "order") and not (name in TIMES or name in ("DecimalType", "StringType")):
        problem = (
            f"column {column!r} of {SOURCE} is of type {type_.simpleString()}; it must be a number, a date, a time"
        )
        raise DataError(f"{problem} or text", remedy="convert it, or name another column")


@contextlib.contextmanager
def _view(session: Any, dataframe: Any) -> Iterator[tuple[Any, Any]]:
    """Yield Spark as an engine and a DataFrame as its table; settings of the session are as before in the end."""
    from peterrec.data.prepare.spark_engine import SparkEngine, connect  # noqa: PLC0415 - imports Spark

    settings = ("spark.sql.session.timeZone", "spark.sql.mapKeyDedupPolicy")
    before = {name: session.conf.get(name) for name in settings}
    name = f"peterrec_{secrets.token_hex(6)}"
    dataframe.createOrReplaceTempView(name)
    try:
        connection = connect(session)  # sets the zone to UTC: what is compiled meanwhile keeps it
        yield SparkEngine(session, connection), connection.table(name)
    finally:
        session.catalog.dropTempView(name)
        for setting, value in before.items():
            session.conf.set(setting, value)


def _check(engine: Engine, raw: Any, config: EventsConfig) -> tuple[Events, float | None]:
    """Return the events, and the unit of their times where these are numbers."""
    marked = events._with_missing_values(raw, config)
    kinds: dict[str, SortKind] = {}
    for role in ("time", "order"):
        if role in event_columns(config):
            kinds[role] = _sort_kind(engine, marked, role, event_columns(config)[role])
    kind: IdType = "integer" if config.ids == "integer" else "text"
    columns = {"user": read_id(marked["user"], kind).cast("string"), "item": read_id(marked["item"], kind)}
    columns |= {role: read_sortable(marked[role], sort_kind) for role, sort_kind in kinds.items()}
    if config.domain is not None:
        columns["domain"] = marked["domain"].cast("string").nullif("")
    written = [name for name in marked.columns if name.startswith(events.WRITTEN)]
    rows = marked.select(FILE, *written, **columns)
    valid = rows.drop_null([*columns]).select(*columns)
    counts, unit = _counts(rows, [*columns])
    dropped, reason = events._check_rows(rows, config) if counts["bad"] else (0, "")
    if counts["rows"] == 0:
        raise DataError("there are no events in the input", remedy="give a DataFrame with events")
    warnings = event_warnings(engine, valid, counts, event_columns(config))
    return Events(valid, kind, kinds["time"], (), int(counts["rows"]), dropped, reason, warnings), unit


def _counts(rows: Any, columns: Sequence[str]) -> tuple[dict[str, int], float | None]:
    """Return counts of rows, of bad ones, and of those that look wrong, and the unit of times; in one pass."""
    is_valid = ibis.and_(*(rows[name].notnull() for name in columns))
    conditions = {"rows": is_valid, "bad": ~is_valid}
    conditions |= {name: is_valid & flag for name, flag in suspicious_flags(rows).items()}
    sums = {name: condition.cast("int64").sum().fill_null(0) for name, condition in conditions.items()}
    if rows["time"].type().is_timestamp():
        return scalars(rows.aggregate(**sums)), None
    largest = rows["time"].cast("float64").abs().max(where=is_valid)
    counts = scalars(rows.aggregate(largest=largest, **sums))
    size = counts.pop("largest") or 0.0
    return counts, next((unit for limit, unit in UNITS if size < limit), NANOSECONDS_A_SECOND)


def _check_unit(unit: float | None, config: EventsConfig, preprocessing: PreprocessingConfig | None) -> None:
    """Refuse times of another unit than those of the log that was prepared, where bounds of time are to be applied."""
    if unit is None or preprocessing is None or not filters_times(preprocessing):
        return
    if unit != preprocessing.units_per_second:
        raise DataError(
            f"its times ({config.time!r}) look like {NAMES[unit]}, those of the log that was prepared like "
            f"{NAMES.get(preprocessing.units_per_second, 'another unit')}, and some events are to be left out by time",
            remedy="write the times in the same unit",
            path=SOURCE,
        )


def _sort_kind(engine: Engine, table: Any, role: str, column: str) -> SortKind:
    """Return how values compare: by their type where that says it, else by looking at all of them."""
    type_ = table[role].type()
    if type_.is_timestamp() or type_.is_date():
        return "time"
    if type_.is_integer():
        return "integer"
    if type_.is_floating():
        return "float"
    kind = decide_sort_kind(count_values(engine, table, role), role, column, text_allowed=role == "order")
    if type_.is_string() and kind == "time":
        raise ConfigError(
            f"column {column!r} holds times as text, which Spark reads otherwise than this machine",
            remedy="convert the column to a timestamp, or write it as one in Parquet",
        )
    return kind


def _grouped(rows: Any, sort_columns: Sequence[str], keeps: Sequence[str | None]) -> tuple[Any, tuple[str | None, ...]]:
    """Gather the events of each user that are read for some bundle; a user of whom none is read has none."""
    from pyspark.sql import functions as F  # noqa: PLC0415 - an extra, by the name that all know

    single = len(keeps) == 1
    named = [name for name in keeps if name is not None]
    event = F.struct(*sort_columns, "item", *([] if single else named))
    if len(named) == len(keeps):  # else there is a bundle that reads all of them
        read = F.col(named[0])
        for name in named[1:]:
            read = read | F.col(name)
        event = F.when(read, event)
    gathered = F.array_sort(F.collect_list(event)).alias("events")
    grouped = rows.groupBy("user").agg(gathered, F.count(F.lit(1)).alias("read_events"))
    return grouped, (None,) if single else tuple(keeps)
