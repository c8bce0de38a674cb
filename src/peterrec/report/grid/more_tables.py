"""More tables of a grid: what methods cost, and their primary metric by share of labels and by group of users."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from peterrec.config.experiment import QuestionConfig
from peterrec.report.formatting import compact, duration, metric, percent, share, size
from peterrec.report.grid.analysis import Grid, Group, lower_is_better, strata_names
from peterrec.report.grid.cells import CellResult
from peterrec.report.grid.conclusions import Answer, label
from peterrec.report.grid.tables import (
    FEW,
    Column,
    Row,
    Table,
    column,
    differences,
    headline,
    metrics,
    note_of,
    row_of,
)
from peterrec.report.run.tables import Cell


def tables_of(grid: Grid, answer: Answer) -> list[Table]:
    """Return the tables of a question, by what it shows."""
    question = answer.question
    makers: dict[str, Callable[[], list[Table]]] = {
        "metrics": lambda: [*headline(grid, answer), *metrics(grid, question)],
        "costs": lambda: costs(grid, question),
        "label_fractions": lambda: shares(grid, question),
        "events": lambda: strata(grid, question),
    }
    found = [table for name in question.sections if name in makers for table in makers[name]()]
    return [*found, *differences(grid, answer)]


def costs(grid: Grid, question: QuestionConfig) -> list[Table]:
    """Return what each method costs on each task: means over the seeds at the largest share."""
    heads = [
        ("trained parameters", "share of all"),
        ("stored per task", ""),
        ("time per epoch", ""),
        ("epochs", "kept"),
        ("training", "all epochs"),
        ("peak memory", "beyond the data"),
    ]
    groups = []
    jobs: set[int] = set()
    for task in grid.tasks(question):
        rows = []
        for name in grid.methods(question, task, max(question.label_fractions)):
            cells = grid.cells_of(question, Group(task, name, max(question.label_fractions)))
            jobs |= {cell.cost.jobs for cell in cells}
            rows.append(row_of(grid, name, _cost(cells), [task]))
        groups.append((task, rows))
    if not any(rows for _, rows in groups):
        return []
    told = " or ".join(str(one) for one in sorted(jobs))
    beside = f"with {told} cells computed at the same time" if jobs != {1} else "one cell at a time"
    return [Table(f"What a method costs, {beside}: means over the seeds", "method", heads, groups)]


def _cost(cells: Sequence[CellResult]) -> list[Cell | None]:
    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None

    trained = mean(sum(cell.cost.trained.values()) if cell.cost.trained else None for cell in cells)
    whole = mean(cell.cost.all_params for cell in cells)
    epochs = mean(len(cell.curve) or None for cell in cells)
    kept = mean(cell.best_epoch + 1 if cell.best_epoch is not None else None for cell in cells)
    of = percent(trained / whole) if trained is not None and whole else ""
    told: list[tuple[float | None, Callable[[float], str], str]] = [
        (trained, lambda value: compact(round(value)), of),
        (mean(cell.cost.stored_bytes for cell in cells), size, ""),
        (mean(cell.cost.seconds_per_epoch for cell in cells), duration, ""),
        (epochs, lambda value: f"{value:g}" if value == int(value) else f"{value:.1f}", f"{kept:.3g}" if kept else ""),
        (mean(cell.cost.seconds for cell in cells), duration, ""),
        (mean(cell.cost.peak_memory for cell in cells), size, ""),
    ]
    return [Cell(write(value), note, best=False) if value is not None else None for value, write, note in told]


def shares(grid: Grid, question: QuestionConfig) -> list[Table]:
    """Return the primary metric by share of the labelled train users."""
    found = sorted(set(question.label_fractions))
    groups = []
    for task in grid.tasks(question):
        columns = [column(grid, question, task, one, grid.primary(task)) for one in found]
        rows = [
            row_of(grid, name, [column.cell(name) for column in columns], [task])
            for name in grid.methods(question, task)
        ]
        groups.append((f"{task}, {metric(grid.primary(task))}", rows))
    heads = [(share(one), "") for one in found]
    caption = "By the share of the labelled train users that are used"
    return [Table(caption, "method", heads, groups, more=True)] if any(rows for _, rows in groups) else []


def strata(grid: Grid, question: QuestionConfig) -> list[Table]:
    """Return the primary metric by the number of source events of the user, and by whether pre-training saw them."""
    names, largest = strata_names(grid.config), max(question.label_fractions)
    groups = []
    for task in grid.tasks(question):
        methods = grid.methods(question, task, largest)
        columns = {
            name: Column(
                {m: one for m in methods if (one := grid.stratum(question, Group(task, m, largest), name)) is not None},
                lower_is_better(grid.primary(task)),
            )
            for name in names
        }
        users = {
            name: max((one.users or 0 for one in column.values.values()), default=0) for name, column in columns.items()
        }
        few = frozenset(at for at, name in enumerate(names) if users[name] < FEW)
        rows = [
            Row(label(grid.config, m), [columns[name].cell(m) for name in names], note_of(grid, m, [task]), few)
            for m in methods
        ]
        counts = Row("test users", [Cell(f"{users[name]:,}", "", best=False) for name in names], muted=few)
        groups.append((f"{task}, {metric(grid.primary(task))}", [counts, *rows]))
    heads = [(name, "events" if name not in names[-2:] else "") for name in names]
    caption = f"By the number of source events of the user; grey: fewer than {FEW} users. Described, not tested."
    return [Table(caption, "method", heads, groups, more=True)] if groups else []
