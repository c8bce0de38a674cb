"""Training of a neural baseline: by its name, epoch by epoch, stopped at the best epoch."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError, TrainingError
from peterrec.evaluation.baselines import baseline_settings, find_baseline
from peterrec.evaluation.baselines.settings import NeuralBaselineConfig
from peterrec.evaluation.scorers import Scorer
from peterrec.training.optim import clip_gradients, make_optimizer, make_schedule

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainingHistory:
    """Curve of a training, and its best epoch.

    Attributes:
        rows: one for each epoch: `epoch` (from 0), `train_loss`, metrics of the valid users, `seconds` since the start.
        monitor: metric that chose the best epoch.
        best_epoch: from 0.
    """

    rows: list[dict[str, float]]
    monitor: str
    best_epoch: int

    @property
    def seconds(self) -> float:
        """Seconds of all epochs. One training of several tasks counts in full for each."""
        return self.rows[-1]["seconds"]

    @property
    def seconds_per_epoch(self) -> float:
        """Mean over the epochs but the first, which also warms up; of the first if it is alone."""
        ends = [row["seconds"] for row in self.rows]
        return float(np.diff(ends).mean()) if len(ends) > 1 else ends[0]


@dataclass(frozen=True)
class TrainedBaseline:
    """A network of another paper, trained for a task.

    Attributes:
        scorer: of the task's test users.
        trained: trained parameters by group, with the head of this task alone.
        history: of the training.
        settings: all, with defaults.
    """

    scorer: Scorer
    trained: dict[str, int]
    history: TrainingHistory
    settings: dict[str, Any]

    @property
    def all_params(self) -> int:
        """All parameters: none is frozen."""
        return sum(self.trained.values())


def train_neural_baseline(
    name: str,
    corpus: Corpus,
    tasks: Sequence[str],
    settings: Mapping[str, Any],
    seed: int,
    report: Say | None = None,
) -> dict[str, TrainedBaseline]:
    """Train a neural baseline on the train users of tasks; the epoch is chosen by their valid users.

    Args:
        name: `dupn`: one network for all the tasks, trained on them together, stopped by the mean of their metrics
            relative to what is known without the user (by the metric itself where there is one task). `conet`: a
            network for each task, all of which rank.
        corpus: of which the catalogue and the tasks are used.
        tasks: names.
        settings: by name; those left out have their defaults.
        seed: of every draw.
        report: receives lines about what is done.

    Returns:
        The trained network of each task, by the task's name.

    Raises:
        ConfigError: no such baseline, wrong settings, no tasks or one twice, or a task that it does not apply to.
        TaskError, ArtifactError: the tasks cannot be read, or have no train or valid users.
        TrainingError: the training diverged.
    """
    baseline = find_baseline(name, family="neural")
    config = baseline_settings(name, settings)
    if not tasks or len(set(tasks)) < len(tasks):
        raise ConfigError(f"tasks are {', '.join(tasks) or 'none'}", remedy="name each task once, and at least one")
    for task in tasks:
        find_baseline(name, corpus.task(task).kind, "neural")
    # Layers of torch draw weights from the global generator before they get their own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout draws from it too
        trained: dict[str, TrainedBaseline] = baseline.fit(corpus, tasks, config, seed, report or (lambda line: None))
    return trained


def train_epochs(
    network: nn.Module,
    losses: Callable[[], Iterable[Tensor]],
    steps: int,
    validate: Callable[[], dict[str, float]],
    config: NeuralBaselineConfig,
    *,
    monitor: str,
    mode: Literal["min", "max"],
    say: Say,
) -> TrainingHistory:
    """Train a network until the valid users' metric no longer improves, and leave it at its best epoch.

    Args:
        network: all that is trained.
        losses: gives the losses of the steps of an epoch, each computed when it is asked for.
        steps: of an epoch.
        validate: returns the metrics of the valid users, with the network in evaluation mode.
        config: epochs, patience, optimiser.
        monitor: the metric that decides.
        mode: whether its lower or higher values are better.
        say: receives a line for each epoch.

    Raises:
        TrainingError: a loss or metric is not finite.
    """
    train_step = _TrainStep(network, config, steps)
    rows: list[dict[str, float]] = []
    best, best_weights = 0, copy.deepcopy(network.state_dict())
    start = time.perf_counter()
    for epoch in range(config.epochs):
        network.train()
        total = sum(train_step(loss) for loss in losses())
        network.eval()
        with torch.inference_mode():
            metrics = validate()
        row = {"epoch": float(epoch), "train_loss": total / steps, **metrics}
        _require_finite(row)
        rows.append(row | {"seconds": time.perf_counter() - start})
        say(f"epoch {epoch + 1}: " + ", ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "epoch"))
        better = row[monitor] < rows[best][monitor] if mode == "min" else row[monitor] > rows[best][monitor]
        if epoch == 0 or better:
            best, best_weights = epoch, copy.deepcopy(network.state_dict())
        if epoch - best >= config.patience:
            break
    network.load_state_dict(best_weights)
    network.eval()
    return TrainingHistory(rows, monitor, best)


class _TrainStep:
    """One step of optimiser and schedule down a loss; returns the value of the loss."""

    def __init__(self, network: nn.Module, config: NeuralBaselineConfig, steps: int) -> None:
        self.network = network
        self.clip_norm = config.optim.clip_norm
        self.optimizer = make_optimizer(network.parameters(), config.optim)
        self.schedule = make_schedule(self.optimizer, config.optim, steps * config.epochs)

    def __call__(self, loss: Tensor) -> float:
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.clip_norm is not None:
            clip_gradients(self.network.parameters(), self.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())


def _require_finite(row: dict[str, float]) -> None:
    for name, value in row.items():
        if not np.isfinite(value):
            raise TrainingError(
                f"training diverged: {name} of epoch {row['epoch'] + 1:.0f} is not finite",
                remedy="lower optim.lr, or keep optim.clip_norm set",
            )
