"""Events as Spark asks models about them: read and checked as `prepare` does, then grouped by user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peterrec.arguments import with_suggestions
from peterrec.config import ColumnsConfig, EventFeatureConfig, EventsConfig, PreprocessingConfig
from peterrec.data.event_features import EventFeatureEncoder
from peterrec.data.prepare.event_histories import check_unit, read_condition, without_absent_columns
from peterrec.data.prepare.events import (
    SORT_COLUMNS,
    Events,
    check_columns,
    check_events,
    check_time_format,
    event_columns,
    open_events,
    read_columns,
)
from peterrec.data.prepare.feature_columns import check_times, feature_names
from peterrec.data.prepare.files import WHICH_COLUMNS, InputFile
from peterrec.errors import WARNING, ConfigError, DataError

if TYPE_CHECKING:
    from peterrec.data.prepare.spark_engine import SparkEngine


@dataclass(frozen=True)
class GroupedEvents:
    """Events by user.

    Attributes:
        dataframe: of Spark: user (text), events (array of structs: time, [order,] [line,] item, [keep0, ...]; sorted),
            and read_events: how many there were of the user. An event is in it if it is read for some bundle.
        keeps: of each bundle, the field that says whether an event is read for it; None: all of `events` are.
        sort_columns: fields that order events.
        units_per_second: of the times, where they are numbers.
        notes: what looks wrong, in words.
        features: of an event, in its fields.
    """

    dataframe: Any
    keeps: tuple[str | None, ...]
    sort_columns: tuple[str, ...]
    units_per_second: float | None
    notes: tuple[str, ...]
    features: tuple[EventFeatureConfig, ...] = ()


def resolve_frame_columns(
    columns: Sequence[str], named: EventsConfig | None, preprocessing: PreprocessingConfig | None
) -> tuple[EventsConfig, list[str]]:
    """Return which columns of a DataFrame are read, and in words what it lacks.

    Args:
        columns: of the DataFrame.
        named: settings that were given.
        preprocessing: of the model: what is not named is as it was then, if it is there.

    Raises:
        DataError: a column is not there.
        ConfigError: a setting cannot be followed on a DataFrame.
    """
    settings = {} if named is None else {name: getattr(named, name) for name in named.model_fields_set}
    prepared = ColumnsConfig() if preprocessing is None else preprocessing.columns
    resolved = prepared.model_dump() | settings | {"paths": ("a DataFrame",), "columns": None}
    config, notes = without_absent_columns(resolved, settings, columns, preprocessing)
    missing = [column for column in event_columns(config).values() if column not in columns]
    if missing:
        raise DataError(
            f"the DataFrame does not have the column{'s' if len(missing) > 1 else ''} "
            f"{with_suggestions(missing, columns)}; it has {', '.join(map(repr, columns))}",
            remedy=WHICH_COLUMNS,
        )
    if config.ties == "lines":
        raise ConfigError(
            "events with equal times are to stand in the order of their lines (ties: lines), which a DataFrame has not",
            remedy="number them in a column and name it as order, or set ties to hash",
        )
    return config, notes


def group_events(
    events: Any, config: EventsConfig, preprocessings: Sequence[PreprocessingConfig | None], session: Any
) -> GroupedEvents:
    """Check events, in a few passes over them, and plan what gathers those of each user.

    Args:
        events: a DataFrame of Spark, or None: those of the files that `config` names.
        config: how they are read: see `resolve_frame_columns` and `event_histories.resolve_columns`.
        preprocessings: of each bundle that is asked.
        session: of Spark.

    Raises:
        DataError: the events cannot be used as they are.
        ConfigError: a bound of time does not fit the times.
    """
    from peterrec.data.prepare.spark_engine import session_engine  # noqa: PLC0415 - imports Spark

    with session_engine(session) as engine:
        checked = open_events(engine, config) if events is None else _open_frame(engine, events, config)
        conditions = []
        for preprocessing in preprocessings:
            check_unit(checked, config, preprocessing)
            conditions.append(read_condition(checked, preprocessing))
        keeps = {f"keep{place}": condition for place, condition in enumerate(conditions) if condition is not None}
        sort_columns = tuple(name for name in SORT_COLUMNS if name in checked.table.columns)
        features = feature_names(checked.table.columns)
        check_times(EventFeatureEncoder(config.features), checked.time_kind, config.time)
        table = checked.table.mutate(**keeps).select("user", *sort_columns, "item", *features, *keeps)
        rows = session.sql(engine.connection.compile(table))
    names = tuple(f"keep{place}" if condition is not None else None for place, condition in enumerate(conditions))
    grouped, fields = _grouped(rows, [*sort_columns, "item", *features], names)
    notes = tuple(f"{WARNING}{warning}" for warning in checked.warnings)
    return GroupedEvents(grouped, fields, sort_columns, checked.units_per_second, notes, config.features)


def _open_frame(engine: SparkEngine, dataframe: Any, config: EventsConfig) -> Events:
    """Do what `open_events` does, of a DataFrame: it is taken for a file of Parquet."""
    from pyspark.sql.pandas.types import to_arrow_type  # noqa: PLC0415 - an extra

    from peterrec.data.prepare.spark_engine import FRAME  # noqa: PLC0415 - imports Spark

    check_time_format(config.time_format)
    names = list(dict.fromkeys(read_columns(config).values()))
    types = tuple(to_arrow_type(dataframe.schema[name].dataType) for name in names)
    described = InputFile(Path(FRAME), "parquet", tuple(names), types)
    check_columns(described, config)
    raw = engine.read_frame("events", dataframe, read_columns(config), config.time_format)
    return check_events(engine, [raw], [[described]], config)


def _grouped(rows: Any, columns: Sequence[str], keeps: Sequence[str | None]) -> tuple[Any, tuple[str | None, ...]]:
    """Gather the events of each user that are read for some bundle; a user of whom none is read has none."""
    from pyspark.sql import functions as F  # noqa: PLC0415 - an extra, by the name that all know

    single = len(keeps) == 1
    named = [name for name in keeps if name is not None]
    event = F.struct(*columns, *([] if single else named))
    if len(named) == len(keeps):  # else there is a bundle that reads all of them
        read = F.col(named[0])
        for name in named[1:]:
            read = read | F.col(name)
        event = F.when(read, event)
    gathered = F.array_sort(F.collect_list(event)).alias("events")
    grouped = rows.groupBy("user").agg(gathered, F.count(F.lit(1)).alias("read_events"))
    return grouped, (None,) if single else tuple(keeps)
