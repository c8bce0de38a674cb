"""DUPN in its plain form: recurrent states of the events, pooled by attention (Ni et al., KDD 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from peterrec.config import AdaptConfig
from peterrec.data.batching import EpochStream, last_events
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.sequences import FIRST_ITEM, PAD, Sequences
from peterrec.evaluation.baselines.settings import DupnConfig
from peterrec.experiments.neural_baselines.train import Say, TrainedBaseline, TrainingHistory, train_epochs
from peterrec.nn.device import find_device
from peterrec.nn.heads import ClassificationHead, ItemHead
from peterrec.training.adaptation_run import train_and_valid
from peterrec.training.strategies import build_head, count_parameters
from peterrec.training.task_loss import TaskLoss, mean_metrics, metric_names, metric_sums
from peterrec.training.task_source import Batch, TaskSource, valid_batches

RELATIVE = "relative"
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
        states, _ = self.recurrent(self.dropout(self.embedding(tokens)))  # (B, T, H); padding comes after the events
        events = tokens != PAD
        scores = self.weigh(torch.tanh(self.attention(states))).squeeze(2)  # (B, T)
        # Not -inf: the softmax over no event at all would be NaN, and so its gradient.
        weights = scores.masked_fill(~events, -1e4).softmax(1) * events
        vectors: Tensor = self.dropout(torch.einsum("bt,bth->bh", weights, states))
        return vectors


@dataclass(frozen=True)
class _Job:
    """A task of the network: users, head, loss, and its first metric without looking at users."""

    spec: Task
    stream: EpochStream[Batch]
    valid: TaskPart
    head: ClassificationHead | ItemHead
    loss: TaskLoss
    start: float

    def relative(self, value: float) -> float:
        """Return the metric by its start: below 1 is better than without looking at users, whatever the kind."""
        return self.start / value if self.spec.kind == "ranking" else value / self.start


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
    jobs = [_job(corpus.task(name), adapt, config, generator) for name in tasks]
    training = _Training(encoder, jobs, config, device)
    monitor = RELATIVE if len(jobs) > 1 else metric_names(jobs[0].spec)[0]
    history = train_epochs(
        training, training.epoch, training.steps, training.validate, config,
        monitor=monitor, mode="max" if monitor == "mrr" else "min", say=say,
    )  # fmt: skip
    return {
        job.spec.name: _trained_baseline(encoder, job, history, config, device, alone=len(jobs) == 1) for job in jobs
    }


def _job(spec: Task, adapt: AdaptConfig, config: DupnConfig, generator: torch.Generator) -> _Job:
    users, valid = train_and_valid(spec)
    head = build_head(spec, users, config.hidden, generator)
    without_users = head.bias.detach().expand(len(valid), -1).clone()
    start = mean_metrics([metric_sums(without_users, valid, np.arange(len(valid)))])[metric_names(spec)[0]]
    stream = EpochStream(TaskSource(spec, users, adapt), config.batch_size, adapt.seed)
    return _Job(spec, stream, valid, head, TaskLoss(adapt, None), start)


class _Training(nn.Module):
    def __init__(self, encoder: UserEncoder, jobs: Sequence[_Job], config: DupnConfig, device: torch.device) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(job.head for job in jobs)
        self.jobs = jobs
        self.device = device
        self.valid = [list(valid_batches(job.valid, config.max_length)) for job in jobs]
        self.steps = max(len(job.stream) for job in jobs)
        self.batches = [_endless(job.stream) for job in jobs]
        self.to(device)

    def epoch(self) -> Iterator[Tensor]:
        """Yield the sum of the tasks' losses on a batch of each; an epoch is one of the task with the most users."""
        for _ in range(self.steps):
            losses = []
            for job, batches in zip(self.jobs, self.batches, strict=True):
                batch = {name: value.to(self.device) for name, value in next(batches).items()}
                losses.append(job.loss(job.head, self.encoder(batch["tokens"]), batch))
            yield torch.stack(losses).sum()

    def validate(self) -> dict[str, float]:
        """Return the metrics of the valid users, by task where there are several."""
        if len(self.jobs) == 1:
            return self._metrics(0)
        task_metrics = [self._metrics(number) for number in range(len(self.jobs))]
        relative = [
            job.relative(metrics[metric_names(job.spec)[0]])
            for job, metrics in zip(self.jobs, task_metrics, strict=True)
        ]
        named = {
            f"{name} ({job.spec.name})": value
            for job, metrics in zip(self.jobs, task_metrics, strict=True)
            for name, value in metrics.items()
        }
        return {RELATIVE: float(np.mean(relative)), **named}

    def _metrics(self, number: int) -> dict[str, float]:
        job = self.jobs[number]
        sums = []
        for batch in self.valid[number]:
            scores = job.head(self.encoder(batch["tokens"].to(self.device))).cpu()
            sums.append(metric_sums(scores, job.valid, batch["rows"].numpy()))
        return mean_metrics(sums)


def _endless(stream: EpochStream[Batch]) -> Iterator[Batch]:
    while True:
        yield from stream


@dataclass(frozen=True)
class DupnScorer:
    """Class probabilities or scores of targets, of any users."""

    encoder: UserEncoder
    head: ClassificationHead | ItemHead
    max_length: int
    device: torch.device
    settings: dict[str, Any]

    @cached_property
    def trainable(self) -> int:
        """Parameters trained for the task: all of them."""
        return count_parameters(self.encoder) + count_parameters(self.head)

    @property
    def trainable_fraction(self) -> float:
        """All of the network."""
        return 1.0

    @torch.inference_mode()
    def _outputs(self, sequences: Sequences, rows: np.ndarray) -> Tensor:
        tokens = torch.from_numpy(last_events(sequences, rows, self.max_length)).to(self.device)
        scores: Tensor = self.head(self.encoder(tokens))
        return scores

    def probabilities(self, sequences: Sequences) -> Float[np.ndarray, "N C"]:
        """Return class probabilities, one row a user."""
        values = np.zeros((len(sequences), len(self.head.bias)))
        for start in range(0, len(sequences), SCORED):
            rows = np.arange(start, min(start + SCORED, len(sequences)))
            values[rows] = self._outputs(sequences, rows).double().softmax(1).cpu().numpy()
        return values

    def score_batches(self, sequences: Sequences, batch_size: int) -> Iterator[Float[np.ndarray, "B n_targets"]]:
        """Yield scores of all users in row order."""
        for start in range(0, len(sequences), batch_size):
            rows = np.arange(start, min(start + batch_size, len(sequences)))
            yield self._outputs(sequences, rows).cpu().numpy()


def _trained_baseline(
    encoder: UserEncoder, job: _Job, history: TrainingHistory, config: DupnConfig, device: torch.device, *, alone: bool
) -> TrainedBaseline:
    embedding, head = count_parameters(encoder.embedding), count_parameters(job.head)
    columns = {name: name if alone else f"{name} ({job.spec.name})" for name in metric_names(job.spec)}
    columns |= {name: name for name in ("epoch", "train_loss", "seconds", *(() if alone else (RELATIVE,)))}
    rows = [{name: row[column] for name, column in columns.items()} for row in history.rows]
    return TrainedBaseline(
        scorer=DupnScorer(encoder, job.head, config.max_length, device, {"network": "DUPN"}),
        trained={"embedding": embedding, "network": count_parameters(encoder) - embedding, "head": head},
        history=replace(history, rows=rows),
        settings=config.model_dump(mode="json"),
    )
