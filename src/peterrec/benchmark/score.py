"""The verb `benchmark score`: anybody's predictions in; metrics, intervals and paired tests out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped
from pydantic import BaseModel, ConfigDict

from peterrec.arguments import checked
from peterrec.benchmark.folder import Benchmark, texts
from peterrec.benchmark.protocol import BOOTSTRAP_SEED, CONFIDENCE, RESAMPLES, BenchmarkTask, K
from peterrec.benchmark.score_files import read_probabilities, read_rankings
from peterrec.errors import ConfigError
from peterrec.evaluation.intervals import Estimate, Resamples, Statistic, bootstrap, paired_difference, verdict
from peterrec.evaluation.metrics import hit_rate, mrr, ndcg
from peterrec.evaluation.protocols import classification_outcome
from peterrec.evaluation.results import Comparison, MetricEstimate, finite_or_none
from peterrec.evaluation.seed_bootstrap import holm, p_value
from peterrec.evaluation.statistics import (
    LOWER_IS_BETTER,
    classification_statistics,
    classification_sums,
    weighted_mean,
)
from peterrec.storage import sha256_file, write_json

UserValues = Shaped[np.ndarray, " users"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodScores(_Frozen):
    """Metrics of one file of scores, which is named by the file; `sha256` is of its bytes."""

    name: str
    sha256: str
    values: dict[str, MetricEstimate]


class PairedComparison(Comparison):
    """A file of scores against another on one metric: method minus reference, over the same users and resamples.

    `p` is two-sided; `p_adjusted` is Holm's, over all pairs of files on the metric. The verdict is clear only if that
    is below 0.05 and the interval, which is not corrected, leaves out zero.
    """

    p: float
    p_adjusted: float


class BenchmarkScores(_Frozen):
    """The result of `score_benchmark`.

    Attributes:
        benchmark: name of the benchmark's data set.
        version: of its protocol.
        fingerprint: of its rows; results can be set side by side only where it is the same.
        task: name of the task.
        kind: of the task.
        users: test users who have an answer.
        resamples, confidence, seed: of the bootstrap over users.
        metrics: names, in order.
        lower_is_better: those of them that are errors.
        methods: one for each file, in their order.
        comparisons: of each pair of files, on each metric.
    """

    benchmark: str
    version: int
    fingerprint: str
    task: str
    kind: Literal["classification", "ranking"]
    users: int
    resamples: int = RESAMPLES
    confidence: float = CONFIDENCE
    seed: int = BOOTSTRAP_SEED
    metrics: list[str]
    lower_is_better: list[str]
    methods: list[MethodScores]
    comparisons: list[PairedComparison]

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values.

        Returns:
            A mapping that `json.dumps` takes, of what the attributes hold.
        """
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class _Metric:
    """A metric of one file: its value for any weighting of users, and what it takes of each user."""

    statistic: Statistic
    user_values: UserValues


@checked
def score_benchmark(
    benchmark: str | Path, task: str, scores: Sequence[str | Path] | str | Path, out: str | Path | None = None
) -> BenchmarkScores:
    """Judge files of scores on the test users of a task, all of them on the same users and resamples.

    Every row of every file is checked before anything is computed. A file answers for all test users; those without a
    label or a target are not judged.

    Args:
        benchmark: folder that `build_benchmark` wrote.
        task: name of one of its tasks, such as `gender-labels-10-first-5`.
        scores: Parquet files, each of one method; its name is that of the file. Of a classification task: `user_id`
            and the probability of each class in a column of its name. Of a ranking task: `user_id` and `items`, a list
            of at most 10 items, best first.
        out: JSON file to write.

    Returns:
        Metrics with intervals over users, and for two or more files paired differences on every metric, with p-values
        after Holm's correction over all pairs.

    Raises:
        DataError: a file is not what the task asks for; the message names file, row and user.
        TaskError: no such task.
        ConfigError: no files, or two of one name.
        ArtifactError: no benchmark, or it is damaged or was changed.
        StorageError: `out` cannot be written.
    """
    paths = [Path(path) for path in ([scores] if isinstance(scores, str | Path) else scores)]
    names = [path.stem for path in paths]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"the files of scores are {names}", remedy="name one or more files, each with a name of its own"
        )
    opened = Benchmark.open(benchmark)
    question = opened.task(task)
    metrics = dict(zip(names, _metrics(opened, question, paths), strict=True))
    result = _result(opened, question, metrics, dict(zip(names, map(sha256_file, paths), strict=True)))
    if out is not None:
        write_json(Path(out), result.to_json())
    return result


def _metrics(benchmark: Benchmark, task: BenchmarkTask, paths: list[Path]) -> list[dict[str, _Metric]]:
    """Return the metrics of each file by their name; errors as of `score_benchmark`."""
    histories = benchmark.histories("test", task.first_events)
    answers = benchmark.answers(task)
    users = list(histories)
    judged = [place for place, user in enumerate(users) if user in answers]
    answers_of_judged = [answers[users[place]] for place in judged]
    if task.kind == "classification":
        labels = np.array([task.classes.index(name) for name in answers_of_judged], dtype=np.int64)
        tables = [read_probabilities(path, users, task.classes)[judged] for path in paths]
        return [_class_metrics(probabilities, labels) for probabilities in tables]
    catalogue = set(texts(benchmark.table("items.parquet")["item_id"]))
    own_items = {user: set(map(str, items)) for user, items in histories.items()}
    files = [read_rankings(path, own_items, catalogue) for path in paths]
    return [_ranking_metrics([rankings[place] for place in judged], answers_of_judged) for rankings in files]


def _class_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, _Metric]:
    outcome = classification_outcome(probabilities, labels)
    user_values = classification_sums(outcome) | {"macro_f1": outcome.predicted, "auc": outcome.probabilities[:, -1]}
    statistics = classification_statistics(outcome)
    return {name: _Metric(statistic, user_values[name]) for name, statistic in statistics.items()}


def _ranking_metrics(rankings: list[list[str]], targets: list[str]) -> dict[str, _Metric]:
    ranks = np.array(
        [
            ranking.index(target) + 1 if target in ranking else np.inf
            for ranking, target in zip(rankings, targets, strict=True)
        ]
    )
    gains = {f"{name}@{K}": metric(ranks, K) for name, metric in (("hr", hit_rate), ("mrr", mrr), ("ndcg", ndcg))}
    return {name: _Metric(partial(weighted_mean, gain, np.ones(len(gain))), gain) for name, gain in gains.items()}


def _result(
    benchmark: Benchmark, task: BenchmarkTask, methods: dict[str, dict[str, _Metric]], digests: dict[str, str]
) -> BenchmarkScores:
    metrics = list(next(iter(methods.values())))
    statistics = {(name, key): metric.statistic for name, of_name in methods.items() for key, metric in of_name.items()}
    estimates = bootstrap(statistics, Resamples(task.users, RESAMPLES, BOOTSTRAP_SEED))
    return BenchmarkScores(
        benchmark=benchmark.description["name"],
        version=benchmark.description["version"],
        fingerprint=benchmark.description["fingerprint"],
        task=task.name,
        kind=task.kind,
        users=task.users,
        metrics=metrics,
        lower_is_better=[metric for metric in metrics if metric in LOWER_IS_BETTER],
        methods=[
            MethodScores(
                name=name,
                sha256=digests[name],
                values={m: MetricEstimate.from_interval(estimates[name, m].interval(CONFIDENCE)) for m in metrics},
            )
            for name in methods
        ],
        comparisons=[row for metric in metrics for row in _compare(metric, methods, estimates)],
    )


def _compare(
    metric: str, methods: dict[str, dict[str, _Metric]], estimates: dict[tuple[str, str], Estimate]
) -> list[PairedComparison]:
    """Compare each pair of files on a metric: one family of tests."""
    pairs = list(combinations(methods, 2))
    differences, p_values = [], []
    for method, reference in pairs:
        first, second = estimates[method, metric], estimates[reference, metric]
        difference = paired_difference(first, second, CONFIDENCE)
        differing = int((methods[method][metric].user_values != methods[reference][metric].user_values).sum())
        differences.append(difference)
        p_values.append(p_value(difference.value, first.replicates - second.replicates, differing))
    return [
        PairedComparison(
            method=method,
            reference=reference,
            metric=metric,
            difference=difference.value,
            low=finite_or_none(difference.low),
            high=finite_or_none(difference.high),
            p=p,
            p_adjusted=adjusted,
            verdict=(
                verdict(difference, lower_is_better=metric in LOWER_IS_BETTER)
                if adjusted < 1.0 - CONFIDENCE
                else "no clear difference"
            ),
        )
        for (method, reference), difference, p, adjusted in zip(
            pairs, differences, p_values, holm(p_values), strict=True
        )
    ]
