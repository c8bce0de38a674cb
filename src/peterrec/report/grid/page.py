"""The report of a grid: a page that needs nothing else, its tables in Markdown, and its numbers in JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from peterrec.config.experiment import ExperimentConfig
from peterrec.evaluation.baselines import find_baseline
from peterrec.report.formatting import join, share
from peterrec.report.grid import results_json as results
from peterrec.report.grid.analysis import Grid, load
from peterrec.report.grid.cells import CellKey, CellResult, read_users
from peterrec.report.grid.comparisons import expected_cells
from peterrec.report.grid.conclusions import Answer, conclude, label
from peterrec.report.grid.figures import panels_of
from peterrec.report.grid.markdown import markdown
from peterrec.report.grid.method_notes import protocol
from peterrec.report.grid.more_tables import tables_of
from peterrec.report.grid.tables import Table
from peterrec.report.run.figures import Panel
from peterrec.report.run.page import environment
from peterrec.report.run.record import Machine
from peterrec.storage import write_file, write_json

FIRST = 6  # sentences of a question that are seen at once


@dataclass(frozen=True)
class Section:
    """What the report says to one question; HTML and Markdown are written from it."""

    answer: Answer
    tables: list[Table]
    panels: list[list[Panel]]


@dataclass(frozen=True)
class MethodFacts:
    """A method at the end of the report: what it is, its own settings, and all those of one cell."""

    label: str
    what: str
    own: str
    of: str
    settings: str


def write_grid_report(
    config: ExperimentConfig,
    cells: list[CellResult],
    out: Path,
    *,
    machine: Machine,
    command: str,
    skipped: list[tuple[CellKey, str]],
) -> Path:
    """Write `report.html`, `results.md` and `results.json` of the cells that are finished; return the page's path.

    The same cells give the same bytes. Cells that the questions ask for and that are not there are listed as missing.

    Args:
        config: settings of the grid.
        cells: finished ones; their tables of test users lie under `out`.
        out: folder of the grid; it exists.
        machine: where the cells were computed.
        command: that computes them; empty if it was Python.
        skipped: cells that cannot be had, with the reason.

    Raises:
        ArtifactError: a table of test users is missing or damaged.
        StorageError: the disk is full or the place is not writable.
    """
    grid = load(config, cells, lambda key: read_users(out / key.folder))
    answers = conclude(grid)
    known = {*grid.cells, *(key for key, _ in skipped)}
    missing = [key for key in expected_cells(config) if key not in known]
    sections = [
        Section(answer, tables_of(grid, answer), panels_of(grid, answer.question, f"q{at}"))
        for at, answer in enumerate(answers)
    ]
    context = _context(grid, sections, machine, command, skipped, missing)
    page = environment().get_template("grid.html").render(context)
    write_json(
        out / "results.json",
        {
            "title": config.title,
            "date": context["date"].isoformat(),
            "machine": machine.model_dump(),
            "command": command,
            "seeds": list(config.seeds),
            **results.gathered(grid, answers),
            "skipped": [results.key_of(key) | {"reason": reason} for key, reason in skipped],
            "missing": [results.key_of(key) for key in missing],
        },
    )
    write_file(out / "results.md", markdown(context).encode())
    write_file(out / "report.html", page.encode())
    return out / "report.html"


def _context(
    grid: Grid,
    sections: list[Section],
    machine: Machine,
    command: str,
    skipped: list[tuple[CellKey, str]],
    missing: list[CellKey],
) -> dict[str, Any]:
    config = grid.config
    tasks = [f"{name}/{task.name}" for name, data in config.data.items() for task in data.prepare.tasks]
    return {
        "config": config,
        "sections": sections,
        "first": FIRST,
        "machine": machine,
        "command": command,
        "date": made(list(grid.cells.values())),
        "tasks": tasks,
        "cells": len(grid.cells),
        "seconds": sum(cell.cost.seconds or 0.0 for cell in grid.cells.values()),
        "skipped": _listed(config, skipped),
        "missing": _listed(config, [(key, "") for key in missing]),
        "n_missing": len(missing),
        "n_skipped": len(skipped),
        "protocol": protocol(grid),
        "methods": [_facts(grid, name) for name in config.methods],
        "notes": _notes(grid),
        "yaml": yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True),
    }


def made(cells: list[CellResult]) -> datetime:
    """Return when the last cell was finished, so that the same cells give the same report; now if that is not told."""
    dates = []
    for cell in cells:
        try:
            date = datetime.fromisoformat(cell.finished)
        except ValueError:
            continue
        dates.append(date.astimezone(UTC) if date.tzinfo is not None else date.replace(tzinfo=UTC))
    return max(dates, default=datetime.now(UTC).replace(microsecond=0))


def _listed(config: ExperimentConfig, keys: list[tuple[CellKey, str]]) -> list[dict[str, str]]:
    """Gather cells that differ in seed and share only, with one reason."""
    groups: dict[tuple[str, str, str], list[CellKey]] = {}
    for key, reason in keys:
        name = label(config, key.method) if key.method in config.methods else key.method
        groups.setdefault((key.task_path, name, reason), []).append(key)
    rows = []
    for (task, method, reason), found in groups.items():
        seeds = join([str(seed) for seed in sorted({key.seed for key in found})], most=12)
        shares = join([share(one) for one in sorted({key.share for key in found})], most=12)
        which = f"seed{'s' if len({key.seed for key in found}) > 1 else ''} {seeds}; {shares} of the labels"
        rows.append({"task": task, "method": method, "which": which, "cells": str(len(found)), "reason": reason})
    return rows


def _facts(grid: Grid, name: str) -> MethodFacts:
    method = grid.config.methods[name]
    own = method.adapt if method.adapt is not None else method.settings
    cell = next((cell for key, cell in grid.cells.items() if key.method == name and cell.settings), None)
    of = f"{cell.data}/{cell.task}, seed {cell.seed}, {share(cell.share)} of the labels" if cell is not None else ""
    settings = yaml.safe_dump(cell.settings, sort_keys=False, allow_unicode=True) if cell is not None else ""
    what = _what(grid.config, name)
    told = yaml.safe_dump(own, default_flow_style=True, allow_unicode=True, width=10_000).strip() if own else ""
    return MethodFacts(label(grid.config, name), what, told, of, settings)


def _notes(grid: Grid) -> list[str]:
    """Return what cells noted, each once, with where."""
    where: dict[str, list[str]] = {}
    for key, cell in grid.cells.items():
        for note in cell.notes:
            where.setdefault(note, []).append(f"{key.task_path} {label(grid.config, key.method)}")
    return [f"{note} ({join(list(dict.fromkeys(places)))})" for note, places in where.items()]


def _what(config: ExperimentConfig, name: str) -> str:
    method = config.methods[name]
    if method.baseline is not None:
        neural = find_baseline(method.baseline).family == "neural"
        return f"{'neural baseline' if neural else 'baseline'}: {method.baseline}"
    strategy = (config.adapt | (method.adapt or {})).get("strategy", "patch")
    return f"strategy {strategy}, backbone {method.backbone}"
