"""Answers of a model: class probabilities, and ranked items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peterrec.data.catalogue import Catalogue, ItemId
from peterrec.data.encoding import Histories
from peterrec.data.sequences import IntArray, Sequences

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """Answers of a classification task.

    Attributes:
        class_names: (K,) names of the classes.
        probabilities: (N, K) float32; rows sum to 1.
        known_events: (N,) int64: events of each user that the model knows; 0: answered by the class shares of the users
            that the bundle was trained on, the same for everybody.
    """

    class_names: tuple[str, ...]
    probabilities: FloatArray
    known_events: IntArray

    @property
    def labels(self) -> list[str]:
        """The most probable class of each user."""
        return [self.class_names[i] for i in self.probabilities.argmax(axis=1)]


@dataclass(frozen=True)
class TopItems:
    """The best items of each user, as positions among the targets.

    Attributes:
        positions: (N, k) int64, 0-based, best first.
        scores: (N, k) float32; -inf where a user has fewer items that are allowed.
    """

    positions: IntArray
    scores: FloatArray


@dataclass(frozen=True)
class Recommendations:
    """Answers of a ranking task: for each user, items from best to worst and their scores (higher is better).

    Attributes:
        items: external ids.
        scores: of these items.
        known_events: events of each user that the model knows; 0: answered by popularity, the same for everybody except
            for items that were seen.
    """

    items: list[list[ItemId]]
    scores: list[list[float]]
    known_events: list[int]

    @classmethod
    def from_top_items(cls, top: TopItems, targets: Catalogue, known_events: IntArray) -> Recommendations:
        """Turn positions among the targets into external ids, without items that are not allowed.

        Args:
            top: (N, k) positions and scores; a score of -inf is not allowed.
            targets: the items that the positions count.
            known_events: (N,) known events of each user.

        Returns:
            At most k items for each of N users.
        """
        allowed = np.isfinite(top.scores)
        ends = np.cumsum(allowed.sum(axis=1)).tolist()
        items, scores = targets.decode(top.positions[allowed] + targets.first), top.scores[allowed].tolist()
        rows = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        return cls([items[row] for row in rows], [scores[row] for row in rows], known_events.tolist())


def history_target_positions(targets: Catalogue, histories: Histories) -> Sequences:
    """Return, for each history, the 0-based positions of its items among the targets; negative for what is no target.

    By external id: an item that the source catalogue does not know may be a target all the same.
    """
    offsets = np.cumsum([0, *(len(history) for history in histories)])
    return Sequences(targets.encode([item for history in histories for item in history]) - targets.first, offsets)
