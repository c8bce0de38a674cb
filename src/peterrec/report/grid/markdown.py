"""The report's conclusions and tables in Markdown, for the docs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from peterrec.report.formatting import DASH, NBSP, duration, plural
from peterrec.report.grid.tables import Row, Table
from peterrec.report.run.tables import Cell


def markdown(context: Mapping[str, Any]) -> str:
    """Return the report as Markdown, from what the page is drawn with."""
    config, machine = context["config"], context["machine"]
    lines = [f"# {text(config.title)}", ""]
    lines += [text(config.description), ""] if config.description else []
    lines += [
        f"{context['date']:%Y-%m-%d}; {text(machine.cpu)}, {plural(machine.cores, 'core')}, computed on "
        f"{text(machine.device)}; peterrec {text(machine.peterrec)}, torch {text(machine.torch)}; seeds "
        f"{', '.join(str(seed) for seed in config.seeds)}; {plural(context['cells'], 'cell')}, "
        f"{duration(context['seconds'])} of training.",
        "",
    ]
    lines += [*(f"    {line}" for line in context["command"].splitlines()), ""] if context["command"] else []
    lines += [f"- {text(one.answer.question.text)} {text(one.answer.short)}" for one in context["sections"]]
    for one in context["sections"]:
        lines += ["", f"## {text(one.answer.question.text)}", ""]
        lines += [f"- {text(sentence)}" for sentence in one.answer.sentences]
        for table in one.tables:
            lines += ["", *table_lines(table)]
    lines += ["", "## What was not computed", "", *_absent(context)]
    lines += ["", "## How the numbers were made", ""]
    lines += [f"- {text(term)}: {text(words)}" for term, words in context["protocol"]]
    return "\n".join(lines).replace(NBSP, " ") + "\n"


def table_lines(table: Table) -> list[str]:
    """Return one table; a group's title becomes a column of its own."""
    heads = [*([table.over] if table.titled else []), table.stub]
    names = [f"{text(name)}<br>{text(hint)}" if hint else text(name) for name, hint in table.columns]
    lines = [f"| {' | '.join([*heads, *names])} |", "|".join(["", *["---"] * (len(heads) + len(names)), ""])]
    for title, rows in table.groups:
        for at, row in enumerate(rows):
            over = [f"**{text(title)}**" if at == 0 else ""] if table.titled else []
            lines.append(f"| {' | '.join([*over, _head(row), *map(_cell, row.cells)])} |")
    if not table.more:
        return [f"{text(table.caption)}.", "", *lines]
    return [f"<details><summary>{text(table.caption.rstrip('.'))}</summary>", "", *lines, "", "</details>"]


def text(words: str) -> str:
    """Return words so that Markdown shows them as they are."""
    return re.sub(r"([\\`*_\[\]|~]|<(?=[A-Za-z/!?]))", r"\\\1", words).replace("\n", " ")


def _head(row: Row) -> str:
    return f"{text(row.head)} ({text(row.note)})" if row.note else text(row.head)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return DASH
    value = f"**{text(cell.value)}**" if cell.best else text(cell.value)
    marks = [f"{one.symbol} {text(one.words)}" for one in cell.marks]
    return "<br>".join(part for part in (value, text(cell.limits), *map(text, cell.notes), *marks) if part)


def _absent(context: Mapping[str, Any]) -> list[str]:
    rows: Sequence[Mapping[str, str]] = [*context["skipped"], *context["missing"]]
    if not rows:
        return ["Everything that the questions ask for was computed."]
    told = [f"{row['task']}, {row['method']} ({row['which']}): {row['reason'] or 'not computed yet'}" for row in rows]
    return [f"- {text(line)}" for line in told]
