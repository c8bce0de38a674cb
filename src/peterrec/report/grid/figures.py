"""The figures of a grid, with what stands around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.ticker import NullLocator

from peterrec.config.experiment import ExperimentConfig, QuestionConfig
from peterrec.report.charts import (
    MONITORS,
    Dot,
    Panel,
    Series,
    TimeAxis,
    describe_points,
    dot_panel,
    draw_learning_curves,
    draw_series,
    learning_curve,
)
from peterrec.report.formatting import digits_for, metric, sentence_case, share
from peterrec.report.grid.analysis import NOT_PRETRAINED_ON, PRETRAINED_ON, Grid, Group, lower_is_better, strata_names
from peterrec.report.grid.conclusions import label
from peterrec.report.grid.tables import FEW_USERS
from peterrec.report.svg import BASELINE, Style, style_of

SHORT = {PRETRAINED_ON: "seen", NOT_PRETRAINED_ON: "unseen"}
AXES: dict[TimeAxis, str] = {"epoch": "by epochs", "seconds": "by seconds of training"}


def styles(config: ExperimentConfig) -> dict[str, Style]:
    """Return how each method is drawn, the same on the whole page: models in colour, baselines in grey."""
    models = [name for name in config.methods if _is_model(config, name)]
    baselines = [name for name in config.methods if not _is_model(config, name)]
    in_grey = {name: style_of(at + 1, color=BASELINE) for at, name in enumerate(baselines)}
    return {name: style_of(at) for at, name in enumerate(models)} | in_grey


def panels_of(grid: Grid, question: QuestionConfig, key: str) -> list[list[Panel]]:
    """Return the figures of a question by what they show; ids begin with `key`."""
    makers: dict[str, Callable[[Grid, QuestionConfig, str, str], list[Panel]]] = {
        "metrics": dots,
        "curves": curves,
        "label_fractions": shares,
        "events": strata,
    }
    tasks = list(enumerate(grid.tasks(question)))
    panels = [
        [panel for at, task in tasks for panel in makers[name](grid, question, task, f"{key}-{name}{at}")]
        for name in question.sections
        if name in makers
    ]
    return [shown for shown in panels if shown]


def dots(grid: Grid, question: QuestionConfig, task: str, key: str) -> list[Panel]:
    """Return a plot of the primary metric of all methods at the largest share."""
    config, by_method = grid.config, styles(grid.config)
    rows = [
        Dot(label(config, name), value.mean, value.low, value.high, _is_model(config, name), by_method[name])
        for name, value in grid.measured_methods(question, task, max(question.label_fractions)).items()
    ]
    primary = grid.primary(task)
    return [dot_panel(key, task, primary, rows, lower=lower_is_better(primary), show_task=True)] if rows else []


def curves(grid: Grid, question: QuestionConfig, task: str, key: str) -> list[Panel]:
    """Return the learning curves of all methods, against epochs and seconds; other seeds than the first are thin."""
    largest = max(question.label_fractions)
    methods = grid.methods(question, task, largest)
    cells = [cell for name in methods for cell in grid.cells_of(question, Group(task, name, largest))]
    panels = []
    for at, monitor in enumerate(dict.fromkeys(cell.monitor for cell in cells if cell.curve and cell.monitor)):
        caption, hint = MONITORS.get(monitor, (sentence_case(metric(monitor)), ""))
        for axis, words in AXES.items():
            lines = [line for name in methods for line in _curves(grid, question, task, name, monitor, axis)]
            if not lines:
                continue
            main = [line for line in lines if not line.thin]
            svg = draw_learning_curves(f"{key}-{at}{axis[0]}", f"{task}: {caption}, {words}", lines, axis)
            thin = len(lines) > len(main)
            note = "Ringed: the epoch that was kept. Thin: the other seeds." if thin else "Ringed: kept."
            panels.append(Panel(svg, f"{caption}, {words}", hint, task, _legend(main), note))
    return panels


def _curves(grid: Grid, question: QuestionConfig, task: str, method: str, monitor: str, axis: TimeAxis) -> list[Series]:
    style, name = styles(grid.config)[method], label(grid.config, method)
    lines: list[Series] = []
    for cell in grid.cells_of(question, Group(task, method, max(question.label_fractions))):
        if cell.monitor == monitor:
            line = learning_curve(name, style, cell.curve, monitor, cell.best_epoch, axis=axis, thin=bool(lines))
            lines += [line] if line.points else []
    return lines


def shares(grid: Grid, question: QuestionConfig, task: str, key: str) -> list[Panel]:
    """Return the primary metric against the share of the labelled train users, with intervals."""
    ticks, by_method = sorted(set(question.label_fractions)), styles(grid.config)
    by_share = {part: grid.measured_methods(question, task, part) for part in ticks}
    methods, lines, words = grid.methods(question, task), [], []
    digits = digits_for([value.mean for values in by_share.values() for value in values.values()])
    for at, name in enumerate(methods):
        values = {part: by_share[part][name] for part in ticks if name in by_share[part]}
        shift = 1.035 ** _offset(at, len(methods))
        points = [(100 * part * shift, value.mean) for part, value in values.items()]
        intervals = [(value.low, value.high) for value in values.values()]
        lines.append(Series(label(grid.config, name), by_method[name], points, intervals))
        words.append(describe_points(lines[-1], [share(part) for part in values], digits))

    def arrange(axes: Any) -> None:
        axes.set_xscale("log")
        axes.set_xticks([100 * part for part in ticks], [share(part) for part in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("share of the labelled train users")

    caption = f"{sentence_case(metric(grid.primary(task)))} by share of labels"
    svg = draw_series(key, f"{task}: {caption}", ". ".join(words), lines, arrange, 280)
    return [Panel(svg, caption, "", task, _legend(lines), "Whiskers: intervals over users.")]


def strata(grid: Grid, question: QuestionConfig, task: str, key: str) -> list[Panel]:
    """Return the primary metric against the number of source events, and of users seen in pre-training or not."""
    names, largest, by_method = strata_names(grid.config), max(question.label_fractions), styles(grid.config)
    places = {name: at + (0.4 if name in SHORT else 0.0) for at, name in enumerate(names)}
    by_stratum = {name: grid.measured_methods(question, task, largest, stratum=name) for name in names}
    methods, lines, words = grid.methods(question, task, largest), [], []
    for at, method in enumerate(methods):
        values = {name: by_stratum[name][method] for name in names if method in by_stratum[name]}
        shift = 0.6 / max(6, len(methods)) * _offset(at, len(methods))
        line = Series(
            label(grid.config, method),
            by_method[method],
            [(places[name] + shift, value.mean) for name, value in values.items()],
            [(value.low, value.high) for value in values.values()],
            faint=frozenset(at for at, value in enumerate(values.values()) if (value.users or 0) < FEW_USERS),
            loose=frozenset(at for at, name in enumerate(values) if name in SHORT),
        )
        lines.append(line)
        words.append(describe_points(line, list(values), digits_for([value.mean for value in values.values()])))
    if not any(line.points for line in lines):
        return []
    users = {name: max((value.users or 0 for value in by_stratum[name].values()), default=0) for name in names}

    def arrange(axes: Any) -> None:
        axes.set_xticks(list(places.values()), [f"{SHORT.get(name, name)}\n({users[name]:,})" for name in names])
        axes.set_xlabel("source events of the user, and in pre-training (test users)")

    caption = f"{sentence_case(metric(grid.primary(task)))} by what is known of the user"
    svg = draw_series(key, f"{task}: {caption}", ". ".join(words), lines, arrange, 290)
    note = f"Whiskers: intervals over users. Pale: fewer than {FEW_USERS} users."
    return [Panel(svg, caption, "", task, _legend(lines), note)]


def _is_model(config: ExperimentConfig, method: str) -> bool:
    return config.methods[method].baseline is None


def _offset(at: int, count: int) -> float:
    """Return how far beside its place a series is drawn, so that whiskers do not hide each other."""
    return at - (count - 1) / 2


def _legend(lines: list[Series]) -> list[tuple[str, Style]]:
    return [(line.name, line.style) for line in lines]
