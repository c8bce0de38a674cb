"""Protocols of the methods that are evaluated: models and baselines score sequences alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from peterrec.data.sequences import Sequences


class Method(Protocol):
    """Facts that a table shows about a method. An optional attribute `settings` (a mapping) is shown beside it."""

    @property
    def trainable(self) -> int | None:
        """Parameters trained for the task; None for what is not a network."""

    @property
    def trainable_fraction(self) -> float | None:
        """Those parameters by all parameters of the network, 0 .. 1."""


class ClassificationScorer(Method, Protocol):
    """A method that says how probable each class is for a user."""

    def probabilities(self, sequences: Sequences) -> Float[np.ndarray, "N C"]:
        """Return class probabilities, one row a user; rows sum to 1. Sequences may be empty."""


class RankingScorer(Method, Protocol):
    """A method that scores every target for a user."""

    def score_batches(self, sequences: Sequences, batch_size: int) -> Iterator[Float[np.ndarray, "B n_targets"]]:
        """Yield scores, higher is better, of all users in row order. Sequences may be empty."""


class RegressionScorer(Method, Protocol):
    """A method that predicts a number for a user, and perhaps quantiles of it."""

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Those that it predicts, ascending; none where there is only the prediction."""

    def numbers(self, sequences: Sequences) -> Float[np.ndarray, "N columns"]:
        """Return the prediction, and each quantile, one row a user. Sequences may be empty."""


class MultilabelScorer(Method, Protocol):
    """A method that says how probable each of several labels is for a user."""

    def label_probabilities(self, sequences: Sequences) -> Float[np.ndarray, "N K"]:
        """Return a probability of each label, one row a user; rows have no sum. Sequences may be empty."""


Scorer = ClassificationScorer | RankingScorer | RegressionScorer | MultilabelScorer
"""Any; which one a task needs follows from its kind."""


def settings_of(method: object) -> dict[str, Any]:
    """Return the settings of a method, {} if it has none to show."""
    settings: Mapping[str, Any] = getattr(method, "settings", {})
    return dict(settings)
