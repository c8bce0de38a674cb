"""The objective of a task, and the metrics of its validation users."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError
from peterrec.evaluation.validation import mean_reciprocal_rank
from peterrec.nn.heads import ClassificationHead, ItemHead
from peterrec.nn.losses import bce_loss, bpr_loss, candidate_softmax_loss

MetricTotals = dict[str, tuple[float, float]]
"""By metric: a sum, and what it is to be divided by."""


def class_weights(config: AdaptConfig, task: Task, train: TaskPart) -> Tensor | None:
    """Return the weight of each class, (K,), or None where all are alike.

    Raises:
        ConfigError: a class that the task does not have.
    """
    if config.class_weights is None or train.labels is None:
        return None
    names = task.class_names
    if config.class_weights == "balanced":
        counts = np.bincount(train.labels, minlength=len(names))
        return torch.from_numpy(len(train.labels) / (len(names) * np.maximum(counts, 1))).float()
    unknown = [name for name in config.class_weights if name not in names]
    if unknown:
        raise ConfigError(
            f"class_weights names {', '.join(map(repr, unknown))}, which task {task.name!r} does not have",
            remedy=f"its classes are {', '.join(names)}",
        )
    return torch.tensor([config.class_weights.get(name, 1.0) for name in names])


class TaskLoss(nn.Module):
    """Cross-entropy of a classification task; BPR, BCE or sampled softmax of a ranking task.

    Args:
        config: loss, class weights, label smoothing, negatives.
        weights: (K,) of the classes, or None.
    """

    def __init__(self, config: AdaptConfig, weights: Tensor | None) -> None:
        super().__init__()
        self.config = config
        self.weights: Tensor | None
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, head: ClassificationHead | ItemHead, vectors: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            head: of the task.
            vectors: (B, C) representations.
            batch: as `TaskSource.batch` makes it.
        """
        if isinstance(head, ClassificationHead):
            smoothing = self.config.label_smoothing
            return F.cross_entropy(head(vectors), batch["labels"], weight=self.weights, label_smoothing=smoothing)
        scores = _scores(head, vectors, batch)  # (P, 1 + M)
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
        """Return what the mean loss of a batch is divided by: its (weighted) users, or its pairs."""
        if "labels" not in batch:
            return float(len(batch["positive"]))
        labels = batch["labels"]
        return float(len(labels)) if self.weights is None else float(self.weights[labels].double().sum())


def _scores(head: ItemHead, vectors: Tensor, batch: dict[str, Tensor]) -> Tensor:
    candidates = torch.cat([batch["positive"].unsqueeze(1), batch["negatives"]], dim=1)  # (P, 1 + M)
    if vectors.shape[0] * head.weight.shape[0] <= candidates.numel() * vectors.shape[1]:
        # All scores of all users are less to hold than a vector for each candidate.
        all_scores: Tensor = head(vectors)  # (B, N)
        return all_scores[batch["user"].unsqueeze(1), candidates]
    return head.score(vectors[batch["user"]], candidates)


def metric_names(task: Task) -> tuple[str, ...]:
    """Return the validation metrics of a task; the first decides. Higher is better only of `mrr`."""
    return ("mrr",) if task.kind == "ranking" else ("log_loss", "accuracy")


def metric_sums(scores: Tensor, part: TaskPart, rows: IntArray, weights: Tensor | None = None) -> MetricTotals:
    """Return the sums of the validation metrics over the given rows of a part, and what to divide them by.

    Log-loss and accuracy of users; or, for ranking, the reciprocal rank of (user, target) pairs in the whole ranking.
    What decides the best epoch moves with every user (log-loss, untruncated MRR): the validation users are few.

    Args:
        scores: (rows, outputs).
        part: validation users.
        rows: which of them.
        weights: (outputs,) of the classes in the log-loss, which is to decide as the training loss does.
    """
    if part.labels is not None:
        labels = torch.from_numpy(part.labels[rows])
        ones = torch.ones(scores.shape[1], dtype=torch.float64)
        weight_per_class = ones if weights is None else weights.double().cpu()
        loss = F.cross_entropy(scores.double(), labels, weight=weight_per_class, reduction="sum")
        weight_sum = float(weight_per_class[labels].sum())
        hits = float((scores.argmax(1) == labels).sum())
        return {"log_loss": (float(loss), weight_sum), "accuracy": (hits, float(len(rows)))}
    assert part.targets is not None
    targets = part.targets.take(rows)
    pairs = len(targets.items)
    return {"mrr": (mean_reciprocal_rank([scores.numpy()], targets) * pairs, float(pairs))}


def mean_metrics(totals: list[MetricTotals]) -> dict[str, float]:
    """Return the mean of each metric: its sums added up, divided by what they are to be divided by, added up."""
    return {name: sum(part[name][0] for part in totals) / sum(part[name][1] for part in totals) for name in totals[0]}
