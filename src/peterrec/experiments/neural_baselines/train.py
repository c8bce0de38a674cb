"""Training of a neural baseline: by its name, epoch by epoch, stopped at the best epoch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError, TrainingError
from peterrec.evaluation.baselines import baseline_settings, find_baseline
from peterrec.evaluation.baselines.settings import NeuralBaselineConfig
from peterrec.evaluation.scorers import Scorer
from peterrec.training.callbacks import Curve
from peterrec.training.optim import clip_gradients, make_optimizer, make_schedule

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainedBaseline:
    """A network of another paper, trained for a task.

    Attributes:
        scorer: of the task's test users.
        trained: trained parameters by group, with the head of this task alone.
        curve: of the training. One training of several tasks counts in full for each.
        settings: all, with defaults.
    """

    scorer: Scorer
    trained: dict[str, int]
    curve: Curve
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
    config: NeuralBaselineConfig | AdaptConfig,
    curve: Curve,
    say: Say,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Train until the valid users' metric no longer improves, and leave the network at its best epoch.

    Args:
        network: all that is trained.
        losses: gives the losses of the steps of an epoch, each computed when it is asked for.
        steps: of an epoch.
        validate: returns the metrics of the valid users, with the network in evaluation mode.
        config: epochs, patience, optimiser.
        curve: gets a row for each epoch, and says which is best; its `start`, if there is one, may be.
        say: receives a line for each epoch.
        optimizer: of what is trained; if not given, one with the settings of `config` for all of it.

    Raises:
        TrainingError: a loss or metric is not finite.
    """
    optimizer = optimizer or make_optimizer(network.parameters(), config.optim)
    schedule = make_schedule(optimizer, config.optim, steps * config.epochs)
    best_weights: dict[str, Tensor] = {} if curve.start is None else copy.deepcopy(network.state_dict())
    clock = time.perf_counter()
    for epoch in range(config.epochs):
        network.train()
        total = 0.0
        for loss in losses():
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if config.optim.clip_norm is not None:
                clip_gradients(network.parameters(), config.optim.clip_norm)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        network.eval()
        with torch.inference_mode():
            row = {"epoch": float(epoch), "train_loss": total / steps, **validate()}
        for name, value in row.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"training diverged: {name} of epoch {epoch + 1} is not finite",
                    remedy="lower optim.lr, or keep optim.clip_norm set",
                )
        say(f"epoch {epoch + 1}: " + ", ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "epoch"))
        now = time.perf_counter()
        curve.rows.append(row | {"seconds": now - clock})
        clock = now
        if curve.waited == 0:
            best_weights = copy.deepcopy(network.state_dict())
        if curve.finished(config.patience):
            break
    network.load_state_dict(best_weights)
