"""The figures of a grid, with what stands about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.ticker import NullLocator

from peterrec.config.experiment import ExperimentConfig
from peterrec.evaluation.statistics import LOWER_IS_BETTER
from peterrec.report.charts import (
    MONITORS,
    Dot,
    Panel,
    Point,
    Series,
    TimeAxis,
    curves_panel,
    describe_points,
    dot_panel,
    learning_curve,
    map_panel,
    series_panel,
)
from peterrec.report.formatting import digits_for, metric, sentence_case, share, signed
from peterrec.report.grid.analysis import (
    NOT_PRETRAINED_ON,
    PRETRAINED_ON,
    Measured,
    QuestionResults,
    label,
)
from peterrec.report.grid.cells import CellResult
from peterrec.report.grid.conclusions import Answer
from peterrec.report.grid.maps import TaskMap
from peterrec.report.grid.tables import FEW_USERS, users_of
from peterrec.report.run.record import with_start
from peterrec.report.svg import BASELINE, Style, style_of

SHORT = {PRETRAINED_ON: "seen", NOT_PRETRAINED_ON: "unseen"}
AXES: dict[TimeAxis, str] = {"epoch": "by epochs", "seconds": "by seconds of training"}


def styles(config: ExperimentConfig) -> dict[str, Style]:
    """Return how each method is drawn, the same on the whole page: models in colour, baselines in grey."""
    models = [name for name, method in config.methods.items() if method.baseline is None]
    baselines = [name for name in config.methods if name not in models]
    in_grey = {name: style_of(at + 1, color=BASELINE) for at, name in enumerate(baselines)}
    return {name: style_of(at) for at, name in enumerate(models)} | in_grey


def panels_of(results: QuestionResults, key: str) -> list[list[Panel]]:
    """Return the figures of a question by what they show, but for its maps; ids begin with `key`."""
    makers: dict[str, Callable[[QuestionResults, str, str], list[Panel]]] = {
        "metrics": dots,
        "curves": curves,
        "label_fractions": shares,
        "events": strata,
    }
    panels = [
        [panel for at, task in enumerate(results.tasks) for panel in makers[name](results, task, f"{key}-{name}{at}")]
        for name in results.question.sections
        if name in makers
    ]
    return [shown for shown in panels if shown]


def maps_of(answer: Answer, key: str) -> list[Panel]:
    """Return where a method is ahead of all its rivals, by events of the user and share of the labels."""
    return [_map(answer.results.config, task_map, f"{key}-map{at}") for at, task_map in enumerate(answer.maps)]


def _map(config: ExperimentConfig, task_map: TaskMap, key: str) -> Panel:
    squares = sorted(task_map.squares, key=lambda square: (-square.share, square.first_events or float("inf")))
    digits = digits_for(10 * square.difference for square in squares)
    texts = {
        (share(square.share), str(square.first_events or "all")): (square.verdict, signed(square.difference, digits))
        for square in squares
    }
    words = "; ".join(
        f"{square.place}: {square.verdict}, {signed(square.difference, digits)} to {label(config, square.rival)}"
        for square in squares
    )
    caption = f"{sentence_case(metric(task_map.metric))}: {label(config, task_map.method)} minus the best rival"
    note = "▲ better than every rival, ▼ worse than one, ≈ neither; rows: share of the labels."
    hint = "lower is better" if task_map.metric in LOWER_IS_BETTER else ""
    about = {"task": task_map.task, "note": note, "hint": hint}
    return map_panel(key, caption, words, texts, "first events of the user that are read", **about)


def dots(results: QuestionResults, task: str, key: str) -> list[Panel]:
    """Return a plot of the primary metric of all methods at the largest share."""
    config, by_method, primary = results.config, styles(results.config), results.primary(task)
    rows = [
        Dot(label(config, name), v.mean, v.low, v.high, config.methods[name].baseline is None, by_method[name])
        for name, v in results.column(task).items()
    ]
    lower = primary in LOWER_IS_BETTER
    return [dot_panel(key, task, primary, rows, lower=lower, show_task=True)] if rows else []


def curves(results: QuestionResults, task: str, key: str) -> list[Panel]:
    """Return the learning curves of all methods, against epochs and seconds; other seeds than the first are thin."""
    groups = [cells for (name, _, part), cells in results.cells.items() if (name, part) == (task, results.largest)]
    monitors = dict.fromkeys(cell.monitor for cells in groups for cell in cells if cell.curve and cell.monitor)
    panels = []
    for at, monitor in enumerate(monitors):
        caption, hint = MONITORS.get(monitor, (sentence_case(metric(monitor)), ""))
        for axis, words in AXES.items():
            lines = [line for cells in groups for line in _curves(results, cells, monitor, axis)]
            thin = any(line.thin for line in lines)
            note = "Ringed: the epoch that was kept. Thin: the other seeds." if thin else "Ringed: kept."
            about = {"task": task, "hint": hint, "note": note}
            if lines:
                panels.append(curves_panel(f"{key}-{at}{axis[0]}", f"{caption}, {words}", lines, axis, **about))
    return panels


def _curves(results: QuestionResults, cells: Sequence[CellResult], monitor: str, axis: TimeAxis) -> list[Series]:
    lines: list[Series] = []
    for cell in cells:
        if cell.monitor == monitor:
            name, style = label(results.config, cell.method), styles(results.config)[cell.method]
            rows, best = with_start(cell.start, cell.curve), cell.best_epoch
            line = learning_curve(name, style, rows, monitor, best, axis=axis, thin=bool(lines))
            lines += [line] if line.points else []
    return lines


def shares(results: QuestionResults, task: str, key: str) -> list[Panel]:
    """Return the primary metric against the share of the labelled train users, with intervals."""
    by_share = results.by_share(task)
    columns, ticks = {share(part): column for part, column in by_share.items()}, [100 * part for part in by_share]
    lines = _lines(results, results.methods(task, list(by_share)), columns, lambda at, shift: ticks[at] * 1.035**shift)

    def arrange(axes: Any) -> None:
        axes.set_xscale("log")
        axes.set_xticks(ticks, list(columns))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("share of the labelled train users")

    digits = digits_for(p.y for line in lines for p in line.points)
    words = ". ".join(describe_points(line, digits) for line in lines)
    caption, note = (
        f"{sentence_case(metric(results.primary(task)))} by share of labels",
        "Whiskers: intervals over users.",
    )
    return [series_panel(key, caption, words, lines, arrange, 280, task=task, note=note)]


def strata(results: QuestionResults, task: str, key: str) -> list[Panel]:
    """Return the primary metric against the number of source events, and of users seen in pre-training or not."""
    columns, methods = results.by_stratum(task), results.methods(task)
    ticks = [at + (0.4 if name in SHORT else 0.0) for at, name in enumerate(columns)]
    apart = 0.6 / max(6, len(methods))
    lines = _lines(results, methods, columns, lambda at, shift: ticks[at] + apart * shift)
    if not any(line.points for line in lines):
        return []

    def arrange(axes: Any) -> None:
        names = [f"{SHORT.get(name, name)}\n({users_of(column):,})" for name, column in columns.items()]
        axes.set_xticks(ticks, names)
        axes.set_xlabel("source events of the user, and in pre-training (test users)")

    words = ". ".join(describe_points(line, digits_for(p.y for p in line.points)) for line in lines)
    caption = f"{sentence_case(metric(results.primary(task)))} by what is known of the user"
    note = f"Whiskers: intervals over users. Pale: fewer than {FEW_USERS} users."
    return [series_panel(key, caption, words, lines, arrange, 290, task=task, note=note)]


def _lines(
    results: QuestionResults,
    methods: Sequence[str],
    columns: Mapping[str, Mapping[str, Measured]],
    place: Callable[[int, float], float],
) -> list[Series]:
    """Return the values of each method in some columns; they are named like the columns.

    `place` gives the x of the number of a column, shifted so that the whiskers of methods do not hide each other.
    """
    by_method, lines = styles(results.config), []
    for row, method in enumerate(methods):
        shift = row - (len(methods) - 1) / 2
        points = []
        for at, (name, column) in enumerate(columns.items()):
            if (value := column.get(method)) is not None:
                few = value.stratum != "" and (value.users or 0) < FEW_USERS
                points.append(Point(place(at, shift), value.mean, value.low, value.high, name, few, name in SHORT))
        lines.append(Series(label(results.config, method), by_method[method], points))
    return lines
