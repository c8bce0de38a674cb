"""The figures of the report: values with their intervals, learning curves, histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from peterrec.evaluation.results import TaskEvaluation
from peterrec.report.formatting import bins, compact, digits_for, limits, metric, number, percent
from peterrec.report.run.record import Curve, Histogram
from peterrec.report.svg import ACCENT, BASELINE, GRID, INK, MUTED, SERIES, SURFACE, TEXT, draw

ROW = 42.0  # height of one method in a dot plot
BAR = 23.0
LONGEST_NAME = 34  # letters of a method's name that surely fit beside its value


@dataclass(frozen=True)
class Line:
    """One series of a learning curve: its name, the curve, and which value of each row is drawn."""

    name: str
    curve: Curve
    value: str

    @property
    def points(self) -> list[tuple[int, float]]:
        """(epoch, value) of every epoch that has a value, epochs counted from 1."""
        rows = ((row.get("epoch"), row.get(self.value)) for row in self.curve.rows)
        return [(int(epoch) + 1, value) for epoch, value in rows if epoch is not None and value is not None]


@dataclass(frozen=True)
class Dot:
    """A method's value with its interval; models stand out, and have their own colour and marker if given."""

    name: str
    value: float
    low: float | None
    high: float | None
    model: bool
    color: str | None = None
    marker: str | None = None


def dot_plot(key: str, evaluation: TaskEvaluation, name: str) -> Markup:
    """Draw each method's value of one metric with its interval, in the order of the table.

    A dashed line marks the best baseline: what a model has to beat.
    """
    values = [method.values[name] for method in evaluation.methods]
    digits = digits_for([value.value for value in values])
    baselines = [method.values[name].value for method in evaluation.methods if method.family == "baseline"]
    goal = (min if name in evaluation.lower_is_better else max)(baselines, default=None)
    dots = [
        Dot(method.name, value.value, value.low, value.high, model=method.family == "model")
        for method, value in zip(evaluation.methods, values, strict=True)
    ]
    return draw_dots(key, f"{evaluation.task}: {metric(name)} of every method", dots, digits, goal)


def draw_dots(key: str, title: str, dots: Sequence[Dot], digits: int, goal: float | None = None) -> Markup:
    """Draw a row for each method: its name, a dot with its interval, and its value.

    Args:
        key: unique on the page.
        title: what a screen reader calls the figure.
        dots: from the top down; at least one.
        digits: decimals of the values.
        goal: value of the best baseline, drawn as a dashed line.
    """
    known = [x for dot in dots for x in (dot.value, dot.low, dot.high) if x is not None]
    margin = 0.05 * (max(known) - min(known)) or 0.05

    def paint(axes: Any) -> None:
        axes.set_xlim(min(known) - margin, max(known) + margin)
        axes.set_ylim(len(dots) - 0.55, -0.75)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.grid(axis="x")
        if goal is not None:
            axes.axvline(goal, color=MUTED, lw=1, dashes=(4, 3), zorder=1.5, gid="series:best baseline")
        for row, dot in enumerate(dots):
            color = dot.color or (ACCENT if dot.model else BASELINE)
            if dot.low is not None and dot.high is not None:
                axes.plot([dot.low, dot.high], [row, row], color=color, lw=2.5, solid_capstyle="round", alpha=0.55)
            look = {"marker": dot.marker or ("o" if dot.model else "D"), "ms": 8 if dot.model else 6.5}
            axes.plot([dot.value], [row], color=color, mec=SURFACE, clip_on=False, gid=f"series:{dot.name}", **look)
            _label(axes, row, _short(dot.name), number(dot.value, digits), bold=dot.model)

    words = "; ".join(f"{dot.name} {number(dot.value, digits)} ({limits(dot.low, dot.high, digits)})" for dot in dots)
    return draw(key, title, words, ROW * len(dots) + 30, paint)


def _label(axes: Any, row: float, name: str, value: str, *, bold: bool) -> None:
    across = axes.get_yaxis_transform()
    text = {"color": INK, "ha": "left", "transform": across, "zorder": 4, "weight": "bold" if bold else "normal"}
    axes.text(0.0, row - 0.2, name, va="bottom", **text)
    axes.text(1.03, row, value, va="center", **text)  # a column of their own: never under a dot


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def curves(key: str, title: str, lines: Sequence[Line], height: float = 235) -> Markup:
    """Draw values over epochs, one line per series, the epoch that was kept ringed."""
    last = max((epoch for line in lines for epoch, _ in line.points), default=1)
    size = min(5.0, max(2.0, 60 / last))  # so that many epochs do not hide the line

    def paint(axes: Any) -> None:
        for line, style in zip(lines, _cycle(len(lines)), strict=True):
            points = line.points
            look = {"color": style.color, "lw": 2, "marker": style.marker, "ms": size, "mec": SURFACE, "mew": 0.7}
            dashes = {"dashes": style.dashes} if style.dashes else {}
            axes.plot(*_columns(points), gid=f"series:{line.name}", clip_on=False, zorder=3, **look, **dashes)
            best = [(epoch, value) for epoch, value in points if epoch == line.curve.best_epoch + 1]
            ring = {"marker": "o", "ms": 12, "mfc": "none", "mec": style.color, "mew": 1.6, "ls": "none"}
            axes.plot(*_columns(best), gid=f"series:best {line.name}", clip_on=False, zorder=3.5, **ring)
        axes.set_xlim(0.7, last + 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(min(last, 10), integer=True, steps=[1, 2, 5, 10]))
        if last == 1:
            axes.set_xticks([1])
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.margins(y=0.12)
        axes.grid(axis="y")
        axes.set_xlabel("epoch")

    words = ". ".join(_told(line) for line in lines)
    return draw(key, title, words, height, paint)


def _cycle(length: int) -> list[Any]:
    return [SERIES[index % len(SERIES)] for index in range(length)]


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [epoch for epoch, _ in points], [value for _, value in points]


def _told(line: Line) -> str:
    points = line.points
    if not points:
        return f"{line.name}: no value"
    (first, begin), (last, end) = points[0], points[-1]
    best = line.curve.best.get(line.value)
    kept = f"; epoch {line.curve.best_epoch + 1}, which was kept: {number(best)}" if best is not None else ""
    return f"{line.name}: {number(begin)} in epoch {first}, {number(end)} in epoch {last}{kept}"


def histogram(key: str, title: str, data: Histogram) -> Markup:
    """Draw a bar for each bin, with its count and share, from the first bin that holds anything."""
    start = next((index for index, n in enumerate(data.counts) if n), 0)
    labels, counts = bins(data)[start:], data.counts[start:]
    told = [f"{compact(n)} ({percent(n / max(1, sum(counts)))})" for n in counts]

    def paint(axes: Any) -> None:
        rows = range(len(labels))
        for row, n, words in zip(rows, counts, told, strict=True):
            axes.barh([row], [n], height=0.72, color=ACCENT, gid=f"series:{labels[row]}")
            axes.annotate(words, (n, row), (6, 0), textcoords="offset points", va="center", color=MUTED, size=TEXT - 1)
        axes.set_yticks(rows, labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlim(0, 1.42 * max([*counts, 1]))  # room for the words behind the longest bar
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.spines["left"].set(visible=True, color=GRID)

    words = "; ".join(f"{label}: {word}" for label, word in zip(labels, told, strict=True))
    return draw(key, title, words, BAR * len(labels) + 12, paint)
