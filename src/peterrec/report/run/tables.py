"""The tables of a run, with marks for the best value and for the verdicts on each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from peterrec.evaluation.results import MethodResult, TaskEvaluation
from peterrec.report.formatting import DASH, join, metric, percent, plural
from peterrec.report.run.record import TaskRecord
from peterrec.report.tables import Cell, Mark, Row, Table, difference_cell, value_cells


def compared_metrics(evaluation: TaskEvaluation) -> list[str]:
    """Return the metrics that verdicts are about: the primary one, and AUC where there is one."""
    names = {comparison.metric for comparison in evaluation.comparisons}
    return [evaluation.primary, *(name for name in evaluation.metrics if name in names - {evaluation.primary})]


def strategies(tasks: Sequence[TaskRecord]) -> list[str]:
    """Return the models of all tasks, in the order of their tables."""
    names = (method.name for task in tasks for method in task.evaluation.methods if method.family == "model")
    return list(dict.fromkeys(names))


def best_baseline(evaluation: TaskEvaluation, name: str) -> MethodResult | None:
    """Return the baseline with the best value of a metric, if there is any baseline."""
    baselines = [method for method in evaluation.methods if method.family == "baseline"]
    choose = min if name in evaluation.lower_is_better else max
    return choose(baselines, key=lambda method: method.values[name].value) if baselines else None


def headline(tasks: Sequence[TaskRecord]) -> Table:
    """Return each task's compared metrics: a column for each strategy and for the best baseline."""
    models = strategies(tasks)
    groups = []
    for task in tasks:
        names = compared_metrics(task.evaluation)
        groups.append((task.name, [_headline_row(task, name, models, first=name == names[0]) for name in names]))
    heads = [(name, "") for name in [*models, "best baseline"]]
    return Table("Tasks and methods", "metric", heads, groups, css="headline")


def _headline_row(task: TaskRecord, name: str, models: Sequence[str], *, first: bool) -> Row:
    evaluation, column = task.evaluation, _column(task.evaluation, name)
    shares = {method.name: _trained_shares(task, method) for method in evaluation.methods if method.family == "model"}
    cells = []
    for model in models:
        if model in shares:
            notes = [shares[model]] if first and shares[model] else []
            cells.append(replace(column[model], marks=against_baselines(evaluation, model, name), notes=notes))
        else:
            cells.append(Cell("not tried", absent=True))
    best = best_baseline(evaluation, name)
    absent = Cell("none was fitted", absent=True)
    cells.append(absent if best is None else replace(column[best.name], notes=[best.name]))
    return Row(metric(name), cells)


def _column(evaluation: TaskEvaluation, name: str) -> dict[str, Cell]:
    values = {method.name: method.values[name] for method in evaluation.methods}
    intervals = {method: (value.value, value.low, value.high) for method, value in values.items()}
    return value_cells(intervals, lower=name in evaluation.lower_is_better)


def against_baselines(evaluation: TaskEvaluation, method: str, name: str) -> list[Mark]:
    """Return how a model stands against all baselines: those that it does not beat, or that it beats all."""
    baselines = {reference.name for reference in evaluation.methods if reference.family == "baseline"}
    compared = [
        c for c in evaluation.comparisons if (c.method, c.metric) == (method, name) and c.reference in baselines
    ]
    if not compared:
        return []
    worse = [c.reference for c in compared if c.verdict == "worse"]
    unclear = [c.reference for c in compared if c.verdict == "no clear difference"]
    marks = [Mark.from_verdict("worse", f"worse than {join(worse)}")] if worse else []
    if unclear:
        marks.append(Mark.from_verdict("no clear difference", f"no clear difference from {join(unclear)}"))
    beaten = "the baseline" if len(compared) == 1 else f"all {plural(len(compared), 'baseline')}"
    return marks or [Mark.from_verdict("better", f"better than {beaten}")]


def beats_all(evaluation: TaskEvaluation, method: str) -> bool | None:
    """Return whether a model is clearly better than every baseline on the primary metric; None without a baseline."""
    marks = against_baselines(evaluation, method, evaluation.primary)
    return all(mark.css == "better" for mark in marks) if marks else None


def method_table(task: TaskRecord) -> Table:
    """Return the full table of a task: every method, every metric, marked by the verdicts against every reference."""
    evaluation = task.evaluation
    columns = {name: _column(evaluation, name) for name in evaluation.metrics}
    rows = []
    for method in evaluation.methods:
        comparisons = [comparison for comparison in evaluation.comparisons if comparison.method == method.name]
        cells = []
        for name, column in columns.items():
            marks = [Mark.from_verdict(c.verdict, c.reference) for c in comparisons if c.metric == name]
            cells.append(replace(column[method.name], marks=marks))
        model, settings = method.family == "model", _settings(method.settings)
        note = _trained_shares(task, method) if model else ": ".join(filter(None, ("baseline", settings)))
        rows.append(Row(method.name, cells, note, quiet=not model))
    lower = evaluation.lower_is_better
    heads = [(metric(name), "lower is better" if name in lower else "") for name in evaluation.metrics]
    return Table(f"All methods on {evaluation.task}", "method", heads, [("", rows)], css="methods")


def difference_table(evaluation: TaskEvaluation) -> Table | None:
    """Return every comparison with its interval; None if there are none."""
    rows = []
    for c in evaluation.comparisons:
        values = [method.values[c.metric].value for method in evaluation.methods]
        difference = difference_cell((c.difference, c.low, c.high), values)
        mark = Cell("", marks=[Mark.from_verdict(c.verdict, c.verdict)])
        rows.append(Row(f"{c.method} {DASH} {c.reference}", [Cell(metric(c.metric)), difference, mark]))
    heads = [("metric", ""), ("difference", "interval"), ("verdict", "")]
    caption = "Method minus reference, over the same resamples of users"
    return Table(caption, "method and reference", heads, [("", rows)], folded=True) if rows else None


def _trained_shares(task: TaskRecord, method: MethodResult) -> str:
    """Return shares of patch and head apart, for the head of a ranking task is a whole item table."""
    bundle = task.bundle(method.name)
    if bundle is None:
        return f"{percent(method.trainable_fraction)} trained" if method.trainable_fraction is not None else ""
    parts = {
        "backbone": bundle.backbone_params,
        "patch": bundle.patch_params,
        "readout": bundle.readout_params,
        "head": bundle.head_params,
    }
    part = next((name for name, params in parts.items() if params), "head")
    text = f"{part} {percent(bundle.share(parts[part]))}"
    return text if part == "head" else f"{text} · with head {percent(bundle.share(bundle.trained_params))}"


def _settings(settings: Mapping[str, Any]) -> str:
    """Write the chosen settings of a baseline; what is as it should be (`converged: true`) needs no word."""
    parts = []
    for key, value in settings.items():
        if isinstance(value, bool):
            parts += [] if value else [f"not {key}"]
        else:
            parts.append(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}")
    return ", ".join(parts)
