"""Evaluation of one method on the test users of a task: the metrics, and what each user adds to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from peterrec.config import EvaluateConfig, PretrainConfig
from peterrec.data.corpus import Corpus, Task
from peterrec.data.hashing import id_hash
from peterrec.data.pretraining_users import split_users
from peterrec.evaluation.outcomes import PROTOCOLS, test_users_of
from peterrec.evaluation.scorers import Scorer


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
        scorer: has the method that `PROTOCOLS` names for the kind of task.
        config: cut-off, sampled negatives, and the seed of their draw.
        in_pretraining: from ids to whether the users were in pre-training.

    Raises:
        TaskError: there are no test users.
        DataError: scores that are NaN or do not fit the task.
    """
    test = test_users_of(task)
    protocol = PROTOCOLS[task.kind]
    outcome = protocol.outcome(task, test, scorer, config)
    statistics = protocol.statistics(outcome, config)
    sums, rows = protocol.user_sums(outcome, config)
    classes: dict[str, int] = {}
    if test.labels is not None:
        counts = np.bincount(test.labels, minlength=len(task.class_names)).tolist()
        classes = dict(zip(task.class_names, counts, strict=True))
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
        primary=protocol.primary(config),
        users=pa.table(columns | {name: pa.array(values) for name, values in sums.items()}),
        classes=classes,
        candidates=None if task.targets is None else len(task.targets),
    )


def pretraining_users(corpus: Corpus, config: PretrainConfig) -> Callable[[pa.Array], Bool[np.ndarray, " users"]]:
    """Return a function from user ids to whether a backbone with these settings was trained on the users."""
    hashes = np.asarray(corpus.user_hashes)[split_users(corpus, config)[0]]
    return lambda user_ids: np.isin(id_hash(user_ids.to_pylist()), hashes)
