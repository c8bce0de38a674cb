"""Which methods a question compares, and the verdicts, corrected for how many there are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from peterrec.config.experiment import ExperimentConfig, QuestionConfig
from peterrec.evaluation.baselines import baseline_names
from peterrec.evaluation.intervals import Interval, Verdict, verdict
from peterrec.evaluation.results import finite_or_none
from peterrec.evaluation.seed_bootstrap import holm
from peterrec.report.grid.analysis import Grid, Group, asked_tasks, lower_is_better
from peterrec.report.grid.cells import CellKey

Kind = Literal["classification", "ranking"]
Role = Literal["asked", "constant", "best", "baseline"]
CONSTANT: dict[Kind, str] = {"classification": "majority", "ranking": "popularity"}
"""By kind of task: the baseline that gives every user the same answer."""


@dataclass(frozen=True)
class Comparison:
    """A method against a rival on one task, share of labels and metric: method minus rival, on the same users.

    Attributes:
        question: its name.
        role: why they are compared: `asked` by the question; with the `constant` baseline; with the `best` method; a
            patch with a `baseline` or rival that stands in the same table.
        low, high: limits of the interval over users, not corrected.
        p, p_adjusted: two-sided, and after Holm's correction within its family.
        verdict: clear only if the adjusted p-value is below 1 - confidence and the interval leaves out zero.
        seeds: that both have.
        by_seed: the difference of each.
    """

    question: str
    role: Role
    task: str
    kind: Kind
    share: float
    method: str
    rival: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    p: float
    p_adjusted: float
    verdict: Verdict
    seeds: tuple[int, ...]
    by_seed: tuple[float, ...]


def asked(grid: Grid, question: QuestionConfig) -> list[Comparison]:
    """Return the question's pairs on all its tasks, shares and metrics; a family is one kind of task and metric."""
    found = [
        one
        for task in grid.tasks(question)
        for share in sorted(question.label_fractions, reverse=True)
        for method, rival in question.compare
        for metric in grid.paired_metrics(task)
        for one in _compare(grid, question, "asked", task, share, method, rival, metric)
    ]
    return _judge(grid, found, by=lambda one: (one.kind, one.metric))


def against_constant(grid: Grid, question: QuestionConfig, task: str) -> list[Comparison]:
    """Return every method of a question against the constant baseline of a task, at the largest share.

    All metrics and methods are one family: `better` on any of them says that something can be told at all.
    """
    share, name = max(question.label_fractions), constant(grid, task)
    if name is None:
        return []
    found = [
        one
        for method in grid.methods(question, task, share)
        if method != name
        for metric in grid.paired_metrics(task)
        for one in _compare(grid, question, "constant", task, share, method, name, metric)
    ]
    return _judge(grid, found, by=lambda _: ())


def against_best(grid: Grid, question: QuestionConfig, task: str) -> list[Comparison]:
    """Return every method against the one with the best mean of the primary metric; a family is the task.

    The best is chosen with the numbers it is then compared by, which flatters it a little.
    """
    share, best = max(question.label_fractions), best_method(grid, question, task)
    found = [
        one
        for method in grid.methods(question, task, share)
        if best is not None and method != best
        for one in _compare(grid, question, "best", task, share, method, best, grid.primary(task))
    ]
    return _judge(grid, found, by=lambda _: ())


def against_baselines(grid: Grid, question: QuestionConfig) -> list[Comparison]:
    """Return each patch of a question against its baselines and rivals, as far as the question does not ask for it.

    On the primary metric, at the largest share; a family is a kind of task.
    """
    share, config = max(question.label_fractions), grid.config
    found = [
        one
        for task in grid.tasks(question)
        for method in grid.methods(question, task, share)
        if is_patch(config, method)
        for rival in grid.methods(question, task, share)
        if config.methods[rival].adapt is None
        if rival != constant(grid, task) and (method, rival) not in question.compare
        for one in _compare(grid, question, "baseline", task, share, method, rival, grid.primary(task))
    ]
    return _judge(grid, found, by=lambda one: (one.kind,))


def best_method(grid: Grid, question: QuestionConfig, task: str) -> str | None:
    """Return the method with the best mean of the primary metric at the largest share; the first of equal ones."""
    metric, share = grid.primary(task), max(question.label_fractions)
    values = {
        method: value.mean
        for method in grid.methods(question, task, share)
        if (value := grid.measured(question, Group(task, method, share), metric)) is not None
    }
    if not values:
        return None
    return (min if lower_is_better(metric) else max)(values, key=lambda method: values[method])


def constant(grid: Grid, task: str) -> str | None:
    """Return the name of the method that is the constant baseline of a task; None if the grid has none."""
    baseline = CONSTANT[kind_of(grid.config, task)]
    return next((name for name, method in grid.config.methods.items() if method.baseline == baseline), None)


def is_patch(config: ExperimentConfig, method: str) -> bool:
    """Say whether a method trains a patch on a pre-trained backbone (which is what `adapt` does if nothing is said)."""
    adapt = config.methods[method].adapt
    return adapt is not None and (config.adapt | adapt).get("strategy", "patch") == "patch"


def kind_of(config: ExperimentConfig, path: str) -> Kind:
    """Return the kind of a task: `classification` or `ranking`."""
    data, name = path.split("/")
    return next(task.kind for task in config.data[data].prepare.tasks if task.name == name)


def expected_cells(config: ExperimentConfig) -> list[CellKey]:
    """Return the cells that the questions ask for, a baseline or rival only where it suits the kind of task."""
    keys = (
        CellKey(*_parts(path), method, seed, share)
        for question in config.questions
        for path in asked_tasks(config, question)
        for method in question.methods
        if suits(config, method, kind_of(config, path))
        for share in question.label_fractions
        for seed in (config.seeds if question.seeds is None else question.seeds)
    )
    return list(dict.fromkeys(keys))


def _parts(path: str) -> tuple[str, str]:
    data, _, task = path.partition("/")
    return data, task


def suits(config: ExperimentConfig, method: str, kind: Kind) -> bool:
    """Say whether a method can be had on a kind of task."""
    one = config.methods[method]
    if one.rival == "conet":
        return kind == "ranking"
    return one.baseline is None or one.baseline in baseline_names(kind)


def _compare(
    grid: Grid, question: QuestionConfig, role: Role, task: str, share: float, method: str, rival: str, metric: str
) -> list[Comparison]:
    pair = grid.pair(question, Group(task, method, share), Group(task, rival, share), metric)
    if pair is None:
        return []
    low, high = finite_or_none(pair.difference.low), finite_or_none(pair.difference.high)
    one = Comparison(
        question=question.name,
        role=role,
        task=task,
        kind=kind_of(grid.config, task),
        share=share,
        method=method,
        rival=rival,
        metric=metric,
        difference=pair.difference.value,
        low=low,
        high=high,
        p=pair.p,
        p_adjusted=pair.p,
        verdict="no clear difference",
        seeds=pair.seeds,
        by_seed=pair.by_seed,
    )
    return [one]


def _judge(grid: Grid, found: Sequence[Comparison], by: Callable[[Comparison], Hashable]) -> list[Comparison]:
    """Correct within each family and give the verdicts, in the order given."""
    families: dict[Hashable, list[int]] = {}
    for at, one in enumerate(found):
        families.setdefault(by(one), []).append(at)
    judged = list(found)
    for places in families.values():
        for at, p in zip(places, holm([found[at].p for at in places]), strict=True):
            judged[at] = replace(found[at], p_adjusted=p, verdict=_verdict(grid, found[at], p))
    return judged


def _verdict(grid: Grid, one: Comparison, p: float) -> Verdict:
    if p >= 1.0 - grid.config.evaluate.confidence or one.low is None or one.high is None:
        return "no clear difference"
    return verdict(Interval(one.difference, one.low, one.high), lower_is_better=lower_is_better(one.metric))
