"""Choosing an epoch within the train users: a network for each fold, all trained in the same steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from peterrec.data.batching import EpochStream, last_events
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import IntArray
from peterrec.data.splits import assign_folds
from peterrec.data.subset import count_targets
from peterrec.training.adaptation_run import AdaptationRun, epoch_phrase
from peterrec.training.learners import AdaptModule, Learner, Read, StepSource, ValidBatches, new_learner
from peterrec.training.loop import Plan
from peterrec.training.strategies import build
from peterrec.training.task_kinds import MetricTotals, mean_metrics
from peterrec.training.task_source import VALID_BATCH, Batch
from peterrec.training.work_folder import WorkFolder


@dataclass(frozen=True)
class Fold:
    """A network that learns from all train users but those held out.

    Attributes:
        rows: train users that it learns from.
        held_out: the others.
        learner: it starts at the weights that the one for all train users starts at; `valid` are those held out.
        constant: sums of the metrics of the constant answer on those held out, by the shares of its users.
    """

    rows: IntArray
    held_out: IntArray
    learner: Learner
    constant: list[MetricTotals]


def make_folds(run: AdaptationRun, count: int) -> list[Fold]:
    """Divide the train users by a hash of their id, each class evenly, and build a fresh network for each fold.

    Raises:
        TaskError: a user has every target, so that no negative is left.
    """
    if not count:
        return []
    users = run.learners[0].train
    fold_of_user = assign_folds(id_hash(users.user_ids.to_pylist()), count, f"folds-{run.config.seed}", users.labels)
    order = np.argsort(users.sequences.lengths, kind="stable")  # similar lengths are read together
    return [
        _fold(run, np.flatnonzero(fold_of_user != number), order[fold_of_user[order] == number])
        for number in range(count)
    ]


def _fold(run: AdaptationRun, rows: IntArray, held_out: IntArray) -> Fold:
    config, all_users, cache = run.config, run.learners[0], run.cache
    train, valid = all_users.train.take(rows), all_users.train.take(held_out)
    task = count_targets(all_users.task, train)
    parts = build(config, run.model.network.backbone, task, train, run.fused_patches)
    states: Read | None = None if cache is None else lambda fold_rows: cache.train(rows[fold_rows])
    learner = new_learner(config, task, train, valid, parts, run.model.device, states, valid_chooses=False)
    return Fold(rows, held_out, learner, learner.objective.constant_sums(valid))


def fold_source(folds: list[Fold], lengths: IntArray) -> StepSource:
    """Return batches of train users: to each fold those that it does not hold out.

    Args:
        folds: of the train users.
        lengths: (users,) events read of each train user.
    """
    places = [np.full(len(lengths), -1) for _ in folds]
    for fold, fold_places in zip(folds, places, strict=True):
        fold_places[fold.rows] = np.arange(len(fold.rows))
    return StepSource([fold.learner.source for fold in folds], places, lengths)


class HeldOutBatches:
    """Batches of the users that a fold holds out: their `rows` in its valid part, and what is read of them.

    Args:
        held_out: train users.
        read: gives what is read of train users.
    """

    def __init__(self, held_out: IntArray, read: Read) -> None:
        self.held_out = held_out
        self.read = read

    def __len__(self) -> int:
        return math.ceil(len(self.held_out) / VALID_BATCH)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.held_out), VALID_BATCH):
            users = self.held_out[start : start + VALID_BATCH]
            yield {"rows": torch.arange(start, start + len(users)), **self.read(users)}


def cross_validate(run: AdaptationRun, folds: list[Fold], plan: Plan, work: WorkFolder) -> dict[str, Any]:
    """Train the folds, stop when `patience` epochs were no better for the users held out, and say which was best.

    All folds take a step at a time, so that it is the mean over them which stops, and one resume point has them all.

    Returns:
        Plain values: `folds`, `users`, `best_epoch` (from 0; -1: the start), `metrics` of it, those of the `constant`
        answer, `curve`.

    Raises:
        TrainingError, InterruptedRun, StorageError: as in `loop.fit`.
    """
    # Batches of a fold have any number of rows: nothing would be gained by compiling for full ones.
    runner = run.config.runner.model_copy(update={"compile": False})
    config = run.config.model_copy(update={"runner": runner})
    users, source = run.learners[0].train, run.learners[0].source
    module = AdaptModule([fold.learner for fold in folds], config, run.cache, judged_on="held-out")
    stream = EpochStream(fold_source(folds, source.lengths), config.batch_size, config.seed)

    def read_tokens(rows: IntArray) -> Batch:
        return {"tokens": torch.from_numpy(last_events(users.sequences, rows, config.max_length))}

    read = read_tokens if run.cache is None else run.cache.train
    valid = ValidBatches([HeldOutBatches(fold.held_out, read) for fold in folds])
    curve = run.train(module, stream, valid, work, plan)
    return {
        "folds": len(folds),
        "users": len(users),
        "best_epoch": int(curve.best["epoch"]),
        "metrics": {name: curve.best[name] for name in plan.shown},
        "constant": mean_metrics([sums for fold in folds for sums in fold.constant]),
        "curve": curve.rows,
    }


def cross_validation_line(result: dict[str, Any]) -> str:
    """Return the line that says what came of `cross_validate`."""
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in result["metrics"].items())
    return f"for held-out train users {epoch_phrase(result['best_epoch'])}: {metrics}"
