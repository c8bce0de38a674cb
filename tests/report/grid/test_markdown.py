"""Tables in Markdown: as many cells in every line, nothing that breaks them."""

from __future__ import annotations

import re

import pytest

from peterrec.report.grid.analysis import load
from peterrec.report.grid.conclusions import conclude
from peterrec.report.grid.tables import tables_of
from peterrec.report.page import escape_markdown, render_template
from peterrec.report.tables import Cell, Mark, Row, Table
from report.grid.grid_cells import demonstration, demonstration_cells


def table_lines(table: Table) -> list[str]:
    return render_template("_table.md", {"table": table}).splitlines()


def cells_in(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line)) - 1


@pytest.mark.slow
def test_every_line_of_every_table_has_as_many_cells() -> None:
    config = demonstration()
    cells = demonstration_cells(config, users=60)
    tables = {cell.key: table for cell, table in cells}
    grid = load(config, [cell for cell, _ in cells], tables.__getitem__)
    shown = [table for answer in conclude(grid) for table in tables_of(answer)]
    assert len(shown) == 14
    for table in shown:
        lines = [line for line in table_lines(table) if line.startswith("|")]
        assert len(lines) == 2 + sum(len(rows) for _, rows in table.groups)
        assert {cells_in(line) for line in lines} == {len(table.columns) + 1 + table.titled}


def test_a_table_by_hand() -> None:
    mark = Mark.from_verdict("better", "head|x")
    row = Row("patch", [Cell("0.746", "0.7 to 0.8", best=True, marks=[mark], notes=["sd 0.01"]), None], "a note")
    table = Table("What it shows", "method", [("age", "accuracy"), ("job", "")], [("", [row])])
    assert table_lines(table) == [
        "What it shows.",
        "",
        "| method | age<br>accuracy | job |",
        "|---|---|---|",
        "| patch (a note) | **0.746**<br>0.7 to 0.8<br>sd 0.01<br>▲ head\\|x | \u2013 |",
    ]


def test_titles_of_groups_are_a_column_and_more_is_folded() -> None:
    rows = [Row(name, [Cell("1")]) for name in ("a", "b")]
    lines = table_lines(Table("T", "method", [("n", "")], [("age", rows)], folded=True))
    assert lines[0] == "<details><summary>T</summary>"
    assert lines[-1] == "</details>"
    assert lines[4:6] == ["| **age** | a | 1 |", "|  | b | 1 |"]


def test_text_stays_text() -> None:
    assert escape_markdown("<b> p < 0.001 a_b*c [x] `y` |") == r"\<b> p < 0.001 a\_b\*c \[x\] \`y\` \|"
    assert escape_markdown("two\nlines") == "two lines"
