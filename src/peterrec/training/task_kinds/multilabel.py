"""Training of multilabel tasks: binary cross-entropy of each label, from a head that starts at logistic regressions."""

from __future__ import annotations

import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from peterrec.data.corpus import TaskPart
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import IntArray, indicators
from peterrec.nn.heads import Head, MultilabelHead
from peterrec.training.linear_probe import LinearProbe
from peterrec.training.task_kinds.base import ROUNDING, Judges, Metrics, MetricTotals, TaskObjective, pair

logger = logging.getLogger(__name__)

MAX_PROBED_LABELS = 256  # a regression each: about a tenth of a second


class MultilabelObjective(TaskObjective):
    """Binary cross-entropy, the mean over labels; the log-loss of users is the same."""

    metric_names = ("log_loss",)
    mode = "min"
    settings = ("calibration",)
    starting_users = 2048  # enough for a probe of each label to start from

    @property
    def log_odds(self) -> Tensor:
        """(K,) of each label among the train users, those who have it and those who do not counted once more."""
        having = _indicators(self.train_users, self._count).sum(axis=0, dtype=np.float64)
        return torch.from_numpy(np.log((having + 1.0) / (len(self.train_users) - having + 1.0))).float()

    @property
    def _count(self) -> int:
        return len(self.task.class_names)

    def new_head(self, width: int, generator: torch.Generator) -> Head:
        """Return a head whose bias is the log odds of each label."""
        return MultilabelHead(width, self._count, generator, bias=self.log_odds)

    def start_at_probe(self, head: Head, vectors: Tensor, users: TaskPart, judges: Judges | None) -> bool:
        """Let each label begin at a logistic regression of users, as a classification of two classes does.

        The penalty is that of the most frequent label that some of the users have and some have not, chosen by held-out
        users: choosing one for each label would take minutes. A label that all of the users have, or none of them,
        begins at its log odds. Not where the labels are too many, which is logged.
        """
        if self._count > MAX_PROBED_LABELS:
            logger.info(f"the head of {self._count:,} labels starts at random: they are too many for a probe of each")
            return False
        read, targets = head.read(vectors).cpu().numpy(), _indicators(users, self._count).astype(np.int64)
        weight, bias = np.zeros((self._count, read.shape[1])), self.log_odds.double().numpy()
        probe: LinearProbe | None = None
        for label in np.flatnonzero(np.ptp(targets, axis=0)).tolist():
            if probe is None:
                judging = None if judges is None else (head.read(judges.read()).cpu().numpy(), judges.users)
                probe = self._chosen_probe(read, users, judging, label)
            else:
                probe = LinearProbe.fit(read, targets[:, label], 2, probe.strength)
            weight[label], bias[label] = probe.weight[1] - probe.weight[0], probe.bias[1] - probe.bias[0]
        head.start_at(torch.from_numpy(weight), torch.from_numpy(bias))
        return True

    def _chosen_probe(
        self, read: np.ndarray, users: TaskPart, judging: tuple[np.ndarray, TaskPart] | None, label: int
    ) -> LinearProbe:
        """Return the regression of a label, its penalty chosen by held-out users."""
        hashes = id_hash(users.user_ids.to_pylist())
        having = _indicators(users, self._count)[:, label].astype(np.int64)
        valid = None
        if judging is not None:
            valid = (judging[0], _indicators(judging[1], self._count)[:, label].astype(np.int64), None)
        return LinearProbe.fit_by_cross_validation(read, having, 2, hashes, None, valid)

    def forward(self, head: Head, vectors: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean binary cross-entropy of (B, K) `indicators`."""
        return F.binary_cross_entropy_with_logits(head(vectors), batch["indicators"])

    def weight_of(self, batch: dict[str, Tensor]) -> float:
        """Return the number of users."""
        return float(len(batch["indicators"]))

    def metric_sums(self, scores: Tensor, part: TaskPart, rows: IntArray) -> MetricTotals:
        """Return the log-loss of users, of each the mean over labels."""
        targets = torch.from_numpy(_indicators(part.take(rows), self._count)).double()
        losses = F.binary_cross_entropy_with_logits(scores.double().cpu(), targets, reduction="none")
        return {"log_loss": (float(losses.mean(dim=1).sum()), float(len(rows)))}

    def constant_totals(self, part: TaskPart, rows: IntArray) -> MetricTotals:
        """Return that of the label shares of the train users."""
        return self.metric_sums(self.log_odds.repeat(len(rows), 1), part, rows)

    @classmethod
    def problem(cls, metrics: Metrics, constant: Metrics, users: int, config: object) -> str | None:
        """Return in words that a model is no better than the label shares; None where it is."""
        if metrics["log_loss"] < constant["log_loss"] - ROUNDING:
            return None
        return f"no better than answering the label shares (log_loss {pair('log_loss', metrics, constant)})"


def _indicators(part: TaskPart, labels: int) -> np.ndarray:
    assert part.label_sets is not None
    return indicators(part.label_sets, labels)
