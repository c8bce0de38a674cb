"""States of many users in one tensor pool: brought up to date from stored events, the longest unused evicted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from peterrec.data.batching import last_events
from peterrec.data.sequences import IntArray, Sequences
from peterrec.errors import ConfigError
from peterrec.nn.matmul import onednn_matmul
from peterrec.nn.patch import TaskPatch
from peterrec.nn.stream import Stream

# Events that a state may be behind to get them one by one: each costs a pass over the layers at one position, which for
# few rows is a tenth of the pass over a whole history, and for many a twentieth or less.
FEW_EVENTS = 8

PatchOf = Callable[[list[int]], TaskPatch | None]


class Known(Protocol):
    """What a state is made from: all that is known of a user at a moment."""

    @property
    def revision(self) -> str:
        """Of the store: another one says that earlier events are no longer where they were."""

    @property
    def tokens(self) -> IntArray:
        """(T,) indices of all events, oldest first; no [PAD]."""


@dataclass
class _Kept:
    """Where a state is, and what it was made from; `revision` None: of nothing."""

    row: int
    revision: str | None = None
    consumed: int = 0

    def continues(self, known: Known) -> bool:
        """Return whether what it was made from is how that history starts."""
        return self.revision == known.revision and self.consumed <= len(known.tokens)


@dataclass(frozen=True)
class _Row:
    """A state that is worked on, for which place of the call, which tokens it has not consumed, of which history."""

    index: int
    kept: _Kept
    todo: IntArray
    known: Known


class StatePool:
    """States of as many users as fit, one for each user and patch. To be used from one thread at a time.

    A state that was evicted, or that another process has outdated, is made anew from the events: it is a copy of what
    they say, and answers are the same with it and without.

    Args:
        stream: of the backbone.
        capacity: states; they take `capacity * stream.bytes_per_state` bytes.
        device: where the backbone is.

    Raises:
        ConfigError: so many states do not fit into memory.
    """

    def __init__(self, stream: Stream, capacity: int, device: torch.device | str = "cpu") -> None:
        self.stream = stream
        self.capacity = capacity
        self.device = torch.device(device)
        try:
            self.states = stream.new(capacity, device)
        except RuntimeError as error:
            size = capacity * stream.bytes_per_state / 1e9
            raise ConfigError(
                f"{capacity:,} states of users take {size:,.1f} GB, more than there is", remedy="keep fewer states"
            ) from error
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()  # the longest unused first
        self._free = list(range(capacity - 1, -1, -1))
        self.hits = 0
        self.rebuilds = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._kept)

    @torch.inference_mode()
    def vectors(
        self, keys: Sequence[Hashable], histories: Sequence[Known], patch_of: PatchOf, batch_size: int = 256
    ) -> Float[Tensor, "N C"]:
        """Return the hidden state at a [TCL] behind each history, and keep the states up to date.

        Args:
            keys: N of them, whose state it is: the user and the version of the patch, `(user, version)`. Where one
                occurs again, the last of its histories, which was read last, counts for all.
            histories: of each key, all of it.
            patch_of: returns the patch of some of the rows, given by their places in `keys`.
            batch_size: rows of the network at once.
        """
        last = {key: index for index, key in enumerate(keys)}
        order, size = list(last.values()), max(1, min(batch_size, self.capacity))
        found: list[Tensor] = []
        with onednn_matmul(self.device):
            for start in range(0, len(order), size):
                found.append(self._chunk(order[start : start + size], keys, histories, patch_of))
        if not found:
            return torch.empty(0, self.states.pool.shape[2], device=self.device)
        every = found[0] if len(found) == 1 else torch.cat(found)
        if len(order) == len(keys):
            return every
        place = {key: at for at, key in enumerate(last)}
        return every.index_select(0, self._tensor([place[key] for key in keys]))

    def _chunk(
        self, indices: list[int], keys: Sequence[Hashable], histories: Sequence[Known], patch_of: PatchOf
    ) -> Float[Tensor, "n C"]:
        """Bring the states of some keys, each once and no more than fit, up to date, and read them."""
        own = self._take([keys[index] for index in indices])
        rows = [self._row(index, kept, histories[index]) for index, kept in zip(indices, own, strict=True)]
        self.states.clear(self._rows(row for row in rows if row.kept.revision is None))
        for row in rows:
            row.kept.revision = None  # if something fails now, they are made anew
        self._fill([row for row in rows if len(row.todo) > FEW_EVENTS], patch_of)
        self._push([row for row in rows if len(row.todo) <= FEW_EVENTS], patch_of)
        found = self.stream.peek(self.states, self._rows(rows), patch=patch_of(indices))
        for row in rows:
            row.kept.revision, row.kept.consumed = row.known.revision, len(row.known.tokens)
        return found

    def _take(self, keys: list[Hashable]) -> list[_Kept]:
        """Return the states of some keys, which are then the last ones used; new ones evict those of others."""
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
        for key in keys:
            if key in self._kept:
                continue
            if not self._free:
                _, evicted = self._kept.popitem(last=False)
                self._free.append(evicted.row)
                self.evictions += 1
            self._kept[key] = _Kept(self._free.pop())
        return [self._kept[key] for key in keys]

    def _row(self, index: int, kept: _Kept, known: Known) -> _Row:
        """Return what is to be done for a key; a state that is of no use any more is marked as made of nothing."""
        if kept.continues(known):
            self.hits += 1
        else:
            self.rebuilds += 1
            kept.revision, kept.consumed = None, 0
        return _Row(index, kept, known.tokens[kept.consumed :], known)

    def _fill(self, rows: list[_Row], patch_of: PatchOf) -> None:
        if not rows:
            return
        histories = [row.known.tokens[max(0, len(row.known.tokens) - self.stream.positions) :] for row in rows]
        tokens = last_events(Sequences.from_rows(histories), np.arange(len(rows)), self.stream.positions)
        seen = self._tensor([len(row.known.tokens) for row in rows])
        patch = patch_of([row.index for row in rows])
        self.stream.fill(self.states, self._rows(rows), torch.from_numpy(tokens).to(self.device), patch, seen)

    def _push(self, rows: list[_Row], patch_of: PatchOf) -> None:
        """Push what is new, an event of each row at a time; the rows that have most come first."""
        rows = sorted(rows, key=lambda row: -len(row.todo))
        at, patch = self._rows(rows), None
        before = 0
        for turn in range(len(rows[0].todo) if rows else 0):
            some = [row for row in rows if len(row.todo) > turn]
            if len(some) != before:
                before, patch = len(some), patch_of([row.index for row in some])
            tokens = self._tensor([int(row.todo[turn]) for row in some])
            self.stream.push(self.states, at[: len(some)], tokens, patch)

    def _rows(self, rows: Iterable[_Row]) -> Tensor:
        return self._tensor([row.kept.row for row in rows])

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)

    def forget(self, which: Callable[[Hashable], bool]) -> int:
        """Drop the states of some keys, and leave nothing of them in memory; returns how many."""
        gone = [key for key in self._kept if which(key)]
        rows = [self._kept.pop(key).row for key in gone]
        if rows:
            self.states.clear(self._tensor(rows))
            self._free += rows
        return len(gone)

    def forget_user(self, user: str) -> int:
        """Drop all states of a user, those whose key is `(user, ...)`; returns how many."""
        return self.forget(lambda key: isinstance(key, tuple) and bool(key) and key[0] == user)

    def revisions(self) -> dict[str, set[str | None]]:
        """Return what the states of each user are made from, those whose key is `(user, ...)`; None: nothing."""
        revisions: dict[str, set[str | None]] = {}
        for key, state in self._kept.items():
            if isinstance(key, tuple) and key:
                revisions.setdefault(key[0], set()).add(state.revision)
        return revisions

    def stats(self) -> dict[str, float]:
        """Return how many states there are and fit, and how often one was up to date but for new events, or not."""
        return {
            "states": float(len(self)),
            "states_capacity": float(self.capacity),
            "state_hits": float(self.hits),
            "state_rebuilds": float(self.rebuilds),
            "evictions": float(self.evictions),
        }
