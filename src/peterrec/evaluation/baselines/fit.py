"""Fitting baselines: one by its name, or the quick ones that suit a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from peterrec.data.corpus import TaskPart
from peterrec.errors import ConfigError, TaskError
from peterrec.evaluation.baselines.classification import (
    ClassificationBaseline,
    bag_of_items,
    history_length,
    labels_of,
    majority,
)
from peterrec.evaluation.baselines.ease import ease
from peterrec.evaluation.baselines.neighbours import user_to_user
from peterrec.evaluation.baselines.ranking import RankingBaseline, item_to_item, popularity
from peterrec.evaluation.baselines.ridge import ridge
from peterrec.evaluation.baselines.trees import boosted_trees

Baseline = ClassificationBaseline | RankingBaseline
Kind = Literal["classification", "ranking"]
Maker = Callable[[TaskPart, TaskPart, int], Baseline | str]
Say = Callable[[str], None]

MAKERS: Mapping[Kind, Mapping[str, Maker]] = {
    "classification": {
        "majority": lambda train, _, classes: majority(train, classes),
        "history length": lambda train, _, classes: history_length(train, classes),
        "tf-idf + logistic regression": bag_of_items,
        "gradient-boosted trees": boosted_trees,
    },
    "ranking": {
        "popularity": lambda train, _, targets: popularity(train, targets),
        "item-to-item cosine": item_to_item,
        "user-to-user cosine": user_to_user,
        "ridge across domains": ridge,
        "EASE across domains": ease,
    },
}
"""How each baseline is fitted, on train users, valid users and the number of classes or targets; simplest first."""

QUICK: Mapping[Kind, tuple[str, ...]] = {
    "classification": ("majority", "history length", "tf-idf + logistic regression"),
    "ranking": ("popularity", "item-to-item cosine", "ridge across domains"),
}


@dataclass(frozen=True)
class FittedBaselines:
    """Baselines ready to score, simplest first, and why others were left out.

    Attributes:
        baselines: fitted on the train part, set on the valid part.
        notes: one sentence for each that was skipped, without a full stop.
    """

    baselines: tuple[Baseline, ...]
    notes: tuple[str, ...] = ()


def baseline_names(kind: Kind) -> tuple[str, ...]:
    """Return the names of all baselines of a kind of task, as tables show them; simplest first."""
    return tuple(MAKERS[kind])


def fit_baseline(
    name: str, train: TaskPart, valid: TaskPart, *, classes: int = 0, n_targets: int = 0
) -> Baseline | str:
    """Fit one baseline.

    Args:
        name: one of `baseline_names` of the kind of task that the train part is of.
        train: users to fit on.
        valid: users to choose settings on; may be empty.
        classes: number of classes, for classification.
        n_targets: size of the target catalogue, for ranking.

    Returns:
        The baseline, or why it was skipped: one sentence without a full stop.

    Raises:
        ConfigError: no such baseline of this kind of task; the message lists those there are.
        TaskError: there are no train users.
    """
    kind = _kind_of(train)
    if name not in MAKERS[kind]:
        other: Kind = "ranking" if kind == "classification" else "classification"
        what = f"baseline {name!r} is not for {kind}" if name in MAKERS[other] else f"there is no baseline {name!r}"
        raise ConfigError(what, remedy=f"those of {kind} are {', '.join(MAKERS[kind])}")
    needs_two = kind == "classification" and name != "majority"
    if needs_two and len(np.unique(labels_of(train))) < 2:
        return f"{name} was skipped: the train users have one class"
    return MAKERS[kind][name](train, valid, classes if kind == "classification" else n_targets)


def fit_baselines(
    train: TaskPart, valid: TaskPart, *, classes: int = 0, n_targets: int = 0, say: Say = lambda _: None
) -> FittedBaselines:
    """Fit the quick baselines of a classification task (labels in the train part) or of a ranking task (targets).

    Args:
        train: users to fit on.
        valid: users to choose settings on; may be empty.
        classes: number of classes, for classification.
        n_targets: size of the target catalogue, for ranking.
        say: told what is being fitted.

    Raises:
        TaskError: there are no train users.
    """
    kind = _kind_of(train)
    names, notes = QUICK[kind], []
    if kind == "classification" and len(np.unique(labels_of(train))) < 2:
        names, notes = ("majority",), ["logistic regressions were skipped: the train users have one class"]
    made: list[Baseline] = []
    for name in names:
        say(f"fitting baseline: {name}")
        one = fit_baseline(name, train, valid, classes=classes, n_targets=n_targets)
        if isinstance(one, str):
            notes.append(one)
        else:
            made.append(one)
    return FittedBaselines(tuple(made), tuple(notes))


def _kind_of(train: TaskPart) -> Kind:
    if not len(train):
        raise TaskError("the task has no train users", remedy="give it more users or a larger train share")
    return "ranking" if train.labels is None else "classification"
