"""The unit of numeric times, judged by their size: seconds, milliseconds, microseconds or nanoseconds since 1970."""

from __future__ import annotations

from typing import Any

from peterrec.data.prepare.engine import scalars

# Largest time in seconds, milliseconds and microseconds that is before the year 5138; beyond them it is nanoseconds.
UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6))
NANOSECONDS_A_SECOND = 1e9
NAMES = {1.0: "seconds", 1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
SINCE_1973 = 1e8  # seconds: smaller numbers are counters, and of no unit


def units_per_second(table: Any) -> float | None:
    """Return how many of the unit of numeric times make a second, judged by the largest; None for moments."""
    if table["time"].type().is_timestamp():
        return None
    return unit_of(scalars(table.aggregate(largest=table["time"].cast("float64").abs().max()))["largest"] or 0.0)


def unit_of(largest: float) -> float:
    """Return how many of the unit of numeric times make a second, by the largest of them."""
    return next((unit for limit, unit in UNITS if largest < limit), NANOSECONDS_A_SECOND)


def unit_flags(time: Any) -> dict[str, Any]:
    """Return the conditions that a numeric time looks like one in seconds, in milliseconds, ..., by these names."""
    size = time.cast("float64").abs()
    limits = [SINCE_1973, *(limit for limit, _ in UNITS), float("1e30")]
    return {name: (size >= limits[n]) & (size < limits[n + 1]) for n, name in enumerate(NAMES.values())}
