"""Strategy `joint`: one backbone trained on several tasks together (what the paper compares with as MTL)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from peterrec._version import __version__
from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import AdaptConfig
from peterrec.storage import FORMAT_VERSION, new_folder, write_file, write_json
from peterrec.training.learners import AdaptModule, Learner, TaskReader
from peterrec.training.loop import TrainedModule
from peterrec.training.task_kinds import mean_metrics
from peterrec.training.task_source import Batch

MONITOR = "relative"


def metric_in_joint(name: str, task: str) -> str:
    """Return what a metric of one of the tasks is called in the curve of all."""
    return f"{name} ({task})"


class JointModule(AdaptModule):
    """Lightning module of one backbone and the heads of all tasks; a task weighs as many users as it has in the batch.

    Args:
        learners: one of each task; they share a backbone.
        config: of the training.
    """

    def __init__(self, learners: Sequence[Learner], config: AdaptConfig) -> None:
        super().__init__(learners, config)
        self.uninformed = [uninformed_metric(learner) for learner in learners]

    def trained_modules(self, learners: Sequence[Learner]) -> nn.Module:
        """Return the backbone, once, and all heads, with what they read by."""
        backbone = learners[0].parts.backbone_modules()
        heads = nn.ModuleList(learner.parts.head for learner in learners)
        modules = [learner.parts.readout_module for learner in learners]
        readouts = nn.ModuleList(module for module in modules if module is not None)
        assert backbone is not None
        return nn.ModuleDict({"backbone": backbone, "heads": heads, "readouts": readouts})

    def build_readers(self, config: AdaptConfig) -> list[TaskReader]:
        """Return readers with one backbone, which is compiled once."""
        reader = TaskReader(self.learners[0].parts, config, None)
        return [reader.with_readout_module(learner.parts.readout_module) for learner in self.learners]

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Return the mean of the tasks' losses, weighted by their users in the batch."""
        users = [len(task_batch["tokens"]) for task_batch in batch.values()]
        losses = [loss * count for loss, count in zip(self.task_losses(batch), users, strict=True)]
        self.loss_share = torch.stack(losses).sum() / sum(users)
        return self.loss_share

    def configure_gradient_clipping(self, *arguments: Any, **options: Any) -> None:
        """Clip the norm of all gradients together: there is one network."""
        TrainedModule.configure_gradient_clipping(self, *arguments, **options)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of each task, as `METRIC (TASK)`, and the mean of them relative to their start."""
        relative: list[float] = []
        named: dict[str, float] = {}
        for learner, start, sums in zip(self.learners, self.uninformed, self.take_sums(), strict=True):
            metrics = mean_metrics(sums)
            relative.append(learner.objective.relative(start, metrics))
            named |= {metric_in_joint(name, learner.task.name): value for name, value in metrics.items()}
        self.log_dict({MONITOR: float(np.mean(relative)), **named})


def uninformed_metric(learner: Learner) -> float:
    """Return the metric that decides for a task, of a head that says the same of everybody: its bias alone."""
    bias = learner.parts.head.bias.detach().cpu()
    scores = bias.expand(len(learner.valid), -1).clone()
    sums = learner.objective.metric_sums(scores, learner.valid, np.arange(len(learner.valid)))
    return mean_metrics([sums])[learner.objective.metric_names[0]]


def save_joint_bundles(
    out: Path, bundles: dict[str, Bundle], *, config_yaml: str, corpus_fingerprint: str, overwrite: bool
) -> None:
    """Write the bundle of each task to `out/TASK`, all of them or none.

    Raises:
        ArtifactError: `out` is there and is not to be replaced.
        StorageError: the disk is full or the place is not writable.
    """
    meta: dict[str, Any] = {
        "kind": "joint",
        "format_version": FORMAT_VERSION,
        "peterrec_version": __version__,
        "tasks": list(bundles),
        "bundles": {name: fingerprint(bundle.tensors()) for name, bundle in bundles.items()},
        "backbone_fingerprint": next(iter(bundles.values())).backbone_fingerprint,
        "corpus_fingerprint": corpus_fingerprint,
    }
    with new_folder(out, overwrite=overwrite, kind="joint") as folder:
        write_json(folder / "joint.json", meta)
        write_file(folder / "config.yaml", config_yaml.encode())
        for name, bundle in bundles.items():
            save_bundle(folder / name, bundle, config_yaml=config_yaml)
