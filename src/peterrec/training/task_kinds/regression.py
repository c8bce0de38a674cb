"""Training of regression tasks: a linear head of standardised numbers, from a start at a ridge regression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeCV
from torch import Tensor

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.number_outputs import NumberOutputs
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError
from peterrec.nn.heads import Head, RegressionHead
from peterrec.nn.losses import pinball_loss
from peterrec.training.task_kinds.base import ROUNDING, Judges, Metrics, MetricTotals, TaskObjective, pair

PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Values of lambda / users that are tried; of standardised vectors, so that they mean about the same."""

LEAST_SPREAD = 1e-6  # of a standardised number of a representation

FloatArray = npt.NDArray[np.float64]
LOSSES: dict[str, Callable[..., Tensor]] = {"squared": F.mse_loss, "huber": F.huber_loss, "absolute": F.l1_loss}


class RegressionObjective(TaskObjective):
    """Squared, Huber or absolute error of standardised numbers, or pinball loss of quantiles of them.

    Metrics of users: `loss`, what is trained for, of standardised numbers; `mae`, the mean absolute error in the unit
    of the numbers.

    Raises:
        ConfigError: `log1p` of a number that is not above -1, or train users whose numbers are all the same.
    """

    metric_names = ("loss", "mae")
    mode = "min"
    settings = ("regression_loss", "quantiles", "target_transform")
    starting_users = 20_000  # whose representations fit into memory several times, as doubles

    def __init__(self, config: AdaptConfig, task: Task, train: TaskPart) -> None:
        super().__init__(config, task, train)
        self.numbers = number_outputs(config, task, _numbers(train))

    def new_head(self, width: int, generator: torch.Generator) -> Head:
        """Return a head whose bias is the same answer for everybody."""
        constant = self.numbers.outputs(np.array(self.numbers.constant))
        return RegressionHead(width, self.numbers.count, generator, bias=torch.from_numpy(constant).float())

    def start_at_probe(self, head: Head, vectors: Tensor, users: TaskPart, judges: Judges | None) -> bool:
        """Let a head begin at a ridge regression, its penalty by leave-one-out errors.

        Its outputs are moved to the mean, the median or the quantiles of what it leaves unexplained.
        """
        if len(users) < 2:
            return False
        read, outputs = head.read(vectors).cpu().double().numpy(), self.numbers.outputs(_numbers(users))
        mean, spread = read.mean(axis=0), np.maximum(read.std(axis=0), LEAST_SPREAD)
        ridge = RidgeCV(alphas=len(users) * np.array(PENALTIES)).fit((read - mean) / spread, outputs)
        weight = ridge.coef_ / spread
        bias = _constant(self.config, outputs - read @ weight)
        weights = np.tile(weight, (len(bias), 1))
        head.start_at(torch.from_numpy(weights), torch.from_numpy(bias))
        return True

    def forward(self, head: Head, vectors: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss of (B,) `numbers`, which are float64 in their own unit."""
        return self._losses(head(vectors), batch["numbers"]).mean()

    def _losses(self, outputs: Tensor, numbers: Tensor) -> Tensor:
        """Return the loss of each user, (B,)."""
        wanted = torch.from_numpy(self.numbers.outputs(numbers.cpu().numpy())).to(outputs)
        if self.numbers.quantiles:
            return pinball_loss(outputs, wanted, outputs.new_tensor(self.numbers.quantiles))
        losses: Tensor = LOSSES[self.config.regression_loss](outputs.squeeze(1), wanted, reduction="none")
        return losses

    def weight_of(self, batch: dict[str, Tensor]) -> float:
        """Return the number of users."""
        return float(len(batch["numbers"]))

    def metric_sums(self, scores: Tensor, part: TaskPart, rows: IntArray) -> MetricTotals:
        """Return the loss and the absolute error of users."""
        numbers, outputs = _numbers(part)[rows], scores.double().cpu()
        if self.numbers.quantiles:
            outputs = outputs.sort(dim=1).values
        losses = self._losses(outputs, torch.from_numpy(numbers))
        errors = np.abs(self.numbers.numbers(outputs.numpy())[:, self.numbers.prediction] - numbers)
        users = float(len(rows))
        return {"loss": (float(losses.sum()), users), "mae": (float(errors.sum()), users)}

    def constant_totals(self, part: TaskPart, rows: IntArray) -> MetricTotals:
        """Return those of the mean, the median or the quantiles of the train users."""
        outputs = torch.from_numpy(self.numbers.outputs(np.array(self.numbers.constant)))
        return self.metric_sums(outputs.repeat(len(rows), 1), part, rows)

    @classmethod
    def problem(cls, metrics: Metrics, constant: Metrics, users: int, config: AdaptConfig) -> str | None:
        """Return in words that a model predicts no better than the same number for everybody; None where it does."""
        if metrics["loss"] < constant["loss"] - ROUNDING:
            return None
        return f"no better than the same number for everybody (loss {pair('loss', metrics, constant)})"


def number_outputs(config: AdaptConfig, task: Task, numbers: FloatArray) -> NumberOutputs:
    """Return the scale of the numbers of the train users, and the same answer for everybody.

    Raises:
        ConfigError: `log1p` of a number that is not above -1, or numbers that are all the same.
    """
    if config.target_transform == "log1p" and len(numbers) and numbers.min() <= -1:
        raise ConfigError(
            f"target_transform log1p is of numbers above -1, and task {task.name!r} has {numbers.min():g}",
            remedy="leave target_transform out",
        )
    plain = NumberOutputs(config.target_transform, 0.0, 1.0, config.quantiles, (0.0,) * max(1, len(config.quantiles)))
    transformed = plain.transformed(numbers)
    mean, deviation = float(transformed.mean()), float(transformed.std())
    if not deviation > 0:
        raise ConfigError(
            f"all train users of task {task.name!r} have the same number", remedy="give it more train users"
        )
    constant = plain.numbers(_constant(config, transformed)[None])[0]
    return NumberOutputs(config.target_transform, mean, deviation, config.quantiles, tuple(constant.tolist()))


def _constant(config: AdaptConfig, values: FloatArray) -> FloatArray:
    """Return the answer that the loss is lowest for, if it must be the same for everybody; (K,)."""
    if config.quantiles:
        return np.quantile(values, config.quantiles)
    return np.array([np.mean(values) if config.regression_loss == "squared" else np.median(values)])


def _numbers(part: TaskPart) -> FloatArray:
    assert part.numbers is not None
    return part.numbers
