"""From prepared questions to the representations they need: rows of the network, each computed once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from peterrec.config import EngineConfig
from peterrec.data.batching import last_events
from peterrec.data.catalogue import ItemId
from peterrec.data.reading import HistoryReader, Reading, UserEvents
from peterrec.data.sequences import IntArray, Sequences
from peterrec.data.ties import BoolArray
from peterrec.inference import Inference
from peterrec.nn.matmul import onednn_matmul
from peterrec.nn.precision import arithmetic
from peterrec.process import check_device_after_fork
from peterrec.serving.bundle_groups import Group, Place, RegistrySnapshot
from peterrec.serving.loaded_bundle import Loaded
from peterrec.serving.requests import Question


@dataclass(frozen=True)
class History:
    """What a user did.

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
        """Return what a model reads of it; made once for all that read alike."""
        if reader.key not in self._readings:
            self._readings[reader.key] = reader.read(self.events, self.revision)
        return self._readings[reader.key]

    def take(self, rows: BoolArray) -> History:
        """Return some of the events, of which nothing more is left out."""
        return History([self.items[row] for row in np.flatnonzero(rows).tolist()], self.events.take(rows))


@dataclass(frozen=True)
class Prepared:
    """A question that was checked. It holds the bundles that were loaded then, and is answered by these.

    Attributes:
        snapshot: of that time.
        question: what is asked.
        tasks: bundles that are asked.
        history: of the user; None: it is read from the store when the question is answered.
        user: id of a stored user.
        erasures: how many users had been erased when the history was read.
    """

    snapshot: RegistrySnapshot
    question: Question
    tasks: tuple[Loaded, ...]
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

    def place_of(self, one: Loaded) -> Place:
        """Return where a task's row goes."""
        return self.snapshot.places[one.name] if self.question.patched else self.snapshot.without_patch(one.name)


class Streams(Protocol):
    """States of stored users, kept up to date event by event."""

    def vectors(
        self, group: Group, users: Sequence[tuple[str, str, Reading]], slots: Sequence[int]
    ) -> Float[Tensor, "B C"]:
        """Return the representation of each row: a user, what else the state depends on, and what is read."""


class Row(NamedTuple):
    """One row of the network: which question's history, read how, how many of its last tokens; which slot."""

    user: int
    reader: str
    length: int
    slot: int


class _Rows:
    """The rows of one group, each once, with the first question and task that asked for it."""

    def __init__(self) -> None:
        self.places: dict[Row, int] = {}
        self.asked: list[tuple[Prepared, Loaded]] = []
        self.readings: list[Reading] = []

    def add(self, row: Row, one: Prepared, task: Loaded, reading: Reading) -> int:
        place = self.places.setdefault(row, len(self.asked))
        if place == len(self.asked):
            self.asked.append((one, task))
            self.readings.append(reading)
        return place


class RowReader:
    """Computes representations for prepared questions.

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
        wanted: list[list[tuple[Group, int]]] = []
        for user, one in enumerate(prepared):
            history, own = one.history, []
            assert history is not None
            for task in one.tasks:
                group, slot = one.place_of(task)
                row = Row(user, task.reader.key, self.length_of(group, task), slot)
                own.append((group, groups[group].add(row, one, task, history.read_by(task.reader))))
            wanted.append(own)
        found = {group: self._vectors(group, rows, streams).unbind() for group, rows in groups.items()}
        return [[found[group][row] for group, row in places] for places in wanted]

    def length_of(self, group: Group, task: Loaded) -> int:
        """Return how many of a user's last tokens are read."""
        if self.config.window == "trained" or not group.streamable:
            return min(task.bundle.max_length, task.reader.max_history)
        return group.backbone.receptive_field - 1

    def _vectors(self, group: Group, rows: _Rows, streams: Streams | None) -> Float[Tensor, "N R"]:
        every = list(rows.places)
        streamed = [] if streams is None or not group.streamable else self._streamed(group, rows)
        parts: list[tuple[list[int], Tensor]] = []
        if streamed and streams is not None:
            users = [_stored(*rows.asked[place], rows.readings[place]) for place in streamed]
            parts.append((streamed, streams.vectors(group, users, [every[place].slot for place in streamed])))
        taken = set(streamed)
        rest = [place for place in range(len(every)) if place not in taken]
        # Those of like length together, and next to each other those of one user.
        rest.sort(key=lambda place: (min(len(rows.readings[place].tokens), every[place].length), every[place].user))
        for start in range(0, len(rest), self.config.batch_size):
            some = rest[start : start + self.config.batch_size]
            parts.append((some, self._windows(group, [(every[place], rows.readings[place]) for place in some])))
        if len(parts) == 1 and parts[0][0] == list(range(len(every))):
            return parts[0][1]
        out = torch.empty(len(every), parts[0][1].shape[1], device=self.device)
        for places, vectors in parts:
            out[torch.tensor(places, device=self.device)] = vectors.float()
        return out

    def _streamed(self, group: Group, rows: _Rows) -> list[int]:
        """Return the rows of stored users whose state says the same as the window that would be read."""
        sees = group.backbone.receptive_field - 1
        return [
            place
            for place, (row, (one, _)) in enumerate(zip(rows.places, rows.asked, strict=True))
            if one.user is not None and (sees <= row.length or len(rows.readings[place].tokens) <= row.length)
        ]

    @torch.inference_mode()
    def _windows(self, group: Group, some: list[tuple[Row, Reading]]) -> Float[Tensor, "B R"]:
        """Compute rows from the last events of their users; the events of each user stand in the batch once."""
        users: dict[tuple[int, str, int], int] = {}
        cut: list[IntArray] = []
        for row, reading in some:
            if users.setdefault(row[:3], len(cut)) == len(cut):
                cut.append(reading.tokens[max(0, len(reading.tokens) - row.length) :])
        longest = max(row.length for row, _ in some)
        tokens = last_events(Sequences.of(cut), np.arange(len(cut)), longest)
        of = torch.tensor([users[row[:3]] for row, _ in some], device=self.device)
        full = self.compiled and len(some) == self.config.batch_size and tokens.shape[1] == longest
        with arithmetic(self.precision, self.device), onednn_matmul(self.device):
            found = group.vectors(
                torch.from_numpy(tokens).to(self.device), of, [row.slot for row, _ in some], compiled=full
            )
        return found.float()


def _stored(one: Prepared, task: Loaded, reading: Reading) -> tuple[str, str, Reading]:
    assert one.user is not None
    return one.user, f"{task.patch_version if one.question.patched else ''} {task.reader.key}", reading
