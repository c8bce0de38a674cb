"""Choosing an epoch within the train users: a network for each fold, all trained in the same steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from peterrec.config import AdaptConfig
from peterrec.data.batching import EpochStream, last_events
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import IntArray
from peterrec.data.splits import assign_folds
from peterrec.data.subset import count_targets
from peterrec.model import UserModel
from peterrec.nn.readout import represent
from peterrec.training.activation_cache import TrunkCache
from peterrec.training.callbacks import require_finite
from peterrec.training.constant import constant_sums
from peterrec.training.folder import WorkFolder
from peterrec.training.loop import Plan, TrainedModule
from peterrec.training.optim import clip_gradients
from peterrec.training.strategies import Trainable, build
from peterrec.training.task_loss import Sums, TaskLoss, add_up, class_weights, metric_sums
from peterrec.training.task_reader import TaskReader
from peterrec.training.task_source import VALID_BATCH, Batch, TaskSource
from peterrec.training.transfer import standardise, train


@dataclass(frozen=True)
class Fold:
    """A network that learns from all train users but those held out.

    Attributes:
        rows: train users that it learns from.
        held_out: the others.
        parts: the network; it starts at the weights that the one for all train users starts at.
        source: of its users, in the order of `rows`.
        loss: with class weights by its users.
        constant: sums of the metrics of the constant answer on those held out, by the shares of its users.
    """

    rows: IntArray
    held_out: IntArray
    parts: Trainable
    source: TaskSource
    loss: TaskLoss
    constant: list[Sums]


def make_folds(
    config: AdaptConfig, task: Task, users: TaskPart, count: int, model: UserModel, cache: TrunkCache | None
) -> list[Fold]:
    """Divide the train users by a hash of their id, each class evenly, and build a fresh network for each fold.

    Raises:
        TaskError: a user has every target, so that no negative is left.
    """
    if not count:
        return []
    hashes = id_hash(users.user_ids.to_pylist())
    number = assign_folds(hashes, count, f"folds-{config.seed}", users.labels)
    order = np.argsort(users.sequences.lengths, kind="stable")  # similar lengths are read together
    return [
        _fold(config, task, users, (np.flatnonzero(number != i), order[number[order] == i]), model, cache)
        for i in range(count)
    ]


def _fold(
    config: AdaptConfig,
    task: Task,
    users: TaskPart,
    rows: tuple[IntArray, IntArray],
    model: UserModel,
    cache: TrunkCache | None,
) -> Fold:
    learned, held_out = rows
    part = users.take(learned)
    task = count_targets(task, part)
    parts = build(config, model.network.backbone, task, part)
    parts.modules().to(model.device)
    parts.backbone.to(model.device)
    standardise(parts.head, config, part, partial(represent, parts.backbone, patch=parts.patch), model.device)
    weights = class_weights(config, task, part)
    states = None if cache is None else _states_of(cache, learned)
    constant = constant_sums(task, part, users, held_out, weights)
    return Fold(learned, held_out, parts, TaskSource(task, part, config, states), TaskLoss(config, weights), constant)


def _states_of(cache: TrunkCache, learned: IntArray) -> Callable[[IntArray], Batch]:
    return lambda rows: cache.train(learned[rows])


class FoldSource:
    """Batches of train users, by the number of the fold: to each those that it does not hold out."""

    def __init__(self, folds: Sequence[Fold], lengths: IntArray) -> None:
        self.folds = folds
        self.lengths = lengths
        self._places = [np.full(len(lengths), -1, dtype=np.int64) for _ in folds]  # of a train user in the fold's part
        for fold, places in zip(folds, self._places, strict=True):
            places[fold.rows] = np.arange(len(fold.rows))

    def batch(self, rows: IntArray, rng: np.random.Generator) -> dict[str, Batch]:
        """Return a batch for each fold that learns from one of the rows."""
        found = {}
        for number, (fold, places) in enumerate(zip(self.folds, self._places, strict=True)):
            of_fold = places[rows][places[rows] >= 0]
            if len(of_fold):
                found[str(number)] = fold.source.batch(of_fold, rng)
        return found


class HeldOutBatches:
    """Batches of the users that each fold holds out: `fold`, their `rows` and what is read of them."""

    def __init__(self, folds: Sequence[Fold], read: Callable[[IntArray], Batch]) -> None:
        self.read = read
        self.batches = [
            (number, fold.held_out[start : start + VALID_BATCH])
            for number, fold in enumerate(folds)
            for start in range(0, len(fold.held_out), VALID_BATCH)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for number, rows in self.batches:
            yield {"fold": torch.tensor(number), "rows": torch.from_numpy(rows), **self.read(rows)}


class FoldsModule(TrainedModule):
    """Trains the networks of all folds, as if each were alone: nothing of one reaches another."""

    def __init__(self, folds: Sequence[Fold], users: TaskPart, config: AdaptConfig, cache: TrunkCache | None) -> None:
        super().__init__(nn.ModuleList(fold.parts.modules() for fold in folds), config.optim)
        # Batches of a fold have any number of rows: nothing would be gained by compiling for full ones.
        plain = config.model_copy(update={"runner": config.runner.model_copy(update={"compile": False})})
        self.folds = folds
        self.users = users
        self.cache = cache
        self.backbones = nn.ModuleList(fold.parts.backbone for fold in folds)  # moved between devices with the rest
        self.trunk = None if cache is None else cache.trunk.backbone
        self.readers = nn.ModuleList(
            TaskReader(fold.parts, plain, None if cache is None else replace(cache.trunk, backbone=fold.parts.backbone))
            for fold in folds
        )
        self.losses = nn.ModuleList(fold.loss for fold in folds)
        self._sums: list[Sums] = []

    def on_train_start(self) -> None:
        """Compute what is kept of each user, as `AdaptModule` does."""
        if self.cache is not None:
            with self.trainer.precision_plugin.forward_context():
                self.cache.fill(self.device, Path(self.trainer.default_root_dir))

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Return the mean of the losses of the folds."""
        losses = [
            self.losses[int(number)](self.folds[int(number)].parts.head, self.readers[int(number)](of), of)
            for number, of in batch.items()
        ]
        return torch.stack(losses).sum() / len(self.folds)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Give each fold the gradient of its own loss, and clip its norm alone."""
        assert isinstance(self.trained, nn.ModuleList)
        for fold in self.trained:
            for parameter in fold.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(len(self.trained))  # the loss is the mean over folds
            if gradient_clip_val is not None:
                clip_gradients(fold.parameters(), float(gradient_clip_val))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the metrics of some users that a fold holds out."""
        number = int(batch["fold"])
        fold = self.folds[number]
        vectors = self.readers[number](batch)
        with self.full_precision():
            scores = fold.parts.head(vectors.float()).cpu()
        require_finite(scores, "the scores of held-out users", self.current_epoch)
        self._sums.append(metric_sums(scores, self.users, batch["rows"].cpu().numpy(), fold.loss.weights))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over all train users, each by the network that did not learn from it."""
        self.log_dict(add_up(self._sums))
        self._sums.clear()


def cross_validate(
    model: UserModel,
    folds: Sequence[Fold],
    users: TaskPart,
    config: AdaptConfig,
    cache: TrunkCache | None,
    plan: Plan,
    work: WorkFolder,
) -> dict[str, Any]:
    """Train the folds, stop when `patience` epochs were no better for the users held out, and say which was best.

    All folds take a step at a time, so that it is the mean over them which stops, and one resume point has them all.

    Returns:
        Plain values: `folds`, `users`, `best_epoch` (from 0), `metrics` of it, those of the `constant` answer, `curve`.

    Raises:
        TrainingError, InterruptedRun, StorageError: as in `loop.fit`.
    """
    module = FoldsModule(folds, users, config, cache)
    lengths = np.minimum(users.sequences.lengths, config.max_length)
    stream = EpochStream(FoldSource(folds, lengths), config.batch_size, config.seed)

    def tokens(rows: IntArray) -> Batch:
        return {"tokens": torch.from_numpy(last_events(users.sequences, rows, config.max_length))}

    held_out = HeldOutBatches(folds, tokens if cache is None else cache.train)
    curve = train(model, module, stream, held_out, work, plan, config)
    return {
        "folds": len(folds),
        "users": len(users),
        "best_epoch": int(curve.best["epoch"]),
        "metrics": {name: curve.best[name] for name in plan.shown},
        "constant": add_up([sums for fold in folds for sums in fold.constant]),
        "curve": curve.rows,
    }


def cross_validation_line(found: dict[str, Any]) -> str:
    """Return the line that says what `cross_validate` found."""
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in found["metrics"].items())
    return f"best epoch for held-out train users {found['best_epoch'] + 1}: {metrics}"
