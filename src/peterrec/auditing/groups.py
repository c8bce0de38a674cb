"""Differences between groups of people: how often a bundle is wrong about each, and what it answers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from peterrec.auditing.attribute import Attribute
from peterrec.config import AuditConfig, EvaluateConfig
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.evaluation.audit_results import GroupDifference
from peterrec.evaluation.bundles import BundleScorer
from peterrec.evaluation.intervals import Resamples, bootstrap, paired_difference
from peterrec.evaluation.matching import output_columns
from peterrec.evaluation.outcomes import PROTOCOLS
from peterrec.evaluation.results import MetricEstimate
from peterrec.evaluation.statistics import weighted_mean
from peterrec.model import UserModel

try:
    from fairlearn.metrics import MetricFrame
except ImportError:  # the extra `audit`
    MetricFrame = None

MISSING = "differences between groups are not shown: they need Fairlearn (pip install 'peterrec[audit]')"
Values = Float[np.ndarray, " users"]


def group_differences(
    model: UserModel, bundles: dict[str, str], corpus: Corpus, attribute: Attribute, config: AuditConfig
) -> tuple[list[GroupDifference], list[str]]:
    """Compare how bundles answer test users of their own tasks by the groups of an attribute.

    Args:
        model: with the bundles.
        bundles: by the names of the report, those that they are loaded by.
        corpus: with their tasks.
        attribute: whose classes are the groups.
        config: resamples and confidence.

    Returns:
        The differences, and in words which bundles have none, and why.
    """
    if MetricFrame is None:
        return [], [MISSING] if bundles else []
    differences: list[GroupDifference] = []
    notes: list[str] = []
    for name, key in bundles.items():
        task_name = model.bundle(key).name
        if task_name not in corpus.task_names:
            notes.append(f"no differences between groups of {name}: the corpus has no task {task_name!r}")
            continue
        task = corpus.task(task_name)
        part = task.part("test")
        groups = np.array([attribute.label_of.get(user, -1) for user in part.user_ids.to_pylist()], dtype=np.int64)
        rows = np.flatnonzero(groups >= 0)
        if len(np.unique(groups[rows])) < 2:
            notes.append(f"no differences between groups of {name}: its test users are not of two groups")
            continue
        for metric, values in _values(model, key, task, part.take(rows), config):
            differences.append(
                _difference(name, task.name, metric, values, groups[rows], attribute.class_names, config)
            )
    return differences, notes


def _values(
    model: UserModel, key: str, task: Task, part: TaskPart, config: AuditConfig
) -> Iterator[tuple[str, Values]]:
    """Yield what each user adds to a metric: of errors, and of answers where these are classes."""
    scorer = BundleScorer(model, key, config.batch_size, output_columns(task, model.bundle(key)))
    protocol, settings = PROTOCOLS[task.kind], EvaluateConfig(batch_size=config.batch_size, seed=config.seed)
    outcome = protocol.outcome(task, part, scorer, settings)
    sums, rows = protocol.user_sums(outcome, settings)
    for metric, values in sums.items():
        if "sampled" not in metric:
            yield metric, values / np.maximum(rows, 1)
    if task.kind == "classification":
        for index in np.unique(outcome.predicted).tolist():
            class_name = task.class_names[index]
            yield f"answered {class_name!r}", (outcome.predicted == index).astype(np.float64)


def _difference(
    bundle: str,
    task: str,
    metric: str,
    values: Values,
    groups: Int[np.ndarray, " users"],
    names: Sequence[str],
    config: AuditConfig,
) -> GroupDifference:
    present = np.unique(groups)
    frame: Any = MetricFrame(metrics=_mean, y_true=values, y_pred=values, sensitive_features=groups)
    means = {names[group]: float(frame.by_group.loc[group]) for group in present}
    users = {names[group]: int((groups == group).sum()) for group in present}
    highest, lowest = int(frame.by_group.idxmax()), int(frame.by_group.idxmin())
    # Of these two groups: the largest difference of each resample, as Fairlearn has it, is never below 0.
    statistics = {
        group: partial(weighted_mean, values * (groups == group), 1.0 * (groups == group)) for group in present
    }
    estimates = bootstrap(statistics, Resamples(len(values), config.bootstrap, config.seed))
    interval = paired_difference(estimates[highest], estimates[lowest], config.confidence)
    assert np.isclose(interval.value, frame.difference(method="between_groups"))
    estimate = MetricEstimate.from_interval(interval)
    return GroupDifference(bundle=bundle, task=task, metric=metric, groups=means, users=users, difference=estimate)


def _mean(values: Values, _: Values) -> float:
    return float(np.mean(values))
