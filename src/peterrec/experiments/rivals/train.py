"""Training a rival by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.experiments.rivals.conet import train_conet
from peterrec.experiments.rivals.dupn import train_dupn
from peterrec.experiments.rivals.settings import ConetConfig, DupnConfig, rival_config
from peterrec.experiments.rivals.trained import Rival


def train_rival(
    name: str,
    corpus: Corpus,
    tasks: Sequence[str],
    settings: Mapping[str, Any],
    seed: int,
    report: Callable[[str], None] | None = None,
) -> dict[str, Rival]:
    """Train a rival on the train users of tasks; the epoch is chosen by their valid users.

    Args:
        name: `dupn`: one network for all the tasks, trained on them together, stopped by the mean of their metrics
            relative to what is known without the user (by the metric itself where there is one task). `conet`: a
            network for each task, all of which rank.
        corpus: of which the catalogue and the tasks are used.
        tasks: names.
        settings: as `check_rival` takes them.
        seed: of every draw.
        report: receives lines about what is done.

    Returns:
        What came out, by task.

    Raises:
        ConfigError: no such rival, wrong settings, no tasks or one twice, or a task that CoNet is not made for.
        TaskError, ArtifactError: the tasks cannot be read, or have no train or valid users.
        TrainingError: the training diverged.
    """
    config = rival_config(name, settings)
    if not tasks or len(set(tasks)) < len(tasks):
        raise ConfigError(f"tasks are {', '.join(tasks) or 'none'}", remedy="name each task once, and at least one")
    say = report or (lambda line: None)
    # Layers of torch draw weights from the global generator before they get their own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout draws from it too
        if isinstance(config, DupnConfig):
            return train_dupn(corpus, tasks, config, seed, say)
        assert isinstance(config, ConetConfig)
        for task in tasks:
            if corpus.task(task).kind != "ranking":
                raise ConfigError(
                    f"CoNet scores items, but task {task!r} is of classes", remedy="use rival dupn for such tasks"
                )
        return {task: train_conet(corpus, task, config, seed, say) for task in tasks}
