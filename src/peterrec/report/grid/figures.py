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
    Series,
    TimeAxis,
    curves_panel,
    describe_points,
    dot_panel,
    learning_curve,
    series_panel,
)
from peterrec.report.formatting import digits_for, metric, sentence_case, share
from peterrec.report.grid.analysis import (
    NOT_PRETRAINED_ON,
    PRETRAINED_ON,
    Measured,
    QuestionResults,
    label,
)
from peterrec.report.grid.cells import CellResult
from peterrec.report.grid.tables import FEW_USERS, users_of
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
    """Return the figures of a question by what they show; ids begin with `key`."""
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
            line = learning_curve(name, style, cell.curve, monitor, cell.best_epoch, axis=axis, thin=bool(lines))
            lines += [line] if line.points else []
    return lines


def shares(results: QuestionResults, task: str, key: str) -> list[Panel]:
    """Return the primary metric against the share of the labelled train users, with intervals."""
    columns = {share(part): column for part, column in results.by_share(task).items()}
    parts = list(results.by_share(task))
    lines = [
        _line(results, method, columns, [100 * part * 1.035**offset for part in parts])
        for method, offset in _offsets(results.methods(task, parts)).items()
    ]

    def arrange(axes: Any) -> None:
        axes.set_xscale("log")
        axes.set_xticks([100 * part for part in parts], list(columns))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("share of the labelled train users")

    digits = digits_for([y for line in lines for _, y in line.points])
    words = ". ".join(describe_points(line, digits) for line in lines)
    caption, note = f"{_metric_name(results, task)} by share of labels", "Whiskers: intervals over users."
    return [series_panel(key, caption, words, lines, arrange, 280, task=task, note=note)]


def strata(results: QuestionResults, task: str, key: str) -> list[Panel]:
    """Return the primary metric against the number of source events, and of users seen in pre-training or not."""
    columns = results.by_stratum(task)
    places = [at + (0.4 if name in SHORT else 0.0) for at, name in enumerate(columns)]
    methods = results.methods(task)
    apart = 0.6 / max(6, len(methods))
    lines = [
        _line(results, method, columns, [place + apart * offset for place in places])
        for method, offset in _offsets(methods).items()
    ]
    if not any(line.points for line in lines):
        return []

    def arrange(axes: Any) -> None:
        names = [f"{SHORT.get(name, name)}\n({users_of(column):,})" for name, column in columns.items()]
        axes.set_xticks(places, names)
        axes.set_xlabel("source events of the user, and in pre-training (test users)")

    words = ". ".join(describe_points(line, digits_for([y for _, y in line.points])) for line in lines)
    caption = f"{_metric_name(results, task)} by what is known of the user"
    note = f"Whiskers: intervals over users. Pale: fewer than {FEW_USERS} users."
    return [series_panel(key, caption, words, lines, arrange, 290, task=task, note=note)]


def _line(
    results: QuestionResults, method: str, columns: Mapping[str, Mapping[str, Measured]], xs: Sequence[float]
) -> Series:
    """Return the values of a method in some columns, by their names, as a series."""
    places = [
        (x, name, column[method]) for x, (name, column) in zip(xs, columns.items(), strict=True) if method in column
    ]
    return Series(
        label(results.config, method),
        styles(results.config)[method],
        [(x, value.mean) for x, _, value in places],
        [(value.low, value.high) for _, _, value in places],
        [name for _, name, _ in places],
        faint=frozenset(
            at for at, (*_, value) in enumerate(places) if value.stratum and (value.users or 0) < FEW_USERS
        ),
        loose=frozenset(at for at, (_, name, _) in enumerate(places) if name in SHORT),
    )


def _offsets(methods: Sequence[str]) -> dict[str, float]:
    """Return how far beside its place each series is drawn, so that whiskers do not hide each other."""
    return {name: at - (len(methods) - 1) / 2 for at, name in enumerate(methods)}


def _metric_name(results: QuestionResults, task: str) -> str:
    return sentence_case(metric(results.primary(task)))
