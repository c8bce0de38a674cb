"""The figures of the reports: values with intervals, series, learning curves, histograms; and their place on a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from peterrec.evaluation.intervals import Verdict
from peterrec.report.formatting import bins, compact, digits_for, limits, metric, number, percent, sentence_case
from peterrec.report.run.record import Histogram
from peterrec.report.svg import (
    ACCENT,
    BAD,
    BAD_TINT,
    EVEN,
    EVEN_TINT,
    GOOD,
    GOOD_TINT,
    GRID,
    INK,
    MUTED,
    SURFACE,
    TEXT,
    Style,
    draw,
)
from peterrec.report.tables import SYMBOLS

TimeAxis = Literal["epoch", "seconds"]
ROW = 42.0  # height of one method in a dot plot
BAR = 23.0
LONGEST_NAME = 34  # letters of a method's name that surely fit beside its value
SQUARE = 40.0  # height of a row of a map
MANY_POINTS = 40  # the markers of more would hide the line
SQUARE_COLORS: dict[Verdict, tuple[str, str]] = {
    "better": (GOOD, GOOD_TINT),
    "no clear difference": (EVEN, EVEN_TINT),
    "worse": (BAD, BAD_TINT),
}
"""Of the text and of the square."""
MONITORS = {
    "log_loss": ("Log-loss of the validation users", "lower is better"),
    "loss": ("Loss of the validation users", "of standardised numbers, lower is better"),
    "mrr": ("MRR of the validation users", "whole ranking, higher is better"),
}


@dataclass(frozen=True)
class Dot:
    """A method's value with its interval; models stand out from baselines."""

    name: str
    value: float
    low: float | None
    high: float | None
    model: bool
    style: Style


class Point(NamedTuple):
    """A point of a series with its interval and the name of its place; no line leads to a `loose` one.

    Of few users' values, a `faint` one is drawn pale.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    place: str = ""
    faint: bool = False
    loose: bool = False


@dataclass(frozen=True)
class Series:
    """A line of a chart, in the same style for a method wherever it is drawn.

    Attributes:
        name: of the series.
        style: of its line and markers.
        points: in order.
        thin: a repetition that stands behind the others.
        ringed: the point of the epoch that was kept.
    """

    name: str
    style: Style
    points: list[Point]
    thin: bool = False
    ringed: int | None = None


@dataclass(frozen=True)
class Panel:
    """A figure on the page, with the series of its legend. `task` is that of the figure, where no heading says so."""

    svg: Markup
    caption: str
    hint: str = ""
    task: str = ""
    legend: list[Series] = field(default_factory=list)
    note: str = ""


def dot_panel(key: str, task: str, name: str, dots: Sequence[Dot], *, lower: bool, show_task: bool = False) -> Panel:
    """Return a row for each method, from the top down: its name, a dot with its interval, and its value.

    A dashed line marks the best baseline, by the lowest or the highest value: what a model has to beat.
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


def map_panel(
    key: str,
    caption: str,
    words: str,
    squares: Mapping[tuple[str, str], tuple[Verdict, str]],
    axis_label: str,
    /,
    **about: str,
) -> Panel:
    """Return a coloured square for each row and column, with the symbol of its verdict and a text.

    Args:
        key: unique on the page.
        caption: of the figure.
        words: what the figure shows, for who cannot see it.
        squares: by the names of its row and column, which stand in the order of their first appearance.
        axis_label: what the columns are.
        about: `task`, `hint` and `note` of the panel.
    """
    rows, columns = (list(dict.fromkeys(place[axis] for place in squares)) for axis in (0, 1))

    def paint(axes: Any) -> None:
        for (row, column), (verdict, text) in squares.items():
            y, x = rows.index(row), columns.index(column)
            color, tint = SQUARE_COLORS[verdict]
            axes.barh([y], [0.94], left=x - 0.47, height=0.92, color=tint, gid=f"series:{verdict} {row}, {column}")
            look = {"color": color, "ha": "center", "va": "center", "gid": "series:square"}
            axes.text(x, y - 0.2, SYMBOLS[verdict], size=TEXT, **look)
            axes.text(x, y + 0.2, text, size=TEXT - 2, **look)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xlabel(axis_label)

    title = ": ".join(filter(None, (about.get("task"), caption)))
    return Panel(draw(key, title, words, SQUARE * len(rows) + 40, paint), caption, legend=[], **about)


def series_panel(
    key: str,
    caption: str,
    words: str,
    lines: Sequence[Series],
    arrange: Callable[[Any], None],
    height: float,
    /,
    **about: str,
) -> Panel:
    """Return series with their intervals.

    Args:
        key: unique on the page.
        caption: of the figure.
        words: what the figure shows, for who cannot see it.
        lines: drawn in this order, thin ones first.
        arrange: sets up the axes.
        height: in units of the drawing, of which there are 400 across.
        about: `task`, `hint` and `note` of the panel.
    """

    def paint(axes: Any) -> None:
        for series in sorted(lines, key=lambda series: not series.thin):
            _paint_series(axes, series)
        axes.margins(y=0.12)
        axes.grid(axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        arrange(axes)

    title = ": ".join(filter(None, (about.get("task"), caption)))
    svg = draw(key, title, words, height, paint)
    return Panel(svg, caption, legend=[series for series in lines if not series.thin], **about)


def describe_points(series: Series, digits: int) -> str:
    """Return the points of a series in words."""
    parts = [
        f"{number(p.y, digits)}{f' ({limits(p.low, p.high, digits)})' if p.low is not None else ''} at {p.place}"
        for p in series.points
    ]
    return f"{series.name}: {', '.join(parts) or 'no value'}"


def _paint_series(axes: Any, series: Series) -> None:
    style, points = series.style, series.points

    def plot(selected: Sequence[Point], kind: str, **look: Any) -> None:
        axes.plot([p.x for p in selected], [p.y for p in selected], gid=f"series:{kind}{series.name}", **look)

    line = {"color": style.color} | ({"dashes": style.dashes} if style.dashes else {})
    if series.thin:
        plot(points, "again ", lw=0.8, alpha=0.4, zorder=2, **line)
        return
    plot([p for p in points if not p.loose], "line ", lw=1.8, zorder=3, **line)
    for p in points:
        if p.low is not None and p.high is not None:
            alpha = 0.25 if p.faint else 0.6
            axes.plot([p.x, p.x], [p.low, p.high], color=style.color, lw=1.2, alpha=alpha, zorder=2.5)
    size = min(5.0, 60 / max(1, len(points))) if len(points) <= MANY_POINTS else 0.0
    marker = {"clip_on": False, "ls": "none"}
    dots = {"color": style.color, "marker": style.marker, "ms": size, "mec": SURFACE, "mew": 0.7, "zorder": 4, **marker}
    plot([p for p in points if not p.faint], "", **dots)
    if any(p.faint for p in points):
        plot([p for p in points if p.faint], "few ", alpha=0.4, **dots)
    if series.ringed is not None:
        ring = {"marker": "o", "ms": 11, "mfc": "none", "mec": style.color, "mew": 1.5, "zorder": 4.5, **marker}
        plot([points[series.ringed]], "kept ", **ring)


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
        value, epoch = row.get(metric), row.get("epoch")
        if value is not None and math.isfinite(value):
            ringed = len(points) if epoch == best_epoch else ringed
            points.append(Point(total if axis == "seconds" else (epoch or 0.0) + 1.0, value))
    return Series(name, style, points, thin, ringed)


def curves_panel(key: str, caption: str, curves: Sequence[Series], axis: TimeAxis = "epoch", **about: str) -> Panel:
    """Return learning curves over epochs or seconds of training; `about` are `task`, `hint` and `note` of the panel."""
    xs = [p.x for series in curves for p in series.points] or [1.0]
    first, last = int(min(xs)), int(max(xs))

    def arrange(axes: Any) -> None:
        steps = [1, 2, 5, 10]
        if axis == "seconds":
            axes.set_xlabel("seconds of training")
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(8, steps=steps))
            return
        axes.set_xlabel("epoch")
        axes.set_xlim(min(0.7, first - 0.3), last + 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(min(max(last, 1), 10), integer=True, steps=steps))
        if last <= 1:
            axes.set_xticks(range(first, last + 1))

    if axis == "epoch" and first == 0:
        about["note"] = f"{about.get('note', '')} Epoch 0: before the first step.".strip()
    words = ". ".join(_describe_course(series, axis) for series in curves if not series.thin)
    return series_panel(key, caption, words, curves, arrange, 250, **about)


def _describe_course(series: Series, axis: TimeAxis) -> str:
    if not series.points:
        return f"{series.name}: no value"
    unit = "epoch {:g}" if axis == "epoch" else "{:.1f} seconds"
    first, last, best = series.points[0], series.points[-1], ""
    if series.ringed is not None:
        ringed = series.points[series.ringed]
        best = f", {number(ringed.y)} at {unit.format(ringed.x)}, which was kept"
    return f"{series.name}: from {number(first.y)} to {number(last.y)} at {unit.format(last.x)}{best}"


def reliability_panel(key: str, lines: Sequence[Series], **about: str) -> Panel:
    """Return how often those come true to whom a method gives a probability; on the dashed line it is as often.

    Args:
        key: unique on the page.
        lines: of each method its bins, as points.
        about: `task`, `hint` and `note` of the panel.
    """
    points = [point for series in lines for point in series.points]
    top = min(1.0, 1.05 * max((max(p.x, p.y, p.high or 0.0) for p in points), default=1.0))

    def arrange(axes: Any) -> None:
        axes.plot([0, top], [0, top], color=MUTED, lw=1, dashes=(4, 3), zorder=1.5, gid="series:as often as it says")
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_xlabel("mean probability of a tenth of the users")
        axes.xaxis.set_major_locator(MaxNLocator(6))

    words = ". ".join(describe_points(series, 2) for series in lines)
    return series_panel(key, "Share that comes true, by probability", words, lines, arrange, 330, **about)


def histogram_panel(key: str, caption: str, data: Histogram) -> Panel:
    """Return a bar for each bin, with its count and share, from the first bin that holds anything."""
    start = next((index for index, count in enumerate(data.counts) if count), 0)
    labels, counts = bins(data.edges)[start:], data.counts[start:]
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
    return Panel(draw(key, caption, words, BAR * len(labels) + 12, paint), caption)
