"""The numbers and conclusions of a grid, as plain values for `results.json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from peterrec.config.experiment import QuestionConfig
from peterrec.report.grid.analysis import Grid, Group, Measured, strata_names
from peterrec.report.grid.cells import CellKey
from peterrec.report.grid.comparisons import Comparison
from peterrec.report.grid.conclusions import Answer


def results_of(grid: Grid, answers: list[Answer]) -> dict[str, Any]:
    """Return all numbers and conclusions."""
    questions = grid.config.questions
    return {
        "values": [row for question in questions for row in _values(grid, question)],
        "comparisons": [_comparison(comparison) for answer in answers for comparison in answer.comparisons],
        "further_comparisons": [_comparison(comparison) for answer in answers for comparison in answer.further],
        "strata": [row for question in questions if "events" in question.sections for row in _strata(grid, question)],
        "answers": {answer.question.name: answer.short for answer in answers},
        "conclusions": {answer.question.name: answer.sentences for answer in answers},
    }


def key_values(key: CellKey) -> dict[str, Any]:
    """Return the key of a cell as plain values."""
    return {"task": key.task_path, "method": key.method, "seed": key.seed, "share": key.share}


def _values(grid: Grid, question: QuestionConfig) -> list[dict[str, Any]]:
    """Return every metric of the question's groups over its seeds, also those that no table shows."""
    rows = []
    for group in _groups(grid, question):
        names = {name for cell in grid.cells_of(question, group) for name in cell.metrics}
        for name in sorted(names | {name for estimated, name in grid.estimates if estimated == group}):
            value = grid.measured(question, group, name)
            if value is not None:
                rows.append(_value(question, group, value) | {"metric": name})
    return rows


def _strata(grid: Grid, question: QuestionConfig) -> list[dict[str, Any]]:
    """Return the primary metric on each group of users."""
    return [
        _value(question, group, value) | {"metric": grid.primary(group.task), "stratum": name}
        for group in _groups(grid, question)
        for name in strata_names(grid.config)
        if (value := grid.stratum(question, group, name)) is not None
    ]


def _groups(grid: Grid, question: QuestionConfig) -> list[Group]:
    return [
        Group(task, method, share)
        for task in grid.tasks(question)
        for method in grid.methods(question, task)
        for share in sorted(set(question.label_fractions))
        if grid.cells_of(question, Group(task, method, share))
    ]


def _comparison(comparison: Comparison) -> dict[str, Any]:
    by_seed = zip(comparison.seeds, comparison.by_seed, strict=True)
    plain = {"seeds": list(comparison.seeds), "by_seed": {str(seed): value for seed, value in by_seed}}
    return asdict(comparison) | plain


def _value(question: QuestionConfig, group: Group, value: Measured) -> dict[str, Any]:
    plain = {"mean": value.mean, "low": value.low, "high": value.high, "sd": value.sd}
    seeds = {str(seed): metric for seed, metric in value.seeds.items()}
    return {"question": question.name, **asdict(group), **plain, "seeds": seeds, "users": value.users}
