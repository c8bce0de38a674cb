"""Fitting cheap baselines: one by its name, or the quick ones that suit a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import Sequences
from peterrec.errors import TaskError
from peterrec.evaluation.baselines.classification import ClassificationBaseline, labels_of, with_unseen_classes
from peterrec.evaluation.baselines.multilabel import MultilabelBaseline
from peterrec.evaluation.baselines.ranking import RankingBaseline
from peterrec.evaluation.baselines.registry import BASELINES, baseline_names, find_baseline
from peterrec.evaluation.baselines.regression import RegressionBaseline

FittedBaseline = ClassificationBaseline | RankingBaseline | RegressionBaseline | MultilabelBaseline


@dataclass(frozen=True)
class FittedBaselines:
    """Baselines ready to score, simplest first, and the reasons for which others were left out.

    Attributes:
        baselines: fitted on the train part, set on the valid part.
        notes: one sentence for each that was skipped, without a full stop.
    """

    baselines: tuple[FittedBaseline, ...]
    notes: tuple[str, ...] = ()


def fit_baseline(
    name: str,
    train: TaskPart,
    valid: TaskPart,
    *,
    classes: int = 0,
    n_targets: int = 0,
    quantiles: tuple[float, ...] = (),
    unlabelled: Sequences | None = None,
) -> FittedBaseline | str:
    """Fit one cheap baseline.

    Args:
        name: of a cheap one for the kind of task that the train part is of.
        train: users to fit on.
        valid: users to choose settings on; may be empty.
        classes: number of classes, for classification, or of labels, for multilabel.
        n_targets: size of the target catalogue, for ranking.
        quantiles: that are predicted too, for regression.
        unlabelled: histories of users, with a label or without, for baselines that learn from them; None: those of the
            train part.

    Returns:
        The baseline, or why it was skipped: one sentence without a full stop.

    Raises:
        ConfigError: no such baseline of this kind of task; the message lists those there are.
        TaskError: there are no train users.
    """
    kind = _checked(train).kind
    baseline = find_baseline(name, kind, "cheap")
    needs_two_classes = kind == "classification" and name != "majority"
    if needs_two_classes and len(np.unique(labels_of(train))) < 2:
        return f"{name} was skipped: the train users have one class"
    options = {"unlabelled": train.sequences if unlabelled is None else unlabelled} if baseline.unlabelled else {}
    outputs = {"classification": classes, "ranking": n_targets, "regression": quantiles, "multilabel": classes}[kind]
    fitted: FittedBaseline | str = baseline.fit(train, valid, outputs, **options)
    return with_unseen_classes(fitted, train, classes) if isinstance(fitted, ClassificationBaseline) else fitted


def fit_baselines(
    train: TaskPart,
    valid: TaskPart,
    *,
    classes: int = 0,
    n_targets: int = 0,
    quantiles: tuple[float, ...] = (),
    unlabelled: Sequences | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> FittedBaselines:
    """Fit the quick baselines of a classification task (labels in the train part) or of a ranking task (targets).

    Args:
        train: users to fit on.
        valid: users to choose settings on; may be empty.
        classes: number of classes, for classification, or of labels, for multilabel.
        n_targets: size of the target catalogue, for ranking.
        quantiles: that are predicted too, for regression.
        unlabelled: histories of users, with a label or without, for baselines that learn from them; None: those of the
            train part.
        say: receives a line for each baseline before it is fitted.

    Raises:
        TaskError: there are no train users.
    """
    kind = _checked(train).kind
    names = [name for name in baseline_names(kind, "cheap") if kind in BASELINES[name].quick]
    notes: list[str] = []
    if kind == "classification" and len(np.unique(labels_of(train))) < 2:
        names, notes = ["majority"], ["logistic regressions were skipped: the train users have one class"]
    baselines: list[FittedBaseline] = []
    for name in names:
        say(f"fitting baseline: {name}")
        fitted = fit_baseline(
            name, train, valid, classes=classes, n_targets=n_targets, quantiles=quantiles,
            unlabelled=unlabelled,
        )  # fmt: skip
        if isinstance(fitted, str):
            notes.append(fitted)
        else:
            baselines.append(fitted)
    return FittedBaselines(tuple(baselines), tuple(notes))


def _checked(train: TaskPart) -> TaskPart:
    if not len(train):
        raise TaskError("the task has no train users", remedy="give it more users or a larger train share")
    return train
