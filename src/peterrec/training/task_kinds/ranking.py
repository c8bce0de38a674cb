"""Training of ranking tasks: pairs of a target and its negatives, from a head that starts at a ridge regression."""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import Tensor

from peterrec.config import AdaptConfig
from peterrec.data.corpus import TaskPart
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import IntArray
from peterrec.evaluation.validation import mean_reciprocal_rank
from peterrec.nn.heads import Head, ItemHead, log_share
from peterrec.nn.losses import bce_loss, bpr_loss, candidate_softmax_loss
from peterrec.training.ridge_probe import RidgeProbe
from peterrec.training.task_kinds.base import ROUNDING, Judges, Metrics, MetricTotals, TaskObjective, pair

logger = logging.getLogger(__name__)

MAX_RIDGE_WEIGHTS = 50_000_000
"""Weights of a head of items above which it starts at random: a ridge probe holds about eight times as many doubles."""


class RankingObjective(TaskObjective):
    """BPR, BCE or sampled softmax of (user, target) pairs; the untruncated MRR of whole rankings."""

    metric_names = ("mrr",)
    mode = "max"
    settings = ("ranking_loss", "negatives")
    starting_users = 100_000  # of whom a probe learns who has which of many items

    @property
    def popularity(self) -> Tensor:
        """(items,) log of the share of each target among those of the train users, each counted once more."""
        assert self.task.targets is not None
        return log_share(torch.from_numpy(self.task.targets.counts))

    def new_head(self, width: int, generator: torch.Generator) -> Head:
        """Return a head whose bias is the popularity of the targets."""
        popularity = self.popularity
        return ItemHead(width, len(popularity), generator, bias=popularity)

    def start_at_probe(self, head: Head, vectors: Tensor, users: TaskPart, judges: Judges | None) -> bool:
        """Let a head begin at a ridge regression of users, in logits; penalty and scale are cross-validated.

        Not where its weights are too many, which is logged.
        """
        assert users.targets is not None
        if head.weight.numel() > MAX_RIDGE_WEIGHTS:
            logger.info(
                f"the head of {len(head.bias):,} items starts at random: it is too large for a ridge regression in "
                "memory"
            )
            return False
        if len(users) < 2:
            return False
        probe = RidgeProbe.fit_by_cross_validation(
            head.read(vectors).cpu().numpy(), users.targets, len(head.bias), id_hash(users.user_ids.to_pylist())
        )
        head.start_at(torch.from_numpy(probe.weight), torch.from_numpy(probe.bias))
        return True

    def forward(self, head: Head, vectors: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss of pairs: (P,) `user` and `positive` with (P, M) `negatives`."""
        scores = _scores(cast(ItemHead, head), vectors, batch)  # (P, 1 + M)
        positive, negative = scores[:, 0], scores[:, 1:]
        if self.config.negatives.sampling == "hard":
            # The highest-scoring of a sample (LambdaFM's idea; Yuan et al., CIKM 2016).
            negative = negative.topk(self.config.negatives.count, dim=1).values
        if self.config.ranking_loss == "bpr":
            return bpr_loss(positive, negative)
        if self.config.ranking_loss == "bce":
            return bce_loss(positive, negative)
        return candidate_softmax_loss(positive, negative - batch["log_expected"])

    def weight_of(self, batch: dict[str, Tensor]) -> float:
        """Return the number of pairs."""
        return float(len(batch["positive"]))

    def metric_sums(self, scores: Tensor, part: TaskPart, rows: IntArray) -> MetricTotals:
        """Return the reciprocal rank of (user, target) pairs in the whole ranking."""
        assert part.targets is not None
        targets = part.targets.take(rows)
        pairs = len(targets.items)
        return {"mrr": (mean_reciprocal_rank([scores.numpy()], targets) * pairs, float(pairs))}

    def constant_totals(self, part: TaskPart, rows: IntArray) -> MetricTotals:
        """Return that of the ranking by popularity."""
        return self.metric_sums(self.popularity.repeat(len(rows), 1), part, rows)

    @classmethod
    def problem(cls, metrics: Metrics, constant: Metrics, users: int, config: AdaptConfig) -> str | None:
        """Return in words that a model ranks no better than popularity; None where it does."""
        if metrics["mrr"] > constant["mrr"] + ROUNDING:
            return None
        return f"no better than ranking by popularity (mrr {pair('mrr', metrics, constant)})"


def _scores(head: ItemHead, vectors: Tensor, batch: dict[str, Tensor]) -> Tensor:
    candidates = torch.cat([batch["positive"].unsqueeze(1), batch["negatives"]], dim=1)  # (P, 1 + M)
    if vectors.shape[0] * head.weight.shape[0] <= candidates.numel() * vectors.shape[1]:
        # All scores of all users are less to hold than a vector for each candidate.
        all_scores: Tensor = head(vectors)  # (B, N)
        return all_scores[batch["user"].unsqueeze(1), candidates]
    return head.score(vectors[batch["user"]], candidates)
