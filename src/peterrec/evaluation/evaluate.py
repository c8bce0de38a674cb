"""Evaluation of models and baselines on the test users of a task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from peterrec.config import EvaluateConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.sequences import Sequences
from peterrec.errors import DataError, TaskError
from peterrec.evaluation.baselines import FittedBaselines, fit_baselines
from peterrec.evaluation.decision_statistics import describe_decisions
from peterrec.evaluation.intervals import Estimate, Resamples, Statistic, bootstrap, paired_difference, verdict
from peterrec.evaluation.outcomes import PROTOCOLS, test_users_of
from peterrec.evaluation.reliability import Bin
from peterrec.evaluation.results import (
    Comparison,
    EvaluationProtocol,
    MethodResult,
    MetricEstimate,
    ReliabilityBin,
    TaskEvaluation,
    finite_or_none,
)
from peterrec.evaluation.scorers import Scorer, settings_of
from peterrec.evaluation.sentence import describe
from peterrec.evaluation.statistics import LOWER_IS_BETTER

logger = logging.getLogger(__name__)

ALSO_COMPARED = ("auc", "rmse", "pinball", "macro_ap")  # beside the primary metric, where there is such a one

Estimates = dict[tuple[str, str], Estimate]


@dataclass(frozen=True)
class _MethodStatistics:
    """Statistics by metric of one method, and the number of rows that they are means over."""

    statistics: dict[str, Statistic]
    rows: int
    reliability: list[Bin]


def evaluate_task(
    task: Task,
    scorers: Mapping[str, Scorer],
    config: EvaluateConfig,
    *,
    notes: Sequence[str] = (),
    unlabelled: Sequences | None = None,
) -> TaskEvaluation:
    """Evaluate models on the test users of a task, next to baselines fitted on its train users (paper, section 4).

    Every method meets the same users, sampled negatives and resamples, so differences are paired.

    Args:
        task: as prepared.
        scorers: models by name, in the order of the table, with the method that `PROTOCOLS` names for the kind of task.
        config: cut-off, resamples, whether to fit baselines.
        notes: in words, what is to be known about the comparison; the result has them.
        unlabelled: histories that baselines may learn from without labels, such as those of all users of the corpus;
            None: those of the train users.

    Raises:
        TaskError: no test users, a model with the name of a baseline, or one that cannot score this kind of task.
        DataError: scores that are NaN or do not fit the task; the message names the method.
    """

    def log(step: str) -> None:
        logger.info("%s: %s", task.name, step)

    test = test_users_of(task)
    quantiles, quantile_notes = shared_quantiles(scorers)
    fitted = _baselines(task, config, unlabelled, quantiles, log)
    methods: dict[str, Scorer] = dict(scorers)
    for baseline in fitted.baselines:
        if baseline.name in methods:
            raise TaskError(f"a model has the name of a baseline: {baseline.name!r}", remedy="name it otherwise")
        methods[baseline.name] = baseline
    evaluated: dict[str, _MethodStatistics] = {}
    for name, method in methods.items():
        log(f"scoring {len(test):,} test users: {name}")
        evaluated[name] = _evaluate_method(task, test, name, method, config)
    log(f"drawing {config.bootstrap:,} resamples of the test users")
    statistics = {
        (name, metric): statistic
        for name, method_statistics in evaluated.items()
        for metric, statistic in method_statistics.statistics.items()
    }
    estimates = bootstrap(statistics, Resamples(len(test), config.bootstrap, config.seed))
    intervals = {place: estimate.interval(config.confidence) for place, estimate in estimates.items()}
    decisions = {name: getattr(method, "decision", None) for name, method in scorers.items()}
    decided = describe_decisions(decisions, intervals)
    notes = [*notes, *quantile_notes, *_repeats(task, test), *decided]
    report = _report(task, len(test), methods, list(scorers), evaluated, estimates, config, (*fitted.notes, *notes))
    return report.model_copy(update={"notes": notes})


def _repeats(task: Task, test: TaskPart) -> list[str]:
    """Return in words how many targets are in the user's own history, and whether such items are left out."""
    if test.targets is None or test.seen_targets is None or task.targets is None:
        return []
    width = len(task.targets)
    repeats = np.isin(
        test.targets.repeat() * width + test.targets.items, test.seen_targets.repeat() * width + test.seen_targets.items
    ).sum()
    if not repeats:
        return []
    treated = "left out of the rankings" if task.exclude_seen else "ranked"
    total = f"{repeats:,} of {len(test.targets.items):,} targets"
    return [f"{total} are in the user's own history; such items are {treated}, as `recommend` does by default"]


def shared_quantiles(scorers: Mapping[str, Scorer]) -> tuple[tuple[float, ...], list[str]]:
    """Return the quantiles that all models predict, and a note where only some of them do.

    Raises:
        TaskError: two models predict other quantiles.
    """
    by_name = {name: tuple(getattr(scorer, "quantiles", ())) for name, scorer in scorers.items()}
    sets = {quantiles for quantiles in by_name.values() if quantiles}
    if len(sets) > 1:
        raise TaskError("the bundles predict other quantiles", remedy="evaluate those of the same quantiles together")
    without = [name for name, quantiles in by_name.items() if not quantiles]
    if not sets or without:
        note = f"quantiles are not judged: {', '.join(without)} predicts none"
        return (), [note] if sets else []
    return sets.pop(), []


def _baselines(
    task: Task,
    config: EvaluateConfig,
    unlabelled: Sequences | None,
    quantiles: tuple[float, ...],
    log: Callable[[str], None],
) -> FittedBaselines:
    if not config.baselines:
        return FittedBaselines(())
    targets = len(task.targets) if task.targets is not None else 0
    return fit_baselines(
        task.part("train"), task.part("valid"), classes=len(task.class_names), n_targets=targets,
        quantiles=quantiles, unlabelled=unlabelled, say=log,
    )  # fmt: skip


def _evaluate_method(
    task: Task, test: TaskPart, name: str, method: Scorer, config: EvaluateConfig
) -> _MethodStatistics:
    protocol = PROTOCOLS[task.kind]
    if not hasattr(method, protocol.scores):
        raise TaskError(f"{name!r} cannot score a {task.kind} task", remedy="use a bundle adapted to this task")
    try:
        outcome = protocol.outcome(task, test, method, config)
    except DataError as error:
        raise type(error)(f"method {name!r}: {error.message}", remedy=error.remedy, path=error.path) from error
    return _MethodStatistics(protocol.statistics(outcome, config), len(outcome), protocol.reliability(outcome))


def _report(
    task: Task,
    users: int,
    methods: Mapping[str, Scorer],
    models: list[str],
    evaluated: Mapping[str, _MethodStatistics],
    estimates: Estimates,
    config: EvaluateConfig,
    notes: tuple[str, ...],
) -> TaskEvaluation:
    if not evaluated:
        raise TaskError("there is nothing to evaluate", remedy="give a bundle, or leave the baselines on")
    first = next(iter(evaluated.values()))
    primary = PROTOCOLS[task.kind].primary(config)
    results = [_result(name, methods[name], name in models, evaluated[name], estimates, config) for name in methods]
    metrics = [name for name in first.statistics if all(name in method.statistics for method in evaluated.values())]
    compared = [primary, *(name for name in ALSO_COMPARED if name in metrics)]
    comparisons = [
        _compare(name, reference, metric, estimates, config.confidence)
        for name, metric, reference in product(models, compared, methods)
        if reference != name
    ]
    return TaskEvaluation(
        task=task.name,
        kind=task.kind,
        users=users,
        rows=first.rows,
        candidates=len(task.targets) if task.targets is not None else None,
        protocol=EvaluationProtocol(**config.model_dump(include=set(EvaluationProtocol.model_fields))),
        metrics=metrics,
        primary=primary,
        lower_is_better=[metric for metric in metrics if metric in LOWER_IS_BETTER],
        methods=results,
        comparisons=comparisons,
        sentence=describe(results, comparisons, primary, notes),
    )


def _result(
    name: str,
    method: Scorer,
    is_model: bool,
    evaluated: _MethodStatistics,
    estimates: Estimates,
    config: EvaluateConfig,
) -> MethodResult:
    return MethodResult(
        name=name,
        family="model" if is_model else "baseline",
        trainable=method.trainable,
        trainable_fraction=method.trainable_fraction,
        settings=settings_of(method),
        values={
            m: MetricEstimate.from_interval(estimates[name, m].interval(config.confidence))
            for m in evaluated.statistics
        },
        reliability=[ReliabilityBin(**row._asdict()) for row in evaluated.reliability],
    )


def _compare(name: str, reference: str, metric: str, estimates: Estimates, confidence: float) -> Comparison:
    difference = paired_difference(estimates[name, metric], estimates[reference, metric], confidence)
    return Comparison(
        method=name,
        reference=reference,
        metric=metric,
        difference=difference.value,
        low=finite_or_none(difference.low),
        high=finite_or_none(difference.high),
        verdict=verdict(difference, lower_is_better=metric in LOWER_IS_BETTER),
    )
