"""The tables of a grid: metrics, differences, costs, and metrics by share of labels and by group of users."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from peterrec.config.experiment import QuestionConfig
from peterrec.evaluation.baselines import find_baseline
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
from peterrec.report.grid.analysis import Grid, Group, Measured, lower_is_better, strata_names
from peterrec.report.grid.cells import CellResult, kind_of
from peterrec.report.grid.comparisons import Comparison, constant_baseline
from peterrec.report.grid.conclusions import Answer, label
from peterrec.report.tables import Cell, Mark, Row, Table, best_names, difference_cell

FEW_USERS = 30  # values of so few users are greyed
KINDS = ("classification", "ranking")
TASKS_ABREAST = 5  # in one table
Groups = list[tuple[str, list[Row]]]
Columns = Sequence[Mapping[str, Cell]]


def tables_of(grid: Grid, answer: Answer) -> list[Table]:
    """Return the tables of a question, by what it shows."""
    question = answer.question
    makers: dict[str, Callable[[], list[Table]]] = {
        "metrics": lambda: [*_headline(grid, answer), *_metrics(grid, question)],
        "costs": lambda: _costs(grid, question),
        "label_fractions": lambda: _shares(grid, question),
        "events": lambda: _strata(grid, question),
    }
    tables = [table for name in question.sections if name in makers for table in makers[name]()]
    tables += _differences(grid, answer)
    return [table for table in tables if any(rows for _, rows in table.groups)]


def _headline(grid: Grid, answer: Answer) -> list[Table]:
    """Return methods by tasks: the primary metric at the largest share, with the verdicts.

    Tasks that do not fit into one table are shown by kind.
    """
    question = answer.question
    tasks, largest = grid.tasks(question), max(question.label_fractions)
    by_kind = [[task for task in tasks if kind_of(grid.config, task) == kind] for kind in KINDS]
    confidence = share(grid.config.evaluate.confidence)
    caption = f"On the test users: mean over the seeds, {confidence} interval over users, range over the seeds"
    tables = []
    for abreast in [tasks] if len(tasks) <= TASKS_ABREAST else by_kind:
        columns = [
            _column(
                grid.measured_methods(question, task, largest),
                lower=lower_is_better(grid.primary(task)),
                marks={name: _marks(grid, answer, task, name) for name in question.methods},
            )
            for task in abreast
        ]
        computed = {name for task in abreast for name in grid.methods(question, task, largest)}
        methods = [name for name in dict.fromkeys(question.methods) if name in computed]
        heads = [(task, metric(grid.primary(task))) for task in abreast]
        rows = _rows(grid, methods, columns, abreast)
        tables.append(Table(f"{caption}{_labels_phrase(question)}", "method", heads, [("", rows)]))
    return tables


def _metrics(grid: Grid, question: QuestionConfig) -> list[Table]:
    """Return every metric at the largest share; a table for each kind of task."""
    tables, largest = [], max(question.label_fractions)
    for kind in KINDS:
        tasks = [task for task in grid.tasks(question) if kind_of(grid.config, task) == kind]
        names = list(dict.fromkeys(name for task in tasks for name in grid.metrics(task)))
        groups: Groups = []
        for task in tasks:
            columns = [
                _column(grid.measured_methods(question, task, largest, name), lower=lower_is_better(name))
                for name in names
            ]
            groups.append((task, _rows(grid, grid.methods(question, task, largest), columns, [task])))
        heads = [(metric(name), "lower is better" if lower_is_better(name) else "") for name in names]
        tables.append(Table(f"All metrics of {kind}{_labels_phrase(question)}", "method", heads, groups, folded=True))
    return tables


def _differences(grid: Grid, answer: Answer) -> list[Table]:
    """Return every comparison that the question asks for."""
    heads = [("metric", ""), ("difference", "interval"), ("p", "after Holm"), ("seeds", ""), ("verdict", "")]
    groups: dict[str, list[Row]] = {}
    for comparison in answer.comparisons:
        groups.setdefault(comparison.task, []).append(_difference(grid, answer.question, comparison))
    caption = "Every difference: method minus reference, on the same test users"
    return [Table(caption, "method and reference", heads, list(groups.items()), folded=True)]


def _difference(grid: Grid, question: QuestionConfig, comparison: Comparison) -> Row:
    names, p = (comparison.method, comparison.reference), comparison.p_adjusted
    groups = [Group(comparison.task, name, comparison.share) for name in names]
    means = [grid.mean(group, comparison.metric, comparison.seeds) for group in groups]
    cells = [
        Cell(metric(comparison.metric)),
        difference_cell(comparison.difference, comparison.low, comparison.high, means),
        Cell("< 0.001" if p < 0.001 else f"{p:.3f}"),
        Cell(str(len(comparison.seeds))),
        Cell("", marks=[Mark.from_verdict(comparison.verdict, comparison.verdict)]),
    ]
    note = f"{share(comparison.share)} of the labels" if len(set(question.label_fractions)) > 1 else ""
    return Row(f" {DASH} ".join(label(grid.config, name) for name in names), cells, note, quiet=bool(note))


def _costs(grid: Grid, question: QuestionConfig) -> list[Table]:
    """Return what each method costs on each task: means over the seeds at the largest share."""
    heads = [
        ("trained parameters", "share of all"),
        ("stored per task", ""),
        ("time per epoch", ""),
        ("epochs", "kept"),
        ("training", "all epochs"),
        ("peak memory", "beyond the data"),
    ]
    groups: Groups = []
    jobs: set[int] = set()
    for task in grid.tasks(question):
        rows = []
        for name in grid.methods(question, task, max(question.label_fractions)):
            cells = grid.cells_of(question, Group(task, name, max(question.label_fractions)))
            jobs |= {cell.cost.jobs for cell in cells}
            rows.append(_row(grid, name, _cost(cells), [task]))
        groups.append((task, rows))
    counts = " or ".join(str(count) for count in sorted(jobs))
    load = f"with {counts} cells computed at the same time" if jobs != {1} else "one cell at a time"
    return [Table(f"What a method costs, {load}: means over the seeds", "method", heads, groups)]


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


def _shares(grid: Grid, question: QuestionConfig) -> list[Table]:
    """Return the primary metric by share of the labelled train users."""
    shares = sorted(set(question.label_fractions))
    groups: Groups = []
    for task in grid.tasks(question):
        primary = grid.primary(task)
        columns = [
            _column(grid.measured_methods(question, task, part), lower=lower_is_better(primary)) for part in shares
        ]
        groups.append((f"{task}, {metric(primary)}", _rows(grid, grid.methods(question, task), columns, [task])))
    heads = [(share(part), "") for part in shares]
    caption = "By the share of the labelled train users that are used"
    return [Table(caption, "method", heads, groups, folded=True)]


def _strata(grid: Grid, question: QuestionConfig) -> list[Table]:
    """Return the primary metric by the number of source events of the user, and by whether pre-training saw them."""
    names, largest = strata_names(grid.config), max(question.label_fractions)
    groups: Groups = []
    for task in grid.tasks(question):
        primary = grid.primary(task)
        values = [grid.measured_methods(question, task, largest, stratum=name) for name in names]
        columns = [_column(stratum, lower=lower_is_better(primary)) for stratum in values]
        users = [max((value.users or 0 for value in stratum.values()), default=0) for stratum in values]
        muted = frozenset(at for at, count in enumerate(users) if count < FEW_USERS)
        rows = _rows(grid, grid.methods(question, task, largest), columns, [task], muted)
        counts = Row("test users", [Cell(f"{count:,}") for count in users], muted=muted)
        groups.append((f"{task}, {metric(primary)}", [counts, *rows]))
    heads = [(name, "events" if name not in names[-2:] else "") for name in names]
    caption = f"By the number of source events of the user; grey: fewer than {FEW_USERS} users. Described, not tested."
    return [Table(caption, "method", heads, groups, folded=True)]


def _column(
    values: Mapping[str, Measured], *, lower: bool, marks: Mapping[str, list[Mark]] | None = None
) -> dict[str, Cell]:
    """Return the cells of one column by method: the best of them stands out, all have the same digits."""
    means = {name: value.mean for name, value in values.items()}
    digits, best = digits_for(list(means.values())), best_names(means, lower=lower)
    cells = {}
    for name, value in values.items():
        interval = limits(value.low, value.high, digits) if value.low is not None else ""
        seeds, sd = value.seeds.values(), number(value.sd, digits)
        extremes = f"{number(min(seeds), digits)}{DASH}{number(max(seeds), digits)}"
        spread = [f"seeds {extremes}, sd {sd}"] if len(seeds) > 1 else []
        cells[name] = Cell(number(value.mean, digits), interval, name in best, (marks or {}).get(name, []), spread)
    return cells


def _rows(
    grid: Grid, methods: Iterable[str], columns: Columns, tasks: Sequence[str], muted: frozenset[int] = frozenset()
) -> list[Row]:
    return [_row(grid, name, [column.get(name) for column in columns], tasks, muted) for name in methods]


def _row(
    grid: Grid, name: str, cells: Sequence[Cell | None], tasks: Sequence[str], muted: frozenset[int] = frozenset()
) -> Row:
    """Return the row of a method, with a note on baselines."""
    method = grid.config.methods[name]
    note = ""
    if method.baseline is not None:
        neural = find_baseline(method.baseline).family == "neural"
        constant = name in {constant_baseline(grid, task) for task in tasks}
        note = "neural baseline" if neural else "constant baseline" if constant else "baseline"
    return Row(label(grid.config, name), cells, note, bool(note), muted)


def _marks(grid: Grid, answer: Answer, task: str, name: str) -> list[Mark]:
    largest, primary = max(answer.question.label_fractions), grid.primary(task)
    return [
        Mark.from_verdict(comparison.verdict, label(grid.config, comparison.reference))
        for comparison in answer.comparisons
        if (comparison.task, comparison.method, comparison.share, comparison.metric) == (task, name, largest, primary)
    ]


def _labels_phrase(question: QuestionConfig) -> str:
    """Return the share of labels that a table is about, if it is not all."""
    largest = max(question.label_fractions)
    return "" if largest == 1.0 else f"; with {share(largest)} of the labels"
