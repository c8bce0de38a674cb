"""Conure in plain form: each task keeps some weights of one network, which later tasks read and do not change.

Source: Yuan et al., "One Person, One Model, One World: Learning Continual User Representation without Forgetting",
SIGIR 2021. Written from the paper. After a task is learned, the smallest of the weights that it was free to train are
pruned, the others are trained for some more epochs and then frozen; a later task reads those, and trains the pruned
ones from zero. A task is answered by the weights of its own and of earlier tasks alone: nothing is forgotten.

Pre-training is the first task, as in the paper. Matrices of the blocks are shared like that; biases, norms and
embeddings stay as they were pre-trained, for they are read by all tasks. Each task has its head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from lifelong_task import TaskTraining, parameters
from torch import Tensor, nn
from torch.nn.utils import parametrize

import peterrec
from peterrec.artifacts.backbone_io import PretrainedBackbone
from peterrec.config import ContrastiveConfig, PretrainConfig
from peterrec.data.batching import EpochStream
from peterrec.data.pretraining_users import split_users
from peterrec.data.sequences import FIRST_ITEM, PAD
from peterrec.nn.chunked_losses import chunked_full_softmax_loss
from peterrec.nn.next_item import NextItemModel
from peterrec.training.objectives import ExampleSource, objective_of
from peterrec.training.optim import clip_gradients, make_optimizer, make_schedule

FREE = 127  # the owner of a weight that no task has
PRETRAINING = 0  # the first task
NOBODY = -1
BITS = 32  # of a weight; a mask has one


class OwnedWeights(nn.Module):
    """A matrix of weights that belong to tasks, put in the place of a parameter (`torch.nn.utils.parametrize`).

    Args:
        weight: as it was pre-trained.
    """

    owner: Tensor
    frozen: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("owner", torch.full(weight.shape, PRETRAINING, dtype=torch.int8))
        self.register_buffer("frozen", weight.detach().clone())
        self.reader = PRETRAINING
        self.learner = PRETRAINING

    def forward(self, trained: Tensor) -> Tensor:
        """Return the weights as a task reads them: its own and those of earlier tasks, zero elsewhere."""
        weights = torch.where(self.owner == self.learner, trained, self.frozen)
        return torch.where(self.owner <= self.reader, weights, 0.0)

    def claim(self, task: int, trained: Tensor) -> int:
        """Let a task train all free weights, from zero; return how many these are."""
        self.owner[self.owner == FREE] = task
        self.reader = self.learner = task
        with torch.no_grad():
            trained.zero_()
        return int((self.owner == task).sum())

    def prune(self, share: float, trained: Tensor) -> None:
        """Free the smallest of the weights that are being trained, by their magnitude."""
        places = (self.owner == self.learner).flatten().nonzero().squeeze(1)
        smallest = trained.detach().flatten()[places].abs().argsort()[: round(share * len(places))]
        self.owner.view(-1)[places[smallest]] = FREE

    def freeze(self, trained: Tensor) -> int:
        """Keep the weights that were trained, for good; return how many."""
        learned = self.owner == self.learner
        self.frozen = torch.where(learned, trained.detach(), self.frozen)
        self.learner = NOBODY
        return int(learned.sum())


class Conure:
    """One network whose weights are given away task by task.

    Args:
        pretrained: the backbone with its scores of next items; it is not changed.
        corpus: of the tasks, and of the users that the pruned backbone is trained on again.
        config: settings of `adapt`.
        pruned: share of the weights of each task that are freed for later ones.
        retrained: epochs after pruning, as a share of those of the settings, at least one; of pre-training one.
    """

    forgets = False

    def __init__(
        self,
        pretrained: PretrainedBackbone,
        corpus: peterrec.Corpus,
        config: peterrec.AdaptConfig,
        pruned: float = 0.5,
        retrained: float = 0.5,
    ) -> None:
        self.corpus, self.config, self.pruned = corpus, config, pruned
        self.retrain_epochs = max(1, round(retrained * config.epochs))
        network = copy.deepcopy(pretrained.network).requires_grad_(False)
        self.backbone = network.backbone
        self.matrices = list(own_weights(self.backbone.blocks))
        self._prune()
        train_next_item(network, corpus, config)
        self._freeze()
        self.tasks: dict[str, TaskTraining] = {}

    def learn(self, task: str) -> tuple[float, float]:
        """Learn a task with the weights that are free, and free some of these for the next one."""
        number = len(self.tasks) + 1
        claimed = sum(owned.claim(number, trained) for owned, trained in self.matrices)
        training = TaskTraining(self.corpus, task, self.config, self.backbone)
        training.fit(self.backbone.blocks)
        self._prune()
        training.fit(self.backbone.blocks, epochs=self.retrain_epochs)
        self._freeze()
        training.parts.head.fold()
        self.tasks[task] = training
        head = parameters(training.head)
        return claimed + head, head + sum(trained.numel() for _, trained in self.matrices) / BITS

    def answers(self, task: str) -> Any:
        """Return the class probabilities of test users, by the weights of a task and of those before it."""
        for owned, _ in self.matrices:
            owned.reader = 1 + list(self.tasks).index(task)
        return self.tasks[task].answers()

    def _prune(self) -> None:
        for owned, trained in self.matrices:
            owned.prune(self.pruned, trained)

    def _freeze(self) -> None:
        for owned, trained in self.matrices:
            owned.freeze(trained)


def own_weights(blocks: nn.Module) -> Iterator[tuple[OwnedWeights, nn.Parameter]]:
    """Put owned weights in the place of all matrices of blocks; yield each with the parameter that is trained."""
    for module in list(blocks.modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.dim() > 1:
                owned = OwnedWeights(weight)
                parametrize.register_parametrization(module, name, owned)
                weight.requires_grad_(True)
                yield owned, weight


def train_next_item(network: NextItemModel, corpus: peterrec.Corpus, config: peterrec.AdaptConfig) -> None:
    """Train what of a network is trainable for one epoch of what it was pre-trained on: next or masked items."""
    settings = PretrainConfig(
        backbone=network.backbone.config, contrastive=ContrastiveConfig(weight=0.0), max_length=config.max_length,
        seed=config.seed,
    )  # fmt: skip
    objective = objective_of(settings, network.backbone.items)
    windows = objective.windows(corpus.sequences, split_users(corpus, settings)[0])
    source = ExampleSource(objective, windows, None, corpus.sequences)
    stream = EpochStream(source, config.batch_size, config.seed)
    optimizer = make_optimizer(network.parameters(), config.optim)
    schedule = make_schedule(optimizer, config.optim, len(stream))
    for batch in stream:
        is_target = batch["targets"] != PAD
        if not bool(is_target.any()):
            continue
        hidden = network.outgoing(network.backbone(batch["inputs"])[is_target])
        loss = chunked_full_softmax_loss(hidden, batch["targets"][is_target] - FIRST_ITEM, *network.output_table())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if config.optim.clip_norm is not None:
            clip_gradients(network.parameters(), config.optim.clip_norm)
        optimizer.step()
        schedule.step()
