"""The protocols: probabilities against classes or labels, item scores against targets, and numbers against numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, Real

from peterrec.data.decision import Decision, chosen_classes
from peterrec.data.sequences import Sequences
from peterrec.errors import DataError
from peterrec.evaluation.candidates import Pairs, draw_negatives
from peterrec.evaluation.metrics import checked_scores

_BLOCK = 2_000_000  # scores of a block of pairs, held in memory beside the batch


@dataclass(frozen=True)
class ClassificationOutcome:
    """Class probabilities of each user, checked.

    Attributes:
        probabilities: (N, C) float64, each row summing to 1.
        labels: (N,) int64 in 0 .. C - 1.
        decision: threshold that classes are answered by, and sets of classes, of a bundle that has them.
    """

    probabilities: Float[np.ndarray, "N C"]
    labels: Int[np.ndarray, " N"]
    decision: Decision | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def users(self) -> int:
        """N: one row a user."""
        return len(self.labels)

    @property
    def predicted(self) -> Int[np.ndarray, " N"]:
        """The class that is answered of each user: the most probable one, or by a threshold."""
        return chosen_classes(self.probabilities, self.decision)


def classification_outcome(
    probabilities: Real[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]
) -> ClassificationOutcome:
    """Check probabilities against labels (paper, section 4.2).

    Raises:
        DataError: shapes that do not fit, a value that is not finite or negative, a row that does not sum to 1 (to
            1e-3: half-precision softmax is no better), a label outside the classes, or no users.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.int64)
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise DataError(
            f"probabilities of shape {values.shape} do not fit {labels.shape[0]} labels",
            remedy="give one row of class probabilities a user",
        )
    if not len(labels):
        raise DataError("there are no users to judge on", remedy="give the task more users or a larger test share")
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise DataError("a label is outside the classes of the probabilities", remedy="use the task's own bundle")
    if not np.isfinite(values).all() or values.min() < 0 or np.abs(values.sum(axis=1) - 1.0).max() > 1e-3:
        raise DataError(
            "the probabilities of a user are not finite, negative, or do not sum to 1",
            remedy="train the model again with a lower learning rate",
        )
    return ClassificationOutcome(values, labels)


@dataclass(frozen=True)
class RankingOutcome:
    """Ranks that a method gave to each positive: one row per (user, target) pair, users in order, targets ascending.

    Ranks count from 1, ties at their expected place; `*_ties` says how many other candidates share the score, which
    the metrics need to be exact at a cut-off.

    Attributes:
        users: number of users, with or without targets.
        user: (rows,) int64, row of the user in the part.
        full_rank: (rows,) float64, among all targets of the catalogue except the user's other positives.
        full_ties: (rows,) int64.
        sampled_rank: (rows,) float64, among the positive and its sampled negatives.
        sampled_ties: (rows,) int64.
        candidates: (rows,) int64, how many candidates the full ranking has, the positive included.
        sampled_candidates: (rows,) int64, the same for the sampled ranking.
    """

    users: int
    user: Int[np.ndarray, " rows"]
    full_rank: Float[np.ndarray, " rows"]
    full_ties: Int[np.ndarray, " rows"]
    sampled_rank: Float[np.ndarray, " rows"]
    sampled_ties: Int[np.ndarray, " rows"]
    candidates: Int[np.ndarray, " rows"]
    sampled_candidates: Int[np.ndarray, " rows"]

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class ScoredPairs:
    """Some rows of `Pairs` with the scores of their users; small enough for a (m, n_targets) array in memory.

    Attributes:
        pairs: all pairs.
        rows: the m rows concerned.
        local: (m,) row of `scores` for each of them.
        scores: (B, n_targets) float, without NaN.
        negative_scores: the same, but NaN at every positive of the user: neither above nor equal, so not ranked.
    """

    pairs: Pairs
    rows: slice
    local: Int[np.ndarray, " m"]
    scores: Float[np.ndarray, "B n"]
    negative_scores: Float[np.ndarray, "B n"]

    @property
    def positive_scores(self) -> Float[np.ndarray, "m 1"]:
        """The score of each row's positive."""
        return np.asarray(self.scores[self.local, self.pairs.target[self.rows]])[:, None]

    def full(self) -> Int[np.ndarray, "2 m"]:
        """Count (higher, equal) scores among all targets except the user's positives."""
        other_scores = self.negative_scores[self.local]
        return np.stack(
            [(other_scores > self.positive_scores).sum(axis=1), (other_scores == self.positive_scores).sum(axis=1)]
        )

    def sampled(self, count: int, generator: np.random.Generator) -> Int[np.ndarray, "2 m"]:
        """Count (higher, equal) scores among `count` sampled negatives; to be called on blocks in order."""
        negatives, valid = draw_negatives(self.pairs, self.rows, count, generator)
        other_scores = self.scores[self.local[:, None], negatives]
        return np.stack(
            [
                ((other_scores > self.positive_scores) & valid).sum(axis=1),
                ((other_scores == self.positive_scores) & valid).sum(axis=1),
            ]
        )


def scored_pairs(score_batches: Iterable[Real[np.ndarray, "B n"]], targets: Sequences) -> Iterator[ScoredPairs]:
    """Match batches of scores, in row order, with the pairs of their users, in blocks of bounded size.

    Raises:
        DataError: NaN scores, batches of different widths, rows that do not add up to the users, or no pair at all.
    """
    pairs: Pairs | None = None
    first_user = 0
    for batch in score_batches:
        scores = checked_scores(batch)
        if pairs is None:
            pairs = Pairs.from_targets(targets, scores.shape[1])
        last = first_user + len(scores)
        if scores.shape[1] != pairs.n_targets or last > len(targets):
            raise DataError("scores do not fit the users and targets", remedy="score each user once, in order")
        first, end = int(pairs.offsets[first_user]), int(pairs.offsets[last])
        negative_scores = scores.copy()
        negative_scores[pairs.user[first:end] - first_user, pairs.target[first:end]] = np.nan
        step = max(1, _BLOCK // max(pairs.n_targets, 100))
        for start in range(first, end, step):
            rows = slice(start, min(start + step, end))
            yield ScoredPairs(pairs, rows, pairs.user[rows] - first_user, scores, negative_scores)
        first_user = last
    if first_user != len(targets):
        raise DataError(f"{first_user} users were scored of {len(targets)}", remedy="score each user once, in order")
    if pairs is None or not len(pairs):
        raise DataError("no user has a target to rank", remedy="give the task more users or a larger test share")


def ranking_outcome(
    score_batches: Iterable[Real[np.ndarray, "B n_targets"]], targets: Sequences, *, sampled_negatives: int, seed: int
) -> RankingOutcome:
    """Rank every target of every user, among all and among sampled candidates (paper, section 4.2).

    Full ranking: the user's other positives are left out, so a model that puts all positives first gets 1.
    Sampled ranking: the positive among `sampled_negatives` distinct negatives, drawn uniformly without the user's
    positives (all of them where there are fewer). The draw depends on the targets and the seed only: every method
    that is judged on a part meets the same negatives. Memory: one batch and its copy, and blocks of fixed size.

    Args:
        score_batches: scores of all users in row order, any batch sizes.
        targets: positives of each user, 0-based columns of the scores; may be empty.
        sampled_negatives: 99 in the paper.
        seed: of the draw.

    Raises:
        DataError: scores that are NaN or do not fit the targets, or no targets at all.
    """
    generator = np.random.default_rng(seed)
    blocks = [
        (scored.pairs, scored.full(), scored.sampled(sampled_negatives, generator))
        for scored in scored_pairs(score_batches, targets)
    ]
    pairs = blocks[0][0]
    full = np.concatenate([block[1] for block in blocks], axis=1)
    sampled = np.concatenate([block[2] for block in blocks], axis=1)
    return RankingOutcome(
        users=pairs.users,
        user=pairs.user,
        full_rank=1.0 + full[0] + full[1] / 2.0,
        full_ties=full[1],
        sampled_rank=1.0 + sampled[0] + sampled[1] / 2.0,
        sampled_ties=sampled[1],
        candidates=pairs.negatives + 1,
        sampled_candidates=np.minimum(pairs.negatives, sampled_negatives) + 1,
    )


@dataclass(frozen=True)
class RegressionOutcome:
    """Predicted numbers of each user, checked.

    Attributes:
        predictions: (N,) float64.
        numbers: (N,) float64, the true ones.
        quantiles: (Q,) that were predicted too, ascending.
        quantile_predictions: (N, Q) float64, ascending for each user.
    """

    predictions: Float[np.ndarray, " N"]
    numbers: Float[np.ndarray, " N"]
    quantiles: tuple[float, ...] = ()
    quantile_predictions: Float[np.ndarray, "N Q"] = field(default_factory=lambda: np.empty((0, 0)))

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def users(self) -> int:
        """N: one row a user."""
        return len(self.numbers)


def regression_outcome(
    columns: Real[np.ndarray, "N columns"], numbers: Float[np.ndarray, " N"], quantiles: tuple[float, ...] = ()
) -> RegressionOutcome:
    """Check predictions against numbers.

    Args:
        columns: (N, 1 + Q): the prediction, and each quantile.
        numbers: (N,) true ones.
        quantiles: (Q,) ascending.

    Raises:
        DataError: shapes that do not fit, a value that is not finite, or no users.
    """
    values = np.asarray(columns, dtype=np.float64)
    if values.shape != (len(numbers), 1 + len(quantiles)):
        raise DataError(
            f"predictions of shape {values.shape} do not fit {len(numbers)} users and {len(quantiles)} quantiles",
            remedy="give one row of predictions a user",
        )
    if not len(numbers):
        raise DataError("there are no users to judge on", remedy="give the task more users or a larger test share")
    if not np.isfinite(values).all():
        raise DataError(
            "the prediction of a user is not finite", remedy="train the model again with a lower learning rate"
        )
    return RegressionOutcome(values[:, 0], np.asarray(numbers, dtype=np.float64), quantiles, np.sort(values[:, 1:], 1))


@dataclass(frozen=True)
class MultilabelOutcome:
    """Probabilities of labels of each user, checked.

    Attributes:
        probabilities: (N, K) float64 in [0, 1].
        indicators: (N, K) int64, 1 where a user has a label, else 0.
        decision: thresholds that labels are answered by, of a bundle that has them.
    """

    probabilities: Float[np.ndarray, "N K"]
    indicators: Int[np.ndarray, "N K"]
    decision: Decision | None = None

    def __len__(self) -> int:
        return len(self.indicators)

    @property
    def users(self) -> int:
        """N: one row a user."""
        return len(self.indicators)


def multilabel_outcome(
    probabilities: Real[np.ndarray, "N K"], label_indicators: Real[np.ndarray, "N K"]
) -> MultilabelOutcome:
    """Check probabilities against labels.

    Raises:
        DataError: shapes that do not fit, a value that is no probability, or no users.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape != label_indicators.shape:
        raise DataError(
            f"probabilities of shape {values.shape} do not fit {label_indicators.shape[0]} users and "
            f"{label_indicators.shape[1]} labels",
            remedy="use a bundle adapted to this task",
        )
    if not len(values):
        raise DataError("there are no users to judge on", remedy="give the task more users or a larger test share")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise DataError(
            "the probabilities of a user are not finite, or not between 0 and 1",
            remedy="train the model again with a lower learning rate",
        )
    return MultilabelOutcome(values, label_indicators.astype(np.int64))
