"""DUPN in its plain form: recurrent states of the events, pooled by attention (Ni et al., KDD 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from peterrec.config import AdaptConfig
from peterrec.data.batching import EpochStream, FixedBatches, last_events
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.sequences import FIRST_ITEM, PAD, Sequences
from peterrec.evaluation.baselines.settings import DupnConfig
from peterrec.experiments.neural_baselines.train import Say, TrainedBaseline, train_epochs
from peterrec.nn.device import find_device
from peterrec.nn.heads import Head
from peterrec.nn.tokens import items_of
from peterrec.training.adaptation_run import train_and_valid
from peterrec.training.callbacks import Curve
from peterrec.training.joint import MONITOR, metric_in_joint
from peterrec.training.strategies import count_parameters
from peterrec.training.task_kinds import TaskObjective, mean_metrics, task_objective
from peterrec.training.task_source import Batch, TaskSource, valid_batches

SCORED = 256  # users of a batch of class probabilities


class UserEncoder(nn.Module):
    """Item embedding, LSTM or GRU, and attention: the user is the mean of the states, weighed by what they say.

    weight of event t = softmax over t of v . tanh(W h_t + b). A user without events is the zero vector.

    Args:
        config: widths and the kind of cell.
        items: of the catalogue.
        generator: draws the initial weights.
    """

    def __init__(self, config: DupnConfig, items: int, generator: torch.Generator) -> None:
        super().__init__()
        self.embedding = nn.Embedding(FIRST_ITEM + items, config.channels, padding_idx=PAD)
        kind = nn.LSTM if config.cell == "lstm" else nn.GRU
        self.recurrent = kind(config.channels, config.hidden, batch_first=True)
        self.attention = nn.Linear(config.hidden, config.attention)
        self.weigh = nn.Linear(config.attention, 1, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        for parameter in self.parameters():
            bound = parameter.shape[-1] ** -0.5
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B H"]:
        """Return the vectors of users; their events stand oldest first, [PAD] after the last."""
        if tokens.shape[1] == 0:
            return self.weigh.weight.new_zeros(len(tokens), self.recurrent.hidden_size)
        embedded = self.dropout(self.embedding(items_of(tokens)))
        states, _ = self.recurrent(embedded)  # (B, T, H); padding comes after the events
        events = tokens != PAD
        scores = self.weigh(torch.tanh(self.attention(states))).squeeze(2)  # (B, T)
        # Not -inf: the softmax over no event at all would be NaN, and so its gradient.
        weights = scores.masked_fill(~events, -1e4).softmax(1) * events
        vectors: Tensor = self.dropout(torch.einsum("bt,bth->bh", weights, states))
        return vectors


@dataclass(frozen=True)
class _LearnedTask:
    """A task of the network: users, head, objective, and its first metric without looking at users."""

    spec: Task
    stream: EpochStream[Batch]
    valid: TaskPart
    valid_batches: FixedBatches[Batch]
    head: Head
    objective: TaskObjective
    uninformed: float

    @classmethod
    def build(cls, spec: Task, adapt: AdaptConfig, config: DupnConfig, generator: torch.Generator) -> _LearnedTask:
        train, valid = train_and_valid(spec)
        objective = task_objective(adapt, spec, train)
        head = objective.new_head(config.hidden, generator)
        without_users = head.bias.detach().expand(len(valid), -1).clone()
        sums = objective.metric_sums(without_users, valid, np.arange(len(valid)))
        uninformed = mean_metrics([sums])[objective.metric_names[0]]
        stream = EpochStream(TaskSource(spec, train, adapt), config.batch_size, adapt.seed)
        batches = valid_batches(valid, config.max_length)
        return cls(spec, stream, valid, batches, head, objective, uninformed)


def train_dupn(
    corpus: Corpus, tasks: Sequence[str], config: DupnConfig, seed: int, say: Say
) -> dict[str, TrainedBaseline]:
    """Train one network on all the tasks together; see `train_neural_baseline`."""
    device = find_device(config.device)
    generator = torch.Generator().manual_seed(seed)
    encoder = UserEncoder(config, len(corpus.catalogue), generator)
    adapt = AdaptConfig(
        ranking_loss="sampled-softmax", negatives=config.negatives, max_length=config.max_length, seed=seed
    )
    learned = [_LearnedTask.build(corpus.task(name), adapt, config, generator) for name in tasks]
    network = _MultiTask(encoder, learned, device)
    objective = learned[0].objective
    alone = (objective.metric_names[0], objective.mode)
    curve = Curve(*(alone if len(learned) == 1 else (MONITOR, "min")))
    train_epochs(network, network.losses, network.steps, network.validate, config, curve, say)
    return {task.spec.name: _trained_baseline(encoder, task, curve, config, device) for task in learned}


class _MultiTask(nn.Module):
    def __init__(self, encoder: UserEncoder, tasks: Sequence[_LearnedTask], device: torch.device) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(task.head for task in tasks)
        self.tasks = tasks
        self.device = device
        self.steps = max(len(task.stream) for task in tasks)
        self.batches = [chain.from_iterable(repeat(task.stream)) for task in tasks]
        self.to(device)

    def losses(self) -> Iterator[Tensor]:
        """Yield the sum of the tasks' losses on a batch of each; an epoch is one of the task with the most users."""
        for _ in range(self.steps):
            losses = []
            for task, batches in zip(self.tasks, self.batches, strict=True):
                batch = {name: value.to(self.device) for name, value in next(batches).items()}
                losses.append(task.objective(task.head, self.encoder(batch["tokens"]), batch))
            yield torch.stack(losses).sum()

    def validate(self) -> dict[str, float]:
        """Return the metrics of the valid users, by task where there are several."""
        relative: list[float] = []
        named: dict[str, float] = {}
        for task in self.tasks:
            sums = []
            for batch in task.valid_batches:
                scores = task.head(self.encoder(batch["tokens"].to(self.device))).cpu()
                sums.append(task.objective.metric_sums(scores, task.valid, batch["rows"].numpy()))
            metrics = mean_metrics(sums)
            relative.append(task.objective.relative(task.uninformed, metrics))
            named |= {metric_in_joint(name, task.spec.name): value for name, value in metrics.items()}
        return metrics if len(self.tasks) == 1 else {MONITOR: float(np.mean(relative)), **named}


@dataclass(frozen=True)
class DupnScorer:
    """Class probabilities or scores of targets, of any users."""

    encoder: UserEncoder
    head: Head
    max_length: int
    device: torch.device
    settings: dict[str, Any]
    trainable: int
    trainable_fraction: float = 1.0

    def probabilities(self, sequences: Sequences) -> Float[np.ndarray, "N C"]:
        """Return class probabilities, one row a user."""
        nobody = np.zeros((0, len(self.head.bias)), dtype=np.float32)
        scores = np.concatenate([nobody, *self.score_batches(sequences, SCORED)])
        probabilities: np.ndarray = torch.from_numpy(scores).double().softmax(1).numpy()
        return probabilities

    def score_batches(self, sequences: Sequences, batch_size: int) -> Iterator[Float[np.ndarray, "B n_targets"]]:
        """Yield scores of all users in row order."""
        for start in range(0, len(sequences), batch_size):
            rows = np.arange(start, min(start + batch_size, len(sequences)))
            tokens = torch.from_numpy(last_events(sequences, rows, self.max_length)).to(self.device)
            with torch.inference_mode():
                scores = self.head(self.encoder(tokens)).cpu().numpy()
            yield scores


def _trained_baseline(
    encoder: UserEncoder, task: _LearnedTask, curve: Curve, config: DupnConfig, device: torch.device
) -> TrainedBaseline:
    embedding, head = count_parameters(encoder.embedding), count_parameters(task.head)
    trained = {"embedding": embedding, "network": count_parameters(encoder) - embedding, "head": head}
    names = task.objective.metric_names
    columns = {metric_in_joint(name, task.spec.name) if curve.monitor == MONITOR else name: name for name in names}
    columns |= {name: name for name in ("epoch", "train_loss", "seconds", MONITOR)}
    task_curve = Curve(curve.monitor, curve.mode)
    task_curve.rows = [{name: row[key] for key, name in columns.items() if key in row} for row in curve.rows]
    scorer = DupnScorer(encoder, task.head, config.max_length, device, {"network": "DUPN"}, sum(trained.values()))
    return TrainedBaseline(scorer, trained, task_curve, config.model_dump(mode="json"))
