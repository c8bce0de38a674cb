"""The report of a grid: a page that needs nothing else, its tables in Markdown, and its numbers in JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from peterrec.config.experiment import ExperimentConfig
from peterrec.evaluation.baselines import find_baseline
from peterrec.report.formatting import NBSP, join, share
from peterrec.report.grid.analysis import Grid, label, load
from peterrec.report.grid.cells import CellKey, CellResult, expected_cells, read_users, task_kinds
from peterrec.report.grid.comparisons import Comparison
from peterrec.report.grid.conclusions import Answer, conclude
from peterrec.report.grid.figures import maps_of, panels_of
from peterrec.report.grid.tables import tables_of
from peterrec.report.page import render_paragraphs, render_template
from peterrec.report.run.record import Machine
from peterrec.storage import write_file, write_json

FIRST = 6  # sentences of a question that are seen at once


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
    absent = {*grid.cells, *dict(skipped)}
    missing = [key for key in expected_cells(config) if key not in absent]
    context = {
        "config": config,
        "sections": [
            {
                "answer": answer,
                "maps": maps_of(answer, f"q{at}"),
                "tables": tables_of(answer),
                "panels": panels_of(answer.results, f"q{at}"),
            }
            for at, answer in enumerate(answers)
        ],
        "first": FIRST,
        "machine": machine,
        "command": command,
        "date": last_finished(list(grid.cells.values())),
        "tasks": task_kinds(config),
        "cells": len(grid.cells),
        "seconds": sum(cell.cost.seconds or 0.0 for cell in grid.cells.values()),
        "skipped": _merge_cells(config, skipped),
        "missing": _merge_cells(config, [(key, "") for key in missing]),
        "n_missing": len(missing),
        "protocol": protocol(config),
        "methods": [_method_facts(grid, name) for name in config.methods],
        "notes": _notes(grid),
        "yaml": _dump(config.model_dump(mode="json", exclude_unset=True)),
    }
    page, markdown = render_template("grid.html", context), render_template("grid.md", context)
    results = _results(context, answers) | {
        "skipped": [_key_values(key) | {"reason": reason} for key, reason in skipped],
        "missing": [_key_values(key) for key in missing],
    }
    write_json(out / "results.json", results)
    write_file(out / "results.md", markdown.replace(NBSP, " ").encode())
    write_file(out / "report.html", page.encode())
    return out / "report.html"


def _results(context: dict[str, Any], answers: list[Answer]) -> dict[str, Any]:
    """Return all numbers and conclusions, as plain values for `results.json`."""
    values = [asdict(value) for answer in answers for value in answer.results.values]
    return {
        "title": context["config"].title,
        "date": context["date"].isoformat(),
        "machine": context["machine"].model_dump(),
        "command": context["command"],
        "seeds": context["config"].seeds,
        "values": [{k: v for k, v in value.items() if k != "stratum"} for value in values if not value["stratum"]],
        "comparisons": [_comparison(comparison) for answer in answers for comparison in answer.comparisons],
        "further_comparisons": [_comparison(comparison) for answer in answers for comparison in answer.further],
        "maps": [asdict(task_map) for answer in answers for task_map in answer.maps],
        "strata": [value for value in values if value["stratum"]],
        "answers": {answer.results.question.name: answer.short for answer in answers},
        "conclusions": {answer.results.question.name: answer.sentences for answer in answers},
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {name: value for name, value in asdict(comparison).items() if name != "means"}


def _key_values(key: CellKey) -> dict[str, Any]:
    return {"task": key.task_path, "method": key.method, "seed": key.seed, "share": key.share}


def last_finished(cells: Sequence[CellResult]) -> datetime:
    """Return when the last cell was finished, so that the same cells give the same report; now if no cell says so."""
    dates = []
    for cell in cells:
        try:
            date = datetime.fromisoformat(cell.finished)
        except ValueError:
            continue
        dates.append(date.astimezone(UTC) if date.tzinfo is not None else date.replace(tzinfo=UTC))
    return max(dates, default=datetime.now(UTC).replace(microsecond=0))


def protocol(config: ExperimentConfig) -> list[tuple[str, str]]:
    """Return what a reader must know to trust the numbers, as terms and explanations."""
    splits = {data.prepare.split for data in config.data.values()}
    context = {
        "config": config,
        "kinds": task_kinds(config).values(),
        "splits": sorted({f"{100 * s.train:g}/{100 * s.valid:g}/{100 * s.test:g}" for s in splits}),
    }
    pairs = (paragraph.partition(": ") for paragraph in render_paragraphs("protocol.txt", context))
    return [(term, words) for term, _, words in pairs]


def _merge_cells(config: ExperimentConfig, keys: list[tuple[CellKey, str]]) -> list[dict[str, str]]:
    """Return a row for the cells that differ in seed and share only, with one reason."""
    groups: dict[tuple[str, str, str], list[CellKey]] = defaultdict(list)
    for key, reason in keys:
        name = label(config, key.method) if key.method in config.methods else key.method
        groups[key.task_path, name, reason].append(key)
    rows = []
    for (task, method, reason), merged in groups.items():
        seeds = [str(seed) for seed in sorted({key.seed for key in merged})]
        shares = join([share(part) for part in sorted({key.share for key in merged})], limit=12)
        which = f"seed{'s' if len(seeds) > 1 else ''} {join(seeds, limit=12)}; {shares} of the labels"
        rows.append({"task": task, "method": method, "which": which, "cells": str(len(merged)), "reason": reason})
    return rows


def _method_facts(grid: Grid, name: str) -> dict[str, str]:
    """Return a method at the end of the report: a description, the settings that make it, all settings of one cell."""
    method = grid.config.methods[name]
    strategy = (grid.config.adapt | (method.adapt or {})).get("strategy", "patch")
    description = f"strategy {strategy}, backbone {method.backbone}"
    if method.baseline is not None:
        neural = find_baseline(method.baseline).family == "neural"
        description = f"{'neural baseline' if neural else 'baseline'}: {method.baseline}"
    changes = method.adapt if method.adapt is not None else method.settings
    flow = yaml.safe_dump(changes, default_flow_style=True, allow_unicode=True, width=10_000).strip() if changes else ""
    facts = {"label": label(grid.config, name), "description": description, "changes": flow, "settings": ""}
    cell = next((cell for key, cell in grid.cells.items() if key.method == name and cell.settings), None)
    if cell is not None:
        facts["cell"] = f"{cell.key.task_path}, seed {cell.seed}, {share(cell.share)} of the labels"
        facts["settings"] = _dump(cell.settings)
    return facts


def _notes(grid: Grid) -> list[str]:
    """Return the notes of the cells, each once, with the cells that have it."""
    places: dict[str, list[str]] = defaultdict(list)
    for key, cell in grid.cells.items():
        for note in cell.notes:
            places[note].append(f"{key.task_path} {label(grid.config, key.method)}")
    return [f"{note} ({join(list(dict.fromkeys(noted)))})" for note, noted in places.items()]


def _dump(values: Any) -> str:
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
