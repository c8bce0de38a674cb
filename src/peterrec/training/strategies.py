"""What is trained on a task, decided here and nowhere else, by modules and never by matching names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.nn.backbone import Backbone
from peterrec.nn.heads import ClassificationHead, ItemHead, log_share
from peterrec.nn.patch import Patch


@dataclass(frozen=True)
class Trainable:
    """The modules that a strategy trains; the backbone stays frozen in both strategies there are.

    Attributes:
        patch: the task's patch (strategy `patch`, PeterRec), or None (strategy `head`, the paper's FineCLS).
        head: the task's head.
    """

    patch: Patch | None
    head: ClassificationHead | ItemHead

    def groups(self) -> dict[str, nn.Module]:
        """Return the trained modules by group."""
        return {"head": self.head} if self.patch is None else {"patch": self.patch, "head": self.head}

    def count(self) -> dict[str, int]:
        """Return the number of trained parameters of each group."""
        return {name: sum(p.numel() for p in module.parameters()) for name, module in self.groups().items()}


def build(config: AdaptConfig, backbone: Backbone, task: Task, train: TaskPart) -> Trainable:
    """Build fresh modules for a task. The head starts at what is known without the user: class shares, popularity."""
    generator = torch.Generator().manual_seed(config.seed)
    patch = Patch(config.patch, backbone.config, generator) if config.strategy == "patch" else None
    channels = backbone.config.channels
    if train.labels is not None:
        counts = np.bincount(train.labels, minlength=len(task.class_names))
        head: ClassificationHead | ItemHead = ClassificationHead(
            channels, len(task.class_names), generator, bias=log_share(torch.from_numpy(counts))
        )
    else:
        assert task.targets is not None
        head = ItemHead(channels, len(task.targets), generator, bias=log_share(torch.from_numpy(task.targets.counts)))
    return Trainable(patch, head)
