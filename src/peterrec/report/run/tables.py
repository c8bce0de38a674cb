"""The tables of a run, with marks for the best value and for the verdicts on each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peterrec.evaluation.results import MethodResult, TaskEvaluation
from peterrec.report.formatting import DASH, digits_for, join, limits, metric, number, percent, plural
from peterrec.report.run.record import BundleFacts, TaskRecord
from peterrec.report.tables import Cell, Mark, Row, Table, best_names, difference_cell


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
    columns = strategies(tasks)
    groups = []
    for task in tasks:
        models = {method.name: method for method in task.evaluation.methods if method.family == "model"}
        rows: list[Row] = []
        for name in compared_metrics(task.evaluation):
            cells = [_headline_cell(task, models.get(column), name, first=not rows) for column in columns]
            rows.append(Row(metric(name), [*cells, _baseline_cell(task.evaluation, name)]))
        groups.append((task.name, rows))
    heads = [(name, "") for name in [*columns, "best baseline"]]
    return Table("Tasks and methods", "metric", heads, groups, css="headline")


def _headline_cell(task: TaskRecord, method: MethodResult | None, name: str, *, first: bool) -> Cell:
    if method is None:
        return Cell("not tried", absent=True)
    notes = _trained_shares(method, task.bundle(method.name)) if first else []
    marks = against_baselines(task.evaluation, method.name, name)
    return _cell(task.evaluation, method, name, marks=marks, notes=[" · ".join(notes)] if notes else [])


def _baseline_cell(evaluation: TaskEvaluation, name: str) -> Cell:
    baseline = best_baseline(evaluation, name)
    if baseline is None:
        return Cell("none was fitted", absent=True)
    return _cell(evaluation, baseline, name, notes=[baseline.name])


def _cell(evaluation: TaskEvaluation, method: MethodResult, name: str, **extra: Any) -> Cell:
    values = {reference.name: reference.values[name].value for reference in evaluation.methods}
    best = best_names(values, lower=name in evaluation.lower_is_better)
    value = method.values[name]
    digits = digits_for(list(values.values()))
    interval = limits(value.low, value.high, digits)
    return Cell(number(value.value, digits), interval, method.name in best, **extra)


def against_baselines(evaluation: TaskEvaluation, method: str, name: str) -> list[Mark]:
    """Return how a model stands against all baselines: those that it does not beat, or that it beats all."""
    baselines = {reference.name for reference in evaluation.methods if reference.family == "baseline"}
    comparisons = [
        comparison
        for comparison in evaluation.comparisons
        if (comparison.method, comparison.metric) == (method, name) and comparison.reference in baselines
    ]
    if not comparisons:
        return []
    worse = [comparison.reference for comparison in comparisons if comparison.verdict == "worse"]
    unclear = [comparison.reference for comparison in comparisons if comparison.verdict == "no clear difference"]
    marks = [Mark.from_verdict("worse", f"worse than {join(worse)}")] if worse else []
    if unclear:
        marks.append(Mark.from_verdict("no clear difference", f"no clear difference from {join(unclear)}"))
    beaten = "the baseline" if len(comparisons) == 1 else f"all {plural(len(comparisons), 'baseline')}"
    return marks or [Mark.from_verdict("better", f"better than {beaten}")]


def beats_all(evaluation: TaskEvaluation, method: str) -> bool | None:
    """Return whether a model is clearly better than every baseline on the primary metric; None without a baseline."""
    marks = against_baselines(evaluation, method, evaluation.primary)
    return all(mark.css == "better" for mark in marks) if marks else None


def method_table(task: TaskRecord) -> Table:
    """Return the full table of a task: every method, every metric, marked by the verdicts against every reference."""
    evaluation = task.evaluation
    rows = []
    for method in evaluation.methods:
        comparisons = [comparison for comparison in evaluation.comparisons if comparison.method == method.name]
        cells = []
        for name in evaluation.metrics:
            marks = [Mark.from_verdict(c.verdict, c.reference) for c in comparisons if c.metric == name]
            cells.append(_cell(evaluation, method, name, marks=marks))
        baseline = method.family == "baseline"
        rows.append(Row(method.name, cells, _describe_method(task, method), quiet=baseline))
    lower = evaluation.lower_is_better
    heads = [(metric(name), "lower is better" if name in lower else "") for name in evaluation.metrics]
    return Table(f"All methods on {evaluation.task}", "method", heads, [("", rows)], css="methods")


def difference_table(evaluation: TaskEvaluation) -> Table | None:
    """Return every comparison with its interval; None if there are none."""
    rows = []
    for comparison in evaluation.comparisons:
        values = [method.values[comparison.metric].value for method in evaluation.methods]
        difference = difference_cell(comparison.difference, comparison.low, comparison.high, values)
        mark = Cell("", marks=[Mark.from_verdict(comparison.verdict, comparison.verdict)])
        compared = f"{comparison.method} {DASH} {comparison.reference}"
        rows.append(Row(compared, [Cell(metric(comparison.metric)), difference, mark]))
    heads = [("metric", ""), ("difference", "interval"), ("verdict", "")]
    caption = "Method minus reference, over the same resamples of users"
    return Table(caption, "method and reference", heads, [("", rows)], folded=True) if rows else None


def _describe_method(task: TaskRecord, method: MethodResult) -> str:
    """Describe a method: the parts that were trained, or the chosen settings of a baseline."""
    if method.family == "model":
        return " · ".join(_trained_shares(method, task.bundle(method.name)))
    settings = _settings(method.settings)
    return f"baseline: {settings}" if settings else "baseline"


def _trained_shares(method: MethodResult, bundle: BundleFacts | None) -> list[str]:
    """Return shares of patch and head apart, for the head of a ranking task is a whole item table."""
    if bundle is None:
        return [f"{percent(method.trainable_fraction)} trained"] if method.trainable_fraction is not None else []
    if bundle.backbone_params:
        return [
            f"backbone {percent(bundle.share(bundle.backbone_params))}",
            f"with head {percent(bundle.share(bundle.trained_params))}",
        ]
    if not bundle.patch_params:
        return [f"head {percent(bundle.share(bundle.head_params))}"]
    return [
        f"patch {percent(bundle.share(bundle.patch_params))}",
        f"with head {percent(bundle.share(bundle.trained_params))}",
    ]


def _settings(settings: Mapping[str, Any]) -> str:
    """Write the chosen settings of a baseline; what is as it should be (`converged: true`) needs no word."""
    parts = []
    for key, value in settings.items():
        if isinstance(value, bool):
            parts += [] if value else [f"not {key}"]
        else:
            parts.append(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}")
    return ", ".join(parts)
