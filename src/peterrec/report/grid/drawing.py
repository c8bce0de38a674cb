"""Lines with intervals: what curves, shares and groups of users are drawn with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from peterrec.report.formatting import limits, number
from peterrec.report.svg import SURFACE, Style, draw

Interval = tuple[float | None, float | None]
MARKED = 40  # points; the markers of more would hide the line


@dataclass(frozen=True)
class Trace:
    """One series.

    Attributes:
        name: of the series.
        style: the same for a method wherever it is drawn.
        points: (x, y), in order.
        intervals: of each point, or none at all.
        faint: points that few users tell, drawn pale.
        loose: points that no line leads to.
        thin: a repetition that stands behind the others.
        ringed: a point that was kept.
    """

    name: str
    style: Style
    points: list[tuple[float, float]]
    intervals: list[Interval] = field(default_factory=list)
    faint: frozenset[int] = frozenset()
    loose: frozenset[int] = frozenset()
    thin: bool = False
    ringed: int | None = None


def draw_traces(
    key: str, title: str, words: str, traces: Sequence[Trace], arrange: Callable[[Any], None], height: float = 250
) -> Markup:
    """Draw series with their intervals.

    Args:
        key: unique on the page.
        title: what a screen reader calls the figure.
        words: what the figure shows.
        traces: drawn in this order, thin ones first.
        arrange: sets up the axes.
        height: in units of the drawing, of which there are 400 across.
    """

    def paint(axes: Any) -> None:
        for trace in sorted(traces, key=lambda one: not one.thin):
            _paint(axes, trace)
        axes.margins(y=0.12)
        axes.grid(axis="y")
        arrange(axes)

    return draw(key, title, words, height, paint)


def told(trace: Trace, names: Sequence[str], digits: int) -> str:
    """Return the points of a series in words."""
    intervals: Sequence[Interval] = trace.intervals or [(None, None)] * len(trace.points)
    parts = [
        f"{number(y, digits)}{f' ({limits(*interval, digits)})' if interval[0] is not None else ''} at {name}"
        for name, (_, y), interval in zip(names, trace.points, intervals, strict=True)
    ]
    return f"{trace.name}: {', '.join(parts) or 'no value'}"


def _paint(axes: Any, trace: Trace) -> None:
    style, dashes = trace.style, {"dashes": trace.style.dashes} if trace.style.dashes else {}
    if trace.thin:
        xs, ys = _columns(trace.points)
        axes.plot(xs, ys, color=style.color, lw=0.8, alpha=0.4, zorder=2, gid=f"series:again {trace.name}", **dashes)
        return
    led = [point for at, point in enumerate(trace.points) if at not in trace.loose]
    axes.plot(*_columns(led), color=style.color, lw=1.8, zorder=3, gid=f"series:line {trace.name}", **dashes)
    for at, ((x, _), (low, high)) in enumerate(zip(trace.points, trace.intervals, strict=bool(trace.intervals))):
        if low is not None and high is not None:
            axes.plot(
                [x, x], [low, high], color=style.color, lw=1.2, alpha=0.25 if at in trace.faint else 0.6, zorder=2.5
            )
    size = 5.0 if len(trace.points) <= 12 else 60 / len(trace.points) if len(trace.points) <= MARKED else 0.0
    look = {"color": style.color, "marker": style.marker, "ms": size, "mec": SURFACE, "mew": 0.7, "ls": "none"}
    sure = [point for at, point in enumerate(trace.points) if at not in trace.faint]
    pale = [point for at, point in enumerate(trace.points) if at in trace.faint]
    axes.plot(*_columns(sure), clip_on=False, zorder=4, gid=f"series:{trace.name}", **look)
    if pale:
        axes.plot(*_columns(pale), clip_on=False, zorder=4, alpha=0.4, gid=f"series:few {trace.name}", **look)
    if trace.ringed is not None:
        x, y = trace.points[trace.ringed]
        ring = {"marker": "o", "ms": 11, "mfc": "none", "mec": style.color, "mew": 1.5, "ls": "none"}
        axes.plot([x], [y], clip_on=False, zorder=4.5, gid=f"series:kept {trace.name}", **ring)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
