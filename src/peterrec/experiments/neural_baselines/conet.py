"""CoNet: two networks trained jointly across domains (Hu, Zhang and Yang, CIKM 2018), for a ranking task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from peterrec.data.batching import EpochStream
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.negatives import Negatives, uniform_weights
from peterrec.data.sequences import FIRST_ITEM, IntArray, Sequences
from peterrec.errors import DataError
from peterrec.evaluation.baselines.settings import ConetConfig
from peterrec.evaluation.validation import mean_reciprocal_rank
from peterrec.experiments.neural_baselines.train import Say, TrainedBaseline, train_epochs
from peterrec.nn.device import find_device
from peterrec.nn.losses import bce_loss
from peterrec.training.adaptation_run import train_and_valid
from peterrec.training.callbacks import Curve
from peterrec.training.strategies import count_parameters
from peterrec.training.task_source import Batch

INITIAL = 0.1  # deviation of embeddings; with much less, a product of small numbers has to be learned first
_BLOCK = 2**23  # numbers of the widest hidden layer held at once while targets are scored
_VALID_BATCH = 256


class Tower(nn.Module):
    """Embedding of items and layers of one domain; the last item index is no item, and its embedding stays zero."""

    def __init__(self, items: int, channels: int, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(items + 1, channels, padding_idx=items)
        widths = (2 * channels, *layers)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.output = nn.Linear(widths[-1], 1)

    @property
    def items(self) -> int:
        """Number of items; also the index that means none."""
        return self.embedding.num_embeddings - 1

    def enter(self, users: Float[Tensor, "*u C"], items: Int[Tensor, "*i"]) -> Float[Tensor, "*b W"]:
        """Return the first hidden layer, of users and items whose shapes broadcast: each is multiplied only once."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        user_weight, item_weight = first.weight.chunk(2, dim=1)
        return F.relu(F.linear(users, user_weight, first.bias) + F.linear(self.embedding(items), item_weight))


class CrossNetwork(nn.Module):
    """Hidden layers a and b of two towers: a' = relu(W_a a + H b), b' = relu(W_b b + H a) (CoNet, section 4).

    H is shared by both directions, and has no bias of its own. The users' embedding is shared by both domains.

    Args:
        users: n.
        sources: source items.
        targets: target items.
        channels: width of embeddings.
        layers: widths of hidden layers.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        users: int,
        sources: int,
        targets: int,
        channels: int,
        layers: tuple[int, ...],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.users = nn.Embedding(users, channels)
        self.source = Tower(sources, channels, layers)
        self.target = Tower(targets, channels, layers)
        self.cross = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(layers))
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=INITIAL, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for tower in (self.source, self.target):
                tower.embedding.weight[tower.items].zero_()

    def forward(
        self, users: Int[Tensor, "*u"], sources: Int[Tensor, "*s"], targets: Int[Tensor, "*t"]
    ) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
        """Return the logit that a user has a source item, and a target item, each item seen beside the other.

        The three broadcast. Where there is only one layer, nothing is exchanged, and the logits have the shapes of
        users with sources, and with targets.
        """
        vectors = self.users(users)
        a, b = self.source.enter(vectors, sources), self.target.enter(vectors, targets)
        for source_layer, target_layer, cross in zip(
            self.source.layers[1:], self.target.layers[1:], self.cross, strict=True
        ):
            a, b = F.relu(source_layer(a) + cross(b)), F.relu(target_layer(b) + cross(a))
        return self.source.output(a).squeeze(-1), self.target.output(b).squeeze(-1)


def train_conet(
    corpus: Corpus, tasks: Sequence[str], config: ConetConfig, seed: int, say: Say
) -> dict[str, TrainedBaseline]:
    """Train a network for each ranking task; see `train_neural_baseline`."""
    return {task: _train(corpus, corpus.task(task), config, seed, say) for task in tasks}


def _train(corpus: Corpus, task: Task, config: ConetConfig, seed: int, say: Say) -> TrainedBaseline:
    """Train CoNet for one ranking task.

    A user without an embedding cannot be scored, so the source events of the valid and test users are trained on too:
    it is the history that other methods read when they score them. Their targets are not.
    """
    assert task.targets is not None
    device = find_device(config.device)
    train, valid = train_and_valid(task)
    test = task.part("test")
    histories = [_source_items(part.sequences, config.max_length) for part in (train, valid, test)]
    sources = Sequences.from_rows([row for history in histories for row in history])
    generator = torch.Generator().manual_seed(seed)
    n_items, n_targets = len(corpus.catalogue), len(task.targets)
    network = CrossNetwork(len(sources), n_items, n_targets, config.channels, config.layers, generator).to(device)
    judged = PartScorer.build(network, valid, histories[1], len(train), device)
    scorer = PartScorer.build(network, test, histories[2], len(train) + len(valid), device)
    stream = EpochStream(_Pairs(sources, train, n_items, n_targets, config.negatives), config.batch_size, seed)
    curve = Curve("mrr", "max")

    def validate() -> dict[str, float]:
        assert valid.targets is not None
        return {"mrr": mean_reciprocal_rank(judged.score_batches(valid.sequences, _VALID_BATCH), valid.targets)}

    losses = partial(_losses, network, stream, config.source_weight, device)
    train_epochs(network, losses, len(stream), validate, config, curve, say)
    tables = (network.users, network.source.embedding, network.target.embedding)
    embedding = sum(count_parameters(table) for table in tables)
    head = count_parameters(network.source.output) + count_parameters(network.target.output)
    trained = {"embedding": embedding, "network": scorer.trainable - embedding - head, "head": head}
    return TrainedBaseline(scorer, trained, curve, config.model_dump(mode="json"))


def _source_items(sequences: Sequences, max_length: int) -> list[IntArray]:
    """Return the most recent source items of each user, 0-based, without special tokens."""
    rows = (np.asarray(sequences[row]) for row in range(len(sequences)))
    return [row[row >= FIRST_ITEM][-max_length:] - FIRST_ITEM for row in rows]


def _losses(
    network: CrossNetwork, stream: EpochStream[Batch], source_weight: float, device: torch.device
) -> Iterator[Tensor]:
    """Yield the sum of both domains' losses, batch by batch."""
    for batch in stream:
        tensors = {name: value.to(device) for name, value in batch.items()}
        source, _ = network(tensors["source_user"], tensors["source_items"], tensors["source_context"])
        _, target = network(tensors["target_user"], tensors["target_context"], tensors["target_items"])
        yield source_weight * _loss(source) + _loss(target)


def _loss(logits: Float[Tensor, "P M"]) -> Tensor:
    # A batch may have no positive at all in a domain; the mean of nothing is no number.
    return bce_loss(logits[:, 0], logits[:, 1:]) if len(logits) else logits.sum()


class _Pairs:
    """Batches of users: source items and targets, negatives of each, and a context item of the other domain.

    The context is an item that the user has, drawn anew each time, for a positive and its negatives alike: it says
    nothing about which of them is the positive. It is none where the user has none, as valid and test users have no
    target.
    """

    def __init__(self, sources: Sequences, train: TaskPart, n_sources: int, n_targets: int, count: int) -> None:
        assert train.targets is not None
        empty = np.zeros(len(sources) - len(train), dtype=np.int64)
        offsets = np.concatenate([train.targets.offsets, train.targets.offsets[-1] + empty])
        self.domains = (_Domain(sources, n_sources), _Domain(Sequences(train.targets.items, offsets), n_targets))
        self.count = count

    @property
    def lengths(self) -> IntArray:
        """(users,) positives of each, in both domains."""
        return self.domains[0].items.lengths + self.domains[1].items.lengths

    def batch(self, rows: IntArray, rng: np.random.Generator) -> Batch:
        """Return for `source` and `target`: `X_user`, `X_context` (P, 1) and `X_items` (P, 1 + M), positive first."""
        out: Batch = {}
        for name, domain, other_domain in zip(("source", "target"), self.domains, self.domains[::-1], strict=True):
            users, items = domain.pairs(rows, self.count, rng)
            context = other_domain.draw(users, rng)
            arrays = {"user": users[:, None], "items": items, "context": context[:, None]}
            out |= {f"{name}_{role}": torch.from_numpy(value) for role, value in arrays.items()}
        return out


class _Domain:
    def __init__(self, items: Sequences, size: int) -> None:
        keys = np.unique(items.repeat() * np.int64(size) + items.items)
        distinct = np.bincount(keys // size, minlength=len(items))
        self.items, self.size = items, size
        self.usable = distinct < size  # who has everything has no negative, and nothing to learn
        usable_items = Sequences.from_rows([items[row] if self.usable[row] else [] for row in range(len(items))])
        self.negatives = Negatives(usable_items, uniform_weights(size))

    def pairs(self, rows: IntArray, count: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Return (P,) users and (P, 1 + M) items of all positives of some users."""
        rows = rows[self.usable[rows]]
        positives = self.items.take(rows)
        users = rows[positives.repeat()]
        drawn = self.negatives.sample(users, count, rng)
        return users, np.concatenate([positives.items[:, None].astype(np.int64), drawn], axis=1)

    def draw(self, users: IntArray, rng: np.random.Generator) -> IntArray:
        """Return an item of each user, `size` where there is none."""
        lengths = self.items.lengths_of(users)
        places = self.items.offsets[:-1][users] + rng.integers(0, np.maximum(lengths, 1))
        drawn = np.append(self.items.items, 0)[np.where(lengths > 0, places, len(self.items.items))]
        return np.where(lengths > 0, drawn, self.size).astype(np.int64)


@dataclass(frozen=True)
class PartScorer:
    """Scores of all targets, of the users of one part: CoNet knows a user by an embedding, not by a history.

    Attributes:
        network: trained.
        part: whose users it scores, in their order.
        context: (users,) most recent source item of each, which the other tower reads; its number of items if none.
        first: index of the part's first user among the embeddings.
        device: where.
        trainable: parameters trained for the task: all of them.
    """

    network: CrossNetwork
    part: TaskPart
    context: Int[np.ndarray, " users"]
    first: int
    device: torch.device
    trainable: int
    trainable_fraction: float = 1.0

    @classmethod
    def build(
        cls, network: CrossNetwork, part: TaskPart, histories: list[IntArray], first: int, device: torch.device
    ) -> PartScorer:
        """Return the scorer of a part whose users have these source items."""
        context = np.array([row[-1] if len(row) else network.source.items for row in histories], dtype=np.int64)
        return cls(network, part, context, first, device, count_parameters(network))

    @property
    def settings(self) -> dict[str, Any]:
        """Facts that tables show of it."""
        return {"network": "CoNet", "users": "trained on the source events of all users of the task"}

    def score_batches(self, sequences: Sequences, batch_size: int) -> Iterator[Float[np.ndarray, "B n_targets"]]:
        """Yield scores of all users of the part in row order.

        Raises:
            DataError: the sequences are not those of the part.
        """
        part_sequences = self.part.sequences
        if not (
            np.array_equal(part_sequences.offsets, sequences.offsets)
            and np.array_equal(part_sequences.items, sequences.items)
        ):
            raise DataError(
                "these are not the users that CoNet was trained for: it has an embedding for each, and none for others",
                remedy="score the part of the task that the scorer was made for, all users in their order",
            )
        rows = np.arange(len(sequences))
        return (self._scores(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size))

    @torch.inference_mode()
    def _scores(self, rows: IntArray) -> Float[np.ndarray, "B n_targets"]:
        targets = torch.arange(self.network.target.items, device=self.device)
        widest = max(layer.out_features for layer in self.network.target.layers if isinstance(layer, nn.Linear))
        step = max(1, _BLOCK // max(1, len(targets) * widest))
        users = torch.from_numpy(np.stack([self.first + rows, self.context[rows]]))[..., None].to(self.device)
        blocks = torch.split(users, step, dim=1)  # each (2, b, 1): embedding and context
        return np.concatenate([self.network(*block, targets)[1].cpu().numpy() for block in blocks])
