"""Metrics of what a bundle decides: what its thresholds reach, and how often its sets of classes hold the true one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from jaxtyping import Bool

from peterrec.data.decision import Decision, chosen_classes, chosen_labels, class_sets
from peterrec.evaluation.intervals import Interval, Statistic
from peterrec.evaluation.label_statistics import mean_over_labels
from peterrec.evaluation.protocols import ClassificationOutcome, MultilabelOutcome
from peterrec.evaluation.statistics import weighted_mean

THRESHOLD_METRICS = ("precision", "recall", "cost")
SET_METRICS = ("set_coverage", "set_size")


def class_decision_statistics(outcome: ClassificationOutcome) -> dict[str, Statistic]:
    """Return precision and recall of the class with a threshold, or the cost; and coverage and size of sets."""
    decision, ones = outcome.decision, np.ones(outcome.users)
    statistics: dict[str, Statistic] = {}
    if decision is None:
        return statistics
    if decision.positive is not None:
        answered = chosen_classes(outcome.probabilities, decision) == decision.positive
        statistics |= _threshold_statistics(answered[:, None], outcome.labels[:, None] == decision.positive, decision)
    if decision.conformal is not None:
        sets = class_sets(outcome.probabilities, decision)
        held = sets[np.arange(outcome.users), outcome.labels].astype(np.float64)
        statistics["set_coverage"] = partial(weighted_mean, held, ones)
        statistics["set_size"] = partial(weighted_mean, sets.sum(axis=1).astype(np.float64), ones)
    return statistics


def label_decision_statistics(outcome: MultilabelOutcome) -> dict[str, Statistic]:
    """Return precision and recall of labels that have thresholds, means over them, or the cost."""
    decision = outcome.decision
    if decision is None or decision.thresholds is None:
        return {}
    return _threshold_statistics(chosen_labels(outcome.probabilities, decision), outcome.indicators == 1, decision)


def _threshold_statistics(
    answered: Bool[np.ndarray, "N K"], having: Bool[np.ndarray, "N K"], decision: Decision
) -> dict[str, Statistic]:
    hits = (answered & having).astype(np.float64)
    columns = range(answered.shape[1])
    predicted, true = answered.astype(np.float64), having.astype(np.float64)
    statistics: dict[str, Statistic] = {}
    for name, counted in (("precision", predicted), ("recall", true)):
        if counted.any():  # else nobody is answered to have a label, or nobody has it
            by_label = [partial(weighted_mean, hits[:, k], counted[:, k]) for k in columns]
            statistics[name] = partial(mean_over_labels, by_label)
    costs = dict(decision.aim)
    if "false_positive_cost" in costs:
        cost = costs["false_positive_cost"] * (predicted - hits) + costs["false_negative_cost"] * (true - hits)
        statistics["cost"] = partial(weighted_mean, cost.mean(axis=1), np.ones(len(cost)))
    return statistics


def describe_decisions(
    decisions: Mapping[str, Decision | None], intervals: Mapping[tuple[str, str], Interval]
) -> list[str]:
    """Return in words what the thresholds and the sets of methods reach on the test users.

    Args:
        decisions: of each method, by its name.
        intervals: of metrics, by the method and the metric.
    """
    notes = []
    for name, decision in decisions.items():
        if decision is not None and decision.thresholds is not None:
            aim = ", ".join(f"{setting.replace('_', ' ')} {value:g}" for setting, value in decision.aim)
            reached = _reached(name, THRESHOLD_METRICS, intervals)
            notes.append(f"{name} answers by thresholds for {aim}, and reaches {reached}")
        if decision is not None and decision.conformal is not None:
            promise = f"sets of classes of {name} are to hold the true one of {1 - decision.conformal:.0%} of users"
            notes.append(f"{promise}, and reach {_reached(name, SET_METRICS, intervals)}")
    return notes


def _reached(name: str, metrics: tuple[str, ...], intervals: Mapping[tuple[str, str], Interval]) -> str:
    reached = [(metric.replace("_", " "), intervals[name, metric]) for metric in metrics if (name, metric) in intervals]
    return ", ".join(f"{metric} {at.value:.3f} ({at.low:.3f} to {at.high:.3f})" for metric, at in reached)
