"""The tables of the report: which value is best, and what the verdicts say about each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peterrec.evaluation.intervals import Verdict
from peterrec.evaluation.results import Comparison, MethodResult, TaskEvaluation
from peterrec.report.formatting import digits_for, join, limits, metric, number, percent, plural, signed
from peterrec.report.run.record import BundleFacts, TaskRecord

SYMBOLS: dict[Verdict, str] = {"better": "▲", "no clear difference": "≈", "worse": "▼"}
CLASSES: dict[Verdict, str] = {"better": "better", "no clear difference": "same", "worse": "worse"}


@dataclass(frozen=True)
class Mark:
    """A verdict as a reader sees it: a symbol, its CSS class, and words."""

    symbol: str
    css: str
    words: str

    @classmethod
    def of(cls, verdict: Verdict, words: str) -> Mark:
        """Return the mark of a verdict."""
        return cls(SYMBOLS[verdict], CLASSES[verdict], words)


@dataclass(frozen=True)
class Cell:
    """A value with its interval. `name` is told only where the column does not tell the method."""

    value: str
    limits: str
    best: bool
    name: str = ""
    marks: list[Mark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class HeadlineRow:
    """One task and metric: a cell per strategy (None where it was not tried), and the best baseline."""

    task: str
    metric: str
    first: bool
    rows_of_task: int
    cells: list[Cell | None]
    baseline: Cell | None


@dataclass(frozen=True)
class MethodRow:
    """One method of a task: a cell per metric, verdicts by compared metric."""

    name: str
    family: str
    settings: str
    trained: list[str]
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Difference:
    """A comparison, written out."""

    method: str
    rival: str
    metric: str
    difference: str
    limits: str
    mark: Mark


def compared(evaluation: TaskEvaluation) -> list[str]:
    """Return the metrics that verdicts are about: the primary one, and AUC where there is one."""
    told = dict.fromkeys(one.metric for one in evaluation.verdicts)
    return [evaluation.primary, *(name for name in evaluation.metrics if name in told and name != evaluation.primary)]


def best_of(evaluation: TaskEvaluation, name: str) -> set[str]:
    """Return the methods with the best value of a metric: more than one if equal, none if there is only one method."""
    values = {method.name: method.values[name].value for method in evaluation.methods}
    if len(values) < 2:
        return set()
    goal = (min if name in evaluation.lower_is_better else max)(values.values())
    return {method for method, value in values.items() if value == goal}


def strategies(tasks: Sequence[TaskRecord]) -> list[str]:
    """Return the models of all tasks, in the order of their tables."""
    names = (method.name for task in tasks for method in task.evaluation.methods if method.family == "model")
    return list(dict.fromkeys(names))


def headline(tasks: Sequence[TaskRecord]) -> list[HeadlineRow]:
    """Return a row for each task and compared metric."""
    columns = strategies(tasks)
    rows = []
    for task in tasks:
        names = compared(task.evaluation)
        for name in names:
            models = {method.name: method for method in task.evaluation.methods if method.family == "model"}
            cells = [
                _headline_cell(task, models[column], name, first=name == names[0]) if column in models else None
                for column in columns
            ]
            baseline = best_baseline(task.evaluation, name)
            shown = _cell(task.evaluation, baseline, name, named=True) if baseline is not None else None
            rows.append(HeadlineRow(task.name, metric(name), name == names[0], len(names), cells, shown))
    return rows


def best_baseline(evaluation: TaskEvaluation, name: str) -> MethodResult | None:
    """Return the baseline with the best value of a metric, if there is any baseline."""
    baselines = [method for method in evaluation.methods if method.family == "baseline"]
    choose = min if name in evaluation.lower_is_better else max
    return choose(baselines, key=lambda method: method.values[name].value) if baselines else None


def against_baselines(evaluation: TaskEvaluation, method: str, name: str) -> list[Mark]:
    """Return what the verdicts say about a model and all baselines: what it does not beat, or that it beats all."""
    families = {one.name: one.family for one in evaluation.methods}
    mine = [one for one in evaluation.verdicts if (one.method, one.metric) == (method, name)]
    mine = [one for one in mine if families.get(one.rival) == "baseline"]
    if not mine:
        return []
    found = {
        verdict: [one.rival for one in mine if one.verdict == verdict] for verdict in ("worse", "no clear difference")
    }
    marks = []
    if found["worse"]:
        marks.append(Mark.of("worse", f"worse than {join(found['worse'])}"))
    if found["no clear difference"]:
        marks.append(Mark.of("no clear difference", f"no clear difference from {join(found['no clear difference'])}"))
    return marks or [Mark.of("better", f"better than {_all(len(mine))}")]


def beats_all(evaluation: TaskEvaluation, method: str) -> bool | None:
    """Say whether a model is clearly better than every baseline on the primary metric; None without a baseline."""
    marks = against_baselines(evaluation, method, evaluation.primary)
    return all(mark.css == "better" for mark in marks) if marks else None


def method_rows(task: TaskRecord) -> list[MethodRow]:
    """Return the full table of a task: every method, every metric."""
    evaluation = task.evaluation
    rows = []
    for method in evaluation.methods:
        bundle = task.bundle(method.name) if method.family == "model" else None
        cells = {name: _cell(evaluation, method, name, rivals=True) for name in evaluation.metrics}
        rows.append(MethodRow(method.name, method.family, _settings(method.settings), _trained(method, bundle), cells))
    return rows


def differences(evaluation: TaskEvaluation) -> list[Difference]:
    """Return every comparison with its interval."""
    rows = []
    for one in evaluation.verdicts:
        digits = _digits(evaluation, one.metric)
        rows.append(
            Difference(
                one.method,
                one.rival,
                metric(one.metric),
                signed(one.difference, digits),
                limits(one.low, one.high, digits, sign=True),
                Mark.of(one.verdict, one.verdict),
            )
        )
    return rows


def _cell(
    evaluation: TaskEvaluation, method: MethodResult, name: str, *, named: bool = False, rivals: bool = False
) -> Cell:
    value, digits = method.values[name], _digits(evaluation, name)
    mine = [one for one in evaluation.verdicts if (one.method, one.metric) == (method.name, name)]
    return Cell(
        value=number(value.value, digits),
        limits=limits(value.low, value.high, digits),
        best=method.name in best_of(evaluation, name),
        name=method.name if named else "",
        marks=[_versus(one) for one in mine] if rivals else [],
    )


def _headline_cell(task: TaskRecord, method: MethodResult, name: str, *, first: bool) -> Cell:
    cell = _cell(task.evaluation, method, name)
    marks = against_baselines(task.evaluation, method.name, name)
    notes = _trained(method, task.bundle(method.name)) if first else []
    return Cell(cell.value, cell.limits, cell.best, marks=marks, notes=notes)


def _trained(method: MethodResult, bundle: BundleFacts | None) -> list[str]:
    """Say what was trained: patch and head apart, for the head of a ranking task is a whole item table."""
    if bundle is None:
        return [f"{percent(method.trainable_fraction)} trained"] if method.trainable_fraction is not None else []
    if bundle.backbone_params:
        return [f"backbone {percent(bundle.backbone_share)}", f"with head {percent(bundle.trainable_fraction)}"]
    if not bundle.patch_params:
        return [f"head {percent(bundle.head_share)}"]
    return [f"patch {percent(bundle.patch_share)}", f"with head {percent(bundle.trainable_fraction)}"]


def _settings(settings: Mapping[str, Any]) -> str:
    """Write what was chosen for a baseline; what is as it should be (`converged: true`) needs no word."""
    told = []
    for key, value in settings.items():
        if isinstance(value, bool):
            told += [] if value else [f"not {key}"]
        else:
            told.append(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}")
    return ", ".join(told)


def _versus(one: Comparison) -> Mark:
    return Mark.of(one.verdict, one.rival)


def _digits(evaluation: TaskEvaluation, name: str) -> int:
    return digits_for([method.values[name].value for method in evaluation.methods])


def _all(baselines: int) -> str:
    return "the baseline" if baselines == 1 else f"all {plural(baselines, 'baseline')}"
