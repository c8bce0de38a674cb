"""What a grid found, as plain values for `results.json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from peterrec.config.experiment import QuestionConfig
from peterrec.report.grid.analysis import Grid, Group, Measured, strata_names
from peterrec.report.grid.cells import CellKey
from peterrec.report.grid.comparisons import Comparison
from peterrec.report.grid.conclusions import Answer


def values(grid: Grid, question: QuestionConfig) -> list[dict[str, Any]]:
    """Return every metric of the question's groups over its seeds, also those that no table shows."""
    rows = []
    for group in _groups(grid, question):
        names = {name for cell in grid.cells_of(question, group) for name in cell.metrics}
        known = {name for one, name in grid.estimates if one == group}
        for name in sorted(names | known):
            value = grid.measured(question, group, name)
            if value is not None:
                rows.append(_value(question, group, value) | {"metric": name})
    return rows


def strata(grid: Grid, question: QuestionConfig) -> list[dict[str, Any]]:
    """Return the primary metric on each group of users, where the question shows them."""
    if "events" not in question.sections:
        return []
    return [
        _value(question, group, value) | {"metric": grid.primary(group.task), "stratum": name}
        for group in _groups(grid, question)
        for name in strata_names(grid.config)
        if (value := grid.stratum(question, group, name)) is not None
    ]


def comparisons(found: list[Comparison]) -> list[dict[str, Any]]:
    """Return comparisons as plain values; `by_seed` maps a seed to its difference."""
    rows = []
    for one in found:
        row = asdict(one)
        row["seeds"] = list(one.seeds)
        row["by_seed"] = {str(seed): value for seed, value in zip(one.seeds, one.by_seed, strict=True)}
        rows.append(row)
    return rows


def gathered(grid: Grid, answers: list[Answer]) -> dict[str, Any]:
    """Return all numbers and conclusions."""
    questions = grid.config.questions
    return {
        "values": [row for question in questions for row in values(grid, question)],
        "comparisons": [row for answer in answers for row in comparisons(answer.comparisons)],
        "further_comparisons": [row for answer in answers for row in comparisons(answer.further)],
        "strata": [row for question in questions for row in strata(grid, question)],
        "answers": {answer.question.name: answer.short for answer in answers},
        "conclusions": {answer.question.name: answer.sentences for answer in answers},
    }


def key_of(key: CellKey) -> dict[str, Any]:
    """Return the key of a cell as plain values."""
    return {"task": key.task_path, "method": key.method, "seed": key.seed, "share": key.share}


def _groups(grid: Grid, question: QuestionConfig) -> list[Group]:
    return [
        group
        for task in grid.tasks(question)
        for method in grid.methods(question, task)
        for one in sorted(set(question.label_fractions))
        if grid.cells_of(question, group := Group(task, method, one))
    ]


def _value(question: QuestionConfig, group: Group, value: Measured) -> dict[str, Any]:
    return {
        "question": question.name,
        "task": group.task,
        "method": group.method,
        "share": group.share,
        "mean": value.mean,
        "low": value.low,
        "high": value.high,
        "sd": value.sd,
        "seeds": {str(seed): one for seed, one in value.seeds.items()},
        "users": value.users,
    }
