"""Decisions of the valid users once a task is learned: calibrated probabilities, thresholds, and sets of classes."""

from __future__ import annotations

import importlib.util
import logging
import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, ClassifierMixin

from peterrec.artifacts.bundle_io import Bundle
from peterrec.config import AdaptConfig, CalibrationConfig, ThresholdConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.decision import Decision
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import indicators
from peterrec.data.splits import assign_folds
from peterrec.errors import ConfigError, TaskError
from peterrec.evaluation.observed import make_reference
from peterrec.model import UserModel
from peterrec.training.calibrate import fit_isotonic, fit_temperature
from peterrec.training.thresholds import choose_threshold

logger = logging.getLogger(__name__)

LEAST_USERS = {"temperature": 100, "isotonic": 1000, "threshold": 100, "conformal": 100}
"""Valid users, at least. A share of 100 users has a standard error of 5 % at most; below 1,000 users an isotonic
regression follows their chance (scikit-learn's user guide, section on probability calibration)."""

DECIDES = ("classification", "multilabel")
RAISE = "raise split.valid and prepare again, or leave it out"


class _Valid(NamedTuple):
    """Valid users with known events: outputs of the head, and 1 for what each of them has, both (N, K)."""

    outputs: Float[np.ndarray, "N K"]
    indicators: Int[np.ndarray, "N K"]
    hashes: np.ndarray

    def take(self, rows: np.ndarray) -> _Valid:
        return _Valid(self.outputs[rows], self.indicators[rows], self.hashes[rows])


def check_calibration(config: AdaptConfig, task: Task, valid: TaskPart) -> None:
    """Refuse what the valid users of a task cannot decide, before anything is trained.

    Raises:
        ConfigError: a threshold for a task that has more than two classes, or no such class; sets for labels; or sets
            without MAPIE installed.
        TaskError: too few valid users with events.
    """
    settings = config.calibration
    if not settings.decides or task.kind not in DECIDES:
        return
    if task.kind == "multilabel" and settings.conformal is not None:
        raise ConfigError(
            f"calibration.conformal is of classes, and {task.name!r} is a multilabel task", remedy="leave it out"
        )
    if settings.threshold is not None:
        _positive_class(settings.threshold, task)
    if settings.conformal is not None and importlib.util.find_spec("mapie") is None:
        raise ConfigError("calibration.conformal needs MAPIE", remedy="install peterrec[conformal]")
    users = int((valid.sequences.item_counts > 0).sum())
    halves = 2 if _in_halves(settings) else 1
    for name, least in _needed(settings).items():
        if users < least * halves:
            parts = ", half of them for the sets," if halves == 2 else ""
            raise TaskError(
                f"has {users} valid users with events, and calibration ({name}) needs {least * halves}{parts} at least",
                remedy=RAISE,
                path=task.path,
            )


def _in_halves(settings: CalibrationConfig) -> bool:
    return settings.conformal is not None and settings.method != "none"


def _needed(settings: CalibrationConfig) -> dict[str, int]:
    needed: dict[str, int] = {} if settings.method == "none" else {settings.method: LEAST_USERS[settings.method]}
    if settings.threshold is not None:
        needed["threshold"] = LEAST_USERS["threshold"]
    if settings.conformal is not None:
        needed["conformal"] = max(LEAST_USERS["conformal"], math.ceil(1 / settings.conformal))
    return needed


def _positive_class(threshold: ThresholdConfig, task: Task) -> int | None:
    """Return the place of the class of two that the threshold is for; None of labels, of which each has its own."""
    name = threshold.positive_class
    if task.kind == "multilabel":
        if name is not None:
            raise ConfigError(
                "positive_class is of two classes, and labels have each a threshold", remedy="leave it out"
            )
        return None
    if len(task.class_names) != 2:
        raise ConfigError(
            f"calibration.threshold is of two classes, and {task.name!r} has {len(task.class_names)}",
            remedy="leave it out: the most probable class is answered",
        )
    if name is not None and name not in task.class_names:
        raise ConfigError(
            f"positive_class is {name!r}, and the classes of {task.name!r} are {' and '.join(task.class_names)}",
            remedy="name one of them",
        )
    return 1 if name is None else task.class_names.index(name)


def decide(model: UserModel, bundle: Bundle, task: Task, valid: TaskPart, config: AdaptConfig) -> Bundle:
    """Return a bundle with what the valid users decide of its answers.

    Where sets are asked for beside a calibration, half of the users decide each: sets keep their promise only with
    users of whom nothing was learned.

    Args:
        model: the backbone that the bundle is for.
        bundle: as it was trained.
        task: of the bundle.
        valid: its valid users.
        config: of the training.
    """
    settings = config.calibration
    if not settings.decides or bundle.kind not in DECIDES:
        return bundle
    users = _read(model, bundle, valid)
    for_sets = users
    if _in_halves(settings):
        half = assign_folds(users.hashes, 2, "conformal", users.indicators.argmax(axis=1))
        users, for_sets = users.take(half == 0), users.take(half == 1)
    exclusive = bundle.kind == "classification"
    if settings.method != "none":
        fit = fit_temperature if settings.method == "temperature" else fit_isotonic
        bundle = replace(bundle, calibration=fit(users.outputs, users.indicators, exclusive=exclusive))
        logger.info(_calibration_line(bundle))
    if settings.threshold is not None:
        bundle = _with_thresholds(bundle, settings.threshold, users, task)
    if settings.conformal is not None:
        bundle = _with_sets(bundle, settings.conformal, for_sets)
    return bundle


def _read(model: UserModel, bundle: Bundle, valid: TaskPart) -> _Valid:
    """Return the valid users of whom an event is known: of others the shares of the train users are answered."""
    valid = valid.take(np.flatnonzero(valid.sequences.item_counts > 0))
    name = model.add_bundle(bundle, f"calibrate {bundle.name}")
    try:
        vectors = torch.from_numpy(model.representations(valid.sequences, name))
        with torch.inference_mode():
            outputs = model.bundle(name).head(vectors.to(model.device)).double().cpu().numpy()
    finally:
        model.delete_bundle(name)
    if valid.label_sets is not None:
        having = indicators(valid.label_sets, outputs.shape[1]).astype(np.int64)
    else:
        having = np.eye(outputs.shape[1], dtype=np.int64)[np.asarray(valid.labels)]
    return _Valid(outputs, having, id_hash(valid.user_ids.to_pylist()))


def _probabilities(bundle: Bundle, users: _Valid) -> Float[np.ndarray, "N K"]:
    return bundle.probabilities(torch.from_numpy(users.outputs).float()).double().numpy()


def _calibration_line(bundle: Bundle) -> str:
    calibration = bundle.calibration
    assert calibration is not None
    shape = f"temperature {calibration.temperature:.3f}" if calibration.method == "temperature" else "isotonic curves"
    return f"calibrated {bundle.name!r} on {calibration.users:,} valid users: {shape}"


def _with_thresholds(bundle: Bundle, settings: ThresholdConfig, users: _Valid, task: Task) -> Bundle:
    positive, probabilities = _positive_class(settings, task), _probabilities(bundle, users)
    columns = range(len(task.class_names)) if positive is None else (positive,)
    thresholds: list[float | None] = [None] * len(task.class_names)
    warnings: list[str] = []
    for column in columns:
        name = task.class_names[column]
        thresholds[column], warning = choose_threshold(probabilities[:, column], users.indicators[:, column], settings)
        warnings += [f"{task.name!r}: the threshold of {name!r}: {warning}"] if warning else []
    aim = tuple(
        (key, value) for key, value in settings.model_dump(exclude={"positive_class"}).items() if value is not None
    )
    decision = Decision(len(users.outputs), tuple(thresholds), aim)
    logger.info(f"{bundle.name!r} is answered by thresholds: {_thresholds_line(task, thresholds)}")
    metrics = bundle.metrics | {"warnings": [*bundle.metrics.get("warnings", []), *warnings]}
    return replace(bundle, decision=decision, metrics=metrics)


def _thresholds_line(task: Task, thresholds: list[float | None]) -> str:
    named = zip(task.class_names, thresholds, strict=True)
    return ", ".join(f"{name} {threshold:.3f}" for name, threshold in named if threshold is not None)


def _with_sets(bundle: Bundle, miss: float, users: _Valid) -> Bundle:
    least = least_probability(_probabilities(bundle, users), users.indicators.argmax(axis=1), miss)
    decision = bundle.decision or Decision()
    decision = replace(decision, conformal=miss, least=least, conformal_users=len(users.outputs))
    logger.info(f"sets of classes miss {miss:.0%} of the users: classes of probability {least:.3f} and up")
    return replace(bundle, decision=decision)


def with_reference(model: UserModel, bundle: Bundle, train: TaskPart, valid: TaskPart) -> Bundle:
    """Return a bundle with what its valid users are like, for `drift`.

    Args:
        model: the backbone that the bundle is for.
        bundle: as the valid users decided.
        train: train users of the task.
        valid: its valid users.
    """
    name = model.add_bundle(bundle, f"reference {bundle.name}")
    try:
        return replace(bundle, reference=make_reference(model, name, train.sequences, valid.sequences))
    finally:
        model.delete_bundle(name)


class _Answered(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier in the manner of scikit-learn whose users are their own answers."""

    def __init__(self, classes: int = 2) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)
        self.is_fitted_ = True

    def predict_proba(self, X: Any) -> Any:  # noqa: N803 - as scikit-learn calls it
        return X

    def predict(self, X: Any) -> Any:  # noqa: N803
        return X.argmax(axis=1)


def least_probability(probabilities: Float[np.ndarray, "N K"], classes: Int[np.ndarray, " N"], miss: float) -> float:
    """Return the probability from which on a class is in the set of a user, by MAPIE's split conformal prediction.

    Args:
        probabilities: of users of whom nothing was learned.
        classes: of these users.
        miss: share of users whose class may be missing.
    """
    from mapie.classification import SplitConformalClassifier  # noqa: PLC0415 - an extra

    estimator = _Answered(probabilities.shape[1])
    conformal = SplitConformalClassifier(
        estimator, confidence_level=1.0 - miss, conformity_score="lac", prefit=True
    ).conformalize(probabilities, classes)
    sets = conformal.predict_set(probabilities)[1][:, :, 0]
    rows = np.arange(len(classes))
    # The limit is the probability of one user's own class: the lowest that is in its set.
    return float(probabilities[rows, classes][sets[rows, classes]].min())
