"""The tokens that a model reads of the events of one user: what `prepare` does to a log, done to one history.

The service and the engine read through it. Files of events are read by `prepare.event_histories`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

import numpy as np

from peterrec.config import FirstTargetConfig, HistoryCutConfig, PreprocessingConfig, SourceConfig
from peterrec.data.catalogue import Catalogue, ItemId
from peterrec.data.event_features import EventFeatureEncoder
from peterrec.data.preprocessing import assumptions, encoder_of, whole_history
from peterrec.data.sequences import FIRST_ITEM, ITEM_BITS, UNK, IntArray, Sequences
from peterrec.data.shorten import UNCUT, shorten
from peterrec.data.ties import BoolArray, FloatArray

TimeKind = Literal["integer", "float", "decimal", "time", "text"]
NO_LIMIT = 2**31  # events; longer than any sequence
KEY_DIGITS = 12
ALL_OF_SOURCE = SourceConfig(max_history=NO_LIMIT)


def time_limit_value(text: str, kind: TimeKind) -> datetime | int | float:
    """Return a limit of a time filter: a moment in UTC (without a zone), or a number, as the times of the log are.

    Raises:
        ValueError: it is not of that kind.
    """
    if kind == "time":
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo is not None else moment
    number = int(text) if kind == "integer" and text.lstrip("-").isdigit() else float(text)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def time_limit_seconds(text: str | None, kind: TimeKind, units_per_second: float) -> float | None:
    """Return a limit of a time filter in seconds since 1970; errors as those of `time_limit_value`."""
    if text is None:
        return None
    value = time_limit_value(text, kind)
    return value.replace(tzinfo=UTC).timestamp() if isinstance(value, datetime) else float(value) / units_per_second


@dataclass(frozen=True)
class UserEvents:
    """Events of one user, oldest first.

    Attributes:
        codes: (T,) index of the item in the catalogue; distinct numbers below zero for items that it does not have.
        seconds: (T,) times: seconds since 1970, whatever unit the prepared log had; None: not known.
        domains: (T,) names; None for an event without one, and for all of them where none has one.
        features: (T,) codes of the features of events, without gaps; None: none is told.
    """

    codes: IntArray
    seconds: FloatArray | None = None
    domains: Sequence[str | None] | None = None
    features: IntArray | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: BoolArray) -> UserEvents:
        """Return some of the events, of which no more is left out: without domains, and with times for gaps alone."""
        if self.features is None:
            return UserEvents(self.codes[rows])
        seconds = None if self.seconds is None else self.seconds[rows]
        return UserEvents(self.codes[rows], seconds, features=self.features[rows])


def event_codes(catalogue: Catalogue, items: Sequence[ItemId], unknown: Mapping[str, int] | None = None) -> IntArray:
    """Return the codes of items, as `UserEvents` has them; (n,) int64.

    Args:
        catalogue: of the backbone.
        items: external ids.
        unknown: codes of items outside the catalogue that the user had before, by the text of their id.
    """
    codes = np.asarray(catalogue.find(items), dtype=np.int64)
    numbers = dict(unknown or {})
    for place in np.flatnonzero(codes == UNK).tolist():
        codes[place] = numbers.setdefault(str(items[place]), -1 - len(numbers))
    return codes


@dataclass(frozen=True)
class Reading:
    """Tokens that a model reads of a user's events.

    Attributes:
        tokens: (n,) indices, [UNK] for items that are not in the catalogue, with the code of an event's features above
            their bits. A window cuts them to the last ones.
        known_items: how many of the last `max_history` tokens are items; 0: nothing is known of the user.
        assumptions: what was assumed of the events because they do not tell it, in words.
        revision: of the store that the events are from.
    """

    tokens: IntArray
    known_items: int
    assumptions: tuple[str, ...] = ()
    revision: str = ""


@dataclass(frozen=True)
class HistoryReader:
    """The rules by which one model reads the events of a user.

    `max_history` does not cut the tokens, so that a later event only adds to them: who cuts windows out of them has
    to cut them no longer than that.

    Attributes:
        unknown: whether items outside the catalogue are skipped, or kept in place as [UNK].
        preprocessing: how the data of the model were made of events; None leaves nothing out.
    """

    unknown: Literal["skip", "unk"] = "skip"
    preprocessing: PreprocessingConfig | None = None

    @classmethod
    def for_model(
        cls, preprocessing: PreprocessingConfig | None, unknown: Literal["skip", "unk"], *, time_filters: bool = True
    ) -> HistoryReader:
        """Return the reader of a model.

        Args:
            preprocessing: of the model.
            unknown: of its backbone; what `preprocessing` says counts more.
            time_filters: whether they are applied; without them a first target event is told by its domain only.
        """
        if preprocessing is None:
            return cls(unknown)
        unknown = "unk" if preprocessing.source.rare_items == "unk" else "skip"
        return cls(unknown, preprocessing if time_filters else without_time_filters(preprocessing))

    @cached_property
    def key(self) -> str:
        """Digest of all that changes what is read: readers with the same one read the same."""
        if self.preprocessing is None:
            return self.unknown
        source = self._source.model_dump(exclude={"min_item_events", "min_user_events", "rare_items"})
        first = None if self._first is None else self._first.model_dump()
        settings = [self.unknown, self.preprocessing.time_kind, self.preprocessing.units_per_second, source, first]
        settings += [] if self._cut == UNCUT else [self._cut.model_dump()]
        settings += [feature.model_dump() for feature in self.preprocessing.columns.features]
        content = json.dumps(settings, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:KEY_DIGITS]

    @property
    def max_history(self) -> int:
        """The most recent tokens that the model was trained to read."""
        return min(self._source.max_history, self.last_events)

    @property
    def last_events(self) -> int:
        """The most recent tokens that are read whatever the window, for the task is about no more."""
        return self._cut.last_events or NO_LIMIT

    @property
    def _cut(self) -> HistoryCutConfig:
        return UNCUT if self.preprocessing is None else self.preprocessing.cut

    @cached_property
    def _encoder(self) -> EventFeatureEncoder | None:
        return encoder_of(self.preprocessing)

    @property
    def _source(self) -> SourceConfig:
        return ALL_OF_SOURCE if self.preprocessing is None else self.preprocessing.source

    @property
    def _first(self) -> FirstTargetConfig | None:
        """Filter of the target events, where they can be among a user's events."""
        first = None if self.preprocessing is None else self.preprocessing.first_target
        return None if first is None or first.separate_files else first

    @cached_property
    def _period(self) -> tuple[float | None, float | None]:
        return self._period_seconds(self._source)

    @cached_property
    def _target_period(self) -> tuple[float | None, float | None]:
        return (None, None) if self._first is None else self._period_seconds(self._first)

    def _period_seconds(self, config: SourceConfig | FirstTargetConfig) -> tuple[float | None, float | None]:
        if self.preprocessing is None:
            return None, None
        kind, unit = self.preprocessing.time_kind, self.preprocessing.units_per_second
        return time_limit_seconds(config.after, kind, unit), time_limit_seconds(config.before, kind, unit)

    @cached_property
    def _until(self) -> float | None:
        if self.preprocessing is None:
            return None
        return time_limit_seconds(self._cut.until, self.preprocessing.time_kind, self.preprocessing.units_per_second)

    def read(self, events: UserEvents, revision: str = "") -> Reading:
        """Return what the model reads, and what has to be assumed for that.

        Args:
            events: of a user.
            revision: of the store they are from; empty where they are not from a store.
        """
        read = self.chosen(events)
        if self.unknown == "skip":
            read &= events.codes >= 0
        items = events.codes[read]
        features = None
        if self._source.repeats == "drop" or self._encoder is not None:
            unlimited = self._source.model_copy(update={"max_history": NO_LIMIT})
            sequence = Sequences(items, np.array([0, len(items)]))
            if self._encoder is not None and events.features is not None:
                seconds = None if events.seconds is None else events.seconds[read]
                sequence = Sequences(items, sequence.offsets, events.features[read], seconds)
            sequence = shorten(sequence, unlimited, encoder=self._encoder)
            items, features = np.asarray(sequence.items, dtype=np.int64), sequence.features
        items = np.where(items < 0, UNK, items)[: self._cut.first_events]
        known_items = int(np.count_nonzero(items[-self.max_history :] >= FIRST_ITEM))
        tokens = items if features is None else items | features[: len(items)].astype(np.int64) << ITEM_BITS
        return Reading(tokens, known_items, self._assumptions(events, stored=bool(revision)), revision)

    def chosen(self, events: UserEvents) -> BoolArray:
        """Return which events are read, apart from unknown items and repeats; (T,).

        An event without a domain is taken for one of the source. What is left out by the first target event are the
        last ones that would be read, so that tokens grow at their end, or get shorter at it.
        """
        source, first = self._source, self._first
        keep = np.ones(len(events), dtype=bool)
        if events.domains is not None and (source.domains is not None or source.exclude_domains):
            wanted, excluded = source.domains, set(source.exclude_domains)
            in_source = [
                name is None or ((wanted is None or name in wanted) and name not in excluded) for name in events.domains
            ]
            keep &= np.array(in_source, dtype=bool)
        if events.seconds is None:
            return keep
        keep &= _within(events.seconds, self._period) & _within(events.seconds, (None, self._until))
        if first is not None and (first.domains is None or events.domains is not None):
            target = _within(events.seconds, self._target_period)
            if first.domains is not None:
                target &= np.array([name in first.domains for name in events.domains or ()], dtype=bool)
            if target.any():
                keep &= events.seconds < events.seconds[target].min()
        return keep

    def _assumptions(self, events: UserEvents, *, stored: bool) -> tuple[str, ...]:
        if self.preprocessing is None or len(events) == 0:
            return ()
        domains, seconds = events.domains, events.seconds
        lines = assumptions(
            self.preprocessing,
            times=seconds is not None,
            domains=domains is not None and None not in domains,
            features=events.features is not None,
        )
        if self._cut.first_events is not None and seconds is not None:  # a store or a client may have fewer than all
            lines += (whole_history(self._cut.first_events),)
        columns = self.preprocessing.columns
        if stored and seconds is not None and (columns.order is not None or columns.ties == "lines"):
            ordered = f"by the column {columns.order!r}" if columns.order is not None else "by their lines"
            if (seconds[1:] == seconds[:-1]).any():
                lines += (f"events with equal times stand in the order of a hash: data were ordered {ordered}",)
        return lines

    def time_filter_notes(self) -> tuple[str, ...]:
        """Describe the events that are left out by their time, one sentence each."""
        source, first, lines = self._source, self._first, []
        if source.after is not None:
            lines.append(f"events before {source.after} are left out (source.after)")
        if source.before is not None:
            lines.append(f"events at or after {source.before} are left out (source.before)")
        if self._cut.until is not None:
            lines.append(f"events at or after {self._cut.until} are left out (until)")
        if first is not None and (first.after is not None or first.before is not None):
            domains = "" if first.domains is None else f" of {', '.join(first.domains)}"
            since = "" if first.after is None else f" at or after {first.after}"
            until = "" if first.before is None else f" before {first.before}"
            lines.append(
                f"events from a user's first event{domains}{since}{until} on are left out (before-first-target)"
            )
        return tuple(lines)


def without_time_filters(preprocessing: PreprocessingConfig) -> PreprocessingConfig:
    """Return the same without time filters; a first target event is then recognised by its domain, or not at all."""
    none = {"after": None, "before": None}
    first = preprocessing.first_target
    if first is not None and not first.separate_files:
        first = None if first.domains is None else first.model_copy(update=none)
    source = preprocessing.source.model_copy(update=none)
    cut = preprocessing.cut.model_copy(update={"until": None})
    return preprocessing.model_copy(update={"source": source, "first_target": first, "cut": cut})


def _within(seconds: FloatArray, period: tuple[float | None, float | None]) -> BoolArray:
    after, before = period
    inside = np.ones(len(seconds), dtype=bool)
    if after is not None:
        inside &= seconds >= after
    if before is not None:
        inside &= seconds < before
    return inside
