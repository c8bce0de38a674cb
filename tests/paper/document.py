"""The rows of the tables of docs/paper.md that name code and tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = ("Pre-training", "Transfer", "Model patches", "What it is compared with")
NEEDS_SHARED_FILES = "tests/golden/"  # these skip where the authors' outputs are not


class Row(NamedTuple):
    """A statement of the paper, what has it and what tests it.

    Attributes:
        statement: as in the first column.
        code: names in the second column: files below src/peterrec, each before what is in it.
        tests: ids of tests in the third column.
    """

    statement: str
    code: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def files(self) -> set[str]:
        """The files of the second column."""
        return {name for name in self.code if name.endswith(".py")}

    @property
    def runnable(self) -> list[str]:
        """The tests that run in any checkout."""
        return [test for test in self.tests if not test.startswith(NEEDS_SHARED_FILES)]


def rows() -> list[Row]:
    """Read the four tables."""
    parts = re.split(r"^## (.+)$", (ROOT / "docs" / "paper.md").read_text(), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    table = []
    for section in SECTIONS:
        lines = re.findall(r"^\| (.*) \|$", sections[section], flags=re.MULTILINE)
        for line in lines[1:]:
            statement, code, tests = line.split(" | ")
            table.append(Row(statement, _names(code), tuple(n for n in _names(tests) if n.startswith("tests/"))))
    return table


def _names(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def row_of(beginning: str) -> Row:
    """Return the row whose statement begins so.

    Raises:
        ValueError: there is none, or more than one.
    """
    matching = [row for row in rows() if row.statement.startswith(beginning)]
    if len(matching) != 1:
        raise ValueError(f"{len(matching)} rows of docs/paper.md begin with {beginning!r}, not one")
    return matching[0]
