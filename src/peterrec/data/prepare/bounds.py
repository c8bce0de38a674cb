"""Which events: bounds in time and domains, as Ibis conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import ibis

from peterrec.data.prepare.columns import SortKind
from peterrec.errors import ConfigError


def parse_bound(text: str, kind: SortKind, setting: str) -> Any:
    """Return a bound of time as a literal that compares with the times of the events.

    Raises:
        ConfigError: it is not of the kind of the times.
    """
    try:
        if kind == "time":
            moment = datetime.fromisoformat(text)
            moment = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo is not None else moment
            return ibis.literal(moment.isoformat(sep=" ")).cast("timestamp")
        number = int(text) if kind == "integer" and text.lstrip("-").isdigit() else float(text)
        if not math.isfinite(number):
            raise ValueError("not finite")
        return ibis.literal(number)
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
            f"{setting} names domains, but the events have none",
            remedy="say which column holds them: events.domain (--domain)",
        )
    return table["domain"].isin(list(domains))


def known_domains(table: Any) -> str:
    """Return what there is, for a message about domains; nothing where the events have none."""
    if "domain" not in table.columns:
        return ""
    found = table.group_by("domain").aggregate(n=table.count()).order_by([ibis.desc("n"), "domain"]).limit(11)
    names = [repr(name) for name in found.to_pyarrow()["domain"].to_pylist()]
    return f" (the domains are {', '.join(names[:10])}{', ...' if len(names) > 10 else ''})"
