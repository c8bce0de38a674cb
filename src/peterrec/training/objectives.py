"""Objectives of pre-training: the next item at every position (causal), or masked items (noncausal)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from peterrec.config import PretrainConfig
from peterrec.data.batching import FixedBatches, Windows, inference_batches
from peterrec.data.masking import mask_items
from peterrec.data.sequences import FIRST_ITEM, MASK, PAD, IntArray, Sequences, items_of
from peterrec.data.views import draw_views
from peterrec.nn.losses import LogUniformSampler

VALID_ROWS = 16  # held-out users read at once
VALID_USERS = 128  # held-out users told from each other, about

Batch = dict[str, Tensor]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Examples:
    """Inputs of the network and its targets: an item index at a position, or [PAD] where nothing is predicted."""

    inputs: Array
    targets: Array


class NextItem:
    """The item after each position, from what stands before it (paper, section 3.2, eq. 3)."""

    name = "next item"

    def __init__(self, config: PretrainConfig, items: int) -> None:
        self.config = config
        self.items = items

    def windows(self, sequences: Sequences, rows: IntArray) -> Windows:
        """Cut sequences so that every item but the first is a target once."""
        return Windows.over(sequences, rows, self.config.max_length)

    def examples(self, tokens: Array, rng: np.random.Generator) -> Examples:
        """Shift by one; some inputs, never targets, may be masked: the order need not be strict (section 3.2)."""
        inputs, _ = mask_items(tokens, self.config.mask_fraction, self.config.masking, self.items, rng)
        return Examples(inputs[:, :-1], _items_of(tokens[:, 1:]))

    def valid(self, sequences: Sequences) -> list[Batch]:
        """Return batches of held-out users; every position counts, the last item of each user is ranked."""
        batches = []
        for _, tokens in inference_batches(sequences, VALID_ROWS, self.config.max_length + 1):
            targets = _items_of(tokens[:, 1:])
            batches.append(_valid_batch(tokens[:, :-1], targets, targets != PAD, _last(targets)))
        return batches


class MaskedItems:
    """Items that are hidden in the input, from what stands around them (paper, section 3.2; GRec)."""

    name = "masked items"

    def __init__(self, config: PretrainConfig, items: int) -> None:
        self.config = config
        self.items = items

    def windows(self, sequences: Sequences, rows: IntArray) -> Windows:
        """Cut sequences into windows that the network can read, neighbours sharing one item."""
        return Windows.over(sequences, rows, self.config.max_length - 1)

    def examples(self, tokens: Array, rng: np.random.Generator) -> Examples:
        """Hide some items of each row, at least one, and ask for these."""
        config = self.config
        inputs, chosen = mask_items(tokens, config.mask_fraction, config.masking, self.items, rng, least=1)
        return Examples(inputs, np.where(chosen, items_of(tokens), PAD))

    def valid(self, sequences: Sequences) -> list[Batch]:
        """Return batches of held-out users: with the same hidden items each time; and with the last one hidden."""
        rng = np.random.default_rng([self.config.seed, 3])
        batches = []
        for _, tokens in inference_batches(sequences, VALID_ROWS, self.config.max_length):
            hidden = self.examples(tokens, rng)
            nothing = np.zeros(tokens.shape, dtype=bool)
            batches.append(_valid_batch(hidden.inputs, hidden.targets, hidden.targets != PAD, nothing))
            last = _last(_items_of(tokens))
            targets = np.where(last, items_of(tokens), PAD)
            batches.append(_valid_batch(np.where(last, MASK, tokens), targets, nothing, last))
        return batches


Objective = NextItem | MaskedItems


def objective_of(config: PretrainConfig, items: int) -> Objective:
    """Return what a backbone of this kind learns from."""
    return NextItem(config, items) if config.backbone.kind == "causal" else MaskedItems(config, items)


class ExampleSource:
    """Batches of windows as examples, with the negatives of the sampled softmax and views of the windows' users.

    Args:
        objective: makes the examples.
        windows: of the users to train on.
        sampler: of negatives, or None for the full softmax.
        sequences: histories that the windows were cut from.
    """

    def __init__(
        self, objective: Objective, windows: Windows, sampler: LogUniformSampler | None, sequences: Sequences
    ) -> None:
        self.objective = objective
        self.data = windows
        self.sampler = sampler
        self.sequences = sequences
        self.config = objective.config

    @property
    def lengths(self) -> IntArray:
        """(windows,) items in each window."""
        return self.data.lengths

    def batch(self, rows: IntArray, rng: np.random.Generator) -> Batch:
        """Return `inputs`, `targets` (B, T), and `negatives` (S,) of a sampled softmax; `views` (U, V, W) of users."""
        out: Batch = {}
        if self.config.prediction_weight > 0:
            examples = self.objective.examples(self._with_dropout(self.data.tokens(rows), rng), rng)
            out = {"inputs": torch.from_numpy(examples.inputs), "targets": torch.from_numpy(examples.targets)}
        if self.config.prediction_weight > 0 and self.sampler is not None:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            out["negatives"] = self.sampler.sample(self.config.negatives, generator)
        if self.config.contrastive.weight > 0:
            users = np.unique(self.data.users[rows])
            if len(users) > self.config.contrastive.users:
                users = np.sort(rng.choice(users, self.config.contrastive.users, replace=False))
            out["views"] = views_of(self.sequences, users, self.config, rng)
        return out

    def _with_dropout(self, tokens: Array, rng: np.random.Generator) -> Array:
        """Return windows, some of them without the features of their events."""
        if self.sequences.features is None:
            return tokens
        return np.where(rng.random((len(tokens), 1)) < self.config.masking.feature_dropout, items_of(tokens), tokens)


def views_of(sequences: Sequences, rows: IntArray, config: PretrainConfig, rng: np.random.Generator) -> Tensor:
    """Return views of some users, of their items alone; (U, V, W).

    What a user's events have in common beside their items, such as the hour, would tell users apart by itself: there
    would be nothing to learn of the items.
    """
    tokens = draw_views(sequences.without_features(), rows, config.contrastive, rng)
    return torch.from_numpy(tokens).view(len(rows), config.contrastive.views, -1)


def valid_batches(objective: Objective, sequences: Sequences) -> FixedBatches[Batch]:
    """Return the batches of held-out users: `inputs`, `targets`, `counted` (in the loss), `ranked`; all (B, T).

    For a contrastive loss there are batches with `views` too, the same in every epoch.
    """
    config = objective.config
    batches = objective.valid(sequences) if config.prediction_weight > 0 else []
    if config.contrastive.weight > 0:
        rng = np.random.default_rng([config.seed, 4])
        rows = np.arange(len(sequences))
        groups = np.array_split(rows, math.ceil(len(rows) / VALID_USERS))
        batches += [{"views": views_of(sequences, group, config, rng)} for group in groups]
    return FixedBatches(batches)


def _items_of(tokens: Array) -> Array:
    items = items_of(tokens)
    return np.where(items >= FIRST_ITEM, items, PAD)  # neither padding nor [UNK] is anything to predict


def _last(targets: Array) -> Array:
    """Return a mask of the last target of each row; (B, T) bool."""
    real = targets != PAD
    last: Array = real & (real[:, ::-1].cumsum(axis=1)[:, ::-1] == 1)
    return last


def _valid_batch(inputs: Array, targets: Array, counted: Array, ranked: Array) -> Batch:
    arrays = {"inputs": inputs, "targets": targets, "counted": counted, "ranked": ranked}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
