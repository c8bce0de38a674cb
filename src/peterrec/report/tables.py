"""Tables as texts: the pages draw them in HTML, the report of a grid in Markdown, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from peterrec.evaluation.intervals import Verdict
from peterrec.report.formatting import digits_for, limits, number, signed

SYMBOLS: dict[Verdict, str] = {"better": "▲", "no clear difference": "≈", "worse": "▼"}
CLASSES: dict[Verdict, str] = {"better": "better", "no clear difference": "same", "worse": "worse"}
Interval = tuple[float, float | None, float | None]  # a value and its limits


@dataclass(frozen=True)
class Mark:
    """A verdict as a reader sees it: a symbol, its CSS class, and words."""

    symbol: str
    css: str
    words: str

    @classmethod
    def from_verdict(cls, verdict: Verdict, words: str) -> Mark:
        """Return the mark of a verdict."""
        return cls(SYMBOLS[verdict], CLASSES[verdict], words)


@dataclass(frozen=True)
class Cell:
    """A value with its interval, marks and notes below it.

    `absent` values are words on why there is none; those of `few` users are greyed.
    """

    value: str
    limits: str = ""
    best: bool = False
    marks: list[Mark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    absent: bool = False
    few: bool = False


@dataclass(frozen=True)
class Row:
    """A row: its head, a word on what it is, and a cell for each column; None where there is nothing.

    The head of a `quiet` one stands back, as those of baselines do.
    """

    head: str
    cells: Sequence[Cell | None]
    note: str = ""
    quiet: bool = False


@dataclass(frozen=True)
class Table:
    """A table in words.

    Attributes:
        caption: what it shows.
        stub: heading of the rows' heads.
        columns: their heads, with a hint.
        groups: rows under a title each, the task; one group without a title is a plain table.
        folded: may be folded away.
        css: class of the table.
    """

    caption: str
    stub: str
    columns: Sequence[tuple[str, str]]
    groups: Sequence[tuple[str, Sequence[Row]]]
    folded: bool = False
    css: str = "grid"

    @property
    def titled(self) -> bool:
        """True if a group has a title."""
        return any(title for title, _ in self.groups)


def value_cells(values: Mapping[str, Interval], *, lower: bool, no_interval: str = "no interval") -> dict[str, Cell]:
    """Return the cells of a column by method, in digits that tell them apart; the best of several stands out."""
    means = [value for value, _, _ in values.values()]
    digits, best = digits_for(means), (min if lower else max)(means, default=None)
    return {
        name: Cell(
            number(value, digits),
            limits(low, high, digits) if low is not None else no_interval,
            best=value == best and len(values) > 1,
        )
        for name, (value, low, high) in values.items()
    }


def difference_cell(interval: Interval, compared: Iterable[float]) -> Cell:
    """Return a difference with its interval, in as many digits as the compared values need."""
    digits, (difference, low, high) = digits_for(compared), interval
    return Cell(signed(difference, digits), limits(low, high, digits, sign=True))
