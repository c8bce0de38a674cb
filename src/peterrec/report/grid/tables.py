"""The tables of a grid: metrics, differences, costs, and metrics by share of labels and by group of users."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from peterrec.evaluation.baselines import find_baseline
from peterrec.evaluation.statistics import LOWER_IS_BETTER
from peterrec.report.formatting import (
    DASH,
    compact,
    digits_for,
    duration,
    limits,
    metric,
    number,
    percent,
    share,
    size,
)
from peterrec.report.grid.analysis import Measured, QuestionResults, label, strata_names
from peterrec.report.grid.cells import CellResult, kind_of
from peterrec.report.grid.comparisons import CONSTANT, Comparison
from peterrec.report.grid.conclusions import Answer
from peterrec.report.tables import Cell, Mark, Row, Table, best_names, difference_cell

FEW_USERS = 30  # values of so few users are greyed
KINDS = ("classification", "ranking")
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
    results = answer.results
    config, tasks, largest = results.config, results.tasks, results.largest
    by_kind = [[task for task in tasks if kind_of(config, task) == kind] for kind in KINDS]
    confidence = share(config.evaluate.confidence)
    caption = f"On the test users: mean over the seeds, {confidence} interval over users, range over the seeds"
    tables = []
    for abreast in [tasks] if len(tasks) <= TASKS_ABREAST else by_kind:
        computed = {name for task in abreast for name in results.methods(task, largest)}
        methods = [name for name in results.question.methods if name in computed]
        columns = [results.column(task, largest) for task in abreast]
        heads = [(task, metric(results.grid.primary(task))) for task in abreast]
        rows = _rows(results, methods, columns, answer.comparisons)
        tables.append(Table(f"{caption}{_labels_phrase(results)}", "method", heads, [("", rows)]))
    return tables


def _metrics(results: QuestionResults) -> list[Table]:
    """Return every metric at the largest share; a table for each kind of task."""
    tables = []
    for kind in KINDS:
        tasks = [task for task in results.tasks if kind_of(results.config, task) == kind]
        names = list(dict.fromkeys(name for task in tasks for name in results.grid.metrics(task)))
        groups = []
        for task in tasks:
            columns = [results.column(task, results.largest, name) for name in names]
            groups.append((task, _rows(results, results.methods(task, results.largest), columns)))
        heads = [(metric(name), "lower is better" if name in LOWER_IS_BETTER else "") for name in names]
        caption = f"All metrics of {kind}{_labels_phrase(results)}"
        tables.append(Table(caption, "method", heads, groups, folded=True))
    return tables


def _differences(answer: Answer) -> Table:
    """Return every comparison that the question asks for."""
    heads = [("metric", ""), ("difference", "interval"), ("p", "after Holm"), ("seeds", ""), ("verdict", "")]
    groups: dict[str, list[Row]] = {}
    for comparison in answer.comparisons:
        groups.setdefault(comparison.task, []).append(_difference(answer.results, comparison))
    caption = "Every difference: method minus reference, on the same test users"
    return Table(caption, "method and reference", heads, list(groups.items()), folded=True)


def _difference(results: QuestionResults, comparison: Comparison) -> Row:
    p = comparison.p_adjusted
    cells = [
        Cell(metric(comparison.metric)),
        difference_cell(comparison.difference, comparison.low, comparison.high, comparison.means),
        Cell("< 0.001" if p < 0.001 else f"{p:.3f}"),
        Cell(str(len(comparison.seeds))),
        Cell("", marks=[Mark.from_verdict(comparison.verdict, comparison.verdict)]),
    ]
    names = f" {DASH} ".join(label(results.config, name) for name in (comparison.method, comparison.reference))
    note = f"{share(comparison.share)} of the labels" if len(results.question.label_fractions) > 1 else ""
    return Row(names, cells, note, quiet=bool(note))


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
    trained_share = percent(trained / parameters) if trained is not None and parameters else ""
    columns: list[tuple[float | None, Callable[[float], str], str]] = [
        (trained, lambda value: compact(round(value)), trained_share),
        (mean(cost.stored_bytes for cost in costs), size, ""),
        (mean(cost.seconds_per_epoch for cost in costs), duration, ""),
        (mean(len(result.curve) or None for result in cells), _epochs, f"{best_epoch:.3g}" if best_epoch else ""),
        (mean(cost.seconds for cost in costs), duration, ""),
        (mean(cost.peak_memory for cost in costs), size, ""),
    ]
    return [Cell(write(value), note) if value is not None else None for value, write, note in columns]


def _epochs(count: float) -> str:
    return f"{count:g}" if count == int(count) else f"{count:.1f}"


def _shares(results: QuestionResults) -> Table:
    """Return the primary metric by share of the labelled train users."""
    shares = sorted(results.question.label_fractions)
    groups = []
    for task in results.tasks:
        rows = _rows(results, results.methods(task), [results.column(task, part) for part in shares])
        groups.append((f"{task}, {metric(results.grid.primary(task))}", rows))
    caption = "By the share of the labelled train users that are used"
    return Table(caption, "method", [(share(part), "") for part in shares], groups, folded=True)


def _strata(results: QuestionResults) -> Table:
    """Return the primary metric by the number of source events of the user, and by whether pre-training saw them."""
    names = strata_names(results.config)
    groups = []
    for task in results.tasks:
        columns = [results.column(task, results.largest, stratum=name) for name in names]
        users = [users_of(column) for column in columns]
        muted = frozenset(at for at, count in enumerate(users) if count < FEW_USERS)
        rows = _rows(results, results.methods(task, results.largest), columns, muted=muted)
        counts = Row("test users", [Cell(f"{count:,}") for count in users], muted=muted)
        groups.append((f"{task}, {metric(results.grid.primary(task))}", [counts, *rows]))
    heads = [(name, "events" if name not in names[-2:] else "") for name in names]
    caption = f"By the number of source events of the user; grey: fewer than {FEW_USERS} users. Described, not tested."
    return Table(caption, "method", heads, groups, folded=True)


def users_of(column: Mapping[str, Measured]) -> int:
    """Return how many test users the values are of, at most."""
    return max((value.users or 0 for value in column.values()), default=0)


def _rows(
    results: QuestionResults,
    methods: Iterable[str],
    columns: Sequence[Mapping[str, Measured]],
    comparisons: Sequence[Comparison] = (),
    muted: frozenset[int] = frozenset(),
) -> list[Row]:
    """Return a row for each method, with the verdicts of some comparisons as marks of what they are about."""
    cells = [_cells(results, column, comparisons) for column in columns]
    return [_row(results, name, [column.get(name) for column in cells], muted) for name in methods]


def _cells(
    results: QuestionResults, values: Mapping[str, Measured], comparisons: Sequence[Comparison]
) -> dict[str, Cell]:
    """Return the cells of one column by method: the best of them stands out, all have the same digits."""
    means = {name: value.mean for name, value in values.items()}
    lower = any(value.metric in LOWER_IS_BETTER for value in values.values())
    digits, best = digits_for(means.values()), best_names(means, lower=lower)
    cells = {}
    for name, value in values.items():
        interval = limits(value.low, value.high, digits) if value.low is not None else ""
        marks = [
            Mark.from_verdict(c.verdict, label(results.config, c.reference))
            for c in comparisons
            if (c.task, c.method, c.share, c.metric) == (value.task, name, value.share, value.metric)
        ]
        spread = []
        if value.sd is not None:
            low, high = (number(extreme(value.seeds.values()), digits) for extreme in (min, max))
            spread.append(f"seeds {low}{DASH}{high}, sd {number(value.sd, digits)}")
        cells[name] = Cell(number(value.mean, digits), interval, name in best, marks, spread)
    return cells


def _row(results: QuestionResults, name: str, cells: Sequence[Cell | None], muted: frozenset[int] = frozenset()) -> Row:
    """Return the row of a method, with a note on baselines."""
    note, baseline = "", results.config.methods[name].baseline
    if baseline is not None:
        neural, constant = find_baseline(baseline).family == "neural", baseline in CONSTANT.values()
        note = "neural baseline" if neural else "constant baseline" if constant else "baseline"
    return Row(label(results.config, name), cells, note, bool(note), muted)


def _labels_phrase(results: QuestionResults) -> str:
    """Return the share of labels that a table is about, if it is not all."""
    return "" if results.largest == 1.0 else f"; with {share(results.largest)} of the labels"
