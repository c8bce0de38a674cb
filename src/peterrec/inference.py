"""Networks over many users: in batches, on a device, with the arithmetic that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peterrec.answers import FloatArray, TopItems
from peterrec.artifacts.popularity import Popularity
from peterrec.data.batching import inference_batches
from peterrec.data.sequences import IntArray, Sequences
from peterrec.nn.backbone import Backbone
from peterrec.nn.heads import grouped_topk, item_scores
from peterrec.nn.matmul import onednn_matmul
from peterrec.nn.precision import Precision, arithmetic
from peterrec.process import check_device_after_fork, survive_forks

Read = Callable[[Backbone, Tensor], Tensor]

survive_forks()


@dataclass(frozen=True)
class ItemScorer:
    """Scores of all items for many users: vectors of users times vectors of items, plus a bias.

    Attributes:
        vectors: (N, C) of users.
        weight: (n, C) of items.
        bias: (n,) of items.
        popularity: of items: what users without known events are answered with.
        known_events: (N,) known events of each user.
    """

    vectors: FloatArray
    weight: Tensor
    bias: Tensor
    popularity: Popularity
    known_events: IntArray

    def blocks(self, batch_size: int) -> Iterator[Tensor]:
        """Yield the scores of all items, (B, n), for users in order."""
        blocks = torch.split(torch.from_numpy(self.vectors), batch_size)
        unknown = torch.split(torch.from_numpy(self.known_events == 0), batch_size)
        for block, rows in zip(blocks, unknown, strict=True):
            with torch.inference_mode():  # not around `yield`: it would hold for whoever takes the blocks
                scores = item_scores(block.to(self.weight.device), self.weight, self.bias)
                if rows.any():
                    scores[rows.to(scores.device)] = self.popularity.scores.to(scores.device)
            yield scores

    @torch.inference_mode()
    def top_k(self, k: int, excluded: Sequences | None, batch_size: int) -> TopItems:
        """Return the k best items of each user, without those in `excluded` (N rows; negative: ignored)."""
        users, k, start = len(self.vectors), min(k, len(self.bias)), 0
        top = TopItems(np.empty((users, k), np.int64), np.empty((users, k), np.float32))
        for scores in self.blocks(batch_size):
            rows = np.arange(start, start + len(scores))
            if excluded is not None:
                batch_excluded = excluded.take(rows)
                is_target = batch_excluded.items >= 0
                indices = np.stack([batch_excluded.repeat()[is_target], batch_excluded.items[is_target]])
                scores[tuple(torch.from_numpy(indices).to(scores.device))] = -torch.inf
            best, places = grouped_topk(scores, k)
            top.scores[rows], top.positions[rows] = best.cpu().numpy(), places.cpu().numpy()
            start += len(scores)
        for row in np.flatnonzero(self.known_events == 0).tolist():  # of equally popular items the earlier is first
            positions, popular = self.popularity.best(k, [] if excluded is None else excluded[row].tolist())
            top.scores[row] = -np.inf
            top.scores[row, : len(popular)], top.positions[row, : len(popular)] = popular, positions
        return top


@dataclass(frozen=True)
class Inference:
    """Device and arithmetic that networks are run with.

    Attributes:
        device: where.
        precision: of the network; items are scored in fp32 whatever it is.
        compile: whether torch compiles the network for batches of the longest histories.
    """

    device: torch.device
    precision: Precision
    compile: bool

    @torch.inference_mode()
    def vectors(
        self, sequences: Sequences, read: Read, width: int, backbone: Backbone, max_length: int, batch_size: int
    ) -> FloatArray:
        """Return what is read of each user, (N, width) float32.

        Raises:
            ConfigError: the process was forked, and the GPU was in use before.
        """
        check_device_after_fork(self.device)
        if self.compile:
            # As they are, with [TCL] or [MASK] put in, or with [TCL] at both ends.
            backbone = backbone.compiled(batch_size, range(max_length, max_length + 3))
        out = np.empty((len(sequences), width), dtype=np.float32)
        for rows, tokens in inference_batches(sequences, batch_size, max_length):
            with arithmetic(self.precision, self.device), onednn_matmul(self.device):
                values = read(backbone, torch.from_numpy(tokens).to(self.device))
            out[rows] = values.float().cpu().numpy()
        return out
