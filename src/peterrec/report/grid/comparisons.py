"""The comparisons of methods that a question asks for, and their verdicts, corrected for their number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

from peterrec.config import TaskKind
from peterrec.config.experiment import ExperimentConfig
from peterrec.evaluation.intervals import Verdict, verdict
from peterrec.evaluation.results import finite_or_none
from peterrec.evaluation.seed_bootstrap import holm
from peterrec.evaluation.statistics import LOWER_IS_BETTER
from peterrec.report.grid.analysis import QuestionResults
from peterrec.report.grid.cells import task_kinds

Role = Literal["asked", "constant", "best", "baseline"]
CONSTANT: dict[TaskKind, str] = {
    "classification": "majority",
    "ranking": "popularity",
    "regression": "median",
    "multilabel": "label shares",
}
"""By kind of task: the baseline that gives every user the same answer."""


class Pair(NamedTuple):
    """Two methods that are compared."""

    task: str
    share: float
    method: str
    reference: str
    metric: str


@dataclass(frozen=True)
class Comparison:
    """A method against a reference on one task, share of labels and metric: method minus reference, on the same users.

    In `results.json` under the same names, without the means.

    Attributes:
        question: its name.
        role: why they are compared: `asked` by the question; with the `constant` baseline; with the `best` method; a
            patch with a baseline that stands in the same table.
        low, high: limits of the interval over users, not corrected.
        p, p_adjusted: two-sided, and after Holm's correction within its family.
        verdict: clear only if the adjusted p-value is below 1 - confidence and the interval leaves out zero.
        seeds: that both have.
        by_seed: the difference of each.
        means: of the method and of the reference over these seeds.
    """

    question: str
    role: Role
    task: str
    kind: TaskKind
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
    by_seed: dict[int, float]
    means: tuple[float, float]


def question_comparisons(results: QuestionResults) -> list[Comparison]:
    """Return the question's pairs on all its tasks, shares and metrics; a family is one kind of task and metric."""
    shares = sorted(results.question.label_fractions, reverse=True)
    return _compare(results, "asked", {task: results.question.compare for task in results.tasks}, shares)


def against_constant(results: QuestionResults, task: str) -> list[Comparison]:
    """Return every method of a question against the constant baseline of a task, at the largest share.

    All metrics and methods are one family: `better` on any of them says that something can be told at all.
    """
    constant = constant_baseline(results.config, task)
    pairs = [(method, constant) for method in results.methods(task) if constant is not None and method != constant]
    return _compare(results, "constant", {task: pairs})


def against_best(results: QuestionResults, task: str) -> list[Comparison]:
    """Return every method against the one with the best mean of the primary metric; a family is the task.

    The best is chosen with the numbers it is then compared by, which flatters it a little.
    """
    best = best_method(results, task)
    pairs = [(method, best) for method in results.methods(task) if best is not None and method != best]
    return _compare(results, "best", {task: pairs})


def against_baselines(results: QuestionResults) -> list[Comparison]:
    """Return each patch of a question against its baselines, as far as the question does not ask for it.

    On the primary metric, at the largest share; a family is a kind of task.
    """
    pairs = {}
    for task in results.tasks:
        methods, constant = results.methods(task), constant_baseline(results.config, task)
        patches = [name for name in methods if is_patch(results.config, name)]
        baselines = [name for name in methods if results.config.methods[name].adapt is None and name != constant]
        pairs[task] = [pair for pair in product(patches, baselines) if pair not in results.question.compare]
    return _compare(results, "baseline", pairs)


def best_method(results: QuestionResults, task: str) -> str | None:
    """Return the method with the best mean of the primary metric at the largest share; the first of equal ones."""
    values = results.column(task)
    choose = min if results.primary(task) in LOWER_IS_BETTER else max
    return choose(values, key=lambda method: values[method].mean) if values else None


def constant_baseline(config: ExperimentConfig, task: str) -> str | None:
    """Return the name of the method that is the constant baseline of a task; None if the grid has none."""
    baseline = CONSTANT[task_kinds(config)[task]]
    return next((name for name, method in config.methods.items() if method.baseline == baseline), None)


def is_patch(config: ExperimentConfig, method: str) -> bool:
    """Return whether a method trains a patch on a pre-trained backbone (the default of `adapt`)."""
    adapt = config.methods[method].adapt
    return adapt is not None and (config.adapt | adapt).get("strategy", "patch") == "patch"


def _compare(
    results: QuestionResults, role: Role, names: Mapping[str, Sequence[tuple[str, str]]], shares: Sequence[float] = ()
) -> list[Comparison]:
    """Compare the pairs of each task that have cells, correct p-values within each family, and give the verdicts."""
    pairs = (
        Pair(task, share, method, reference, metric)
        for task, pairs_of_task in names.items()
        for share in shares or [results.largest]
        for method, reference in pairs_of_task
        for metric in (results.metrics(task) if role in ("asked", "constant") else [results.primary(task)])
    )
    differences = {pair: paired for pair in pairs if (paired := results.pair(*pair)) is not None}
    kinds, families = task_kinds(results.config), defaultdict(list)
    for pair in differences:
        families[() if role == "constant" else (kinds[pair.task], pair.metric)].append(pair)
    adjusted: dict[Pair, float] = {}
    for members in families.values():
        adjusted |= zip(members, holm([differences[pair].p for pair in members]), strict=True)
    return [
        Comparison(
            question=results.question.name,
            role=role,
            kind=kinds[pair.task],
            **pair._asdict(),
            difference=paired.difference.value,
            low=finite_or_none(paired.difference.low),
            high=finite_or_none(paired.difference.high),
            p=paired.p,
            p_adjusted=adjusted[pair],
            verdict=(
                verdict(paired.difference, lower_is_better=pair.metric in LOWER_IS_BETTER)
                if adjusted[pair] < 1.0 - results.config.evaluate.confidence
                else "no clear difference"
            ),
            seeds=tuple(paired.by_seed),
            by_seed=paired.by_seed,
            means=paired.means,
        )
        for pair, paired in differences.items()
    ]
