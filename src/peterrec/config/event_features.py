"""Settings of what an event says beside its item: its type, its amount, its time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from peterrec.config.base import Config, Name

TIME = "time"  # before the encodings of an event's own time, which stands in no column of its own
TIME_ENCODINGS = ("gap", "hour", "weekday")
VALUE_ENCODING = "categories"  # of a column of which no other is named


class EventFeatureConfig(Config):
    """One feature of an event: what is made of one of its columns, or of its time."""

    column: str | None = Field(
        default=None, description="that holds it; none for encodings of the time, or where these events lack the column"
    )
    encoding: Name = Field(
        default=VALUE_ENCODING,
        description="categories: of texts or integers; log-bins: of numbers; gap (since the event before), hour and "
        "weekday (UTC): of the time",
    )
    values: tuple[str, ...] = Field(
        default=(), description="the categories, most frequent first: `prepare` fills them in"
    )

    @property
    def name(self) -> str:
        """Name in messages: `amount:log-bins`, `time:gap`."""
        return f"{TIME if self.encoding in TIME_ENCODINGS else self.column}:{self.encoding}"

    @model_validator(mode="after")
    def _check_column(self) -> Self:
        if self.encoding in TIME_ENCODINGS and self.column is not None:
            raise ValueError(f"{self.encoding} is of the time of events: write {TIME}:{self.encoding}")
        return self


def _from_text(value: Any) -> Any:
    """Return `amount:log-bins` or `time:gap,hour` as mappings; anything else as it is."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Iterable):
        return value
    features: list[Any] = []
    for feature in value:
        if not isinstance(feature, str):
            features.append(feature)
            continue
        column, _, encodings = feature.rpartition(":")
        column, encodings = (column, encodings) if column else (encodings, VALUE_ENCODING)
        for encoding in encodings.split(","):
            of_time = column == TIME and encoding in TIME_ENCODINGS
            features.append({"column": None if of_time else column, "encoding": encoding})
    return tuple(features)


EventFeatures = Annotated[tuple[EventFeatureConfig, ...], BeforeValidator(_from_text)]
"""Features of an event; a text `COLUMN[:ENCODING[,ENCODING]]` or `time:gap,hour,weekday` stands for some of them."""
