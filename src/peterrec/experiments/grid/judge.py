"""One method on the test users of a task: the metrics, and what each user adds to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int, UInt64

from peterrec.config import EvaluateConfig, PretrainConfig
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.sequences import FIRST_ITEM
from peterrec.data.splits import uniform, user_hash
from peterrec.errors import DataError, TaskError
from peterrec.evaluation.intervals import Statistic
from peterrec.evaluation.metrics import hit_rate, mrr, ndcg, row_log_loss
from peterrec.evaluation.protocols import RankingOutcome, classification_outcome, ranking_outcome
from peterrec.evaluation.scorers import ClassificationScorer, RankingScorer, Scorer
from peterrec.evaluation.statistics import classification_statistics, ranking_statistics

Sums = dict[str, Float[np.ndarray, " users"]]


@dataclass(frozen=True)
class Judged:
    """What was found.

    Attributes:
        metrics: by name, those that are finite.
        primary: the metric that verdicts are told of.
        users: as `cells.USER_COLUMNS` says.
        classes: names with the number of test users, of a classification task.
        candidates: targets that are ranked, of a ranking task.
    """

    metrics: dict[str, float]
    primary: str
    users: pa.Table
    classes: dict[str, int]
    candidates: int | None


def judge(
    task: Task, scorer: Scorer, config: EvaluateConfig, seen: Callable[[pa.Array], Bool[np.ndarray, " users"]]
) -> Judged:
    """Judge a method on the test users of a task, by the protocols and metrics of `evaluate_task`.

    Args:
        task: as prepared.
        scorer: gives `probabilities` for a classification task, `score_batches` for a ranking task.
        config: cut-off, sampled negatives, and the seed of their draw.
        seen: from ids to whether the users were in pre-training.

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
        "seen": pa.array(seen(test.user_ids)),
        "rows": pa.array(rows.astype(np.int64)),
    }
    return Judged(
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
    _fits(outcome.probabilities.shape[1], len(task.class_names), "classes")
    right = (outcome.predicted == outcome.labels).astype(np.float64)
    sums = {"accuracy": right, "log_loss": row_log_loss(outcome.probabilities, outcome.labels)}
    return classification_statistics(outcome), sums, np.ones(outcome.users, dtype=np.int64)


def _ranking(
    task: Task, test: TaskPart, scorer: RankingScorer, config: EvaluateConfig
) -> tuple[dict[str, Statistic], Sums, Int[np.ndarray, " users"]]:
    assert test.targets is not None
    assert task.targets is not None
    width = len(task.targets)

    def checked() -> Iterator[np.ndarray]:
        for batch in scorer.score_batches(test.sequences, config.batch_size):
            _fits(batch.shape[1], width, "targets")
            yield batch

    count = config.sampled_negatives
    outcome = ranking_outcome(checked(), test.targets, sampled_negatives=count, seed=config.seed)
    rows = np.bincount(outcome.user, minlength=outcome.users).astype(np.int64)
    return ranking_statistics(outcome, k=config.k, sampled_negatives=count), _gains(outcome, config), rows


def _gains(outcome: RankingOutcome, config: EvaluateConfig) -> Sums:
    sums: Sums = {}
    suffix = f" sampled-{config.sampled_negatives}"
    for end, ranks, ties in (
        ("", outcome.full_rank, outcome.full_ties),
        (suffix, outcome.sampled_rank, outcome.sampled_ties),
    ):
        for name, metric in (("hr", hit_rate), ("mrr", mrr), ("ndcg", ndcg)):
            gains = metric(ranks, config.k, ties=ties)
            sums[f"{name}@{config.k}{end}"] = np.bincount(outcome.user, weights=gains, minlength=outcome.users)
    return sums


def _fits(given: int, expected: int, what: str) -> None:
    if given != expected:
        raise DataError(
            f"scores of {given} {what} for a task with {expected}", remedy="use a method made for this task"
        )


def pretrained_on(corpus: Corpus, config: PretrainConfig) -> UInt64[np.ndarray, " n"]:
    """Return the hashes of the users whose sequences a backbone with these settings was trained on.

    These are the users who are not held out and of whom there is something to predict: a known item after another
    event.
    """
    sequences, hashes = corpus.sequences, np.asarray(corpus.user_hashes)
    told = sequences.lengths >= 2
    if corpus.manifest["rare_items"] == "unk":
        known = np.concatenate([[0], np.cumsum(np.asarray(sequences.items) >= FIRST_ITEM)])
        starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
        told &= known[ends] - known[np.minimum(starts + 1, ends)] > 0
    held_out = uniform(hashes, f"pretrain-{config.seed}") < config.valid_share
    return hashes[told & ~held_out]


def seen_by(corpus: Corpus, config: PretrainConfig) -> Callable[[pa.Array], Bool[np.ndarray, " users"]]:
    """Return a function from user ids to whether a backbone with these settings was trained on the users."""
    hashes = pretrained_on(corpus, config)
    return lambda user_ids: np.isin(user_hash(user_ids.to_pylist()), hashes)
