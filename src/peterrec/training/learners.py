"""Learners of a task: a network with its users, and the Lightning module that trains one or several in a step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.sequences import IntArray
from peterrec.nn.readout import represent
from peterrec.nn.trunk import Trunk
from peterrec.training.activation_cache import TrunkCache, ValidStates
from peterrec.training.callbacks import require_finite
from peterrec.training.distributed import shard_size, world_size
from peterrec.training.head_start import start_head
from peterrec.training.initial_bundle import InitialBundle
from peterrec.training.loop import TrainedModule, backbone_for_runner
from peterrec.training.optim import clip_gradients, make_optimizer
from peterrec.training.strategies import Trainable
from peterrec.training.task_kinds import MetricTotals, TaskObjective, mean_metrics, task_objective
from peterrec.training.task_source import VALID_BATCH, Batch, TaskSource, own_users, valid_batches

Read = Callable[[IntArray], Batch]


@dataclass(frozen=True)
class Learner:
    """A network that learns a task, and its users.

    Attributes:
        task: its target catalogue counted on the train users.
        train: users that it learns from.
        valid: users that it is judged on.
        parts: the network.
        source: batches of the train users.
        objective: of the task, by the train users.
        starts_at_probe: whether its head does.
    """

    task: Task
    train: TaskPart
    valid: TaskPart
    parts: Trainable
    source: TaskSource
    objective: TaskObjective
    starts_at_probe: bool = False


def new_learner(
    config: AdaptConfig,
    task: Task,
    train: TaskPart,
    valid: TaskPart,
    parts: Trainable,
    device: torch.device,
    states: Read | None,
    *,
    valid_chooses: bool,
    initial: InitialBundle | None = None,
) -> Learner:
    """Return a learner that has learned nothing yet.

    Args:
        config: of the training.
        task: as prepared.
        train: users to learn from.
        valid: users to judge by.
        parts: the network.
        device: where it is put; Lightning would do it too, but later.
        states: as in `TaskSource`.
        valid_chooses: whether settings are chosen by the valid users, too.
        initial: bundle whose head the head begins with; the network has its other weights already.

    Raises:
        TaskError: a user has every target, so that no negative is left.
        ConfigError: a setting of the loss that does not fit the task.
        TrainingError: what the network reads of the users is not finite.
    """
    parts.modules().to(device)
    parts.backbone.to(device)
    objective = task_objective(config, task, train)
    starts_at_probe = start_head(parts, config, train, valid if valid_chooses else None, objective, initial)
    return Learner(task, train, valid, parts, TaskSource(task, train, config, states), objective, starts_at_probe)


class TaskReader(nn.Module):
    """Representations of the users of a batch, over a trunk that is kept or the whole network.

    Args:
        parts: the network of the task.
        config: readout, and what the runner asks for.
        trunk: batches hold the states below it; None: they hold tokens.
    """

    def __init__(self, parts: Trainable, config: AdaptConfig, trunk: Trunk | None) -> None:
        super().__init__()
        lengths = (config.max_length + 1, config.max_length + 2)  # with [TCL] at the end, or at both
        self.backbone = backbone_for_runner(parts.backbone, config.runner, shard_size(config.batch_size), lengths)
        self.patch = parts.patch
        self.readout = config.readout
        self.readout_module = parts.readout_module
        self.trunk = trunk

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return representations, (B, R)."""
        if self.trunk is not None:
            return self.trunk.represent(batch["states"], batch.get("keep"), self.patch, self.readout_module)
        return represent(self.backbone, batch["tokens"], self.patch, self.readout, self.readout_module)

    def with_readout_module(self, module: nn.Module | None) -> TaskReader:
        """Return the same reader, whose network is shared, by the module of another task's readout."""
        reader = copy.copy(self)
        reader._modules = self._modules | {"readout_module": module}
        return reader


class StepSource:
    """Batches of a step: one for each learner that learns from some of the step's users.

    Args:
        sources: of the learners.
        places: of each learner, where its source has the users that an epoch goes over; -1: not at all.
        lengths: (users,) events read of each.
    """

    def __init__(self, sources: Sequence[TaskSource], places: Sequence[IntArray], lengths: IntArray) -> None:
        self.sources = sources
        self.places = places
        self.lengths = lengths

    @classmethod
    def over_tasks(cls, learners: Sequence[Learner]) -> StepSource:
        """Return batches with users of all tasks: every labelled user of every task stands in an epoch once."""
        lengths = [learner.source.lengths for learner in learners]
        places = [np.full(sum(map(len, lengths)), -1) for _ in learners]
        ends = np.cumsum([len(users) for users in lengths])
        for task_places, end, users in zip(places, ends, lengths, strict=True):
            task_places[end - len(users) : end] = np.arange(len(users))
        return cls([learner.source for learner in learners], places, np.concatenate(lengths))

    def batch(self, rows: IntArray, rng: np.random.Generator) -> dict[str, Batch]:
        """Return a batch of each learner that learns from one of the rows, by the number of the learner."""
        batches = {}
        for number, (source, places) in enumerate(zip(self.sources, self.places, strict=True)):
            own_rows = places[rows][places[rows] >= 0]
            if len(own_rows):
                batches[str(number)] = source.batch(own_rows, rng)
        return batches


class ValidBatches:
    """The batches of the valid users of all learners, one learner after another, with its number as `learner`.

    Args:
        batches_of_learners: the batches of each: `rows` of its valid users, and what is read of them.
    """

    def __init__(self, batches_of_learners: Sequence[Any]) -> None:
        self.batches_of_learners = batches_of_learners

    @classmethod
    def over_tasks(cls, learners: Sequence[Learner], config: AdaptConfig, cache: TrunkCache | None) -> ValidBatches:
        """Return the batches of the valid users of tasks; the states of those of one task may be kept."""
        if cache is not None:
            return cls([ValidStates(cache.valid, VALID_BATCH)])
        return cls([valid_batches(learner.valid, config.max_length) for learner in learners])

    def __len__(self) -> int:
        return sum(len(batches) for batches in self.batches_of_learners)

    def __iter__(self) -> Iterator[Batch]:
        for number, batches in enumerate(self.batches_of_learners):
            for batch in batches:
                yield {"learner": torch.tensor(number), **batch}


class AdaptModule(TrainedModule):
    """Lightning module that trains learners as if each were alone: nothing of one reaches another (paper, section 3.3).

    Args:
        learners: one; those of a cross-validation.
        config: of the training.
        cache: states of the users below what is trained; None: batches hold tokens.
        judged_on: what the valid users are called when a score is not finite.
    """

    def __init__(
        self,
        learners: Sequence[Learner],
        config: AdaptConfig,
        cache: TrunkCache | None = None,
        *,
        judged_on: str = "validation",
    ) -> None:
        super().__init__(self.trained_modules(learners), config.optim)
        self.learners = learners
        self.config: AdaptConfig = config
        self.judged_on = judged_on
        self.backbones = nn.ModuleList(learner.parts.backbone for learner in learners)  # moved between devices with it
        self.cache = cache
        self.trunk = None if cache is None else cache.trunk.backbone
        self.readers = nn.ModuleList(self.build_readers(config))
        self.losses = nn.ModuleList(learner.objective for learner in learners)
        self._sums: list[tuple[int, MetricTotals]] = []

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser, in which heads that start at a probe learn more slowly than what is below them."""
        heads = [learner.parts.head for learner in self.learners if learner.starts_at_probe]
        slower = [parameter for head in heads for parameter in head.parameters()]
        return make_optimizer(self.trained.parameters(), self.optim, slower, self.config.probed_head_rate)

    def trained_modules(self, learners: Sequence[Learner]) -> nn.Module:
        """Return all that is trained, and nothing else."""
        return nn.ModuleList(learner.parts.modules() for learner in learners)

    def build_readers(self, config: AdaptConfig) -> list[TaskReader]:
        """Return what each learner reads users by."""
        trunk = None if self.cache is None else self.cache.trunk
        return [
            TaskReader(learner.parts, config, trunk and replace(trunk, backbone=learner.parts.backbone))
            for learner in self.learners
        ]

    def on_fit_start(self) -> None:
        """Compute what is kept of each user, now that the backbone is on its device; again when resumed."""
        if self.cache is not None:
            with self.trainer.precision_plugin.forward_context():
                self.cache.fill(self.device, Path(self.trainer.default_root_dir))

    def task_losses(self, batch: dict[str, Batch]) -> list[Tensor]:
        """Return the mean loss of each learner that has users in the batch; of several ranks, this one's part of it."""
        return [self._task_loss(int(number), users) for number, users in batch.items()]

    def _task_loss(self, number: int, users: Batch) -> Tensor:
        loss = cast(TaskObjective, self.losses[number])
        head, reader = self.learners[number].parts.head, self.readers[number]
        if world_size() == 1:
            mean: Tensor = loss(head, reader(users), users)
            return mean
        rank_users = own_users(users)
        if loss.weight_of(rank_users) == 0:
            return torch.zeros((), device=self.device, requires_grad=True)
        share: Tensor = loss(head, reader(rank_users), rank_users)
        return share * (loss.weight_of(rank_users) / loss.weight_of(users))

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Return the mean of the losses of the learners."""
        self.loss_share = torch.stack(self.task_losses(batch)).sum() / len(self.learners)
        return self.loss_share

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Give each learner the gradient of its own loss, and clip its norm alone."""
        assert isinstance(self.trained, nn.ModuleList)
        for modules in self.trained:
            for parameter in modules.parameters():
                if parameter.grad is not None and len(self.trained) > 1:
                    parameter.grad.mul_(len(self.trained))  # the loss is the mean over learners
            if gradient_clip_val is not None:
                clip_gradients(modules.parameters(), float(gradient_clip_val))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the metrics of some valid users of a learner."""
        number = int(batch["learner"])
        learner = self.learners[number]
        vectors = self.readers[number](batch)
        with self.full_precision():
            scores = learner.parts.head(vectors.float()).cpu()
        require_finite(scores, f"the scores of {self.judged_on} users", self.current_epoch)
        rows = batch["rows"].cpu().numpy()
        self._sums.append((number, learner.objective.metric_sums(scores, learner.valid, rows)))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all valid users, each by the network that did not learn from it."""
        self.log_dict(mean_metrics([sums for learner_sums in self.take_sums() for sums in learner_sums]))

    def take_sums(self) -> list[list[MetricTotals]]:
        """Return the sums of each learner, of all ranks, and forget them."""
        sums, self._sums = self.in_order(self._sums), []
        return [[totals for number, totals in sums if number == learner] for learner in range(len(self.learners))]
