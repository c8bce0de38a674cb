"""Outcome of a method on the test users of a task: its scores, checked against what the task asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np

from peterrec.config import EvaluateConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.errors import DataError, TaskError
from peterrec.evaluation.baselines.classification import labels_of
from peterrec.evaluation.baselines.ranking import targets_of
from peterrec.evaluation.candidates import without_seen
from peterrec.evaluation.intervals import Statistic
from peterrec.evaluation.protocols import (
    ClassificationOutcome,
    RankingOutcome,
    classification_outcome,
    ranking_outcome,
)
from peterrec.evaluation.scorers import ClassificationScorer, RankingScorer, Scorer
from peterrec.evaluation.statistics import classification_statistics, ranking_statistics

Outcome = ClassificationOutcome | RankingOutcome


def test_users_of(task: Task) -> TaskPart:
    """Return the test users of a task.

    Raises:
        TaskError: there are none.
    """
    test = task.part("test")
    if not len(test):
        raise TaskError("the task has no test users", remedy="give it more users or a larger test share")
    return test


def method_outcome(task: Task, test: TaskPart, scorer: Scorer, config: EvaluateConfig) -> Outcome:
    """Score the test users and rank or classify them by the protocol of the task.

    Args:
        task: as prepared.
        test: its test users.
        scorer: gives `probabilities` for a classification task, `score_batches` for a ranking task.
        config: sampled negatives, and the seed of their draw.

    Raises:
        DataError: scores that are NaN or do not fit the task.
    """
    if task.kind == "classification":
        return _class_outcome(task, test, cast(ClassificationScorer, scorer))
    return _ranking_outcome(task, test, cast(RankingScorer, scorer), config)


def outcome_statistics(outcome: Outcome, config: EvaluateConfig) -> dict[str, Statistic]:
    """Return every metric of an outcome by its name, as a function of user weights."""
    if isinstance(outcome, ClassificationOutcome):
        return classification_statistics(outcome)
    return ranking_statistics(outcome, k=config.k, sampled_negatives=config.sampled_negatives)


def primary_metric(task: Task, config: EvaluateConfig) -> str:
    """Return the name of the metric that sentences and verdicts are about."""
    return "accuracy" if task.kind == "classification" else f"mrr@{config.k}"


def _class_outcome(task: Task, test: TaskPart, scorer: ClassificationScorer) -> ClassificationOutcome:
    outcome = classification_outcome(scorer.probabilities(test.sequences), labels_of(test))
    outputs, classes = outcome.probabilities.shape[1], len(task.class_names)
    if outputs != classes:
        raise DataError(
            f"gives {outputs} classes where the task has {classes}", remedy="use a bundle adapted to this task"
        )
    return outcome


def _ranking_outcome(task: Task, test: TaskPart, scorer: RankingScorer, config: EvaluateConfig) -> RankingOutcome:
    width = len(task.targets) if task.targets is not None else 0

    def checked_batches() -> Iterator[np.ndarray]:
        for batch in scorer.score_batches(test.sequences, config.batch_size):
            if batch.shape[1:] != (width,):
                raise DataError(f"gives scores of shape {batch.shape} for {width} targets", remedy="use its own bundle")
            yield batch

    scores = checked_batches()
    if task.exclude_seen and test.seen_targets is not None:
        scores = without_seen(scores, test.seen_targets)
    return ranking_outcome(scores, targets_of(test), sampled_negatives=config.sampled_negatives, seed=config.seed)
