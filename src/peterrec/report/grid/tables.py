"""The tables of a grid, as texts: drawn in HTML by the page, and in Markdown for the docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from peterrec.config.experiment import QuestionConfig
from peterrec.report.formatting import (
    DASH,
    digits_for,
    limits,
    metric,
    number,
    share,
    signed,
)
from peterrec.report.grid.analysis import Grid, Group, Measured, Metric, lower_is_better
from peterrec.report.grid.comparisons import Comparison, constant, kind_of
from peterrec.report.grid.conclusions import Answer, label
from peterrec.report.run.tables import Cell, Mark

FEW = 30  # users; what so few tell is greyed
KINDS = ("classification", "ranking")
ABREAST = 5  # tasks in one table


@dataclass(frozen=True)
class Row:
    """A row: its head, a word on what it is, and a cell for each column; None where there is nothing."""

    head: str
    cells: list[Cell | None]
    note: str = ""
    muted: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Table:
    """A table in words.

    Attributes:
        caption: what it shows.
        stub: what the heads of the rows are.
        columns: their heads, with a hint.
        groups: rows under a title each; one group without a title is a plain table.
        over: what the titles of the groups are.
        more: may be folded away.
    """

    caption: str
    stub: str
    columns: list[tuple[str, str]]
    groups: list[tuple[str, list[Row]]]
    over: str = "task"
    more: bool = False

    @property
    def titled(self) -> bool:
        """Whether the groups have titles."""
        return any(title for title, _ in self.groups)


@dataclass(frozen=True)
class Column:
    """What a column of measured values needs: they are compared within it."""

    values: dict[str, Measured]
    lower: bool
    digits: int = field(init=False)
    best: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        means = {name: value.mean for name, value in self.values.items()}
        goal = (min if self.lower else max)(means.values(), default=None)
        best = {name for name, mean in means.items() if mean == goal} if len(means) > 1 else set()
        object.__setattr__(self, "digits", digits_for(list(means.values())))
        object.__setattr__(self, "best", frozenset(best))

    def cell(self, name: str, marks: Sequence[Mark] = ()) -> Cell | None:
        """Return the cell of a method; None if it has no value."""
        value = self.values.get(name)
        if value is None:
            return None
        interval = limits(value.low, value.high, self.digits) if value.low is not None else ""
        spread = [_spread(value, self.digits)] if len(value.seeds) > 1 else []
        return Cell(number(value.mean, self.digits), interval, name in self.best, marks=list(marks), notes=spread)


def _spread(value: Measured, digits: int) -> str:
    low, high = min(value.seeds.values()), max(value.seeds.values())
    return f"seeds {number(low, digits)}{DASH}{number(high, digits)}, sd {number(value.sd, digits)}"


def headline(grid: Grid, answer: Answer) -> list[Table]:
    """Return methods by tasks: the primary metric at the largest share, with the verdicts.

    Tasks that do not fit into one table are shown by kind.
    """
    question = answer.question
    every = grid.tasks(question)
    kinds = [[task for task in every if kind_of(grid.config, task) == kind] for kind in KINDS]
    found = []
    for tasks in [every] if len(every) <= ABREAST else kinds:
        columns = {
            task: column(grid, question, task, max(question.label_fractions), grid.primary(task)) for task in tasks
        }
        known = {name for task in tasks for name in grid.methods(question, task, max(question.label_fractions))}
        rows = [
            row_of(grid, name, [columns[task].cell(name, _marks(grid, answer, task, name)) for task in tasks], tasks)
            for name in dict.fromkeys(question.methods)
            if name in known
        ]
        heads = [(task, metric(grid.primary(task))) for task in tasks]
        if rows:
            confidence = share(grid.config.evaluate.confidence)
            caption = f"On the test users: mean over the seeds, {confidence} interval over users, range over the seeds"
            found.append(Table(f"{caption}{of_labels(question)}", "method", heads, [("", rows)]))
    return found


def metrics(grid: Grid, question: QuestionConfig) -> list[Table]:
    """Return every metric at the largest share; a table for each kind of task."""
    found = []
    for kind in KINDS:
        tasks = [task for task in grid.tasks(question) if kind_of(grid.config, task) == kind]
        names = list(dict.fromkeys(name for task in tasks for name in grid.metrics(task)))
        groups = []
        for task in tasks:
            columns = [column(grid, question, task, max(question.label_fractions), name) for name in names]
            methods = grid.methods(question, task, max(question.label_fractions))
            rows = [row_of(grid, one, [column.cell(one) for column in columns], [task]) for one in methods]
            groups.append((task, rows))
        heads = [(metric(name), "lower is better" if lower_is_better(name) else "") for name in names]
        if any(rows for _, rows in groups):
            caption = f"All metrics of {kind}{of_labels(question)}"
            found.append(Table(caption, "method", heads, groups, more=True))
    return found


def differences(grid: Grid, answer: Answer) -> list[Table]:
    """Return every comparison that the question asks for."""
    heads = [("metric", ""), ("difference", "interval"), ("p", "after Holm"), ("seeds", ""), ("verdict", "")]
    groups: dict[str, list[Row]] = {}
    for one in answer.comparisons:
        groups.setdefault(one.task, []).append(_difference(grid, answer.question, one))
    caption = "Every difference: method minus rival, on the same test users"
    return [Table(caption, "method and rival", heads, list(groups.items()), more=True)] if groups else []


def _difference(grid: Grid, question: QuestionConfig, one: Comparison) -> Row:
    values = [grid.mean(Group(one.task, name, one.share), one.metric, one.seeds) for name in (one.method, one.rival)]
    digits = digits_for(values)
    texts = [
        Cell(metric(one.metric), "", best=False),
        Cell(signed(one.difference, digits), limits(one.low, one.high, digits, sign=True), best=False),
        Cell("< 0.001" if one.p_adjusted < 0.001 else f"{one.p_adjusted:.3f}", "", best=False),
        Cell(str(len(one.seeds)), "", best=False),
        Cell("", "", best=False, marks=[Mark.of(one.verdict, one.verdict)]),
    ]
    of = f"{share(one.share)} of the labels" if len(set(question.label_fractions)) > 1 else ""
    return Row(f"{label(grid.config, one.method)} {DASH} {label(grid.config, one.rival)}", list(texts), of)


def column(grid: Grid, question: QuestionConfig, task: str, of: float, name: Metric) -> Column:
    """Return a metric of all methods of a task at one share of labels."""
    values = {
        method: value
        for method in grid.methods(question, task, of)
        if (value := grid.measured(question, Group(task, method, of), name)) is not None
    }
    return Column(values, lower_is_better(name))


def row_of(grid: Grid, name: str, cells: list[Cell | None], tasks: Sequence[str]) -> Row:
    """Return the row of a method, with a word on baselines and rivals."""
    return Row(label(grid.config, name), cells, note_of(grid, name, tasks))


def note_of(grid: Grid, name: str, tasks: Sequence[str]) -> str:
    """Return what a method is, if it is not a network that was adapted."""
    method = grid.config.methods[name]
    if method.baseline is not None:
        return "constant baseline" if name in {constant(grid, task) for task in tasks} else "baseline"
    return "rival network" if method.rival is not None else ""


def _marks(grid: Grid, answer: Answer, task: str, name: str) -> list[Mark]:
    largest, primary = max(answer.question.label_fractions), grid.primary(task)
    return [
        Mark.of(one.verdict, label(grid.config, one.rival))
        for one in answer.comparisons
        if (one.task, one.method, one.share, one.metric) == (task, name, largest, primary)
    ]


def of_labels(question: QuestionConfig) -> str:
    """Return the share of labels that a table is about, if it is not all."""
    largest = max(question.label_fractions)
    return "" if largest == 1.0 else f"; with {share(largest)} of the labels"
