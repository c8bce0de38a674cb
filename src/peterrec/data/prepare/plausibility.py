"""Warnings about values that were hardly meant: times of January 1970, ids such as NULL, users with most events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ibis
import numpy as np

from peterrec.data.prepare.columns import MARK_LIKE
from peterrec.data.prepare.engine import Engine
from peterrec.data.prepare.units import NAMES
from peterrec.data.sequences import IntArray

# Seconds since 1970, taken for a smaller unit, give a moment of these days until the year 2038.
FIRST_DAY, END_OF_JANUARY = "1970-01-01", "1970-02-01"
NEARLY_ALL = 0.95
# Among 20 others the most popular item of a power law has less than 5 times as many events as the next, in any shop.
COMPARED_ITEMS, LEAST_SHARE, TIMES_THE_NEXT = 20, 0.1, 5
SHOWN = 5


def suspicious_flags(events: Any) -> dict[str, Any]:
    """Return conditions on events, by what they are about: a column with ids, or `epoch` for moments."""
    texts = [name for name in ("user", "item", "domain") if name in events.columns and events[name].type().is_string()]
    flags = {name: events[name].isin(MARK_LIKE) for name in texts if f"{name}_integer" not in events.columns}
    type_ = events["time"].type()
    if type_.is_timestamp():
        first, end = (ibis.literal(day).cast(type_) for day in (FIRST_DAY, END_OF_JANUARY))
        flags["epoch"] = (events["time"] >= first) & (events["time"] < end)
    return flags


def event_warnings(
    engine: Engine, events: Any, counts: Mapping[str, int], columns: Mapping[str, str]
) -> tuple[str, ...]:
    """Return what looks wrong in checked events.

    Args:
        engine: of the table.
        events: table.
        counts: `rows`, and how many of them meet each of the conditions of `suspicious_flags`, and of `unit_flags`
            where times are of several units.
        columns: what the columns of the table are called in the files.
    """
    warnings = []
    if counts.get("epoch", 0) >= NEARLY_ALL * counts["rows"]:
        time = events["time"]
        span = engine.texts(events.aggregate(first=time.min(), last=time.max()))
        warnings.append(
            f"{counts['epoch']:,} of {counts['rows']:,} times ({columns['time']!r}) lie in January 1970, from "
            f"{span['first']} to {span['last']}: they look like seconds or milliseconds that were read as a smaller "
            "unit; give the unit where the file is made, e.g. pd.to_datetime(column, unit='s')"
        )
    units = {name: counts[name] for name in NAMES.values() if counts.get(name)}
    if len(units) > 1:
        counted = ", ".join(f"{n:,} like {name}" for name, n in units.items())
        warnings.append(
            f"times ({columns['time']!r}) look like several units ({counted}): they are compared as the numbers that "
            "they are; write them in one unit"
        )
    for name in ("user", "item", "domain"):
        if counts.get(name):
            like = events.filter(events[name].isin(MARK_LIKE))
            by_value = like.group_by(name).aggregate(n=like.count()).order_by([ibis.desc("n"), name]).to_pyarrow()
            values = [(row[name], row["n"]) for row in by_value.to_pylist()]
            parts = ", ".join(f"{value!r} ({n:,} events)" for value, n in values[:SHOWN])
            marks = ",".join(value for value, _ in values)
            warnings.append(
                f"the {name} column {columns[name]!r} holds {parts}: if that means that there is none, set "
                f"--set 'events.missing=[{marks}]'"
            )
    return tuple(warnings)


def owner_warning(owner: str, counts: IntArray, name: Callable[[int], Any]) -> tuple[str, ...]:
    """Return a warning about a user or an item that owns an implausible share of all events, if there is one.

    Args:
        what: `user` or `item`.
        counts: (n,) events of each.
        name: gives the id at a position of `counts`.
    """
    if len(counts) <= COMPARED_ITEMS:
        return ()
    second, first = np.partition(counts, -2)[-2:]
    share = first / counts.sum()
    if share < LEAST_SHARE or first < TIMES_THE_NEXT * second:
        return ()
    return (
        f"the {owner} {name(int(np.argmax(counts)))!r} has {100 * share:.0f} % of the source events, and no other of "
        f"{len(counts):,} {owner}s more than {100 * second / counts.sum():.1f} %: if it means that there is none, set "
        "events.missing",
    )
