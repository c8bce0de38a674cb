"""Answers from probabilities: the label by a threshold, and sets of classes that hold the true one often enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Int

LIKELY = 0.5  # of labels that are answered, where no threshold was chosen

Probabilities = Float[np.ndarray, "N K"]


@dataclass(frozen=True)
class Decision:
    """The way from probabilities to an answer, as the valid users chose it.

    Attributes:
        users: how many valid users chose the thresholds; 0: there are none.
        thresholds: (K,) probability from which on a class or label is answered; None of the other of two classes.
        aim: what the thresholds are for, as the settings say it: `precision`, or the costs of the errors.
        conformal: share of users whose class may be missing in the set; None: no sets are answered.
        least: probability from which on a class is in the set.
        conformal_users: how many valid users chose it.
    """

    users: int = 0
    thresholds: tuple[float | None, ...] | None = None
    aim: tuple[tuple[str, float], ...] = ()
    conformal: float | None = None
    least: float = 0.0
    conformal_users: int = 0

    @property
    def positive(self) -> int | None:
        """Place of the class of two that has the threshold."""
        if self.thresholds is None:
            return None
        return next(place for place, threshold in enumerate(self.thresholds) if threshold is not None)

    def of_columns(self, columns: Sequence[int] | Int[np.ndarray, " K"]) -> Decision:
        """Return the same for outputs in another order."""
        if self.thresholds is None:
            return self
        return replace(self, thresholds=tuple(self.thresholds[column] for column in columns))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        tree: dict[str, Any] = {}
        if self.thresholds is not None:
            tree["thresholds"] = {"values": list(self.thresholds), "users": self.users, "aim": dict(self.aim)}
        if self.conformal is not None:
            tree["conformal"] = {"miss": self.conformal, "least": self.least, "users": self.conformal_users}
        return tree

    @classmethod
    def from_json(cls, tree: dict[str, Any], outputs: int) -> Self:
        """Read what `to_json` gave, of a head of so many outputs.

        Raises:
            ValueError: no threshold for each output, or a value that is none.
        """
        decision = cls()
        if (chosen := tree.get("thresholds")) is not None:
            values = tuple(None if value is None else float(value) for value in chosen["values"])
            if len(values) != outputs or all(value is None for value in values):
                raise ValueError(f"there are {len(values)} thresholds of {outputs} outputs")
            aim = tuple((str(name), float(value)) for name, value in chosen["aim"].items())
            decision = replace(decision, thresholds=values, users=int(chosen["users"]), aim=aim)
        if (sets := tree.get("conformal")) is not None:
            miss, least, users = float(sets["miss"]), float(sets["least"]), int(sets["users"])
            decision = replace(decision, conformal=miss, least=least, conformal_users=users)
        return decision


def chosen_classes(probabilities: Probabilities, decision: Decision | None = None) -> Int[np.ndarray, " N"]:
    """Return the class that is answered: by the threshold of a task of two classes, else the most probable one."""
    positive = None if decision is None else decision.positive
    if decision is None or decision.thresholds is None or positive is None:
        return np.asarray(probabilities.argmax(axis=1))
    reached = probabilities[:, positive].astype(np.float64) >= (decision.thresholds[positive] or 0.0)
    return np.where(reached, positive, 1 - positive)


def chosen_labels(probabilities: Probabilities, decision: Decision | None = None) -> Bool[np.ndarray, "N K"]:
    """Return which labels are answered: those that reach their threshold, or 0.5 where there is none."""
    thresholds = None if decision is None else decision.thresholds
    limits = LIKELY if thresholds is None else np.array(thresholds, dtype=np.float64)
    reached: Bool[np.ndarray, "N K"] = probabilities.astype(np.float64) >= limits
    return reached


def class_sets(probabilities: Probabilities, decision: Decision) -> Bool[np.ndarray, "N K"]:
    """Return which classes are in the set of each user: those that are probable enough, and always the most probable.

    Sets of least ambiguity with a promised coverage (Sadinle, Lei and Wasserman, JASA 2019), none of them empty.
    """
    sets: Bool[np.ndarray, "N K"] = probabilities.astype(np.float64) >= decision.least
    sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
    return sets
