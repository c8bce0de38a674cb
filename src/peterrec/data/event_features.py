"""Features of events as integers: one number an event, in which each feature has its place.

An encoding makes small integers of what an event says: 0 where it does not say it. All features of an event together
are one code, a number of mixed radix, so that sequences have one more flat array however many features there are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.arguments import did_you_mean
from peterrec.config import EventFeatureConfig
from peterrec.data.sequences import IntArray
from peterrec.data.ties import BoolArray, FloatArray
from peterrec.errors import ConfigError, DataError

MAX_CODES = 2**31 - 1  # of all features together, so that item and code fit into 64 bits
MAX_CATEGORIES = 1_000  # of a column; rarer ones are read as "another one"
MISSING, OTHER_CATEGORY = 0, 1
BINS_PER_OCTAVE = 2
HOUR, DAY = 3_600, 86_400
THURSDAY = 3  # 1970-01-01 was one, counted from Monday

LARGEST_EXACT = 2.0**53  # integers up to it are floats without loss
FeatureValue = str | int | float | bool | None
EventValues = Mapping[str, FeatureValue]

ENCODINGS: dict[str, type[EventEncoding]] = {}


class EventEncoding(ABC):
    """One feature of events as integers from 0, which is a missing one, to below `size`.

    A new one is a subclass with a name of its own.

    Args:
        config: which column, and the categories.
    """

    name: ClassVar[str]
    reads: ClassVar[Literal["text", "seconds", "gap"]]
    """What it is given: the text of a column, times in seconds since 1970, or seconds since the event before."""

    def __init__(self, config: EventFeatureConfig) -> None:
        self.config = config

    def __init_subclass__(cls) -> None:
        ENCODINGS[cls.name] = cls

    @property
    @abstractmethod
    def size(self) -> int:
        """One more than its largest integer."""

    def accepts(self, text: str) -> bool:
        """Return whether a text can be a value of the column."""
        return True

    @abstractmethod
    def encode(self, values: Any) -> IntArray:
        """Return (n,) integers of n values: texts of a `pa.Array`, or float64 numbers, NaN where there is none."""


class Categories(EventEncoding):
    """Texts or integers; 1 is every category that was not frequent when the log was prepared."""

    name = "categories"
    reads = "text"

    @property
    def size(self) -> int:
        """Missing, other, and the frequent categories."""
        return 2 + len(self.config.values)

    def encode(self, values: pa.Array) -> IntArray:
        """Look categories up."""
        places = pc.index_in(values, value_set=pa.array(self.config.values, pa.string()), skip_nulls=True)
        codes = pc.add(pc.fill_null(places, OTHER_CATEGORY - 2), 2).to_numpy(zero_copy_only=False)
        return np.where(pc.is_null(values).to_numpy(zero_copy_only=False), MISSING, codes).astype(np.int64)


class LogBins(EventEncoding):
    """Numbers in bins, two for each doubling of 1 + |x|, alike on both sides of 0: nothing is fitted."""

    name = "log-bins"
    reads = "text"
    octaves: ClassVar[int] = 32

    @property
    def size(self) -> int:
        """Missing, and the bins of both signs."""
        return 2 + 2 * self.octaves * BINS_PER_OCTAVE

    def encode(self, values: pa.Array) -> IntArray:
        """Parse numbers and bin them.

        Raises:
            DataError: a text is no finite number.
        """
        texts = values.to_pylist()
        for text in texts:
            if text is not None and not self.accepts(text):
                name = self.config.column
                raise DataError(
                    f"the value {text!r:.60} of {name!r} is no finite number",
                    remedy=f"correct it, name it under `missing`, or read the column as categories ({name})",
                )
        numbers = np.array([math.nan if text is None else float(text) for text in texts], dtype=np.float64)
        bins = np.sign(numbers) * log_bins(np.abs(numbers), self.octaves)
        return _shifted(bins, numbers, 1 + self.octaves * BINS_PER_OCTAVE)

    def accepts(self, text: str) -> bool:
        """Return whether a text is a finite number."""
        try:
            return math.isfinite(float(text))
        except ValueError:
            return False


class Gap(EventEncoding):
    """Seconds since the user's event before, of those that are read; two bins for each doubling. The first has none."""

    name = "gap"
    reads = "gap"
    octaves: ClassVar[int] = 31  # 68 years

    @property
    def size(self) -> int:
        """Missing, and the bins."""
        return 1 + self.octaves * BINS_PER_OCTAVE

    def encode(self, values: FloatArray) -> IntArray:
        """Bin gaps."""
        return _shifted(np.minimum(log_bins(values, self.octaves), self.size - 2), values, 1)


class Hour(EventEncoding):
    """Hour of the day, in UTC."""

    name = "hour"
    reads = "seconds"

    @property
    def size(self) -> int:
        """Missing, and 24 hours."""
        return 25

    def encode(self, values: FloatArray) -> IntArray:
        """Return 1 .. 24."""
        return _shifted(np.floor(values / HOUR) % 24, values, 1)


class Weekday(EventEncoding):
    """Day of the week, in UTC; Monday is 1."""

    name = "weekday"
    reads = "seconds"

    @property
    def size(self) -> int:
        """Missing, and 7 days."""
        return 8

    def encode(self, values: FloatArray) -> IntArray:
        """Return 1 .. 7."""
        return _shifted((np.floor(values / DAY) + THURSDAY) % 7, values, 1)


def log_bins(values: FloatArray, octaves: int) -> FloatArray:
    """Return the bins of numbers that are not negative: 0 up to `octaves` times `BINS_PER_OCTAVE`; NaN stays."""
    bins: FloatArray = np.minimum(np.floor(BINS_PER_OCTAVE * np.log2(1.0 + values)), octaves * BINS_PER_OCTAVE)
    return bins


def _shifted(bins: FloatArray, values: FloatArray, first: int) -> IntArray:
    return np.where(np.isnan(values), MISSING, np.nan_to_num(bins) + first).astype(np.int64)


class EventFeatureEncoder:
    """Codes of events: all features of each in one number. 0 is an event of which nothing is told.

    Args:
        features: as prepared, with their categories.

    Raises:
        ConfigError: an encoding that does not exist, a feature twice, or more combinations than a code holds.
    """

    def __init__(self, features: Sequence[EventFeatureConfig]) -> None:
        self.features = tuple(features)
        names = [feature.name for feature in features]
        if twice := [name for name in names if names.count(name) > 1 and not name.startswith("None:")]:
            raise ConfigError(f"the feature {twice[0]} is named twice", remedy="name it once")
        self.encodings = [_encoding(feature) for feature in features]
        self.sizes = tuple(encoding.size for encoding in self.encodings)
        self.strides = tuple(math.prod(self.sizes[:place]) for place in range(len(self.sizes)))
        if math.prod(self.sizes) > MAX_CODES:
            sizes = ", ".join(f"{name} {size:,}" for name, size in zip(names, self.sizes, strict=True))
            raise ConfigError(
                f"the features of events have more than {MAX_CODES:,} combinations ({sizes})",
                remedy="name fewer of them, or columns with fewer categories",
            )

    @property
    def columns(self) -> dict[int, str]:
        """Columns that are read, by the place of the feature."""
        return {place: feature.column for place, feature in enumerate(self.features) if feature.column is not None}

    @property
    def needs_times(self) -> bool:
        """Whether a feature is of the time of events."""
        return any(encoding.reads != "text" for encoding in self.encodings)

    def encode(self, values: Mapping[int, pa.Array], seconds: FloatArray | None, events: int) -> IntArray:
        """Return (n,) codes of events, in which gaps are missing.

        Args:
            values: texts of columns, by the place of their feature; what is not there is missing.
            seconds: (n,) times since 1970; None: unknown.
            events: n.

        Raises:
            DataError: a text should be a number and is none.
        """
        codes = np.zeros(events, dtype=np.int64)
        for place, (encoding, stride) in enumerate(zip(self.encodings, self.strides, strict=True)):
            if encoding.reads == "text" and place in values:
                codes += stride * encoding.encode(values[place])
            elif encoding.reads == "seconds" and seconds is not None:
                codes += stride * encoding.encode(seconds)
        return codes

    def encode_values(self, events: Sequence[EventValues | None], seconds: FloatArray | None) -> IntArray:
        """Return (n,) codes of events whose features come by the name of their column, in which gaps are missing.

        Args:
            events: of n events, the values that each tells; others are missing, as is what cannot be a value.
            seconds: (n,) times since 1970; None: unknown.
        """
        values = {}
        for place, column in self.columns.items():
            texts = [None if event is None else feature_text(event.get(column)) for event in events]
            accepts = self.encodings[place].accepts
            values[place] = pa.array([text if text is None or accepts(text) else None for text in texts], pa.string())
        return self.encode(values, seconds, len(events))

    def wrong_value(self, event: EventValues | None) -> str | None:
        """Return in words what cannot be a value of its column; None: all can."""
        for place, column in self.columns.items():
            text = None if event is None else feature_text(event.get(column))
            if text is not None and not self.encodings[place].accepts(text):
                return f"the feature {column!r} is {text!r:.60}, which is no finite number"
        return None

    def with_gaps(self, codes: IntArray, seconds: FloatArray | None, is_first: BoolArray) -> IntArray:
        """Return codes with the time since the event before.

        Args:
            codes: (n,) of `encode`, of all events that are read, user by user, oldest first.
            seconds: (n,) their times; None: unknown.
            is_first: (n,) whether an event is the first of its user.
        """
        if seconds is None or all(encoding.reads != "gap" for encoding in self.encodings):
            return codes
        gaps = np.where(is_first, np.nan, np.diff(seconds, prepend=0.0))
        for encoding, stride in zip(self.encodings, self.strides, strict=True):
            if encoding.reads == "gap":
                codes = codes + stride * encoding.encode(np.maximum(gaps, 0.0))
        return codes


def feature_text(value: FeatureValue) -> str | None:
    """Return a value as `prepare` reads it from a file; None where there is none."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < LARGEST_EXACT else repr(value)
    return str(value)


def _encoding(feature: EventFeatureConfig) -> EventEncoding:
    if feature.encoding not in ENCODINGS:
        raise ConfigError(
            f"there is no encoding {feature.encoding!r} of features{did_you_mean(feature.encoding, sorted(ENCODINGS))}",
            remedy=f"there are {', '.join(sorted(ENCODINGS))}",
        )
    return ENCODINGS[feature.encoding](feature)
