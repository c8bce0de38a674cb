"""The tables of a grid: metrics, differences, costs, and metrics by share of labels and by group of users."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from peterrec.config import TaskKind
from peterrec.evaluation.baselines import find_baseline
from peterrec.evaluation.statistics import LOWER_IS_BETTER
from peterrec.report.formatting import (
    DASH,
    compact,
    digits_for,
    duration,
    metric,
    number,
    percent,
    share,
    size,
)
from peterrec.report.grid.analysis import Measured, QuestionResults, label, strata_names
from peterrec.report.grid.cells import CellResult, task_kinds
from peterrec.report.grid.comparisons import CONSTANT, Comparison
from peterrec.report.grid.conclusions import Answer
from peterrec.report.tables import Cell, Mark, Row, Table, difference_cell, value_cells

FEW_USERS = 30  # values of so few users are greyed
TASKS_ABREAST = 5  # in one table
COSTS = [
    ("trained parameters", "share of all"),
    ("stored per task", ""),
    ("time per epoch", ""),
    ("epochs", "kept"),
    ("training", "all epochs"),
    ("peak memory", "beyond the data"),
]


def tables_of(answer: Answer) -> list[Table]:
    """Return the tables of a question, by what it shows."""
    results = answer.results
    makers: dict[str, Callable[[], list[Table]]] = {
        "metrics": lambda: [*_headline(answer), *_metrics(results)],
        "costs": lambda: [_costs(results)],
        "label_fractions": lambda: [_shares(results)],
        "events": lambda: [_strata(results)],
    }
    tables = [table for name in results.question.sections if name in makers for table in makers[name]()]
    tables.append(_differences(answer))
    return [table for table in tables if any(rows for _, rows in table.groups)]


def _headline(answer: Answer) -> list[Table]:
    """Return methods by tasks: the primary metric at the largest share, with the verdicts.

    Tasks that do not fit into one table are shown by kind.
    """
    results, tasks = answer.results, answer.results.tasks
    confidence = share(results.config.evaluate.confidence)
    caption = f"On the test users: mean over the seeds, {confidence} interval over users, range over the seeds"
    tables = []
    for abreast in [tasks] if len(tasks) <= TASKS_ABREAST else _by_kind(results).values():
        computed = {name for task in abreast for name in results.methods(task)}
        methods = [name for name in results.question.methods if name in computed]
        heads = [(task, metric(results.primary(task))) for task in abreast]
        rows = _rows(results, methods, [results.column(task) for task in abreast], answer.comparisons)
        tables.append(Table(f"{caption}{_labels_phrase(results)}", "method", heads, [("", rows)]))
    return tables


def _metrics(results: QuestionResults) -> list[Table]:
    """Return every metric at the largest share; a table for each kind of task."""
    tables = []
    for kind, tasks in _by_kind(results).items():
        names = list(dict.fromkeys(name for task in tasks for name in results.metrics(task)))
        heads = [(metric(name), "lower is better" if name in LOWER_IS_BETTER else "") for name in names]
        columns = {task: [results.column(task, name) for name in names] for task in tasks}
        groups = [(task, _rows(results, results.methods(task), columns[task])) for task in tasks]
        caption = f"All metrics of {kind}{_labels_phrase(results)}"
        tables.append(Table(caption, "method", heads, groups, folded=True))
    return tables


def _by_kind(results: QuestionResults) -> dict[str, list[str]]:
    kinds = task_kinds(results.config)
    return {kind: [task for task in results.tasks if kinds[task] == kind] for kind in get_args(TaskKind)}


def _differences(answer: Answer) -> Table:
    """Return every comparison that the question asks for."""
    config, question = answer.results.config, answer.results.question
    heads = [("metric", ""), ("difference", "interval"), ("p", "after Holm"), ("seeds", ""), ("verdict", "")]
    groups: dict[str, list[Row]] = {}
    for c in answer.comparisons:
        cells = [
            Cell(metric(c.metric)),
            difference_cell((c.difference, c.low, c.high), c.means),
            Cell("< 0.001" if c.p_adjusted < 0.001 else f"{c.p_adjusted:.3f}"),
            Cell(str(len(c.seeds))),
            Cell("", marks=[Mark.from_verdict(c.verdict, c.verdict)]),
        ]
        names = f"{label(config, c.method)} {DASH} {label(config, c.reference)}"
        note = f"{share(c.share)} of the labels" if len(question.label_fractions) > 1 else ""
        groups.setdefault(c.task, []).append(Row(names, cells, note, quiet=bool(note)))
    caption = "Every difference: method minus reference, on the same test users"
    return Table(caption, "method and reference", heads, list(groups.items()), folded=True)


def _costs(results: QuestionResults) -> Table:
    """Return what each method costs on each task: means over the seeds at the largest share."""
    groups: dict[str, list[Row]] = {}
    jobs: set[int] = set()
    for (task, name, part), cells in results.cells.items():
        if part == results.largest:
            jobs |= {cell.cost.jobs for cell in cells}
            groups.setdefault(task, []).append(_row(results, name, _cost(cells)))
    counts = " or ".join(str(count) for count in sorted(jobs))
    load = f"with {counts} cells computed at the same time" if jobs != {1} else "one cell at a time"
    return Table(f"What a method costs, {load}: means over the seeds", "method", COSTS, list(groups.items()))


def _cost(cells: Sequence[CellResult]) -> list[Cell | None]:
    def mean(values: Iterable[float | None]) -> float | None:
        present = [value for value in values if value is not None]
        return statistics.fmean(present) if present else None

    costs = [result.cost for result in cells]
    trained = mean(sum(cost.trained.values()) if cost.trained else None for cost in costs)
    parameters = mean(cost.all_params for cost in costs)
    best_epoch = mean(result.best_epoch + 1 if result.best_epoch is not None else None for result in cells)
    epochs = mean(len(result.curve) if result.best_epoch is not None else None for result in cells)  # 0: the start
    trained_share = percent(trained / parameters) if trained is not None and parameters else ""
    columns: list[tuple[float | None, Callable[[float], str], str]] = [
        (trained, lambda value: compact(round(value)), trained_share),
        (mean(cost.stored_bytes for cost in costs), size, ""),
        (mean(cost.seconds_per_epoch for cost in costs), duration, ""),
        (epochs, _epochs, f"{best_epoch:.3g}" if best_epoch is not None else ""),
        (mean(cost.seconds for cost in costs), duration, ""),
        (mean(cost.peak_memory for cost in costs), size, ""),
    ]
    return [Cell(write(value), note) if value is not None else None for value, write, note in columns]


def _epochs(count: float) -> str:
    return f"{count:g}" if count == int(count) else f"{count:.1f}"


def _shares(results: QuestionResults) -> Table:
    """Return the primary metric by share of the labelled train users."""
    groups, shares = [], sorted(results.question.label_fractions)
    for task in results.tasks:
        rows = _rows(results, results.methods(task, shares), results.by_share(task).values())
        groups.append((f"{task}, {metric(results.primary(task))}", rows))
    caption = "By the share of the labelled train users that are used"
    return Table(caption, "method", [(share(part), "") for part in shares], groups, folded=True)


def _strata(results: QuestionResults) -> Table:
    """Return the primary metric by the number of source events of the user, and by whether pre-training saw them."""
    groups = []
    for task in results.tasks:
        columns = results.by_stratum(task).values()
        users = [users_of(column) for column in columns]
        counts = Row("test users", [Cell(f"{count:,}", few=count < FEW_USERS) for count in users])
        rows = _rows(results, results.methods(task), columns)
        groups.append((f"{task}, {metric(results.primary(task))}", [counts, *rows]))
    *by_events, in_pretraining, not_in_it = strata_names(results.config)
    heads = [*((name, "events") for name in by_events), (in_pretraining, ""), (not_in_it, "")]
    caption = f"By the number of source events of the user; grey: fewer than {FEW_USERS} users. Described, not tested."
    return Table(caption, "method", heads, groups, folded=True)


def users_of(column: Mapping[str, Measured]) -> int:
    """Return how many test users the values are of, at most."""
    return max((value.users or 0 for value in column.values()), default=0)


def _rows(
    results: QuestionResults,
    methods: Iterable[str],
    columns: Iterable[Mapping[str, Measured]],
    comparisons: Sequence[Comparison] = (),
) -> list[Row]:
    """Return a row for each method, with the verdicts of some comparisons as marks of what they are about."""
    cells = [_cells(results, column, comparisons) for column in columns]
    return [_row(results, name, [column.get(name) for column in cells]) for name in methods]


def _cells(
    results: QuestionResults, values: Mapping[str, Measured], comparisons: Sequence[Comparison]
) -> dict[str, Cell]:
    """Return the cells of one column by method, with the range over the seeds."""
    intervals = {name: (value.mean, value.low, value.high) for name, value in values.items()}
    lower = any(value.metric in LOWER_IS_BETTER for value in values.values())
    digits = digits_for(value.mean for value in values.values())
    few = any(value.stratum for value in values.values()) and users_of(values) < FEW_USERS
    cells = value_cells(intervals, lower=lower, no_interval="")
    for name, value in values.items():
        marks = [
            Mark.from_verdict(c.verdict, label(results.config, c.reference))
            for c in comparisons
            if (c.task, c.method, c.share, c.metric) == (value.task, name, value.share, value.metric)
        ]
        spread = []
        if value.sd is not None:
            low, high = (number(extreme(value.seeds.values()), digits) for extreme in (min, max))
            spread.append(f"seeds {low}{DASH}{high}, sd {number(value.sd, digits)}")
        cells[name] = replace(cells[name], marks=marks, notes=spread, few=few)
    return cells


def _row(results: QuestionResults, name: str, cells: Sequence[Cell | None]) -> Row:
    """Return the row of a method, with a note on baselines."""
    note, baseline = "", results.config.methods[name].baseline
    if baseline is not None:
        neural, constant = find_baseline(baseline).family == "neural", baseline in CONSTANT.values()
        note = "neural baseline" if neural else "constant baseline" if constant else "baseline"
    return Row(label(results.config, name), cells, note, bool(note))


def _labels_phrase(results: QuestionResults) -> str:
    """Return the share of labels that a table is about, if it is not all."""
    return "" if results.largest == 1.0 else f"; with {share(results.largest)} of the labels"
