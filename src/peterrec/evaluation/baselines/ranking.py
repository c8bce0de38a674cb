"""Baselines that score targets: popularity, and item-to-item cosine across domains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import Sequences
from peterrec.errors import TaskError
from peterrec.evaluation.baselines.bag import bag, bag_width, batches, known_rows
from peterrec.evaluation.validation import mean_reciprocal_rank

CHOICE_BATCH = 256
MAX_CO_OCCURRENCES = 100_000_000
"""Stored (source item, target item) pairs above which cosine is skipped; 8 bytes each."""

SHRINKAGES = (0.0, 10.0, 100.0)
Setting = TypeVar("Setting")
Score = Callable[[Sequences], Float[np.ndarray, "B n_targets"]]


@dataclass(frozen=True)
class RankingBaseline:
    """A fitted baseline; implements `RankingScorer`.

    Attributes:
        name: as shown in tables.
        score: sequences of a batch to (B, n_targets) scores.
        settings: what was chosen, and on what.
    """

    name: str
    score: Score
    settings: dict[str, Any] = field(default_factory=dict)
    trainable: int | None = None
    trainable_fraction: float | None = None

    def score_batches(self, sequences: Sequences, batch_size: int) -> Iterator[Float[np.ndarray, "B n_targets"]]:
        """Yield scores of all users in row order."""
        return (self.score(batch) for batch in batches(sequences, batch_size))


def popularity(train: TaskPart, _: TaskPart, n_targets: int) -> RankingBaseline:
    """Recommend to everyone what most train users chose."""
    counts = popularity_counts(train, n_targets)
    return RankingBaseline("popularity", lambda sequences: np.tile(counts, (len(sequences), 1)))


def item_to_item(train: TaskPart, valid: TaskPart, n_targets: int) -> RankingBaseline | str:
    """Sum, over a user's source items, their cosine with each target over the train users.

    cosine(s, t) = both / sqrt((users of s + h) (users of t + h)); the shrinkage h keeps pairs of rare items, whose
    cosine is mostly luck, from winning, and is chosen by the valid users' MRR. Each source item counts once. Users
    without known items get popularity.

    Returns:
        The baseline, or why it was skipped.
    """
    width = bag_width(train.sequences)
    source = bag(train.sequences, width, binary=True, dtype=np.float32)
    target = bag(targets_of(train), n_targets, first=0, binary=True, dtype=np.float32)
    upper = min(int(np.diff(source.indptr) @ np.diff(target.indptr)), width * n_targets)
    if upper > MAX_CO_OCCURRENCES:
        return f"item-to-item cosine was skipped: it could hold {upper:,} pairs of items"
    co_occurrences = sp.csr_array(source.T @ target)
    counts = popularity_counts(train, n_targets)
    source_users, target_users = np.bincount(source.indices, minlength=width), np.maximum(counts, 1)

    def score(shrinkage: float) -> Score:
        source_scale = sp.diags_array(1.0 / np.sqrt(np.maximum(source_users, 1) + shrinkage)).tocsr()
        target_scale = 1.0 / np.sqrt(target_users + shrinkage)

        def score_batch(sequences: Sequences) -> Float[np.ndarray, "B n_targets"]:
            bags = bag(sequences, width, binary=True)
            scores = (bags @ source_scale @ co_occurrences).toarray() * target_scale
            return np.where(known_rows(bags)[:, None], scores, counts)

        return score_batch

    best, shrinkage = choose(SHRINKAGES, score, valid)
    return RankingBaseline("item-to-item cosine", best, {"shrinkage": shrinkage, "chosen by": "MRR of the valid users"})


def choose(grid: Sequence[Setting], make: Callable[[Setting], Score], valid: TaskPart) -> tuple[Score, Setting]:
    """Return what scores best by the valid users' full-ranking MRR, the first of equals, and its setting.

    Without valid users it is the middle of the grid.
    """
    targets = targets_of(valid)
    if not len(targets.items):
        middle = grid[len(grid) // 2]
        return make(middle), middle
    best: tuple[float, Score, Setting] | None = None
    for setting in grid:
        score = make(setting)
        value = mean_reciprocal_rank((score(batch) for batch in batches(valid.sequences, CHOICE_BATCH)), targets)
        if best is None or value > best[0]:
            best = (value, score, setting)
    if best is None:
        raise ValueError("an empty grid leaves nothing to choose")
    return best[1], best[2]


def targets_of(part: TaskPart) -> Sequences:
    """Return the targets of a part.

    Raises:
        TaskError: it has none, so it is not of a ranking task.
    """
    if part.targets is None:
        raise TaskError("the task has no targets", remedy="evaluate it as a classification task")
    return part.targets


def popularity_counts(train: TaskPart, n_targets: int) -> Float[np.ndarray, " n_targets"]:
    """Return how many train users have each target."""
    matrix = bag(targets_of(train), n_targets, first=0, binary=True)
    return np.bincount(matrix.indices, minlength=n_targets).astype(np.float64)
