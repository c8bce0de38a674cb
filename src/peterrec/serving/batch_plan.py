"""The rows of the network that prepared questions need, each computed once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from peterrec.config import EngineConfig
from peterrec.data.batching import last_events
from peterrec.data.catalogue import ItemId
from peterrec.data.history_reader import HistoryReader, Reading, UserEvents
from peterrec.data.sequences import IntArray, Sequences
from peterrec.data.ties import BoolArray
from peterrec.inference import Inference
from peterrec.nn.matmul import onednn_matmul
from peterrec.nn.precision import arithmetic
from peterrec.process import check_device_after_fork
from peterrec.serving.bundle_groups import Group, Place, RegistrySnapshot
from peterrec.serving.loaded_bundle import LoadedBundle
from peterrec.serving.requests import Question


@dataclass(frozen=True)
class History:
    """Events of a user, and the tokens that each model reads of them.

    Attributes:
        items: external ids, oldest first.
        events: the same as numbers.
        revision: of the store; empty where the events came with the request.
    """

    items: Sequence[ItemId]
    events: UserEvents
    revision: str = ""
    _readings: dict[str, Reading] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def unknown(self) -> int:
        """Events of items that the catalogue does not have."""
        return int(np.count_nonzero(self.events.codes < 0))

    def read_by(self, reader: HistoryReader) -> Reading:
        """Return the events as a model reads them; computed once for all models with the same reader settings."""
        if reader.key not in self._readings:
            self._readings[reader.key] = reader.read(self.events, self.revision)
        return self._readings[reader.key]

    def take(self, rows: BoolArray) -> History:
        """Return the history of the chosen events, (T,) booleans, without looking at times and domains again."""
        return History([self.items[row] for row in np.flatnonzero(rows).tolist()], self.events.take(rows))


@dataclass(frozen=True)
class Prepared:
    """A question that was checked, with the bundles that were loaded then: these answer it.

    Attributes:
        snapshot: bundles that were loaded when the question was checked.
        question: tasks and options.
        tasks: the bundles that the question names.
        history: of the user; None: it is read from the store when the question is answered.
        user: id of a stored user, or None.
        erasures: how many users had been erased when the history was read.
    """

    snapshot: RegistrySnapshot
    question: Question
    tasks: tuple[LoadedBundle, ...]
    history: History | None = None
    user: str | None = None
    erasures: int = 0

    @property
    def rows(self) -> int:
        """Rows of the network that it needs, at most."""
        return max(1, len(self.tasks))

    @property
    def answer_items(self) -> int:
        """Items that its answers have, at most."""
        return sum(min(self.question.k, len(task.index.bias)) for task in self.tasks if task.index is not None)

    def place_of(self, loaded: LoadedBundle) -> Place:
        """Return the place that computes a task's row."""
        return self.snapshot.places[loaded.name] if self.question.patched else self.snapshot.without_patch(loaded.name)


class Streams(Protocol):
    """States of stored users, kept up to date event by event."""

    def vectors(
        self, group: Group, users: Sequence[tuple[str, str, Reading]], slots: Sequence[int]
    ) -> Float[Tensor, "B C"]:
        """Return the representation of each row.

        Args:
            group: that the rows go through.
            users: B rows: user, patch and reader that the state depends on, events that are read.
            slots: of each row in the group.
        """


class Row(NamedTuple):
    """One row of the network.

    Attributes:
        user: index of the question.
        reader: key of the reader.
        length: number of last tokens.
        slot: of the patch in the group.
        module: what the task reads by, where its readout is trained.
    """

    user: int
    reader: str
    length: int
    slot: int
    module: nn.Module | None


class _Rows:
    """The distinct rows of one group, with the question and the task that each comes from first."""

    def __init__(self) -> None:
        self.places: dict[Row, int] = {}
        self.origins: list[tuple[Prepared, LoadedBundle]] = []
        self.readings: list[Reading] = []

    def add(self, row: Row, prepared: Prepared, task: LoadedBundle, reading: Reading) -> int:
        place = self.places.setdefault(row, len(self.origins))
        if place == len(self.origins):
            self.origins.append((prepared, task))
            self.readings.append(reading)
        return place


class RowReader:
    """Reader of prepared questions: computes the representations that they need.

    Args:
        config: window and batches.
        inference: device, precision, and whether torch compiles the network for full batches of the longest histories.
    """

    def __init__(self, config: EngineConfig, inference: Inference) -> None:
        self.config = config
        self.device = inference.device
        self.precision = inference.precision
        self.compiled = inference.compile

    def read(self, prepared: Sequence[Prepared], streams: Streams | None) -> list[list[Tensor]]:
        """Return, for each question, the representation (R,) that each of its tasks reads.

        Raises:
            ConfigError: the process was forked, and the GPU was in use before.
        """
        check_device_after_fork(self.device)
        groups: defaultdict[Group, _Rows] = defaultdict(_Rows)
        rows_of_query: list[list[tuple[Group, int]]] = []
        for user, query in enumerate(prepared):
            history, row_indices = query.history, []
            assert history is not None
            for task in query.tasks:
                group, slot, module = query.place_of(task)
                row = Row(user, task.reader.key, self.length_of(group, task), slot, module)
                row_indices.append((group, groups[group].add(row, query, task, history.read_by(task.reader))))
            rows_of_query.append(row_indices)
        vectors = {group: self._vectors(group, rows, streams).unbind() for group, rows in groups.items()}
        return [[vectors[group][row] for group, row in row_indices] for row_indices in rows_of_query]

    def length_of(self, group: Group, task: LoadedBundle) -> int:
        """Return how many of a user's last tokens are read."""
        if self.config.window == "trained" or not group.streamable:
            return min(task.bundle.max_length, task.reader.max_history)
        return min(group.backbone.receptive_field - 1, task.reader.last_events)

    def _vectors(self, group: Group, rows: _Rows, streams: Streams | None) -> Float[Tensor, "N R"]:
        unique_rows = list(rows.places)
        streamed = [] if streams is None or not group.streamable else self._streamed_rows(group, rows)
        parts: list[tuple[list[int], Tensor]] = []
        if streamed and streams is not None:
            users = [_state_key(*rows.origins[place], rows.readings[place]) for place in streamed]
            parts.append((streamed, streams.vectors(group, users, [unique_rows[place].slot for place in streamed])))
        taken = set(streamed)
        remaining = [place for place in range(len(unique_rows)) if place not in taken]
        # Rows of similar length in one batch, and rows of one user next to each other.
        remaining.sort(
            key=lambda place: (
                min(len(rows.readings[place].tokens), unique_rows[place].length),
                unique_rows[place].user,
            )
        )
        for start in range(0, len(remaining), self.config.batch_size):
            batch = remaining[start : start + self.config.batch_size]
            parts.append(
                (batch, self._from_windows(group, [(unique_rows[place], rows.readings[place]) for place in batch]))
            )
        if len(parts) == 1 and parts[0][0] == list(range(len(unique_rows))):
            return parts[0][1]
        out = torch.empty(len(unique_rows), parts[0][1].shape[1], device=self.device)
        for places, vectors in parts:
            out[torch.tensor(places, device=self.device)] = vectors.float()
        return out

    def _streamed_rows(self, group: Group, rows: _Rows) -> list[int]:
        """Return the rows of stored users for whom the state and the window give the same representation."""
        context = group.backbone.receptive_field - 1
        return [
            place
            for place, (row, (query, _)) in enumerate(zip(rows.places, rows.origins, strict=True))
            if query.user is not None and (context <= row.length or len(rows.readings[place].tokens) <= row.length)
        ]

    @torch.inference_mode()
    def _from_windows(self, group: Group, batch: list[tuple[Row, Reading]]) -> Float[Tensor, "B R"]:
        """Compute rows from the last events of their users; each user's events are in the batch once."""
        users: dict[tuple[int, str, int], int] = {}
        histories: list[IntArray] = []
        for row, reading in batch:
            if users.setdefault(row[:3], len(histories)) == len(histories):
                histories.append(reading.tokens[max(0, len(reading.tokens) - row.length) :])
        longest = max(row.length for row, _ in batch)
        tokens = last_events(Sequences.from_token_rows(histories), np.arange(len(histories)), longest)
        user_of_row = torch.tensor([users[row[:3]] for row, _ in batch], device=self.device)
        full = self.compiled and len(batch) == self.config.batch_size and tokens.shape[1] == longest
        with arithmetic(self.precision, self.device), onednn_matmul(self.device):
            representations = group.vectors(
                torch.from_numpy(tokens).to(self.device),
                user_of_row,
                [row.slot for row, _ in batch],
                [row.module for row, _ in batch],
                compiled=full,
            )
        return representations.float()


def _state_key(query: Prepared, task: LoadedBundle, reading: Reading) -> tuple[str, str, Reading]:
    assert query.user is not None
    return query.user, f"{task.patch_version if query.question.patched else ''} {task.reader.key}", reading
