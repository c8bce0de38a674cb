"""Pairs of user and target, and the negatives that a positive is ranked against in the sampled protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from peterrec.data.sequences import Sequences
from peterrec.errors import DataError


@dataclass(frozen=True)
class Pairs:
    """Every user's distinct positives, one row a pair, users in order and targets ascending within a user.

    Attributes:
        user: (rows,) int64, which never decreases.
        target: (rows,) int64 in 0 .. n_targets - 1.
        users: number of users, with or without positives.
        n_targets: size of the target catalogue.
    """

    user: Int[np.ndarray, " rows"]
    target: Int[np.ndarray, " rows"]
    users: int
    n_targets: int

    @classmethod
    def from_targets(cls, targets: Sequences, n_targets: int) -> Pairs:
        """List the pairs of a part; a target that stands twice for a user counts once.

        Raises:
            DataError: a target is outside the catalogue.
        """
        items = np.asarray(targets.items, dtype=np.int64)
        if len(items) and (items.min() < 0 or items.max() >= n_targets):
            raise DataError(
                f"a target is not in 0 .. {n_targets - 1}, the columns of the scores",
                remedy="score with a bundle made for this task and corpus",
            )
        keys = np.unique(targets.repeat() * n_targets + items)
        return cls(keys // n_targets, keys % n_targets, len(targets), n_targets)

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def offsets(self) -> Int[np.ndarray, " users+1"]:
        """First row of each user, and the number of rows at the end."""
        return np.searchsorted(self.user, np.arange(self.users + 1))

    @cached_property
    def negatives(self) -> Int[np.ndarray, " rows"]:
        """Number of targets that are not a positive of the row's user."""
        return np.asarray(self.n_targets - np.diff(self.offsets)[self.user])

    @cached_property
    def _gaps(self) -> Int[np.ndarray, " rows"]:
        # Position j of a user's sorted positives has `target - j` negatives before it. Users are told apart by a
        # stride, so that one binary search over this array answers for all users at once.
        place = np.arange(len(self)) - self.offsets[self.user]
        return np.asarray(self.user * (self.n_targets + 1) + self.target - place)

    def nth_negative(self, rows: slice, nth: Int[np.ndarray, "m s"]) -> Int[np.ndarray, "m s"]:
        """Return the nth target (from 0, ascending) that is no positive of the row's user."""
        user = self.user[rows, None]
        key = user * (self.n_targets + 1) + nth
        skipped = np.searchsorted(self._gaps, key.ravel(), side="right").reshape(key.shape) - self.offsets[user]
        return np.asarray(nth + skipped)


def draw_negatives(
    pairs: Pairs, rows: slice, count: int, generator: np.random.Generator
) -> tuple[Int[np.ndarray, "m count"], Bool[np.ndarray, "m count"]]:
    """Draw distinct negatives for each row, uniformly from the catalogue without any of the user's positives.

    Every row uses up exactly `count` numbers of the generator, so drawing rows in order gives the same negatives
    however the rows are cut into batches, and whatever is scored.

    Args:
        pairs: all pairs of the part.
        rows: the pairs to draw for, m of them.
        count: negatives a row. A user with fewer than that gets all there are.
        generator: source of all randomness.

    Returns:
        (targets, valid): what is not valid is padding (a user with fewer negatives than `count`).
    """
    available = pairs.negatives[rows, None]
    uniform = generator.random((len(available), count))
    nth = _distinct(uniform, np.broadcast_to(available, uniform.shape))
    valid = np.arange(count) < available
    targets = pairs.nth_negative(rows, np.where(valid, nth, 0))
    return np.where(valid, targets, 0), valid


def _distinct(
    uniform: Float[np.ndarray, "m count"], available: Int[np.ndarray, "m count"]
) -> Int[np.ndarray, "m count"]:
    """Draw `count` distinct numbers below `available` for all rows at once (Floyd's sampling without replacement).

    Step j draws from 0 .. j; a number drawn before is replaced by j itself, which cannot have been drawn yet. No
    rejection, hence the fixed use of random numbers. Rows with no more than `count` numbers take all of them.
    """
    count = uniform.shape[1]
    chosen = np.empty(uniform.shape, dtype=np.int64)
    for step in range(count):
        last = np.maximum(available[:, step] - count + step, 0)
        drawn = (uniform[:, step] * (last + 1)).astype(np.int64)
        taken = (chosen[:, :step] == drawn[:, None]).any(axis=1)
        chosen[:, step] = np.where(taken, last, drawn)
    scarce = available[:, 0] <= count if count else np.zeros(len(chosen), dtype=bool)
    chosen[scarce] = np.arange(count)
    return chosen


def without_seen(score_batches: Iterable[np.ndarray], seen_targets: Sequences) -> Iterator[np.ndarray]:
    """Yield batches of scores, rows in order, with -inf for targets that stand in the user's own history."""
    start = 0
    for batch in score_batches:
        scores = np.array(batch, dtype=np.float64 if batch.dtype.kind != "f" else batch.dtype)
        rows_seen = seen_targets.take(np.arange(start, start + len(scores)))
        scores[rows_seen.repeat(), rows_seen.items] = -np.inf
        start += len(scores)
        yield scores
