"""Training of a task by a network of another paper: users, batches, head, optimiser and epoch chosen as by `adapt`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

import peterrec
from peterrec.data.batching import EpochStream
from peterrec.errors import ConfigError
from peterrec.experiments.neural_baselines.train import train_epochs
from peterrec.nn.backbone import Backbone
from peterrec.nn.patch import Patch, TaskPatch
from peterrec.nn.readout import TrainedReadout, readout_named, represent
from peterrec.training.adaptation_run import train_and_valid
from peterrec.training.callbacks import Curve
from peterrec.training.head_start import read_users, start_head
from peterrec.training.optim import make_optimizer
from peterrec.training.strategies import Trainable
from peterrec.training.task_kinds import mean_metrics, task_objective
from peterrec.training.task_source import Batch, TaskSource, valid_batches

ExtraLoss = Callable[[Batch], Tensor]


class Method(Protocol):
    """A way to learn tasks one after the other.

    Attributes:
        forgets: whether answers of an earlier task may change when a later one is learned.
    """

    forgets: bool

    def learn(self, task: str) -> tuple[float, float]:
        """Learn a task; return how many parameters were trained for it, and by how many what is stored grows."""

    def answers(self, task: str) -> Any:
        """Return the class probabilities of the test users of a task, by the network of now; (N, K)."""


class TaskTraining:
    """A classification task with a head over a network of the caller's, which starts at a linear probe of it.

    Args:
        corpus: has the task.
        task: its name.
        config: settings of `adapt`; the epoch is always chosen by the valid users, and what reads is not trained.
        backbone: the network as it is now.
        patch: what acts in it, if anything does.

    Raises:
        ConfigError: the readout of `config` is trained.
        TaskError: no such task, or it lacks users.
    """

    def __init__(
        self,
        corpus: peterrec.Corpus,
        task: str,
        config: peterrec.AdaptConfig,
        backbone: Backbone,
        patch: TaskPatch | None = None,
    ) -> None:
        readout = readout_named(config.readout)
        if isinstance(readout, TrainedReadout):
            raise ConfigError(f"the readout {config.readout} is trained", remedy="set readout to both, pooled or token")
        spec = corpus.task(task)
        self.config = config
        self.train_users, self.valid_users = train_and_valid(spec)
        self.test_users = spec.part("test")
        self.objective = task_objective(config, spec, self.train_users)
        head = self.objective.new_head(
            readout.width(backbone.config.channels), torch.Generator().manual_seed(config.seed)
        )
        # What starts a head asks of a patch only that the backbone takes it.
        self.parts = Trainable(backbone, None, False, cast("Patch | None", patch), head)
        self.starts_at_probe = start_head(self.parts, config, self.train_users, self.valid_users, self.objective)
        self.stream = EpochStream(TaskSource(spec, self.train_users, config), config.batch_size, config.seed)
        self.valid_batches = valid_batches(self.valid_users, config.max_length)

    @property
    def head(self) -> nn.Module:
        """The head; its own module, so that a copy of it can be kept."""
        return self.parts.head

    def scores(self, tokens: Tensor) -> Tensor:
        """Return the logits of users, (B, K), by the network as it is."""
        parts = self.parts
        scores: Tensor = parts.head(represent(parts.backbone, tokens, parts.patch, self.config.readout))
        return scores

    def fit(self, trained: nn.Module, extra_loss: ExtraLoss | None = None, epochs: int | None = None) -> Curve:
        """Train the head and a module, and leave them at the epoch that is best for the valid users.

        Args:
            trained: all else that is; its parameters that are frozen stay as they are.
            extra_loss: of a batch, added to that of the task.
            epochs: at most; those of the settings if not given.
        """
        config = self.config if epochs is None else self.config.model_copy(update={"epochs": epochs})
        network = nn.ModuleDict({"trained": trained, "head": self.head})
        slower = list(self.head.parameters()) if self.starts_at_probe else []
        optimizer = make_optimizer(network.parameters(), config.optim, slower, config.probed_head_rate)
        curve = Curve(self.objective.metric_names[0], self.objective.mode)
        with torch.no_grad():
            curve.start = {"epoch": -1, **self._validate()}

        def losses() -> Iterator[Tensor]:
            for batch in self.stream:
                loss = self._loss(batch)
                yield loss if extra_loss is None else loss + extra_loss(batch)

        train_epochs(network, losses, len(self.stream), self._validate, config, curve, lambda _: None, optimizer)
        return curve

    def _loss(self, batch: Batch) -> Tensor:
        parts = self.parts
        vectors = represent(parts.backbone, batch["tokens"], parts.patch, self.config.readout)
        loss: Tensor = self.objective(parts.head, vectors, batch)
        return loss

    def _validate(self) -> dict[str, float]:
        return mean_metrics(
            [
                self.objective.metric_sums(self.scores(batch["tokens"]), self.valid_users, batch["rows"].numpy())
                for batch in self.valid_batches
            ]
        )

    @torch.no_grad()
    def answers(self) -> np.ndarray[Any, Any]:
        """Return the class probabilities of the test users, by the network as it is; (N, K) float64."""
        scores = self.parts.head(read_users(self.parts, self.config, self.test_users))
        probabilities: np.ndarray[Any, Any] = scores.double().softmax(dim=1).numpy()
        return probabilities


def frozen_copy(module: nn.Module) -> nn.Module:
    """Return a copy of a module that is not trained."""
    return copy.deepcopy(module).requires_grad_(False)


def parameters(module: nn.Module) -> int:
    """Return the number of a module's parameters that are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
