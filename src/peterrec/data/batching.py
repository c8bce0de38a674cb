"""Batches cut from flat arrays: histories of similar length together, no loop over samples, resumable anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from peterrec.data.sequences import PAD, IntArray, Sequences, pad_windows
from peterrec.errors import ArtifactError

WIDTH_STEP = 8  # widths are rounded up to a multiple, so that few distinct shapes occur
POOL = 50  # batches that are sorted by length together: enough for similar lengths, few enough to stay random
ROWS_AT_ONCE = 2**17  # users whose windows are cut at once: arrays that need no memory to speak of

Tokens = npt.NDArray[np.int64]
BatchT = TypeVar("BatchT", covariant=True)  # noqa: PLC0105 - the field says Batch


class Source(Protocol[BatchT]):
    """Rows that `EpochStream` draws batches from."""

    @property
    def lengths(self) -> IntArray:
        """(rows,) the length of each row, for putting similar ones together."""
        ...

    def batch(self, rows: IntArray, rng: np.random.Generator) -> BatchT:
        """Build a batch of the given rows; `rng` is for this batch alone."""
        ...


class EpochStream(Generic[BatchT]):
    """Endless epochs over a source, each in a fresh order drawn from (seed, epoch).

    One pass of iteration is one epoch. Its state is two numbers, so a killed run continues with the very batch
    that would have come next.

    Args:
        source: rows to batch.
        batch_size: rows in a batch; the last one of an epoch may be smaller.
        seed: of the order and of every draw inside a batch.
    """

    def __init__(self, source: Source[BatchT], batch_size: int, seed: int) -> None:
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self.lengths = source.lengths
        self.epoch = 0
        self.position = 0  # batches of this epoch already handed out

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self) -> Iterator[BatchT]:
        epoch = self.epoch
        order, batches = self._order(epoch)
        while self.epoch == epoch:
            first = batches[self.position] * self.batch_size
            rows = order[first : first + self.batch_size]
            rng = np.random.default_rng([self.seed, epoch, self.position, 1])
            # The state moves on before the batch is handed out: whoever saves it then has it counted as used.
            self.position += 1
            if self.position == len(batches):
                self.epoch, self.position = epoch + 1, 0
            yield self.source.batch(rows, rng)

    def _order(self, epoch: int) -> tuple[IntArray, IntArray]:
        """Return all rows, in the order that batches are cut from, and the numbers of the batches as they come."""
        rng = np.random.default_rng([self.seed, epoch, 0, 0])
        rows = rng.permutation(len(self.lengths))
        # NumPy sorts 16 bits by radix, several times as fast as 64. Rows that are longer still count as equally long.
        keys = np.minimum(self.lengths, 2**16 - 1).astype(np.uint16)
        for first in range(0, len(rows), self.batch_size * POOL):
            pool = rows[first : first + self.batch_size * POOL]
            pool[:] = pool[np.argsort(keys[pool], kind="stable")]
        return rows, rng.permutation(len(self))

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands; Lightning saves it with a checkpoint."""
        return {"seed": self.seed, "batches": len(self), "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved place.

        Raises:
            ArtifactError: the state is of other data, another batch size or another seed.
        """
        if (state["seed"], state["batches"]) != (self.seed, len(self)):
            raise ArtifactError(
                "the checkpoint was made with other data, another batch size or another seed",
                remedy="resume with the same settings, or start over with --overwrite",
            )
        self.epoch, self.position = state["epoch"], state["position"]


class FixedBatches(Generic[BatchT]):
    """Batches that are the same in every pass, such as those of validation users."""

    def __init__(self, batches: list[BatchT]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[BatchT]:
        return iter(self._batches)


def padded_width(lengths: IntArray, max_width: int) -> int:
    """Return the columns that hold all of these lengths: a multiple of `WIDTH_STEP`, or `most`, which no length passes.

    With `most` below the next multiple, full batches have no padding at all.
    """
    longest = int(lengths.max()) if len(lengths) else 0
    return min(-(-longest // WIDTH_STEP) * WIDTH_STEP, max_width)


def last_events(sequences: Sequences, rows: IntArray, max_length: int, histories: IntArray | None = None) -> Tokens:
    """Return the most recent `max_length` items of the given rows, padded on the right; (B, W) int64.

    With the features of events, where there are some, above the bits of the items (`data.sequences.ITEM_BITS`).

    Args:
        sequences: of the users.
        rows: (B,) users.
        max_length: items of each, at most.
        histories: (B,) first items of each row that there are, as far as this batch goes; None: all.
    """
    lengths = sequences.lengths_of(rows) if histories is None else histories
    ends = sequences.offsets[:-1][rows] + lengths
    lengths = np.minimum(lengths, max_length)
    width = padded_width(lengths, max_length)
    return pad_windows(sequences.items, ends - lengths, lengths, width, sequences.features)


def draw_prefixes(lengths: IntArray, fraction: float, rng: np.random.Generator) -> IntArray:
    """Return how many of its first items are left of each row: of that fraction of the rows 1 .. length, else all.

    Drawn log-uniformly: a row of any length is as likely cut to 1 item as to 2 or 3, or to 4 .. 7.

    Args:
        lengths: (B,) items of each row; of none, none are left.
        fraction: of the rows, on average; 0 .. 1.
        rng: of the draws.

    Returns:
        (B,) int64.
    """
    is_cut = rng.random(len(lengths)) < fraction
    first = np.exp(rng.random(len(lengths)) * np.log1p(lengths)).astype(np.int64)  # below length + 1, but for rounding
    return np.where(is_cut, np.minimum(first, lengths), lengths)


def leave_out(tokens: Tokens, share: float, rng: np.random.Generator) -> Tokens:
    """Return the same rows without some of their items, drawn anew for each row: on average that share of them.

    Those that stay keep their order and move up; at least one of a row stays, if it has any.

    Args:
        tokens: (B, W), padded on the right.
        share: 0 .. 1.
        rng: of the draws.
    """
    real = tokens != PAD
    draw = np.where(real, rng.random(tokens.shape), np.inf)
    stays = real & ((draw >= share) | (draw == draw.max(axis=1, initial=0, where=real, keepdims=True)))
    order = np.argsort(~stays, axis=1, kind="stable")
    left_aligned = np.take_along_axis(np.where(stays, tokens, PAD), order, axis=1)
    return np.ascontiguousarray(left_aligned[:, : padded_width(stays.sum(axis=1), tokens.shape[1])])


def inference_batches(sequences: Sequences, batch_size: int, max_length: int) -> Iterator[tuple[IntArray, Tokens]]:
    """Yield (rows, tokens) over all rows, similar lengths together; every row comes once."""
    order = np.argsort(np.minimum(sequences.lengths, max_length), kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, last_events(sequences, rows, max_length)


@dataclass(frozen=True)
class Windows:
    """Windows over sequences such that every item but the first of a sequence is a target exactly once.

    Attributes:
        items: the flat array the windows point into.
        starts: (W,) first position of each window.
        lengths: (W,) items in each window: at least 2, at most max_length + 1 (one more than the network reads).
        users: (W,) the row of the sequences that each window is of.
        max_length: as the windows were cut.
        features: of the same events as `items`; None: there are none.
    """

    items: IntArray
    starts: IntArray
    lengths: IntArray
    users: IntArray
    max_length: int
    features: IntArray | None = None

    @classmethod
    def over(cls, sequences: Sequences, rows: IntArray, max_length: int) -> Windows:
        """Cut the given rows into windows, the last one ending at the most recent item."""
        firsts = range(0, max(1, len(rows)), ROWS_AT_ONCE)
        cuts = [_cut(sequences, rows[first : first + ROWS_AT_ONCE], max_length) for first in firsts]
        starts, lengths, users = (np.concatenate(parts) for parts in zip(*cuts, strict=True))
        return cls(sequences.items, starts, lengths, users, max_length, sequences.features)

    def tokens(self, rows: IntArray) -> Tokens:
        """Return the windows, padded on the right; (B, W) int64."""
        lengths = self.lengths[rows]
        width = padded_width(lengths - 1, self.max_length) + 1
        return pad_windows(self.items, self.starts[rows], lengths, width, self.features)


def _cut(sequences: Sequences, rows: IntArray, max_length: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return starts (int64), lengths (int32) and users (int64) of the windows of some rows."""
    lengths = sequences.lengths_of(rows)
    rows, lengths = rows[lengths >= 2], lengths[lengths >= 2]
    pieces = -(-(lengths - 1) // max_length)
    which = np.repeat(np.arange(len(rows)), pieces)
    piece = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = sequences.offsets[:-1][rows][which]
    end = sequences.offsets[1:][rows][which] - piece * max_length
    starts = np.maximum(begin, end - max_length - 1)
    return starts, (end - starts).astype(np.int32), rows[which]
