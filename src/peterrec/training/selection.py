"""The choice of the epoch that is kept: by the valid users, or by held-out train users where those are too few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.errors import TaskError

ENOUGH_USERS = 100  # a share of them, such as the accuracy, has a standard error of 5 % at most


@dataclass(frozen=True)
class Selection:
    """The users that choose the epoch: the valid ones, or those of a cross-validation.

    Attributes:
        folds: of a cross-validation within the train users; 0: the valid users choose.
        line: what is to be said of a cross-validation, before it.
        warnings: what makes the choice, or the metrics of the valid users, a poor one.
    """

    folds: int = 0
    line: str = ""
    warnings: tuple[str, ...] = ()


def select_by(
    config: AdaptConfig, task: Task, train: TaskPart, valid: TaskPart, *, continues: bool = False
) -> Selection:
    """Decide how the epoch of a task is chosen.

    With strategy `joint` always by the valid users: there is one network for all tasks, whose users differ, so that a
    user who is held out of one task is still learned from in another. So too where the training goes on from a bundle
    (`continues`), which has learned from all train users.

    Raises:
        TaskError: cross-validation is asked for, and there are fewer than two train users for each fold.
    """
    few, one_class = too_few(len(valid)), _one_class(task, train, valid)
    warnings = () if one_class is None else (f"{task.name!r}: the valid users {one_class}: their metrics say little",)
    if config.strategy == "joint" or continues:
        return Selection(warnings=(*warnings, *chosen_by_few(task.name, len(valid))))
    possible = len(train) >= 2 * config.folds
    if config.selection == "cross-validation" and not possible:
        raise TaskError(
            f"has {len(train)} train users, but {config.folds} folds need {2 * config.folds}",
            remedy="set folds lower, or selection to valid, or label more users and prepare again",
            path=task.path,
        )
    method = f"{config.folds}-fold cross-validation within the {len(train):,} train users"
    if config.selection == "cross-validation":
        return Selection(config.folds, f"choosing the epoch by {method}", warnings)
    reason = few or (f"the valid users {one_class}" if one_class else None)
    if reason is None:
        return Selection()
    if config.selection == "auto" and possible and len(train) > len(valid):
        return Selection(config.folds, f"{reason}: choosing by {method}", warnings)
    remedy = "set selection to auto" if config.selection == "valid" and possible else "label more users"
    return Selection(warnings=(*warnings, *chosen_by_few(task.name, len(valid), remedy)))


def chosen_by_few(name: str, valid: int, remedy: str = "label more users") -> tuple[str, ...]:
    """Return the warning that is due where so many valid users chose the epoch of a task, if one is."""
    few = too_few(valid)
    return () if few is None else (f"{name!r}: {few}, but they chose it: {remedy}, or raise split.valid",)


def too_few(users: int, kind: str = "valid") -> str | None:
    """Return a warning that so many users are too few to choose an epoch by; None where they are not."""
    if users >= ENOUGH_USERS:
        return None
    error = 50 / np.sqrt(users)  # of a share of one half, in percent
    reason = f"a share of them has a standard error of {error:.0f} %"
    return f"{users} {kind} users are too few to choose an epoch by ({reason})"


def _one_class(task: Task, train: TaskPart, valid: TaskPart) -> str | None:
    if train.labels is None or valid.labels is None:
        return None
    classes = np.unique(valid.labels)
    if len(classes) > 1 or len(np.unique(train.labels)) == 1:
        return None
    return f"have one class only ({task.class_names[classes[0]]!r})"
