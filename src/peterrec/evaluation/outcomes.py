"""Outcome of a method on the test users of a task: its scores, checked against what the task asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from peterrec.config import EvaluateConfig, TaskKind
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.sequences import IntArray
from peterrec.errors import DataError, TaskError
from peterrec.evaluation.baselines.classification import labels_of
from peterrec.evaluation.baselines.multilabel import indicators_of
from peterrec.evaluation.baselines.ranking import targets_of
from peterrec.evaluation.baselines.regression import numbers_of
from peterrec.evaluation.candidates import without_seen
from peterrec.evaluation.decision_statistics import class_decision_statistics, label_decision_statistics
from peterrec.evaluation.intervals import Statistic
from peterrec.evaluation.label_statistics import multilabel_statistics, multilabel_sums
from peterrec.evaluation.number_statistics import regression_statistics, regression_sums
from peterrec.evaluation.protocols import (
    ClassificationOutcome,
    MultilabelOutcome,
    RankingOutcome,
    RegressionOutcome,
    classification_outcome,
    multilabel_outcome,
    ranking_outcome,
    regression_outcome,
)
from peterrec.evaluation.reliability import Bin, error_statistic, judged_class, judged_labels, reliability
from peterrec.evaluation.scorers import ClassificationScorer, MultilabelScorer, RankingScorer, RegressionScorer
from peterrec.evaluation.statistics import (
    Sums,
    classification_statistics,
    classification_sums,
    pairs_of,
    ranking_statistics,
    ranking_sums,
)


def test_users_of(task: Task) -> TaskPart:
    """Return the test users of a task.

    Raises:
        TaskError: there are none.
    """
    test = task.part("test")
    if not len(test):
        raise TaskError("the task has no test users", remedy="give it more users or a larger test share")
    return test


def _class_outcome(
    task: Task, test: TaskPart, scorer: ClassificationScorer, _: EvaluateConfig
) -> ClassificationOutcome:
    outcome = classification_outcome(scorer.probabilities(test.sequences), labels_of(test))
    outputs, classes = outcome.probabilities.shape[1], len(task.class_names)
    if outputs != classes:
        raise DataError(
            f"gives {outputs} classes where the task has {classes}", remedy="use a bundle adapted to this task"
        )
    return replace(outcome, decision=getattr(scorer, "decision", None))


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


def _number_outcome(_: Task, test: TaskPart, scorer: RegressionScorer, __: EvaluateConfig) -> RegressionOutcome:
    return regression_outcome(scorer.numbers(test.sequences), numbers_of(test), scorer.quantiles)


def _label_outcome(task: Task, test: TaskPart, scorer: MultilabelScorer, _: EvaluateConfig) -> MultilabelOutcome:
    indicators = indicators_of(test, len(task.class_names))
    outcome = multilabel_outcome(scorer.label_probabilities(test.sequences), indicators)
    return replace(outcome, decision=getattr(scorer, "decision", None))


def _class_statistics(outcome: ClassificationOutcome, _: EvaluateConfig) -> dict[str, Statistic]:
    error = {"ece": error_statistic([judged_class(outcome)])}
    return classification_statistics(outcome) | error | class_decision_statistics(outcome)


def _label_statistics(outcome: MultilabelOutcome, _: EvaluateConfig) -> dict[str, Statistic]:
    error = {"ece": error_statistic(judged_labels(outcome))}
    return multilabel_statistics(outcome) | error | label_decision_statistics(outcome)


@dataclass(frozen=True)
class TaskProtocol:
    """The evaluation of one kind of task.

    Attributes:
        scores: name of the method by which a scorer answers.
        outcome: scores the test users, and ranks or classifies them; DataError: the scores do not fit the task.
        statistics: every metric of an outcome by its name, as a function of user weights.
        user_sums: what each user adds to the metrics that are means over rows, and how many rows each has.
        primary: name of the metric that sentences and verdicts are about.
        reliability: bins of a reliability diagram, of probabilities.
    """

    scores: str
    outcome: Callable[[Task, TaskPart, Any, EvaluateConfig], Any]
    statistics: Callable[[Any, EvaluateConfig], dict[str, Statistic]]
    user_sums: Callable[[Any, EvaluateConfig], tuple[Sums, IntArray]]
    primary: Callable[[EvaluateConfig], str]
    reliability: Callable[[Any], list[Bin]] = lambda _: []


PROTOCOLS: Mapping[TaskKind, TaskProtocol] = {
    "classification": TaskProtocol(
        scores="probabilities",
        outcome=_class_outcome,
        statistics=_class_statistics,
        user_sums=lambda outcome, _: (classification_sums(outcome), np.ones(outcome.users, dtype=np.int64)),
        primary=lambda _: "accuracy",
        reliability=lambda outcome: reliability([judged_class(outcome)]),
    ),
    "ranking": TaskProtocol(
        scores="score_batches",
        outcome=_ranking_outcome,
        statistics=lambda outcome, config: ranking_statistics(
            outcome, k=config.k, sampled_negatives=config.sampled_negatives
        ),
        user_sums=lambda outcome, config: (
            ranking_sums(outcome, k=config.k, sampled_negatives=config.sampled_negatives), pairs_of(outcome)
        ),
        primary=lambda config: f"mrr@{config.k}",
    ),
    "regression": TaskProtocol(
        scores="numbers",
        outcome=_number_outcome,
        statistics=lambda outcome, _: regression_statistics(outcome),
        user_sums=lambda outcome, _: (regression_sums(outcome), np.ones(outcome.users, dtype=np.int64)),
        primary=lambda _: "mae",
    ),
    "multilabel": TaskProtocol(
        scores="label_probabilities",
        outcome=_label_outcome,
        statistics=_label_statistics,
        user_sums=lambda outcome, _: (multilabel_sums(outcome), np.ones(outcome.users, dtype=np.int64)),
        primary=lambda _: "macro_auc",
        reliability=lambda outcome: reliability(judged_labels(outcome)),
    ),
}  # fmt: skip
"""By kind of task: how its methods are judged."""
