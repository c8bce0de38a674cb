"""The figures of the reports: values with intervals, series, learning curves, histograms; and their place on a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from peterrec.report.formatting import bins, compact, digits_for, limits, metric, number, percent, sentence_case
from peterrec.report.run.record import Histogram
from peterrec.report.svg import ACCENT, BASELINE, GRID, INK, MUTED, SURFACE, TEXT, Style, draw

Interval = tuple[float | None, float | None]
Point = tuple[float, float]
TimeAxis = Literal["epoch", "seconds"]
ROW = 42.0  # height of one method in a dot plot
BAR = 23.0
LONGEST_NAME = 34  # letters of a method's name that surely fit beside its value
MANY_POINTS = 40  # the markers of more would hide the line
MODEL_STYLE, BASELINE_STYLE = Style(ACCENT, (), "o"), Style(BASELINE, (), "D")
MONITORS = {
    "log_loss": ("Log-loss of the validation users", "lower is better"),
    "mrr": ("MRR of the validation users", "whole ranking, higher is better"),
}


@dataclass(frozen=True)
class Panel:
    """A figure on the page, with its legend. `task` is the one that it is about, where no heading says so."""

    svg: Markup
    caption: str
    hint: str = ""
    task: str = ""
    legend: list[tuple[str, Style]] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Dot:
    """A method's value with its interval; models stand out from baselines."""

    name: str
    value: float
    low: float | None
    high: float | None
    model: bool
    style: Style


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: of the series.
        style: the same for a method wherever it is drawn.
        points: (x, y), in order.
        intervals: of each point, or none at all.
        faint: points that few users tell, drawn pale.
        loose: points that no line leads to.
        thin: a repetition that stands behind the others.
        ringed: the point of the epoch that was kept.
    """

    name: str
    style: Style
    points: list[Point]
    intervals: list[Interval] = field(default_factory=list)
    faint: frozenset[int] = frozenset()
    loose: frozenset[int] = frozenset()
    thin: bool = False
    ringed: int | None = None


def dot_panel(key: str, task: str, name: str, dots: Sequence[Dot], *, lower: bool, show_task: bool = False) -> Panel:
    """Return a row for each method: its name, a dot with its interval, and its value.

    A dashed line marks the best baseline: what a model has to beat.

    Args:
        key: unique on the page.
        task: that the values are of.
        name: of the metric.
        dots: from the top down; at least one.
        lower: whether lower values are better.
        show_task: name the task above the figure.
    """
    digits = digits_for([dot.value for dot in dots])
    goal = (min if lower else max)([dot.value for dot in dots if not dot.model], default=None)
    xs = [x for dot in dots for x in (dot.value, dot.low, dot.high) if x is not None]
    margin = 0.05 * (max(xs) - min(xs)) or 0.05

    def paint(axes: Any) -> None:
        axes.set_xlim(min(xs) - margin, max(xs) + margin)
        axes.set_ylim(len(dots) - 0.55, -0.75)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.grid(axis="x")
        if goal is not None:
            axes.axvline(goal, color=MUTED, lw=1, dashes=(4, 3), zorder=1.5, gid="series:best baseline")
        for row, dot in enumerate(dots):
            _paint_dot(axes, row, dot, digits)

    words = "; ".join(f"{dot.name} {number(dot.value, digits)} ({limits(dot.low, dot.high, digits)})" for dot in dots)
    svg = draw(key, f"{task}: {metric(name)} of every method", words, ROW * len(dots) + 30, paint)
    hint = "dashed: best baseline" if goal is not None else ""
    return Panel(svg, f"{sentence_case(metric(name))} on the test users", hint, task if show_task else "")


def _paint_dot(axes: Any, row: int, dot: Dot, digits: int) -> None:
    color, size = dot.style.color, 8 if dot.model else 6.5
    if dot.low is not None and dot.high is not None:
        axes.plot([dot.low, dot.high], [row, row], color=color, lw=2.5, solid_capstyle="round", alpha=0.55)
    marker = {"color": color, "marker": dot.style.marker, "ms": size, "mec": SURFACE}
    axes.plot([dot.value], [row], clip_on=False, gid=f"series:{dot.name}", **marker)
    name = dot.name if len(dot.name) <= LONGEST_NAME else f"{dot.name[: LONGEST_NAME - 1]}…"
    text = {"color": INK, "ha": "left", "transform": axes.get_yaxis_transform(), "zorder": 4}
    text["weight"] = "bold" if dot.model else "normal"
    axes.text(0.0, row - 0.2, name, va="bottom", **text)
    axes.text(1.03, row, number(dot.value, digits), va="center", **text)  # a column of its own: never under a dot


def draw_series(
    key: str, title: str, words: str, lines: Sequence[Series], arrange: Callable[[Any], None], height: float = 250
) -> Markup:
    """Draw series with their intervals.

    Args:
        key: unique on the page.
        title: what a screen reader calls the figure.
        words: what the figure shows.
        lines: drawn in this order, thin ones first.
        arrange: sets up the axes.
        height: in units of the drawing, of which there are 400 across.
    """

    def paint(axes: Any) -> None:
        for series in sorted(lines, key=lambda series: not series.thin):
            _paint_series(axes, series)
        axes.margins(y=0.12)
        axes.grid(axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        arrange(axes)

    return draw(key, title, words, height, paint)


def describe_points(series: Series, names: Sequence[str], digits: int) -> str:
    """Return the points of a series in words."""
    intervals: Sequence[Interval] = series.intervals or [(None, None)] * len(series.points)
    parts = [
        f"{number(y, digits)}{f' ({limits(*interval, digits)})' if interval[0] is not None else ''} at {name}"
        for name, (_, y), interval in zip(names, series.points, intervals, strict=True)
    ]
    return f"{series.name}: {', '.join(parts) or 'no value'}"


def _paint_series(axes: Any, series: Series) -> None:
    style, points, name = series.style, series.points, series.name
    line = {"color": style.color} | ({"dashes": style.dashes} if style.dashes else {})
    if series.thin:
        axes.plot(*_columns(points), lw=0.8, alpha=0.4, zorder=2, gid=f"series:again {name}", **line)
        return
    joined = [point for at, point in enumerate(points) if at not in series.loose]
    axes.plot(*_columns(joined), lw=1.8, zorder=3, gid=f"series:line {name}", **line)
    for at, ((x, _), (low, high)) in enumerate(zip(points, series.intervals, strict=bool(series.intervals))):
        if low is not None and high is not None:
            alpha = 0.25 if at in series.faint else 0.6
            axes.plot([x, x], [low, high], color=style.color, lw=1.2, alpha=alpha, zorder=2.5)
    size = min(5.0, 60 / max(1, len(points))) if len(points) <= MANY_POINTS else 0.0
    markers = {"color": style.color, "marker": style.marker, "ms": size, "mec": SURFACE, "mew": 0.7, "ls": "none"}
    sure = [point for at, point in enumerate(points) if at not in series.faint]
    pale = [point for at, point in enumerate(points) if at in series.faint]
    axes.plot(*_columns(sure), clip_on=False, zorder=4, gid=f"series:{name}", **markers)
    if pale:
        axes.plot(*_columns(pale), clip_on=False, zorder=4, alpha=0.4, gid=f"series:few {name}", **markers)
    if series.ringed is not None:
        ring = {"marker": "o", "ms": 11, "mfc": "none", "mec": style.color, "mew": 1.5, "ls": "none"}
        axes.plot(*_columns([points[series.ringed]]), clip_on=False, zorder=4.5, gid=f"series:kept {name}", **ring)


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def learning_curve(
    name: str,
    style: Style,
    rows: Sequence[Mapping[str, float | None]],
    metric: str,
    best_epoch: int | None,
    *,
    axis: TimeAxis = "epoch",
    thin: bool = False,
) -> Series:
    """Return a metric over epochs counted from 1, or over seconds of training, the epoch that was kept ringed."""
    seconds = accumulate(row.get("seconds") or 0.0 for row in rows)
    points: list[Point] = []
    ringed = None
    for row, total in zip(rows, seconds, strict=True):
        value = row.get(metric)
        if value is not None and math.isfinite(value):
            ringed = len(points) if row.get("epoch") == best_epoch else ringed
            points.append((total if axis == "seconds" else (row.get("epoch") or 0.0) + 1.0, value))
    return Series(name, style, points, thin=thin, ringed=ringed)


def draw_learning_curves(key: str, title: str, curves: Sequence[Series], axis: TimeAxis = "epoch") -> Markup:
    """Draw learning curves over epochs or seconds of training."""
    last = int(max((x for series in curves for x, _ in series.points), default=1))

    def arrange(axes: Any) -> None:
        steps = [1, 2, 5, 10]
        if axis == "seconds":
            axes.set_xlabel("seconds of training")
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(8, steps=steps))
            return
        axes.set_xlabel("epoch")
        axes.set_xlim(0.7, last + 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(min(last, 10), integer=True, steps=steps))
        if last == 1:
            axes.set_xticks([1])

    words = ". ".join(_describe_course(series, axis) for series in curves if not series.thin)
    return draw_series(key, title, words, curves, arrange)


def _describe_course(series: Series, axis: TimeAxis) -> str:
    if not series.points:
        return f"{series.name}: no value"
    unit = "epoch {:g}" if axis == "epoch" else "{:.1f} seconds"
    (_, begin), (last, end) = series.points[0], series.points[-1]
    best = ""
    if series.ringed is not None:
        x, value = series.points[series.ringed]
        best = f", {number(value)} at {unit.format(x)}, which was kept"
    return f"{series.name}: from {number(begin)} to {number(end)} at {unit.format(last)}{best}"


def histogram(key: str, title: str, data: Histogram) -> Markup:
    """Draw a bar for each bin, with its count and share, from the first bin that holds anything."""
    start = next((index for index, count in enumerate(data.counts) if count), 0)
    labels, counts = bins(data)[start:], data.counts[start:]
    texts = [f"{compact(count)} ({percent(count / max(1, sum(counts)))})" for count in counts]

    def paint(axes: Any) -> None:
        for row, (label, count, text) in enumerate(zip(labels, counts, texts, strict=True)):
            axes.barh([row], [count], height=0.72, color=ACCENT, gid=f"series:{label}")
            offset = {"xytext": (6, 0), "textcoords": "offset points"}
            axes.annotate(text, (count, row), va="center", color=MUTED, size=TEXT - 1, **offset)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlim(0, 1.42 * max([*counts, 1]))  # room for the words behind the longest bar
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.spines["left"].set(visible=True, color=GRID)

    words = "; ".join(f"{label}: {text}" for label, text in zip(labels, texts, strict=True))
    return draw(key, title, words, BAR * len(labels) + 12, paint)
