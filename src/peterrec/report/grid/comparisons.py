"""The comparisons of methods that a question asks for, and their verdicts, corrected for their number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from peterrec.config.experiment import ExperimentConfig, QuestionConfig
from peterrec.evaluation.intervals import Interval, Verdict, verdict
from peterrec.evaluation.results import finite_or_none
from peterrec.evaluation.seed_bootstrap import holm
from peterrec.report.grid.analysis import Grid, Group, lower_is_better
from peterrec.report.grid.cells import Kind, kind_of

Role = Literal["asked", "constant", "best", "baseline"]
Pair = tuple[str, float, str, str, str]  # task, share, method, reference, metric
Family = Callable[["Comparison"], Hashable]
CONSTANT: dict[Kind, str] = {"classification": "majority", "ranking": "popularity"}
"""By kind of task: the baseline that gives every user the same answer."""


@dataclass(frozen=True)
class Comparison:
    """A method against a reference on one task, share of labels and metric: method minus reference, on the same users.

    Attributes:
        question: its name.
        role: why they are compared: `asked` by the question; with the `constant` baseline; with the `best` method; a
            patch with a baseline that stands in the same table.
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
    reference: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    p: float
    p_adjusted: float
    verdict: Verdict
    seeds: tuple[int, ...]
    by_seed: tuple[float, ...]


def question_comparisons(grid: Grid, question: QuestionConfig) -> list[Comparison]:
    """Return the question's pairs on all its tasks, shares and metrics; a family is one kind of task and metric."""
    pairs = (
        (task, share, method, reference, metric)
        for task in grid.tasks(question)
        for share in sorted(question.label_fractions, reverse=True)
        for method, reference in question.compare
        for metric in grid.paired_metrics(task)
    )
    return _compare(grid, question, "asked", pairs, lambda comparison: (comparison.kind, comparison.metric))


def against_constant(grid: Grid, question: QuestionConfig, task: str) -> list[Comparison]:
    """Return every method of a question against the constant baseline of a task, at the largest share.

    All metrics and methods are one family: `better` on any of them says that something can be told at all.
    """
    share, constant = max(question.label_fractions), constant_baseline(grid, task)
    pairs = (
        (task, share, method, constant, metric)
        for method in grid.methods(question, task, share)
        for metric in grid.paired_metrics(task)
        if constant is not None and method != constant
    )
    return _compare(grid, question, "constant", pairs)


def against_best(grid: Grid, question: QuestionConfig, task: str) -> list[Comparison]:
    """Return every method against the one with the best mean of the primary metric; a family is the task.

    The best is chosen with the numbers it is then compared by, which flatters it a little.
    """
    share, best = max(question.label_fractions), best_method(grid, question, task)
    pairs = (
        (task, share, method, best, grid.primary(task))
        for method in grid.methods(question, task, share)
        if best is not None and method != best
    )
    return _compare(grid, question, "best", pairs)


def against_baselines(grid: Grid, question: QuestionConfig) -> list[Comparison]:
    """Return each patch of a question against its baselines, as far as the question does not ask for it.

    On the primary metric, at the largest share; a family is a kind of task.
    """
    share, methods = max(question.label_fractions), grid.config.methods
    pairs = (
        (task, share, method, reference, grid.primary(task))
        for task in grid.tasks(question)
        for method in grid.methods(question, task, share)
        for reference in grid.methods(question, task, share)
        if is_patch(grid.config, method) and methods[reference].adapt is None
        if reference != constant_baseline(grid, task) and (method, reference) not in question.compare
    )
    return _compare(grid, question, "baseline", pairs, lambda comparison: comparison.kind)


def best_method(grid: Grid, question: QuestionConfig, task: str) -> str | None:
    """Return the method with the best mean of the primary metric at the largest share; the first of equal ones."""
    values = grid.measured_methods(question, task, max(question.label_fractions))
    choose = min if lower_is_better(grid.primary(task)) else max
    return choose(values, key=lambda method: values[method].mean) if values else None


def constant_baseline(grid: Grid, task: str) -> str | None:
    """Return the name of the method that is the constant baseline of a task; None if the grid has none."""
    baseline = CONSTANT[kind_of(grid.config, task)]
    return next((name for name, method in grid.config.methods.items() if method.baseline == baseline), None)


def is_patch(config: ExperimentConfig, method: str) -> bool:
    """Return whether a method trains a patch on a pre-trained backbone (the default of `adapt`)."""
    adapt = config.methods[method].adapt
    return adapt is not None and (config.adapt | adapt).get("strategy", "patch") == "patch"


def _compare(
    grid: Grid, question: QuestionConfig, role: Role, pairs: Iterable[Pair], family: Family = lambda _: ()
) -> list[Comparison]:
    """Compare the pairs that have cells, correct p-values within each family, and give the verdicts."""
    comparisons = [comparison for pair in pairs if (comparison := _difference(grid, question, role, pair))]
    families: dict[Hashable, list[int]] = defaultdict(list)
    for at, comparison in enumerate(comparisons):
        families[family(comparison)].append(at)
    for places in families.values():
        for at, p in zip(places, holm([comparisons[at].p for at in places]), strict=True):
            adjusted = replace(comparisons[at], p_adjusted=p)
            comparisons[at] = replace(adjusted, verdict=_verdict(adjusted, grid.config.evaluate.confidence))
    return comparisons


def _difference(grid: Grid, question: QuestionConfig, role: Role, pair: Pair) -> Comparison | None:
    task, share, method, reference, metric = pair
    paired = grid.pair(question, Group(task, method, share), Group(task, reference, share), metric)
    if paired is None:
        return None
    difference, p = paired.difference, paired.p
    low, high = finite_or_none(difference.low), finite_or_none(difference.high)
    names = question.name, role, task, kind_of(grid.config, task), share, method, reference, metric
    return Comparison(*names, difference.value, low, high, p, p, "no clear difference", paired.seeds, paired.by_seed)


def _verdict(comparison: Comparison, confidence: float) -> Verdict:
    if comparison.p_adjusted >= 1.0 - confidence or comparison.low is None or comparison.high is None:
        return "no clear difference"
    difference = Interval(comparison.difference, comparison.low, comparison.high)
    return verdict(difference, lower_is_better=lower_is_better(comparison.metric))
