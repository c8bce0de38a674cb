"""What comes out of the training of a rival, and the training itself: epochs, the best of them, when to stop."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from peterrec.errors import TrainingError
from peterrec.evaluation.scorers import Scorer
from peterrec.experiments.rivals.settings import RivalConfig
from peterrec.training.optim import clip_gradients, make_optimizer, make_schedule

Row = dict[str, float | None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Rival:
    """A network of another paper, trained for a task.

    Attributes:
        task: its name.
        scorer: of the task's test users.
        trained: trained parameters by group.
        all_params: parameters of the network with the head of this task.
        stored_bytes: 4 for each of them: nothing of it is shared with other uses than its own.
        seconds: of training, all epochs. One training of several tasks counts in full for each.
        seconds_per_epoch: mean over the epochs but the first, of one epoch if there is no other.
        curve: a row an epoch: `epoch` (from 0), `train_loss`, metrics of the valid users, `seconds` since the start.
        monitor: metric of the curve that chose the epoch.
        best_epoch: from 0.
        settings: all, with defaults.
    """

    task: str
    scorer: Scorer
    trained: dict[str, int]
    all_params: int
    stored_bytes: int
    seconds: float
    seconds_per_epoch: float
    curve: list[Row]
    monitor: str
    best_epoch: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class Course:
    """How a training went.

    Attributes:
        rows: of the curve.
        monitor: metric that chose the best epoch.
        best: number of that epoch.
    """

    rows: list[dict[str, float]]
    monitor: str
    best: int

    @property
    def seconds(self) -> float:
        """Of all epochs."""
        return self.rows[-1]["seconds"]

    @property
    def seconds_per_epoch(self) -> float:
        """Mean over the epochs but the first, which also warms up; of the first if it is alone."""
        ends = [row["seconds"] for row in self.rows]
        return float(np.diff(ends).mean()) if len(ends) > 1 else ends[0]


def train_epochs(
    network: nn.Module,
    losses: Callable[[], Iterable[Tensor]],
    steps: int,
    judge: Callable[[], dict[str, float]],
    config: RivalConfig,
    *,
    monitor: str,
    mode: Literal["min", "max"],
    say: Say,
) -> Course:
    """Train a network until the valid users' metric no longer improves, and leave it at its best epoch.

    Args:
        network: all that is trained.
        losses: gives the losses of the steps of an epoch, each computed when it is asked for.
        steps: of an epoch.
        judge: metrics of the valid users, with the network in evaluation mode.
        config: epochs, patience, optimiser.
        monitor: the metric that decides.
        mode: whether lower or higher is better of it.
        say: told a line an epoch.

    Raises:
        TrainingError: a loss or metric is not finite.
    """
    learn = _Learner(network, config, steps)
    rows: list[dict[str, float]] = []
    best, kept = 0, copy.deepcopy(network.state_dict())
    start = time.perf_counter()
    for epoch in range(config.epochs):
        network.train()
        total = sum(learn(loss) for loss in losses())
        network.eval()
        with torch.inference_mode():
            metrics = judge()
        row = {"epoch": float(epoch), "train_loss": total / steps, **metrics}
        _require_finite(row)
        rows.append(row | {"seconds": time.perf_counter() - start})
        say(f"epoch {epoch + 1}: " + ", ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "epoch"))
        better = row[monitor] < rows[best][monitor] if mode == "min" else row[monitor] > rows[best][monitor]
        if epoch == 0 or better:
            best, kept = epoch, copy.deepcopy(network.state_dict())
        if epoch - best >= config.patience:
            break
    network.load_state_dict(kept)
    network.eval()
    return Course(rows, monitor, best)


class _Learner:
    """Optimiser and schedule: a step for each loss that it is given, whose value it returns."""

    def __init__(self, network: nn.Module, config: RivalConfig, steps: int) -> None:
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
