"""TERACON in plain form: one network for all tasks, each with soft masks that know of the others, reminded of the old.

Source: Kim et al., "Task Relation-aware Continual User Representation Learning", KDD 2023. Written from the paper.
A task has an embedding for each sublayer. Its mask of the sublayer's channels is a sigmoid of that embedding and of
what attention reads of all tasks' embeddings, so that masks of earlier tasks go on learning. All of the network is
trained with every task; what the network said of earlier tasks before is kept by distillation (knowledge retention):
on users of the new task, of whom the fewer are asked, the more alike the two tasks are.

In the paper the scale in the sigmoid is annealed in each epoch, and pre-training has masks, too. Here the backbone is
pre-trained without, so the scale stays, and masks begin near one, where the pre-trained network is as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from lifelong_task import TaskTraining, frozen_copy, parameters
from torch import Tensor, nn

import peterrec
from peterrec.nn.backbone import Backbone
from peterrec.nn.insertion import LayerInput
from peterrec.nn.readout import represent
from peterrec.training.task_source import Batch

SCALE = 6.0  # in the sigmoid
START = 0.5  # of embeddings: masks begin at 0.95
NOISE = 0.02  # of embeddings, so that tasks differ


class RelationMasks(nn.Module):
    """Soft masks of tasks, (sublayers, C) each, by attention among the tasks' embeddings.

    Args:
        sublayers: of the backbone.
        channels: C.
        generator: draws all weights, but for the values, which start at zero: tasks are alone at first.
    """

    def __init__(self, sublayers: int, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.sublayers, self.channels = sublayers, channels
        self.tasks = nn.ParameterList()
        self.query, self.key = (nn.Linear(channels, max(1, channels // 4), bias=False) for _ in range(2))
        self.value = nn.Linear(channels, channels, bias=False)
        for layer in (self.query, self.key):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(channels), generator=generator)
        nn.init.zeros_(self.value.weight)

    def add_task(self, generator: torch.Generator) -> None:
        """Give the next task its embeddings."""
        noise = torch.randn(self.sublayers, self.channels, generator=generator)
        self.tasks.append(nn.Parameter(START + NOISE * noise))

    def forward(self, task: int) -> Tensor:
        """Return the masks of a task, (sublayers, C), from 0 to 1."""
        embeddings = torch.stack(list(self.tasks))  # (tasks, S, C)
        products = torch.einsum("sd,nsd->ns", self.query(embeddings[task]), self.key(embeddings))
        weights = (products / math.sqrt(self.query.out_features)).softmax(dim=0)
        relation = torch.einsum("ns,nsc->sc", weights, self.value(embeddings))
        return torch.sigmoid(SCALE * (embeddings[task] + relation))

    def similarity(self, task: int, earlier: int) -> Tensor:
        """Return the cosine of what two tasks' embeddings have learned, from -1 to 1."""
        first, second = (self.tasks[number].flatten() - START for number in (task, earlier))
        return F.cosine_similarity(first, second, dim=0)

    def patch_of(self, task: int) -> TaskMasks:
        """Return the masks of a task as what acts in a backbone."""
        return TaskMasks(self, task)


@dataclass(frozen=True)
class TaskMasks:
    """`TaskPatch` that multiplies the output of each sublayer by a task's mask, as it is at that moment."""

    masks: RelationMasks
    task: int

    def layer_at(self, sublayer: int) -> ChannelMask:
        """Return the mask of a sublayer."""
        return ChannelMask(self.masks(self.task)[sublayer])

    def embed(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Leave embeddings as they are."""
        return x


@dataclass(frozen=True)
class ChannelMask:
    """`AdapterHooks` of a mask."""

    mask: Tensor  # (C,)

    def pre_norm(self, layer_input: LayerInput, h: Tensor) -> Tensor:
        """Do nothing."""
        return h

    def normalise(self, norm: nn.LayerNorm, h: Tensor) -> Tensor:
        """Apply the sublayer's own."""
        normalised: Tensor = norm(h)
        return normalised

    def pre_act(self, layer_input: LayerInput, h: Tensor) -> Tensor:
        """Do nothing."""
        return h

    def post_act(self, layer_input: LayerInput, h: Tensor) -> Tensor:
        """Mask the channels."""
        return h * self.mask


class Network(nn.Module):
    """Backbone, masks and heads of all tasks: what is trained, and as a frozen copy what teaches."""

    backbone: Backbone

    def __init__(self, backbone: Backbone, masks: RelationMasks) -> None:
        super().__init__()
        self.backbone = backbone
        self.masks = masks
        self.heads = nn.ModuleList()

    def scores(self, tokens: Tensor, task: int, readout: str) -> Tensor:
        """Return the logits of users, (B, K)."""
        scores: Tensor = self.heads[task](represent(self.backbone, tokens, self.masks.patch_of(task), readout))
        return scores


class Teracon:
    """One network that is trained on all tasks in turn, and taught by what it was before.

    Args:
        backbone: pre-trained; it is not changed.
        corpus: of the tasks.
        config: settings of `adapt`.
        retention: weight of the distillation beside the loss of the task.
    """

    forgets = True

    def __init__(
        self, backbone: Backbone, corpus: peterrec.Corpus, config: peterrec.AdaptConfig, retention: float = 1.0
    ) -> None:
        self.corpus, self.config, self.retention = corpus, config, retention
        self.generator = torch.Generator().manual_seed(config.seed)
        copied = frozen_copy(backbone).requires_grad_(True)
        assert isinstance(copied, Backbone)
        masks = RelationMasks(2 * len(copied.blocks), copied.config.channels, self.generator)
        self.network = Network(copied, masks)
        self.tasks: dict[str, TaskTraining] = {}

    def learn(self, task: str) -> tuple[float, float]:
        """Learn a task, reminded of what the network before said of the earlier ones."""
        network, number = self.network, len(self.tasks)
        stored = parameters(network.masks) if number == 0 else 0  # attention is stored once
        teacher = frozen_copy(network)
        assert isinstance(teacher, Network)
        network.masks.add_task(self.generator)
        training = TaskTraining(self.corpus, task, self.config, network.backbone, network.masks.patch_of(number))

        def remind(batch: Batch) -> Tensor:
            return self.retention * self.retention_loss(teacher, batch["tokens"], number)

        training.fit(network, remind if number > 0 else None)
        training.parts.head.fold()
        network.heads.append(training.head)
        self.tasks[task] = training
        task_parameters = parameters(training.head) + network.masks.tasks[number].numel()
        return parameters(network), stored + task_parameters

    def retention_loss(self, teacher: Network, tokens: Tensor, task: int) -> Tensor:
        """Return the mean squared difference of logits of all tasks before one, between the network and its teacher.

        Args:
            teacher: the network before that task.
            tokens: (B, T) users of the task.
            task: number of the one that is learned.
        """
        losses = [torch.zeros(())]
        for earlier in range(task):
            share = self.asked_share(task, earlier)
            users = tokens[torch.rand(len(tokens), generator=self.generator) < share]
            if len(users) > 0:
                with torch.no_grad():
                    taught = teacher.scores(users, earlier, self.config.readout)
                losses.append(F.mse_loss(self.network.scores(users, earlier, self.config.readout), taught))
        return torch.stack(losses).sum() / max(1, task)

    def asked_share(self, task: int, earlier: int) -> float:
        """Return the share of users that the teacher is asked about: the less, the more alike the tasks are."""
        return float(torch.sigmoid(-self.network.masks.similarity(task, earlier).detach()))

    def answers(self, task: str) -> Any:
        """Return the class probabilities of test users, by the network of now."""
        return self.tasks[task].answers()
