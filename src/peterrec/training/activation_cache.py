"""The states of all users of a training below the blocks that a task changes: computed once, then read."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from peterrec.config import AdaptConfig, ReadoutName
from peterrec.data.batching import Tokens, inference_batches
from peterrec.data.sequences import IntArray, Sequences
from peterrec.nn.backbone import Backbone
from peterrec.nn.trunk import Trunk, count_changed_blocks
from peterrec.training.distributed import share_work
from peterrec.training.strategies import Trainable

IN_MEMORY = 2**30  # bytes that `auto` keeps in memory, at most
ON_DISK = 2**36  # and on disk: for more, the disk would have to be asked about, and the user
USERS_AT_ONCE = 256

Batch = dict[str, Tensor]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def changed_blocks(parts: Trainable, readout: ReadoutName = "token") -> int | None:
    """Return how many of the last blocks a task changes, by its modules; None if what is below cannot be shared.

    It cannot where the task changes the embeddings or every block; see `count_changed_blocks`.
    """
    unshared = parts.unshared if parts.unshared_trained else None
    return count_changed_blocks(parts.backbone, parts.patch, unshared, readout)


class States:
    """The states of all users of a part, in the order in which they were computed: by length.

    Args:
        trunk: says what is kept.
        sequences: histories of the users.
    """

    def __init__(self, trunk: Trunk, sequences: Sequences) -> None:
        self.trunk = trunk
        self.sequences = sequences
        self._order: IntArray
        self._place: IntArray
        self._states: Floats
        self._keep: Bools | None

    def __len__(self) -> int:
        return len(self.sequences)

    def fill(self, device: torch.device, folder: Path | None) -> None:
        """Compute them; their bits depend on the users and nothing else.

        Args:
            device: where the backbone is.
            folder: for a file that has no name, so that nothing of it is ever left behind; None: they stay in memory.

        Raises:
            OSError: the disk is full.
        """
        shape = (len(self), *self.trunk.shape)
        self._order = np.empty(len(self), np.int64)
        self._keep = np.empty(shape[:-1], bool) if len(shape) > 2 else None
        # Without a buffer, which would be written again, in vain, when a full disk ended it all.
        with nullcontext() if folder is None else tempfile.TemporaryFile(buffering=0, dir=folder) as file:
            store = _InMemory(shape) if file is None else _OnDisk(shape, file)
            self._compute(store, device)
            self._states = store.array()
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(self))

    def _compute(self, store: _InMemory | _OnDisk, device: torch.device) -> None:
        def compute(batch: tuple[IntArray, Tokens]) -> tuple[Tensor, Tensor | None]:
            states, real = self.trunk.compute_states(torch.from_numpy(batch[1]).to(device))
            return states.float().cpu(), None if real is None else real.cpu()

        users_done = 0
        batches = inference_batches(self.sequences, USERS_AT_ONCE, self.trunk.events)
        for (rows, _), (states, real) in share_work(batches, compute):
            store.append(states.numpy())
            place = slice(users_done, users_done + len(rows))
            self._order[place] = rows
            if self._keep is not None and real is not None:
                self._keep[place] = real.numpy()
            users_done += len(rows)

    def __call__(self, rows: IntArray) -> Batch:
        """Return `states` of some users, as `Trunk.shape`, and `keep` (B, n) where some of them are not to be read."""
        places = self._place[rows]
        return _batch(self._states.take(places, axis=0), None if self._keep is None else self._keep.take(places, 0))

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all users in the order of `inference_batches`, with their `rows`; views, nothing is copied."""
        for start in range(0, len(self), size):
            users = slice(start, start + size)
            batch = _batch(self._states[users], None if self._keep is None else self._keep[users])
            yield {"rows": torch.from_numpy(self._order[users]), **batch}


def _batch(states: Floats, keep: Bools | None) -> Batch:
    batch = {"states": torch.from_numpy(states)}
    # Decided here, since on a GPU the network would have to wait for the answer.
    return batch if keep is None or bool(keep.all()) else batch | {"keep": torch.from_numpy(keep)}


class _InMemory:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self._array: Floats = np.empty(shape, np.float32)
        self._rows_written = 0

    def append(self, rows: Floats) -> None:
        self._array[self._rows_written : self._rows_written + len(rows)] = rows
        self._rows_written += len(rows)

    def array(self) -> Floats:
        return self._array


class _OnDisk:
    """Rows in a file, which is mapped when all are written: a mapped file on a full disk kills the process."""

    def __init__(self, shape: tuple[int, ...], file: IO[bytes]) -> None:
        self._shape = shape
        self._file = file

    def append(self, rows: Floats) -> None:
        rows.tofile(self._file)

    def array(self) -> Floats:
        # Copied on write, though nobody writes: torch warns of memory that may only be read.
        return np.asarray(np.memmap(self._file, np.float32, "c", shape=self._shape))


class ValidStates:
    """The batches of validation users, once there are states."""

    def __init__(self, states: States, size: int) -> None:
        self.states = states
        self.size = size

    def __len__(self) -> int:
        return math.ceil(len(self.states) / self.size)

    def __iter__(self) -> Iterator[Batch]:
        return self.states.batches(self.size)


class TrunkCache:
    """The states of a task's users to train on and to validate.

    Args:
        trunk: says what is kept.
        train: histories of the users to train on.
        valid: of those to validate.
        place: as `AdaptConfig.cache`.
    """

    def __init__(self, trunk: Trunk, train: Sequences, valid: Sequences, place: str) -> None:
        self.trunk = trunk
        self.train = States(trunk, train)
        self.valid = States(trunk, valid)
        self.users = len(train) + len(valid)
        self.bytes = 4 * math.prod(trunk.shape) * self.users
        self.on_disk = place == "disk" or (place == "auto" and self.bytes > IN_MEMORY)

    @classmethod
    def from_config(
        cls, config: AdaptConfig, parts: Trainable, train: Sequences, valid: Sequences
    ) -> TrunkCache | None:
        """Return the cache that is asked for, not filled yet; None if nothing can be shared, or is to be."""
        changed = changed_blocks(parts, config.readout)
        drawn_anew = config.event_dropout > 0 or config.prefix_fraction > 0  # what is read of a user, in each epoch
        if config.cache == "off" or changed is None or drawn_anew:
            return None
        events = min(config.max_length, max(int(part.lengths.max(initial=0)) for part in (train, valid)))
        cache = cls(Trunk(parts.backbone, changed, events, config.readout), train, valid, config.cache)
        return None if config.cache == "auto" and cache.bytes > ON_DISK else cache

    def fill(self, device: torch.device, folder: Path) -> None:
        """Run the trunk once for each user, without gradients.

        Args:
            device: where the backbone is.
            folder: for what does not stay in memory.

        Raises:
            OSError: the disk is full.
        """
        with torch.no_grad(), _evaluating(self.trunk.backbone):
            for states in (self.train, self.valid):
                states.fill(device, folder if self.on_disk else None)

    @property
    def line(self) -> str:
        """Line for the log: the blocks below which states are kept, their users, size and place."""
        changed = self.trunk.changed
        below = f" below the last {changed} blocks" if changed > 1 else " below the last block" if changed else ""
        place = "on disk" if self.on_disk else "in memory"
        return f"the trunk{below} is computed once for {self.users:,} users ({self.bytes / 1e6:,.1f} MB, {place})"


@contextmanager
def _evaluating(backbone: Backbone) -> Iterator[None]:
    before = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
