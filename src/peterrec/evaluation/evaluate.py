"""Judging models and baselines on the test users of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import numpy as np

from peterrec.config import EvaluateConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.errors import DataError, TaskError
from peterrec.evaluation.baselines import FittedBaselines, fit_baselines
from peterrec.evaluation.baselines.classification import labels_of
from peterrec.evaluation.baselines.ranking import targets_of
from peterrec.evaluation.candidates import without_seen
from peterrec.evaluation.intervals import Estimate, Resamples, Statistic, bootstrap, paired_difference, verdict
from peterrec.evaluation.protocols import classification_outcome, ranking_outcome
from peterrec.evaluation.results import Comparison, MethodResult, Protocol, TaskEvaluation, Value, finite_or_none
from peterrec.evaluation.scorers import ClassificationScorer, RankingScorer, Scorer, settings_of
from peterrec.evaluation.sentence import describe
from peterrec.evaluation.statistics import LOWER_IS_BETTER, classification_statistics, ranking_statistics

Progress = Callable[[str], None]
Estimates = dict[tuple[str, str], Estimate]


@dataclass(frozen=True)
class _Judged:
    """Statistics by metric of one method, and how many rows they are means over."""

    statistics: dict[str, Statistic]
    rows: int


def evaluate_task(
    task: Task,
    scorers: Mapping[str, Scorer],
    config: EvaluateConfig,
    *,
    progress: Progress | None = None,
    notes: Sequence[str] = (),
) -> TaskEvaluation:
    """Judge models on the test users of a task, next to baselines fitted on its train users (paper, section 4).

    Every method meets the same users, sampled negatives and resamples, so differences are paired.

    Args:
        task: as prepared.
        scorers: models by name, in the order of the table. For a classification task they give `probabilities`, for
            a ranking task `score_batches`.
        config: cut-off, resamples, whether to fit baselines.
        progress: told in a few words what is being done.
        notes: in words, what is to be known about the comparison; the result has them.

    Raises:
        TaskError: no test users, a model with the name of a baseline, or one that cannot score this kind of task.
        DataError: scores that are NaN or do not fit the task; the message names the method.
    """
    say: Progress = (lambda text: progress(f"{task.name}: {text}")) if progress else (lambda _: None)
    test = task.part("test")
    if not len(test):
        raise TaskError("the task has no test users", remedy="give it more users or a larger test share")
    fitted = _baselines(task, config, say)
    methods: dict[str, Scorer] = dict(scorers)
    for baseline in fitted.baselines:
        if baseline.name in methods:
            raise TaskError(f"a model has the name of a baseline: {baseline.name!r}", remedy="name it otherwise")
        methods[baseline.name] = baseline
    judged: dict[str, _Judged] = {}
    for name, method in methods.items():
        say(f"scoring {len(test):,} test users: {name}")
        judged[name] = _judge(task, test, name, method, config)
    say(f"drawing {config.bootstrap:,} resamples of the test users")
    statistics = {(name, metric): one for name, of in judged.items() for metric, one in of.statistics.items()}
    estimates = bootstrap(statistics, Resamples(len(test), config.bootstrap, config.seed))
    notes = [*notes, *_repeats(task, test)]
    report = _report(task, len(test), methods, list(scorers), judged, estimates, config, (*fitted.notes, *notes))
    return report.model_copy(update={"notes": notes})


def _repeats(task: Task, test: TaskPart) -> list[str]:
    """Return in words how many targets are in the user's own history, and whether such items are left out."""
    if test.targets is None or test.seen is None or task.targets is None:
        return []
    width = len(task.targets)
    repeats = np.isin(
        test.targets.repeat() * width + test.targets.items, test.seen.repeat() * width + test.seen.items
    ).sum()
    if not repeats:
        return []
    treated = "left out of the rankings" if task.exclude_seen else "ranked"
    total = f"{repeats:,} of {len(test.targets.items):,} targets"
    return [f"{total} are in the user's own history; such items are {treated}, as `recommend` does by default"]


def _baselines(task: Task, config: EvaluateConfig, say: Progress) -> FittedBaselines:
    if not config.baselines:
        return FittedBaselines(())
    targets = len(task.targets) if task.targets is not None else 0
    return fit_baselines(
        task.part("train"), task.part("valid"), classes=len(task.class_names), n_targets=targets, say=say
    )


def _judge(task: Task, test: TaskPart, name: str, method: Scorer, config: EvaluateConfig) -> _Judged:
    wanted = "probabilities" if task.kind == "classification" else "score_batches"
    if not hasattr(method, wanted):
        raise TaskError(f"{name!r} cannot score a {task.kind} task", remedy="use a bundle adapted to this task")
    try:
        if task.kind == "classification":
            return _judge_classes(test, cast(ClassificationScorer, method), len(task.class_names))
        return _judge_ranking(task, test, cast(RankingScorer, method), config)
    except DataError as error:
        raise type(error)(f"method {name!r}: {error.what}", remedy=error.remedy, path=error.path) from error


def _judge_classes(test: TaskPart, method: ClassificationScorer, classes: int) -> _Judged:
    probabilities = method.probabilities(test.sequences)
    outcome = classification_outcome(probabilities, labels_of(test))
    if outcome.probabilities.shape[1] != classes:
        raise DataError(
            f"gives {outcome.probabilities.shape[1]} classes where the task has {classes}",
            remedy="use a bundle adapted to this task",
        )
    return _Judged(classification_statistics(outcome), outcome.users)


def _judge_ranking(task: Task, test: TaskPart, method: RankingScorer, config: EvaluateConfig) -> _Judged:
    width = len(task.targets) if task.targets is not None else 0

    def checked() -> Any:
        for batch in method.score_batches(test.sequences, config.batch_size):
            if batch.shape[1:] != (width,):
                raise DataError(f"gives scores of shape {batch.shape} for {width} targets", remedy="use its own bundle")
            yield batch

    count, scores = config.sampled_negatives, checked()
    if task.exclude_seen and test.seen is not None:
        scores = without_seen(scores, test.seen)
    outcome = ranking_outcome(scores, targets_of(test), sampled_negatives=count, seed=config.seed)
    return _Judged(ranking_statistics(outcome, k=config.k, sampled_negatives=count), len(outcome))


def _report(
    task: Task,
    users: int,
    methods: Mapping[str, Scorer],
    models: list[str],
    judged: Mapping[str, _Judged],
    estimates: Estimates,
    config: EvaluateConfig,
    notes: tuple[str, ...],
) -> TaskEvaluation:
    if not judged:
        raise TaskError("there is nothing to evaluate", remedy="give a bundle, or leave the baselines on")
    first = next(iter(judged.values()))
    primary = "accuracy" if task.kind == "classification" else f"mrr@{config.k}"
    results = [_result(name, methods[name], name in models, judged[name], estimates, config) for name in methods]
    compared = [primary] + (["auc"] if "auc" in first.statistics else [])
    comparisons = [
        _compare(name, rival, metric, estimates, config.confidence)
        for name, metric, rival in product(models, compared, methods)
        if rival != name
    ]
    return TaskEvaluation(
        task=task.name,
        kind=task.kind,
        users=users,
        rows=first.rows,
        candidates=len(task.targets) if task.targets is not None else None,
        protocol=Protocol(**config.model_dump(include=set(Protocol.model_fields))),
        metrics=list(first.statistics),
        primary=primary,
        lower_is_better=[metric for metric in first.statistics if metric in LOWER_IS_BETTER],
        methods=results,
        verdicts=comparisons,
        sentence=describe(results, comparisons, primary, notes),
    )


def _result(
    name: str, method: Scorer, is_model: bool, judged: _Judged, estimates: Estimates, config: EvaluateConfig
) -> MethodResult:
    return MethodResult(
        name=name,
        family="model" if is_model else "baseline",
        trainable=method.trainable,
        trainable_fraction=method.trainable_fraction,
        settings=settings_of(method),
        values={m: Value.of(estimates[name, m].interval(config.confidence)) for m in judged.statistics},
    )


def _compare(name: str, rival: str, metric: str, estimates: Estimates, confidence: float) -> Comparison:
    difference = paired_difference(estimates[name, metric], estimates[rival, metric], confidence)
    return Comparison(
        method=name,
        rival=rival,
        metric=metric,
        difference=difference.value,
        low=finite_or_none(difference.low),
        high=finite_or_none(difference.high),
        verdict=verdict(difference, lower_is_better=metric in LOWER_IS_BETTER),
    )
