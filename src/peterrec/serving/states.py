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
from peterrec.nn.precision import arithmetic
from peterrec.nn.stream import Stream

# Events that a state may be behind to get them one by one: each costs a pass over the layers at one position, which for
# few rows is a tenth of the pass over a whole history, and for many a twentieth or less.
FEW_EVENTS = 8

PatchOf = Callable[[list[int]], TaskPatch | None]


class EventHistory(Protocol):
    """Events of a user that a state is computed from."""

    @property
    def revision(self) -> str:
        """Revision of the store: it changes where earlier events are no longer where they were."""

    @property
    def tokens(self) -> IntArray:
        """(T,) indices of all events, oldest first; no [PAD]."""


@dataclass
class _Entry:
    """A state of the pool: its row, and the events that it was computed from; `revision` None: from none."""

    row: int
    revision: str | None = None
    consumed: int = 0

    def continues(self, history: EventHistory) -> bool:
        """Return whether the history begins with the events that the state was computed from."""
        return self.revision == history.revision and self.consumed <= len(history.tokens)


@dataclass(frozen=True)
class _Row:
    """A state that is brought up to date.

    Attributes:
        index: in the call.
        entry: of the pool.
        new_tokens: that the state has not consumed.
        history: all events.
    """

    index: int
    entry: _Entry
    new_tokens: IntArray
    history: EventHistory


class StatePool:
    """States of as many users as fit, one for each user and patch. To be used from one thread at a time.

    A state that was evicted, or that another process has outdated, is computed again from the events: answers are the
    same with it and without.

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
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()  # the longest unused first
        self._free = list(range(capacity - 1, -1, -1))
        self.hits = 0
        self.rebuilds = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._entries)

    @torch.inference_mode()
    def vectors(
        self, keys: Sequence[Hashable], histories: Sequence[EventHistory], patch_of: PatchOf, batch_size: int = 256
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
        chunks: list[Tensor] = []
        with arithmetic("fp32", self.device), onednn_matmul(self.device):  # whatever the precision of windows
            for start in range(0, len(order), size):
                chunks.append(self._update_and_read(order[start : start + size], keys, histories, patch_of))
        if not chunks:
            return torch.empty(0, self.states.pool.shape[2], device=self.device)
        vectors = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
        if len(order) == len(keys):
            return vectors
        position = {key: i for i, key in enumerate(last)}
        return vectors.index_select(0, self._tensor([position[key] for key in keys]))

    def _update_and_read(
        self, indices: list[int], keys: Sequence[Hashable], histories: Sequence[EventHistory], patch_of: PatchOf
    ) -> Float[Tensor, "n C"]:
        """Bring the states of distinct keys, no more than fit, up to date, and read them."""
        entries = self._acquire([keys[index] for index in indices])
        rows = [self._make_row(index, entry, histories[index]) for index, entry in zip(indices, entries, strict=True)]
        self.states.clear(self._rows(row for row in rows if row.entry.revision is None))
        for row in rows:
            row.entry.revision = None  # if something fails now, they are made anew
        self._fill([row for row in rows if len(row.new_tokens) > FEW_EVENTS], patch_of)
        self._push([row for row in rows if len(row.new_tokens) <= FEW_EVENTS], patch_of)
        vectors = self.stream.peek(self.states, self._rows(rows), patch=patch_of(indices))
        for row in rows:
            row.entry.revision, row.entry.consumed = row.history.revision, len(row.history.tokens)
        return vectors

    def _acquire(self, keys: list[Hashable]) -> list[_Entry]:
        """Return the entries of keys and mark them as used last; new ones evict those that were unused longest."""
        for key in keys:
            if key in self._entries:
                self._entries.move_to_end(key)
        for key in keys:
            if key in self._entries:
                continue
            if not self._free:
                _, evicted = self._entries.popitem(last=False)
                self._free.append(evicted.row)
                self.evictions += 1
            self._entries[key] = _Entry(self._free.pop())
        return [self._entries[key] for key in keys]

    def _make_row(self, index: int, entry: _Entry, history: EventHistory) -> _Row:
        """Return the row of a key; a state that the history does not continue is marked as empty."""
        if entry.continues(history):
            self.hits += 1
        else:
            self.rebuilds += 1
            entry.revision, entry.consumed = None, 0
        return _Row(index, entry, history.tokens[entry.consumed :], history)

    def _fill(self, rows: list[_Row], patch_of: PatchOf) -> None:
        if not rows:
            return
        histories = [row.history.tokens[max(0, len(row.history.tokens) - self.stream.positions) :] for row in rows]
        tokens = last_events(Sequences.from_token_rows(histories), np.arange(len(rows)), self.stream.positions)
        lengths = self._tensor([len(row.history.tokens) for row in rows])
        patch = patch_of([row.index for row in rows])
        self.stream.fill(self.states, self._rows(rows), torch.from_numpy(tokens).to(self.device), patch, lengths)

    def _push(self, rows: list[_Row], patch_of: PatchOf) -> None:
        """Push new events, one of each row at a time; the rows with the most events come first."""
        rows = sorted(rows, key=lambda row: -len(row.new_tokens))
        slots, patch = self._rows(rows), None
        before = 0
        for turn in range(len(rows[0].new_tokens) if rows else 0):
            pending = [row for row in rows if len(row.new_tokens) > turn]
            if len(pending) != before:
                before, patch = len(pending), patch_of([row.index for row in pending])
            tokens = self._tensor([int(row.new_tokens[turn]) for row in pending])
            self.stream.push(self.states, slots[: len(pending)], tokens, patch)

    def _rows(self, rows: Iterable[_Row]) -> Tensor:
        return self._tensor([row.entry.row for row in rows])

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)

    def forget(self, selects: Callable[[Hashable], bool]) -> int:
        """Drop the states whose keys a condition selects, overwrite them in memory, and return how many there were."""
        forgotten = [key for key in self._entries if selects(key)]
        rows = [self._entries.pop(key).row for key in forgotten]
        if rows:
            self.states.clear(self._tensor(rows))
            self._free += rows
        return len(forgotten)

    def forget_user(self, user: str) -> int:
        """Drop all states of a user, those whose key is `(user, ...)`; returns how many."""
        return self.forget(lambda key: isinstance(key, tuple) and bool(key) and key[0] == user)

    def revisions(self) -> dict[str, set[str | None]]:
        """Return the revisions that the states of each user were computed from, for keys `(user, ...)`."""
        revisions: dict[str, set[str | None]] = {}
        for key, state in self._entries.items():
            if isinstance(key, tuple) and key:
                revisions.setdefault(key[0], set()).add(state.revision)
        return revisions

    def stats(self) -> dict[str, float]:
        """Return counts: states, states that fit, states that were continued or rebuilt, evictions."""
        return {
            "states": float(len(self)),
            "states_capacity": float(self.capacity),
            "state_hits": float(self.hits),
            "state_rebuilds": float(self.rebuilds),
            "evictions": float(self.evictions),
        }
