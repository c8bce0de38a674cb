"""Batches of the labelled users of a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peterrec.config import AdaptConfig
from peterrec.data.batching import FixedBatches, draw_prefixes, inference_batches, last_events, leave_out
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.negatives import Negatives, popularity_weights, uniform_weights
from peterrec.data.sequences import IntArray, Sequences, indicators
from peterrec.training.distributed import rank, shard_rows, world_size

VALID_BATCH = 256

Batch = dict[str, Tensor]


class TaskSource:
    """Batches of labelled users: what is read of them, and labels, numbers, or (user, positive, negatives) pairs.

    Of a multilabel task, 1 for each label that a user has, else 0.

    Args:
        task: as prepared.
        part: its train users.
        config: length of the history, negatives.
        states: gives what is read of some rows in place of their `tokens`, such as `trunk.States`.

    Raises:
        TaskError: a user has every target, so that no negative is left.
    """

    def __init__(
        self,
        task: Task,
        part: TaskPart,
        config: AdaptConfig,
        states: Callable[[IntArray], Batch] | None = None,
    ) -> None:
        self.part = part
        self.labels = len(task.class_names)
        self.states = states
        self.max_length = config.max_length
        self.prefix_fraction = config.prefix_fraction
        self.event_dropout = config.event_dropout
        self.negatives_config = config.negatives
        self.logq_correction = config.ranking_loss == "sampled-softmax"
        self.sampler = None
        if part.targets is not None:
            assert task.targets is not None
            popular, power = config.negatives.sampling == "popularity", config.negatives.power
            counts = task.targets.counts
            weights = popularity_weights(counts, power) if popular else uniform_weights(len(counts))
            self.sampler = Negatives(part.targets, weights)

    @property
    def lengths(self) -> IntArray:
        """(users,) events read of each user whose history is not cut."""
        return np.minimum(self.part.sequences.lengths, self.max_length)

    def batch(self, rows: IntArray, rng: np.random.Generator) -> Batch:
        """Return `tokens` (B, W) with `labels` or `numbers` (B,); or `user`, `positive` (P,), `negatives` (P, M).

        Of a multilabel task with `indicators` (B, K).

        With hard negatives M are the candidates; for the sampled softmax there is also `log_expected` (P, M).
        Where there are states they take the place of the tokens.
        """
        read = self._tokens(rows, rng) if self.states is None else self.states(rows)
        return read | {name: torch.from_numpy(value) for name, value in self._labels_or_pairs(rows, rng).items()}

    def _tokens(self, rows: IntArray, rng: np.random.Generator) -> Batch:
        sequences, histories = self.part.sequences, None
        if self.prefix_fraction > 0:
            histories = draw_prefixes(sequences.lengths_of(rows), self.prefix_fraction, rng)
        tokens = last_events(sequences, rows, self.max_length, histories)
        if self.event_dropout > 0:
            tokens = leave_out(tokens, self.event_dropout, rng)
        return {"tokens": torch.from_numpy(tokens)}

    def _labels_or_pairs(self, rows: IntArray, rng: np.random.Generator) -> dict[str, Any]:
        if self.part.numbers is not None:
            return {"numbers": self.part.numbers[rows]}
        if self.part.label_sets is not None:
            return {"indicators": indicators(self.part.label_sets.take(rows), self.labels)}
        if self.part.labels is not None:
            return {"labels": self.part.labels[rows]}
        assert self.part.targets is not None
        assert self.sampler is not None
        targets: Sequences = self.part.targets.take(rows)
        out: dict[str, Any] = {"user": targets.repeat(), "positive": targets.items.astype(np.int64)}
        negatives = self.negatives_config
        count = negatives.candidates if negatives.sampling == "hard" else negatives.count
        users = rows[out["user"]]
        out["negatives"] = self.sampler.sample(users, count, rng)
        if self.logq_correction:
            out["log_expected"] = self.sampler.log_expected(users, out["negatives"])
        return out


def own_users(batch: Batch) -> Batch:
    """Return what is this rank's of a batch of all ranks: some of the users, with all that is theirs."""
    names = ("tokens", "states", "keep", "labels", "numbers", "indicators")
    mine: Batch = {name: shard_rows(batch[name]) for name in names if name in batch}
    if "user" not in batch:
        return mine
    is_own = batch["user"] % world_size() == rank()
    pairs = {name: batch[name][is_own] for name in ("positive", "negatives", "log_expected") if name in batch}
    return mine | {"user": batch["user"][is_own] // world_size()} | pairs


def valid_batches(valid: TaskPart, max_length: int) -> FixedBatches[Batch]:
    """Return the batches of validation users: `rows` of the part and their `tokens`."""
    batches = inference_batches(valid.sequences, VALID_BATCH, max_length)
    return FixedBatches([{"rows": torch.from_numpy(r), "tokens": torch.from_numpy(t)} for r, t in batches])
