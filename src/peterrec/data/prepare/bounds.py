"""Which events: bounds in time and domains, as Ibis conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import ibis

from peterrec.config import FirstTargetConfig, RankingTaskConfig, SourceConfig
from peterrec.data.prepare.columns import SortKind
from peterrec.data.reading import bound_value
from peterrec.errors import ConfigError


def parse_bound(text: str, kind: SortKind, setting: str) -> Any:
    """Return a bound of time as a literal that compares with the times of the events.

    Raises:
        ConfigError: it is not of the kind of the times.
    """
    try:
        value = bound_value(text, kind)
        if isinstance(value, datetime):
            return ibis.literal(value.isoformat(sep=" ")).cast("timestamp")
        return ibis.literal(value)
    except (ValueError, OverflowError) as error:
        wanted = "a date or time such as 2001-02-28" if kind == "time" else "a number such as 978307200"
        raise ConfigError(
            f"{setting} is {text!r}, but the times of the events are {'times' if kind == 'time' else 'numbers'}",
            remedy=f"write {wanted}",
        ) from error


def after(table: Any, bound: str | None, kind: SortKind, setting: str) -> Any:
    """Return the condition that an event is at or after the bound; true where there is none."""
    return ibis.literal(True) if bound is None else table["time"] >= parse_bound(bound, kind, setting)


def before(table: Any, bound: str | None, kind: SortKind, setting: str) -> Any:
    """Return the condition that an event is before the bound; true where there is none."""
    return ibis.literal(True) if bound is None else table["time"] < parse_bound(bound, kind, setting)


def in_domains(table: Any, domains: Sequence[str] | None, setting: str) -> Any:
    """Return the condition that an event is in one of the domains; true where none are named.

    Raises:
        ConfigError: the events have no domains.
    """
    if domains is None:
        return ibis.literal(True)
    if "domain" not in table.columns:
        raise ConfigError(
            f"{setting} names domains, but the events have none", remedy="say which column holds them: events.domain"
        )
    return table["domain"].isin(list(domains))


@dataclass(frozen=True)
class Filter:
    """A condition that source events meet: what those are that do, and why the others are left out."""

    what: str
    condition: Any
    why: str


def source_filters(table: Any, source: SourceConfig, kind: SortKind) -> list[Filter]:
    """Return which events are source events, in the order of the settings; none where nothing is filtered.

    Raises:
        ConfigError: a bound or a domain does not fit the events.
    """
    filters = []
    if source.domains is not None:
        condition = in_domains(table, source.domains, "source.domains")
        filters.append(Filter("events of the source domains", condition, "of another domain"))
    if source.exclude_domains:
        condition = ~in_domains(table, source.exclude_domains, "source.exclude_domains")
        why = f"domain {', '.join(source.exclude_domains)} is excluded"
        filters.append(Filter("events outside excluded domains", condition, why))
    if source.after is not None:
        condition = after(table, source.after, kind, "source.after")
        filters.append(Filter(f"events from {source.after} on", condition, "earlier"))
    if source.before is not None:
        condition = before(table, source.before, kind, "source.before")
        filters.append(Filter(f"events before {source.before}", condition, "later"))
    return filters


def target_filter(table: Any, target: RankingTaskConfig | FirstTargetConfig, kind: SortKind, name: str) -> Any:
    """Return the condition that an event is a target event; errors as those of `source_filters`."""
    inside = in_domains(table, target.domains, f"domains {name}")
    return (
        inside
        & after(table, target.after, kind, f"after {name}")
        & before(table, target.before, kind, f"before {name}")
    )


def known_domains(table: Any) -> str:
    """Return what there is, for a message about domains; nothing where the events have none."""
    if "domain" not in table.columns:
        return ""
    found = table.group_by("domain").aggregate(n=table.count()).order_by([ibis.desc("n"), "domain"]).limit(11)
    names = [repr(name) for name in found.to_pyarrow()["domain"].to_pylist()]
    return f" (the domains are {', '.join(names[:10])}{', ...' if len(names) > 10 else ''})"
