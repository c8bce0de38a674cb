"""Judgement of versions of a bundle on the valid users of its task, paired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from peterrec.config import EvaluateConfig, MigrateConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.sequences import FIRST_ITEM, UNK, IntArray, Sequences
from peterrec.evaluation.bundles import BundleScorer
from peterrec.evaluation.intervals import Estimate, Resamples, Statistic, bootstrap, paired_difference, verdict
from peterrec.evaluation.matching import output_columns
from peterrec.evaluation.migration_results import Migration, Version
from peterrec.evaluation.outcomes import PROTOCOLS
from peterrec.evaluation.results import Comparison, finite_or_none
from peterrec.evaluation.statistics import LOWER_IS_BETTER
from peterrec.model import UserModel

DECIDING = {"classification": "log_loss", "multilabel": "log_loss", "regression": "mae"}
"""By kind of task the metric that moves with every user; of ranking tasks the primary one."""


class Candidate(NamedTuple):
    """A version of a bundle, loaded.

    Attributes:
        model: that it is loaded on.
        key: name that it has there.
        users: valid users, as that model reads them.
    """

    model: UserModel
    key: str
    users: TaskPart


class FewerTargetsScorer(BundleScorer):
    """A ranking bundle that lacks targets of the task: it cannot recommend these, so they are ranked last.

    Args:
        model: with the bundle.
        name: of the bundle.
        batch_size: users at once.
        columns: (n,) the output of the bundle for each target; -1: it has none.
    """

    def __init__(self, model: UserModel, name: str, batch_size: int, columns: IntArray) -> None:
        super().__init__(model, name, batch_size, np.maximum(columns, 0))
        self.lacks = columns < 0

    def score_batches(self, sequences: Sequences, batch_size: int) -> Iterator[np.ndarray]:
        """Yield (B, n_targets) scores, rows in order."""
        for scores in super().score_batches(sequences, batch_size):
            yield np.where(self.lacks, scores.min(axis=1, keepdims=True) - 1.0, scores)


def read_by(model: UserModel, users: TaskPart) -> TaskPart:
    """Return users as a backbone of fewer items reads them: the other items are skipped, or [UNK] where it has it."""
    sequences, items = users.sequences, len(model.catalogue)
    is_new = np.asarray(sequences.items) >= FIRST_ITEM + items
    if not is_new.any():
        return users
    if model.pretrained.unknown == "unk":
        return replace(users, sequences=replace(sequences, items=np.where(is_new, UNK, sequences.items)))
    before = np.concatenate([[0], np.cumsum(~is_new)])
    return replace(users, sequences=sequences.at(~is_new, before[sequences.offsets]))


def deciding_metric(task: Task, config: MigrateConfig) -> str:
    """Return the metric that decides what is to be done with the bundles of a task."""
    return DECIDING.get(task.kind) or PROTOCOLS[task.kind].primary(_protocol(config))


def estimate_versions(
    task: Task, candidates: Mapping[Version, Candidate], config: MigrateConfig
) -> dict[Version, Estimate]:
    """Return the deciding metric of each version, on the same resamples of the valid users.

    Args:
        task: of the bundle.
        candidates: the versions.
        config: resamples and cut-off.
    """
    protocol, settings, metric = PROTOCOLS[task.kind], _protocol(config), deciding_metric(task, config)
    statistics: dict[Version, Statistic] = {}
    for version, candidate in candidates.items():
        outcome = protocol.outcome(task, candidate.users, _scorer(task, candidate, config.batch_size), settings)
        statistics[version] = protocol.statistics(outcome, settings)[metric]
    users = len(next(iter(candidates.values())).users)
    return bootstrap(statistics, Resamples(users, config.bootstrap, config.seed))


def _protocol(config: MigrateConfig) -> EvaluateConfig:
    return EvaluateConfig(k=config.k, batch_size=config.batch_size, seed=config.seed)


def _scorer(task: Task, candidate: Candidate, batch_size: int) -> BundleScorer:
    bundle = candidate.model.bundle(candidate.key)
    if task.targets is None or bundle.targets is None:
        return BundleScorer(candidate.model, candidate.key, batch_size, output_columns(task, bundle))
    columns = np.asarray(bundle.targets.encode(task.targets.ids) - bundle.targets.first)
    return FewerTargetsScorer(candidate.model, candidate.key, batch_size, columns)


def compare_versions(estimates: Mapping[Version, Estimate], metric: str, confidence: float) -> list[Comparison]:
    """Return the paired difference of each version from each before it."""
    comparisons = []
    for reference, version in combinations(estimates, 2):
        difference = paired_difference(estimates[version], estimates[reference], confidence)
        comparisons.append(
            Comparison(
                method=version, reference=reference, metric=metric, difference=difference.value,
                low=finite_or_none(difference.low), high=finite_or_none(difference.high),
                verdict=verdict(difference, lower_is_better=metric in LOWER_IS_BETTER),
            )
        )  # fmt: skip
    return comparisons


def largest_loss(comparisons: list[Comparison], metric: str) -> float | None:
    """Return by how much the kept version may be worse than before, by its interval; None: it is better, or unknown."""
    pair = next(row for row in comparisons if (row.method, row.reference) == ("kept", "before"))
    limit = pair.high if metric in LOWER_IS_BETTER else pair.low
    loss = None if limit is None else limit if metric in LOWER_IS_BETTER else -limit
    return loss if loss is not None and loss > 0 else None


def decide_migration(comparisons: list[Comparison], *, may_keep: bool = True) -> Migration:
    """Return what is to be done with a bundle, by what is clear about its versions.

    Args:
        comparisons: of versions.
        may_keep: whether its weights mean on the new backbone what they meant before.
    """
    verdicts = {(row.method, row.reference): row.verdict for row in comparisons}
    trained_here = "refitted" if ("anew", "refitted") in verdicts else "kept"
    if verdicts.get(("anew", trained_here)) == "better":
        return "anew"
    is_worse = verdicts["kept", "before"] == "worse" or verdicts.get(("refitted", "kept")) == "better"
    return "keep" if may_keep and not is_worse else "refit"
