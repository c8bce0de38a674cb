"""Columns with features of events: how they are read, which categories there are, and those of a catalogue in use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from peterrec.config import EventFeatureConfig, EventsConfig, build_config
from peterrec.data.event_features import LARGEST_EXACT, MAX_CATEGORIES, Categories, EventFeatureEncoder
from peterrec.data.prepare.files import InputFile
from peterrec.data.ties import FloatArray
from peterrec.errors import ConfigError, DataError
from peterrec.storage import description_errors, read_json

PREFIX = "feature"  # of the columns of tables, before the place of a feature


def feature_columns(config: EventsConfig) -> dict[str, str]:
    """Return what columns of features are called, in tables and in files."""
    columns = enumerate(feature.column for feature in config.features)
    return {f"{PREFIX}{place}": column for place, column in columns if column is not None}


def feature_names(columns: Iterable[str]) -> list[str]:
    """Return those of the columns of a table that hold features."""
    return [name for name in columns if name.startswith(PREFIX)]


def read_feature(value: Any) -> Any:
    """Return a column as text, null where there is none; whole numbers are written alike, whatever their type."""
    text = value.cast("string")
    if value.type().is_floating():
        is_whole = (value == value.floor()) & (value.abs() < LARGEST_EXACT)
        text = is_whole.ifelse(is_whole.ifelse(value, 0).cast("int64").cast("string"), text)
        text = value.isnan().ifelse(None, text)
    return text.nullif("")


def check_feature_types(file: InputFile, columns: Sequence[str]) -> None:
    """Refuse columns of a Parquet file that are neither numbers nor text nor true and false.

    Raises:
        DataError: the message names the file, the column and its type.
    """
    good = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    for column in columns:
        type_ = file.type_of(column)
        type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
        if not any(test(type_) for test in good) and str(type_) not in ("string", "large_string", "string_view"):
            raise DataError(
                f"column {column!r} is of type {type_}; a feature of events is a text, a number, or true or false",
                remedy="convert it, or leave it out of `features`",
                path=file.path,
            )


def fit_features(events: Any, config: EventsConfig, time_kind: str) -> EventFeatureEncoder | None:
    """Return the encoder of the features of a log, with the categories of its events; None: there are no features.

    Args:
        events: table of the source events of users who may be learned from.
        config: columns; features that have their categories already keep them.
        time_kind: what the times are.

    Raises:
        ConfigError: as `EventFeatureEncoder`; or there are features of times that are texts.
    """
    if not config.features:
        return None
    check_times(EventFeatureEncoder(config.features), time_kind, config.time)
    return EventFeatureEncoder([_fitted(events, place, feature) for place, feature in enumerate(config.features)])


def check_times(encoder: EventFeatureEncoder | None, time_kind: str, column: str) -> None:
    """Refuse features of times that are not times.

    Raises:
        ConfigError: the message says how to have them read.
    """
    if encoder is not None and encoder.needs_times and time_kind == "text":
        raise ConfigError(
            f"features are of the time of events, and {column!r} holds texts that are no times",
            remedy="say how they are written (time_format), or leave these features out",
        )


def _fitted(events: Any, place: int, feature: EventFeatureConfig) -> EventFeatureConfig:
    name = f"{PREFIX}{place}"
    if feature.encoding != Categories.name or feature.values or name not in events.columns:
        return feature
    present = events.filter(events[name].notnull())
    counted = present.group_by(name).aggregate(n=present.count())
    frequent = counted.order_by([ibis.desc("n"), name]).limit(MAX_CATEGORIES).to_pyarrow()
    return feature.model_copy(update={"values": tuple(frequent[name].to_pylist())})


@dataclass(frozen=True)
class FeatureRows:
    """Features of some events of a table.

    Attributes:
        table: with the columns of features.
        seconds: (n,) times.
    """

    table: pa.Table
    seconds: FloatArray

    def codes(self, encoder: EventFeatureEncoder) -> Any:
        """Return (n,) codes, in which gaps are missing."""
        names = feature_names(self.table.column_names)
        values = {int(name.removeprefix(PREFIX)): self.table[name].combine_chunks() for name in names}
        return encoder.encode(values, self.seconds, len(self.table))


def with_catalogue_features(events: EventsConfig, folder: str | None, columns: Iterable[str]) -> EventsConfig:
    """Return settings of events with the features that a catalogue in use was prepared with, and their categories.

    Args:
        events: settings, with the features that are asked for; none: those of the catalogue.
        folder: of a corpus or a backbone; None: there is no catalogue in use.
        columns: of the events; what they lack is missing of all events.

    Raises:
        ConfigError: other features are asked for.
    """
    if folder is None:
        return events
    stored, present = stored_features(Path(folder)), set(columns)
    requested, names = [feature.name for feature in events.features], [feature.name for feature in stored]
    if requested and requested != names:
        raise ConfigError(
            f"the features asked for ({', '.join(requested)}) are not those of {folder} ({', '.join(names) or 'none'})",
            remedy="leave `features` (--feature) out: with the catalogue they are taken over",
        )
    features = tuple(
        feature if feature.column is None or requested or feature.column in present else without_column(feature)
        for feature in stored
    )
    return events.model_copy(update={"features": features})


def without_column(feature: EventFeatureConfig) -> EventFeatureConfig:
    """Return a feature that is missing of all events, for they do not have its column."""
    return feature.model_copy(update={"column": None})


def stored_features(folder: Path) -> tuple[EventFeatureConfig, ...]:
    """Return the features that a corpus or a backbone was prepared with; none where it does not say."""
    manifest = folder / "manifest.json"
    path = manifest if manifest.is_file() else folder / "config.json"
    if not path.is_file():
        return ()
    meta = read_json(path)
    with description_errors(path):
        preprocessing = meta.get("preprocessing") or {}
        trees = meta.get("event_features", preprocessing.get("columns", {}).get("features", ()))
        return tuple(build_config(EventFeatureConfig, tree) for tree in trees)
