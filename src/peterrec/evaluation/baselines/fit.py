"""Fitting every baseline that suits a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from peterrec.data.corpus import TaskPart
from peterrec.errors import TaskError
from peterrec.evaluation.baselines.classification import (
    ClassificationBaseline,
    bag_of_items,
    history_length,
    labels_of,
    majority,
)
from peterrec.evaluation.baselines.ranking import RankingBaseline, item_to_item, popularity
from peterrec.evaluation.baselines.ridge import ridge

Baseline = ClassificationBaseline | RankingBaseline
Say = Callable[[str], None]


@dataclass(frozen=True)
class FittedBaselines:
    """Baselines ready to score, simplest first, and why others were left out.

    Attributes:
        baselines: fitted on the train part, set on the valid part.
        notes: one sentence for each that was skipped, without a full stop.
    """

    baselines: tuple[Baseline, ...]
    notes: tuple[str, ...] = ()


def fit_baselines(
    train: TaskPart, valid: TaskPart, *, classes: int = 0, n_targets: int = 0, say: Say = lambda _: None
) -> FittedBaselines:
    """Fit the baselines of a classification task (labels in the train part) or of a ranking task (targets).

    Args:
        train: users to fit on.
        valid: users to choose settings on; may be empty.
        classes: number of classes, for classification.
        n_targets: size of the target catalogue, for ranking.
        say: told what is being fitted.

    Raises:
        TaskError: there are no train users.
    """
    if not len(train):
        raise TaskError("the task has no train users", remedy="give it more users or a larger train share")
    if train.labels is not None:
        return _classification(train, valid, classes, say)
    makers: dict[str, Callable[[], RankingBaseline | str]] = {
        "popularity": lambda: popularity(train, n_targets),
        "item-to-item cosine": lambda: item_to_item(train, valid, n_targets),
        "ridge across domains": lambda: ridge(train, valid, n_targets),
    }
    made: list[RankingBaseline | str] = []
    for name, make in makers.items():
        say(f"fitting baseline: {name}")
        made.append(make())
    return FittedBaselines(
        tuple(one for one in made if not isinstance(one, str)), tuple(one for one in made if isinstance(one, str))
    )


def _classification(train: TaskPart, valid: TaskPart, classes: int, say: Say) -> FittedBaselines:
    say("fitting baseline: majority")
    fitted = [majority(train, classes)]
    if len(np.unique(labels_of(train))) < 2:
        return FittedBaselines(tuple(fitted), ("logistic regressions were skipped: the train users have one class",))
    say("fitting baseline: history length")
    fitted.append(history_length(train, classes))
    say("fitting baseline: tf-idf + logistic regression")
    fitted.append(bag_of_items(train, valid, classes))
    return FittedBaselines(tuple(fitted))
