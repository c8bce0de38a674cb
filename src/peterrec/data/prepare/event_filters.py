"""Time and domain filters of events, as Ibis conditions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal, localcontext
from fractions import Fraction
from typing import Any

import ibis

from peterrec.config import FirstTargetConfig, RankingTaskConfig, SourceConfig
from peterrec.data.prepare.sortable import DECIMAL, NANOSECONDS, SortKind, in_nanoseconds
from peterrec.errors import ConfigError

DECIMAL_PLACES = 18
FIRST_NANOSECOND, LAST_NANOSECOND = datetime(1677, 9, 22), datetime(2262, 4, 11, 23, 47, 16, 854775)


def parse_time_limit(text: str, kind: SortKind, setting: str, *, nanoseconds: bool = False) -> Any:
    """Return a limit of a time filter as a literal that compares with the times of the events.

    A limit finer than the times is rounded up: the times before it, and at or after it, are then the same.

    Args:
        text: as in the configuration.
        kind: of the times.
        setting: its name, for a message.
        nanoseconds: whether times of kind "time" are held in nanoseconds.

    Raises:
        ConfigError: it is not of the kind of the times, or beyond what they can be.
    """
    try:
        if kind == "time":
            return _moment(text, nanoseconds)
        return _number(Decimal(text), kind)
    except (ValueError, ArithmeticError) as error:
        is_time = kind == "time"
        held = str(error) if isinstance(error, _NotComparableError) else "times" if is_time else "numbers"
        raise ConfigError(
            f"{setting} is {text!r}, but the times of the events are {held}",
            remedy=f"write {'a date or time such as 2001-02-28' if is_time else 'a number such as 978307200'}",
        ) from error


class _NotComparableError(ValueError):
    """A limit that no time can be compared with."""


def _number(number: Decimal, kind: SortKind) -> Any:
    if not number.is_finite():
        raise ValueError("not finite")
    if kind == "float":
        as_float = float(number)
        if Decimal(repr(as_float)) != number:
            raise _NotComparableError(f"floating-point numbers, of which the nearest is {as_float!r}")
        return ibis.literal(as_float)
    digits = 0 if kind == "integer" else DECIMAL_PLACES
    with localcontext(prec=400):
        rounded = number.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_CEILING)
    largest = 2**63 - 1 if kind == "integer" else 10**20
    if abs(rounded) >= largest:
        raise _NotComparableError(f"numbers below {largest}")
    return ibis.literal(int(rounded)) if kind == "integer" else ibis.literal(str(rounded)).cast(DECIMAL)


def _moment(text: str, nanoseconds: bool) -> Any:
    moment = datetime.fromisoformat(text)  # without a word it leaves out what is finer than microseconds
    moment = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo is not None else moment
    finer = re.search(r"[.,][0-9]{6}([0-9]+)", text)
    extra_nanoseconds = math.ceil(Fraction(int(finer[1]), 10 ** len(finer[1])) * 1000) if finer else 0
    if not nanoseconds:
        moment += timedelta(microseconds=extra_nanoseconds > 0)
        return ibis.literal(moment.isoformat(sep=" ")).cast("timestamp")
    moment, extra_nanoseconds = (
        (moment + timedelta(microseconds=1), 0) if extra_nanoseconds == 1000 else (moment, extra_nanoseconds)
    )
    moment = min(max(moment, FIRST_NANOSECOND), LAST_NANOSECOND)
    return ibis.literal(f"{moment.isoformat(sep=' ', timespec='microseconds')}{extra_nanoseconds:03}").cast(NANOSECONDS)


def at_or_after(table: Any, limit: str | None, kind: SortKind, setting: str) -> Any:
    """Return the condition that an event is at or after the limit; true where there is none."""
    return ibis.literal(True) if limit is None else table["time"] >= _time_limit(table, limit, kind, setting)


def earlier_than(table: Any, limit: str | None, kind: SortKind, setting: str) -> Any:
    """Return the condition that an event is before the limit; true where there is none."""
    return ibis.literal(True) if limit is None else table["time"] < _time_limit(table, limit, kind, setting)


def _time_limit(table: Any, limit: str, kind: SortKind, setting: str) -> Any:
    return parse_time_limit(limit, kind, setting, nanoseconds=in_nanoseconds(table["time"].type()))


def in_domains(table: Any, domains: Sequence[str] | None, setting: str) -> Any:
    """Return the condition that an event is in one of the domains; true where none are named.

    Raises:
        ConfigError: the events have no domains.
    """
    if domains is None:
        return ibis.literal(True)
    if "domain" not in table.columns:
        raise ConfigError(
            f"{setting} names domains, but the events have none",
            remedy="say which column holds them: events.domain (--domain)",
        )
    return table["domain"].isin(list(domains))


@dataclass(frozen=True)
class EventFilter:
    """A condition that source events meet.

    Attributes:
        kept_events: in words, the events that meet it.
        condition: Ibis expression.
        drop_reason: in words, why the others are left out.
    """

    kept_events: str
    condition: Any
    drop_reason: str


def source_filters(table: Any, source: SourceConfig, kind: SortKind) -> list[EventFilter]:
    """Return the filters of the source events, in the order of the settings; none where nothing is filtered.

    Raises:
        ConfigError: a time limit or a domain does not fit the events.
    """
    filters = []
    if source.domains is not None:
        condition = in_domains(table, source.domains, "source.domains")
        filters.append(EventFilter("events of the source domains", condition, "of another domain"))
    if source.exclude_domains:
        condition = ~in_domains(table, source.exclude_domains, "source.exclude_domains")
        reason = f"domain {', '.join(source.exclude_domains)} is excluded"
        filters.append(EventFilter("events outside excluded domains", condition, reason))
    if source.after is not None:
        condition = at_or_after(table, source.after, kind, "source.after")
        filters.append(EventFilter(f"events from {source.after} on", condition, "earlier"))
    if source.before is not None:
        condition = earlier_than(table, source.before, kind, "source.before")
        filters.append(EventFilter(f"events before {source.before}", condition, "later"))
    return filters


def target_filter(table: Any, target: RankingTaskConfig | FirstTargetConfig, kind: SortKind, name: str) -> Any:
    """Return the condition that an event is a target event; errors as those of `source_filters`."""
    inside = in_domains(table, target.domains, f"domains {name}")
    return (
        inside
        & at_or_after(table, target.after, kind, f"after {name}")
        & earlier_than(table, target.before, kind, f"before {name}")
    )


def known_domains(table: Any) -> str:
    """List the domains of events for a message, the most frequent first; empty where the events have none."""
    if "domain" not in table.columns:
        return ""
    frequent = table.group_by("domain").aggregate(n=table.count()).order_by([ibis.desc("n"), "domain"]).limit(11)
    names = [repr(name) for name in frequent.to_pyarrow()["domain"].to_pylist()]
    return f" (the domains are {', '.join(names[:10])}{', ...' if len(names) > 10 else ''})"
