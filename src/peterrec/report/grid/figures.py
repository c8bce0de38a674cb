"""The figures of a grid, with what stands around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from matplotlib.ticker import MaxNLocator, NullLocator

from peterrec.config.experiment import ExperimentConfig, QuestionConfig
from peterrec.report.charts import Dot, draw_dots
from peterrec.report.formatting import digits_for, metric, number, sentence_case, share
from peterrec.report.grid.analysis import SEEN, UNSEEN, Grid, Group, Measured, lower_is_better, strata_names
from peterrec.report.grid.cells import CellResult
from peterrec.report.grid.conclusions import label
from peterrec.report.grid.drawing import Trace, draw_traces, told
from peterrec.report.grid.tables import FEW
from peterrec.report.run.figures import MONITORS, Key, Panel
from peterrec.report.svg import BASELINE, Style, style_of

SHORT = {SEEN: "seen", UNSEEN: "unseen"}


def styles(config: ExperimentConfig) -> dict[str, Style]:
    """Return how each method is drawn, the same on the whole page: models in colour, baselines in grey."""
    models = [name for name, method in config.methods.items() if method.baseline is None]
    found = {name: style_of(at) for at, name in enumerate(models)}
    baselines = [name for name in config.methods if name not in found]
    return found | {name: style_of(at + 1, color=BASELINE) for at, name in enumerate(baselines)}


def panels_of(grid: Grid, question: QuestionConfig, key: str) -> list[list[Panel]]:
    """Return the figures of a question by what they show; ids begin with `key`."""
    makers: dict[str, Callable[[str, str], list[Panel]]] = {
        "metrics": lambda task, place: dots(grid, question, task, place),
        "curves": lambda task, place: curves(grid, question, task, place),
        "label_fractions": lambda task, place: shares(grid, question, task, place),
        "events": lambda task, place: strata(grid, question, task, place),
    }
    found = [
        [panel for at, task in enumerate(grid.tasks(question)) for panel in makers[name](task, f"{key}-{name}{at}")]
        for name in question.sections
        if name in makers
    ]
    return [panels for panels in found if panels]


def dots(grid: Grid, question: QuestionConfig, task: str, key: str) -> list[Panel]:
    """Return a plot of the primary metric of all methods at the largest share."""
    largest, name, look = max(question.label_fractions), grid.primary(task), styles(grid.config)
    values = _values(grid, question, task, largest)
    if not values:
        return []
    digits = digits_for([value.mean for value in values.values()])
    rows = [
        Dot(label(grid.config, m), v.mean, v.low, v.high, _is_model(grid, m), look[m].color, look[m].marker)
        for m, v in values.items()
    ]
    beaten = [value.mean for m, value in values.items() if not _is_model(grid, m)]
    goal = (min if lower_is_better(name) else max)(beaten, default=None)
    title = f"{task}: {metric(name)} of every method"
    hint = "dashed: best baseline" if goal is not None else ""
    return [Panel(draw_dots(key, title, rows, digits, goal), f"{sentence_case(metric(name))}, test users", hint, task)]


def curves(grid: Grid, question: QuestionConfig, task: str, key: str) -> list[Panel]:
    """Return the learning curves of all methods, against epochs and seconds; other seeds than the first are thin."""
    largest = max(question.label_fractions)
    by_method = {m: grid.cells_of(question, Group(task, m, largest)) for m in grid.methods(question, task, largest)}
    monitors = dict.fromkeys(
        cell.monitor for cells in by_method.values() for cell in cells if cell.curve and cell.monitor
    )
    found = []
    for at, monitor in enumerate(monitors):
        caption, hint = MONITORS.get(monitor, (sentence_case(metric(monitor)), ""))
        for axis, words in (("epoch", "by epochs"), ("seconds", "by seconds of training")):
            traces = [trace for m, cells in by_method.items() for trace in _curves(grid, m, cells, monitor, axis)]
            if not traces:
                continue
            main = [trace for trace in traces if not trace.thin]
            said = ". ".join(_course(trace, axis) for trace in main)
            title, place = f"{task}: {caption}, {words}", f"{key}-{at}{axis[0]}"
            svg = draw_traces(place, title, said, traces, _axis(axis))
            legend = [Key.of(trace.name, trace.style) for trace in main]
            note = (
                "Ringed: the epoch that was kept. Thin: the other seeds."
                if len(traces) > len(main)
                else "Ringed: kept."
            )
            found.append(Panel(svg, f"{caption}, {words}", hint, task, legend, note))
    return found


def _curves(grid: Grid, method: str, cells: Sequence[CellResult], monitor: str, axis: str) -> list[Trace]:
    style = styles(grid.config)[method]
    traces: list[Trace] = []
    for cell in cells:
        if cell.monitor != monitor:
            continue
        seconds = accumulate(row.get("seconds") or 0.0 for row in cell.curve)
        rows = [(row, total, row.get(monitor)) for row, total in zip(cell.curve, seconds, strict=True)]
        known = [(row, total, value) for row, total, value in rows if value is not None and math.isfinite(value)]
        xs = [total if axis == "seconds" else (row.get("epoch") or 0.0) + 1.0 for row, total, _ in known]
        points = [(x, value) for x, (_, _, value) in zip(xs, known, strict=True)]
        kept = next((at for at, (row, *_) in enumerate(known) if row.get("epoch") == cell.best_epoch), None)
        if points:
            traces.append(Trace(label(grid.config, method), style, points, thin=bool(traces), ringed=kept))
    return traces


def _course(trace: Trace, axis: str) -> str:
    (_, begin), (last, end) = trace.points[0], trace.points[-1]
    kept = f", {number(trace.points[trace.ringed][1])} in the epoch that was kept" if trace.ringed is not None else ""
    where = f"epoch {last:g}" if axis == "epoch" else f"{last:.1f} seconds"
    return f"{trace.name}: from {number(begin)} to {number(end)} at {where}{kept}"


def _axis(name: str) -> Callable[[Any], None]:
    def arrange(axes: Any) -> None:
        axes.set_xlabel("epoch" if name == "epoch" else "seconds of training")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=name == "epoch", steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if name == "seconds":
            axes.set_xlim(left=0)

    return arrange


def shares(grid: Grid, question: QuestionConfig, task: str, key: str) -> list[Panel]:
    """Return the primary metric against the share of the labelled train users, with intervals."""
    ticks, look = sorted(set(question.label_fractions)), styles(grid.config)
    by_share = {one: _values(grid, question, task, one) for one in ticks}
    methods = grid.methods(question, task)
    traces, words = [], []
    digits = digits_for([value.mean for values in by_share.values() for value in values.values()])
    for at, name in enumerate(methods):
        known = [(one, by_share[one][name]) for one in ticks if name in by_share[one]]
        points = [(100 * one * 1.035 ** _aside(at, len(methods)), value.mean) for one, value in known]
        trace = Trace(label(grid.config, name), look[name], points, [(value.low, value.high) for _, value in known])
        traces.append(trace)
        words.append(told(trace, [share(one) for one, _ in known], digits))

    def arrange(axes: Any) -> None:
        axes.set_xscale("log")
        axes.set_xticks([100 * one for one in ticks], [share(one) for one in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("share of the labelled train users")

    caption = f"{sentence_case(metric(grid.primary(task)))} by share of labels"
    svg = draw_traces(key, f"{task}: {caption}", ". ".join(words), traces, arrange, 280)
    return [Panel(svg, caption, "", task, _legend(traces), "Whiskers: intervals over users.")]


def strata(grid: Grid, question: QuestionConfig, task: str, key: str) -> list[Panel]:
    """Return the primary metric against the number of source events, and of users seen in pre-training or not."""
    names, largest, look = strata_names(grid.config), max(question.label_fractions), styles(grid.config)
    places = {name: at + (0.4 if name in SHORT else 0.0) for at, name in enumerate(names)}
    methods, traces, words = grid.methods(question, task, largest), [], []
    users = dict.fromkeys(names, 0)
    for at, method in enumerate(methods):
        found = {name: grid.stratum(question, Group(task, method, largest), name) for name in names}
        known = [(name, one) for name, one in found.items() if one is not None]
        users |= {name: max(users[name], one.users or 0) for name, one in known}
        trace = Trace(
            label(grid.config, method),
            look[method],
            [(places[name] + 0.6 / max(6, len(methods)) * _aside(at, len(methods)), one.mean) for name, one in known],
            [(one.low, one.high) for _, one in known],
            faint=frozenset(i for i, (_, one) in enumerate(known) if (one.users or 0) < FEW),
            loose=frozenset(i for i, (name, _) in enumerate(known) if name in SHORT),
        )
        traces.append(trace)
        words.append(told(trace, [name for name, _ in known], digits_for([one.mean for _, one in known])))
    if not any(trace.points for trace in traces):
        return []

    def arrange(axes: Any) -> None:
        ticks = [f"{SHORT.get(name, name)}\n({users[name]:,})" for name in names]
        axes.set_xticks(list(places.values()), ticks)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("source events of the user, and in pre-training (test users)")

    caption = f"{sentence_case(metric(grid.primary(task)))} by what is known of the user"
    svg = draw_traces(key, f"{task}: {caption}", ". ".join(words), traces, arrange, 290)
    note = f"Whiskers: intervals over users. Pale: fewer than {FEW} users."
    return [Panel(svg, caption, "", task, _legend(traces), note)]


def _values(grid: Grid, question: QuestionConfig, task: str, of: float) -> dict[str, Measured]:
    name = grid.primary(task)
    return {
        method: value
        for method in grid.methods(question, task, of)
        if (value := grid.measured(question, Group(task, method, of), name)) is not None
    }


def _is_model(grid: Grid, method: str) -> bool:
    return grid.config.methods[method].baseline is None


def _aside(at: int, of: int) -> float:
    """Return how far beside its place a series is drawn, so that whiskers do not hide each other."""
    return at - (of - 1) / 2


def _legend(traces: Sequence[Trace]) -> list[Key]:
    return [Key.of(trace.name, trace.style) for trace in traces]
