"""Answers of a model: probabilities of classes or labels, numbers, and ranked items."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from peterrec.data.catalogue import Catalogue, ItemId
from peterrec.data.decision import Decision, chosen_classes, chosen_labels, class_sets
from peterrec.data.encoding import Histories
from peterrec.data.number_outputs import quantile_name
from peterrec.data.sequences import IntArray, Sequences
from peterrec.display import Tabular

FloatArray = npt.NDArray[np.float32]
LABEL_SEPARATOR = "|"  # of labels in a text, as prepare reads it


@dataclass(frozen=True)
class AskedUsers:
    """Users of answers: who they are, and what columns about them are called.

    Attributes:
        ids: (N,) their ids, in the type that they were given in; None: their places in what was asked, from 0 on.
        column: what the column of ids is called.
        item_column: what a column of items is called.
    """

    ids: pa.Array | None = None
    column: str = "user"
    item_column: str = "item"

    def array(self, count: int) -> pa.Array:
        """Return the ids of `count` users."""
        return pa.array(np.arange(count)) if self.ids is None else self.ids


@dataclass(frozen=True, repr=False)
class Predictions(Tabular):
    """Answers of a classification task.

    Attributes:
        class_names: (K,) names of the classes.
        probabilities: (N, K) float32; rows sum to 1.
        known_events: (N,) int64: events of each user that the model knows; 0: answered by the class shares of the users
            that the bundle was trained on, the same for everybody.
        users: who they are.
        decision: threshold that the label is answered by, and sets of classes, as the bundle has them; None: the most
            probable class is answered, and no set.
    """

    class_names: tuple[str, ...]
    probabilities: FloatArray
    known_events: IntArray
    users: AskedUsers = AskedUsers()
    decision: Decision | None = None

    def __repr__(self) -> str:
        return f"Predictions({len(self.probabilities):,} users, classes {', '.join(self.class_names)})"

    @property
    def labels(self) -> list[str]:
        """The most probable class of each user, or by the threshold of the bundle."""
        return [self.class_names[i] for i in chosen_classes(self.probabilities, self.decision)]

    @property
    def class_sets(self) -> list[list[str]]:
        """The set of classes of each user that holds the true one as often as the bundle promises; empty without it."""
        if self.decision is None or self.decision.conformal is None:
            return [[] for _ in self.probabilities]
        rows = class_sets(self.probabilities, self.decision)
        return [[self.class_names[i] for i in np.flatnonzero(row)] for row in rows]

    def to_arrow(self) -> pa.Table:
        """Return the answers as a table.

        Returns:
            N rows: the user, label, probability (of it), known_events, and `p(CLASS)` for each class; of a bundle with
            sets of classes also `class_set`, with `|` between its classes.
        """
        answered = chosen_classes(self.probabilities, self.decision)
        columns: dict[str, Any] = {
            self.users.column: self.users.array(len(self.probabilities)),
            "label": pa.array(self.labels, pa.string()),
            "probability": self.probabilities[np.arange(len(answered)), answered],
            "known_events": self.known_events,
        }
        columns |= {f"p({label})": self.probabilities[:, i] for i, label in enumerate(self.class_names)}
        if self.decision is not None and self.decision.conformal is not None:
            columns["class_set"] = pa.array([LABEL_SEPARATOR.join(classes) for classes in self.class_sets], pa.string())
        return pa.table(columns)


@dataclass(frozen=True, repr=False)
class LabelPredictions(Tabular):
    """Answers of a multilabel task: of each user any number of labels.

    Attributes:
        label_names: (K,) names of the labels, the most frequent one first.
        probabilities: (N, K) float32, each in [0, 1]; rows have no sum.
        known_events: (N,) int64: events of each user that the model knows; 0: answered by the share of users with each
            label among those that the bundle was trained on, the same for everybody.
        users: who they are.
        decision: thresholds of the bundle; None: labels of a probability of 0.5 or more are answered.
    """

    label_names: tuple[str, ...]
    probabilities: FloatArray
    known_events: IntArray
    users: AskedUsers = AskedUsers()
    decision: Decision | None = None

    def __repr__(self) -> str:
        return f"LabelPredictions({len(self.probabilities):,} users, labels {', '.join(self.label_names)})"

    @property
    def labels(self) -> list[list[str]]:
        """The labels of each user that reach their threshold, or are as probable as not, or more."""
        chosen = chosen_labels(self.probabilities, self.decision)
        return [[self.label_names[i] for i in np.flatnonzero(row)] for row in chosen]

    def to_arrow(self) -> pa.Table:
        """Return the answers as a table.

        Returns:
            N rows: the user, labels (those that reach their threshold, 0.5 unless one was chosen, with `|` between
            them), known_events, and `p(LABEL)` for each label.
        """
        columns: dict[str, Any] = {
            self.users.column: self.users.array(len(self.probabilities)),
            "labels": pa.array([LABEL_SEPARATOR.join(labels) for labels in self.labels], pa.string()),
            "known_events": self.known_events,
        }
        columns |= {f"p({label})": self.probabilities[:, i] for i, label in enumerate(self.label_names)}
        return pa.table(columns)


@dataclass(frozen=True, repr=False)
class NumberPredictions(Tabular):
    """Answers of a regression task, in the unit of its numbers.

    Attributes:
        predictions: (N,) float64; of quantiles the median.
        quantiles: (Q,) that were learned, ascending; none where only the prediction was.
        quantile_predictions: (N, Q) float64, ascending for each user.
        known_events: (N,) int64: events of each user that the model knows; 0: answered by the mean, the median or the
            quantiles of the users that the bundle was trained on, the same for everybody.
        users: who they are.
    """

    predictions: npt.NDArray[np.float64]
    quantiles: tuple[float, ...]
    quantile_predictions: npt.NDArray[np.float64]
    known_events: IntArray
    users: AskedUsers = AskedUsers()

    def __repr__(self) -> str:
        names = ", ".join(map(quantile_name, self.quantiles)) or "no quantiles"
        return f"NumberPredictions({len(self.predictions):,} users, {names})"

    def to_arrow(self) -> pa.Table:
        """Return the answers as a table.

        Returns:
            N rows: the user, prediction, known_events, and `q0.1`, ... for each quantile.
        """
        columns: dict[str, Any] = {
            self.users.column: self.users.array(len(self.predictions)),
            "prediction": self.predictions,
            "known_events": self.known_events,
        }
        columns |= {quantile_name(q): self.quantile_predictions[:, i] for i, q in enumerate(self.quantiles)}
        return pa.table(columns)


@dataclass(frozen=True)
class TopItems:
    """The best items of each user, as positions among the targets.

    Attributes:
        positions: (N, k) int64, 0-based, best first.
        scores: (N, k) float32; -inf where a user has fewer items that are allowed.
    """

    positions: IntArray
    scores: FloatArray


@dataclass(frozen=True, repr=False)
class Recommendations(Tabular):
    """Answers of a ranking task: for each user, items from best to worst and their scores (higher is better).

    Attributes:
        items: external ids.
        scores: of these items.
        known_events: events of each user that the model knows; 0: answered by popularity, the same for everybody except
            for items that were seen.
        users: who they are.
        item_type: of the ids: text or int64.
    """

    items: list[list[ItemId]]
    scores: list[list[float]]
    known_events: list[int]
    users: AskedUsers = AskedUsers()
    item_type: pa.DataType = field(default_factory=pa.string)

    def __repr__(self) -> str:
        return f"Recommendations({len(self.items):,} users, at most {max(map(len, self.items), default=0)} items each)"

    def to_arrow(self) -> pa.Table:
        """Return the answers as a table.

        Returns:
            Up to k rows a user, best first: the user, rank (from 1 on), the item, score, known_events.
        """
        counts = [len(items) for items in self.items]
        rows = np.repeat(np.arange(len(counts)), counts)
        return pa.table(
            {
                self.users.column: self.users.array(len(counts)).take(pa.array(rows)),
                "rank": pa.array([rank for count in counts for rank in range(1, count + 1)], pa.int64()),
                self.users.item_column: pa.array([item for items in self.items for item in items], self.item_type),
                "score": pa.array([score for scores in self.scores for score in scores], pa.float32()),
                "known_events": pa.array(np.asarray(self.known_events, dtype=np.int64)[rows]),
            }
        )

    @classmethod
    def from_top_items(
        cls, top: TopItems, targets: Catalogue, known_events: IntArray, users: AskedUsers = AskedUsers()
    ) -> Recommendations:
        """Turn positions among the targets into external ids, without items that are not allowed.

        Args:
            top: (N, k) positions and scores; a score of -inf is not allowed.
            targets: the items that the positions count.
            known_events: (N,) known events of each user.
            users: who they are.

        Returns:
            At most k items for each of N users.
        """
        allowed = np.isfinite(top.scores)
        ends = np.cumsum(allowed.sum(axis=1)).tolist()
        items, scores = targets.decode(top.positions[allowed] + targets.first), top.scores[allowed].tolist()
        rows = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        chosen_items, chosen_scores = [items[row] for row in rows], [scores[row] for row in rows]
        return cls(chosen_items, chosen_scores, known_events.tolist(), users, targets.ids.type)


@dataclass(frozen=True, repr=False)
class Embeddings(Tabular):
    """Vectors of users.

    Attributes:
        vectors: (N, C) float32.
        known_events: (N,) int64: events of each user that the model knows; 0: the vector of an empty history.
        users: who they are.
    """

    vectors: FloatArray
    known_events: IntArray
    users: AskedUsers = AskedUsers()

    def __repr__(self) -> str:
        return f"Embeddings({len(self.vectors):,} users, {self.vectors.shape[1]} channels)"

    def to_arrow(self, *, split: bool = False) -> pa.Table:
        """Return the vectors as a table.

        Args:
            split: one column for each channel, `v0`, `v1`, ..., in place of lists.

        Returns:
            N rows: the user, known_events, and `vector`, a list of C float32.
        """
        width = self.vectors.shape[1]
        if split:
            columns: dict[str, Any] = {f"v{i}": self.vectors[:, i] for i in range(width)}
        else:
            flat = pa.array(self.vectors.reshape(-1), pa.float32())
            columns = {"vector": pa.FixedSizeListArray.from_arrays(flat, width)}
        users = self.users.array(len(self.vectors))
        return pa.table({self.users.column: users, "known_events": self.known_events} | columns)


def history_target_positions(targets: Catalogue, histories: Histories) -> Sequences:
    """Return, for each history, the 0-based positions of its items among the targets; negative for what is no target.

    By external id: an item that the source catalogue does not know may be a target all the same.
    """
    offsets = np.cumsum([0, *(len(history) for history in histories)])
    return Sequences(targets.encode([item for history in histories for item in history]) - targets.first, offsets)
