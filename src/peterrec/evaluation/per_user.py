"""Evaluation of one method on the test users of a task: the metrics, and what each user adds to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from peterrec.config import EvaluateConfig, PretrainConfig
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.pretraining_users import split_users
from peterrec.data.splits import user_hash
from peterrec.errors import DataError, TaskError
from peterrec.evaluation.candidates import without_seen
from peterrec.evaluation.intervals import Statistic
from peterrec.evaluation.protocols import classification_outcome, ranking_outcome
from peterrec.evaluation.scorers import ClassificationScorer, RankingScorer, Scorer
from peterrec.evaluation.statistics import (
    Sums,
    classification_statistics,
    classification_sums,
    pairs_of,
    ranking_statistics,
    ranking_sums,
)


@dataclass(frozen=True)
class UserEvaluation:
    """Metrics of one method on the test users, and the table of what each user adds to them.

    Attributes:
        metrics: by name, those that are finite.
        primary: the metric that verdicts are about.
        users: as `cells.USER_COLUMNS` says.
        classes: names with the number of test users, of a classification task.
        candidates: targets that are ranked, of a ranking task.
    """

    metrics: dict[str, float]
    primary: str
    users: pa.Table
    classes: dict[str, int]
    candidates: int | None


def evaluate_users(
    task: Task, scorer: Scorer, config: EvaluateConfig, in_pretraining: Callable[[pa.Array], Bool[np.ndarray, " users"]]
) -> UserEvaluation:
    """Evaluate a method on the test users of a task, by the protocols and metrics of `evaluate_task`.

    Args:
        task: as prepared.
        scorer: gives `probabilities` for a classification task, `score_batches` for a ranking task.
        config: cut-off, sampled negatives, and the seed of their draw.
        in_pretraining: from ids to whether the users were in pre-training.

    Raises:
        TaskError: there are no test users.
        DataError: scores that are NaN or do not fit the task.
    """
    test = task.part("test")
    if not len(test):
        raise TaskError("the task has no test users", remedy="give it more users or a larger test share")
    if task.kind == "classification":
        statistics, sums, rows = _classes(task, test, cast(ClassificationScorer, scorer))
    else:
        statistics, sums, rows = _ranking(task, test, cast(RankingScorer, scorer), config)
    ones = np.ones((1, len(test)))
    values = {name: float(statistic(ones)[0]) for name, statistic in statistics.items()}
    columns = {
        "user_id": test.user_ids.cast(pa.string()),
        "events": pa.array(test.sequences.lengths.astype(np.int64)),
        "seen": pa.array(in_pretraining(test.user_ids)),
        "rows": pa.array(rows.astype(np.int64)),
    }
    return UserEvaluation(
        metrics={name: value for name, value in values.items() if math.isfinite(value)},
        primary="accuracy" if task.kind == "classification" else f"mrr@{config.k}",
        users=pa.table(columns | {name: pa.array(values) for name, values in sums.items()}),
        classes=_class_counts(task, test),
        candidates=None if task.targets is None else len(task.targets),
    )


def _class_counts(task: Task, test: TaskPart) -> dict[str, int]:
    if test.labels is None:
        return {}
    counts = np.bincount(test.labels, minlength=len(task.class_names)).tolist()
    return dict(zip(task.class_names, counts, strict=True))


def _classes(
    task: Task, test: TaskPart, scorer: ClassificationScorer
) -> tuple[dict[str, Statistic], Sums, Int[np.ndarray, " users"]]:
    assert test.labels is not None
    outcome = classification_outcome(scorer.probabilities(test.sequences), test.labels)
    _check_width(outcome.probabilities.shape[1], len(task.class_names), "classes")
    return classification_statistics(outcome), classification_sums(outcome), np.ones(outcome.users, dtype=np.int64)


def _ranking(
    task: Task, test: TaskPart, scorer: RankingScorer, config: EvaluateConfig
) -> tuple[dict[str, Statistic], Sums, Int[np.ndarray, " users"]]:
    assert test.targets is not None
    assert task.targets is not None
    width = len(task.targets)

    def checked_batches() -> Iterator[np.ndarray]:
        for batch in scorer.score_batches(test.sequences, config.batch_size):
            _check_width(batch.shape[1], width, "targets")
            yield batch

    scores = checked_batches()
    if task.exclude_seen and test.seen is not None:
        scores = without_seen(scores, test.seen)
    k, count = config.k, config.sampled_negatives
    outcome = ranking_outcome(scores, test.targets, sampled_negatives=count, seed=config.seed)
    sums = ranking_sums(outcome, k=k, sampled_negatives=count)
    return ranking_statistics(outcome, k=k, sampled_negatives=count), sums, pairs_of(outcome)


def _check_width(width: int, expected: int, outputs: str) -> None:
    if width != expected:
        raise DataError(
            f"scores of {width} {outputs} for a task with {expected}", remedy="use a method made for this task"
        )


def pretraining_users(corpus: Corpus, config: PretrainConfig) -> Callable[[pa.Array], Bool[np.ndarray, " users"]]:
    """Return a function from user ids to whether a backbone with these settings was trained on the users."""
    hashes = np.asarray(corpus.user_hashes)[split_users(corpus, config)[0]]
    return lambda user_ids: np.isin(user_hash(user_ids.to_pylist()), hashes)
