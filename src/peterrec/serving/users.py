"""Users whose events are stored: their histories and states follow the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from peterrec.errors import PeterRecError
from peterrec.nn.patch import TaskPatch
from peterrec.nn.stream import Stream
from peterrec.serving.engine import Engine
from peterrec.serving.explain import explain
from peterrec.serving.requests import Answer, Explanation, Question, Request
from peterrec.serving.roster import Group
from peterrec.serving.rows import History, Prepared
from peterrec.serving.states import StatePool
from peterrec.serving.store.base import Event, EventStore, Read

CACHED_EVENTS = 2_000_000  # of histories in memory


class Users:
    """Answers questions about stored users, and keeps their events.

    Histories and states in memory are copies of what the store says: before each answer they are brought up to date, so
    that other processes may write to the store too.

    Args:
        engine: answers.
        store: keeps the events.
    """

    def __init__(self, engine: Engine, store: EventStore) -> None:
        self.engine = engine
        self.store = store
        self._lock = threading.Lock()  # of what is in memory: who erases a user waits for answers in progress
        self._histories: OrderedDict[str, History] = OrderedDict()
        self._events = 0
        self._pool: StatePool | None = None  # made when first needed: it is the largest thing here

    # ------------------------------------------------------------ events

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Keep events, all of them or none; returns which of them are new.

        Raises:
            StoreError: they could not be kept.
        """
        return self.store.append(events)

    def read(self, user: str) -> Read:
        """Return the events of a user.

        Raises:
            StoreError: the store does not answer.
        """
        return self.store.read(user)

    def erase(self, user: str) -> int:
        """Erase all that is known of a user: events, states, what is cached; returns how many events that were.

        Raises:
            StoreError: the store could not erase them.
        """
        with self._lock:
            erased = self.store.delete(user)
            self._forget(user)
            return erased

    def _forget(self, user: str) -> None:
        known = self._histories.pop(user, None)
        self._events -= 0 if known is None else len(known.items)
        if self._pool is not None:
            self._pool.forget_user(user)

    # ------------------------------------------------------------ questions

    def prepare(self, user: str, question: Question) -> Prepared:
        """Check a question about a stored user; someone unknown has no events.

        Raises:
            UnknownTaskError: a name that is not loaded.
            RequestError: a question that cannot be answered.
        """
        return replace(self.engine.prepare(Request((), question)), history=None, user=user)

    def run(self, prepared: Sequence[Prepared]) -> list[Answer | PeterRecError]:
        """Answer questions, those about stored users and others, in one pass; from one thread at a time.

        Returns:
            For each the answer, or the error that only this one met: its events could not be read.
        """
        with self._lock:
            found: list[Answer | PeterRecError | None] = []
            ready: list[Prepared] = []
            for one in prepared:
                try:
                    ready.append(one if one.user is None else replace(one, history=self._history(one.user)))
                    found.append(None)
                except PeterRecError as error:
                    found.append(error)
            answers = iter(self.engine.answer(ready, self))
            return [next(answers) if of is None else of for of in found]

    def explain(self, prepared: Prepared, task: str) -> Explanation:
        """Tell which events mattered for a task; see `Explanation`. From one thread at a time, as `run`.

        Raises:
            PeterRecError: as `prepare`, or the events could not be read.
        """
        with self._lock:
            if prepared.history is None and prepared.user is not None:
                prepared = replace(prepared, history=self._history(prepared.user), user=None)
            return explain(self.engine, prepared, task)

    def _history(self, user: str) -> History:
        """Return what the store says of a user; only what is new is read."""
        known = self._histories.get(user)
        count = 0 if known is None else len(known.items)
        read = self.store.read(user, "" if known is None else known.revision, count)
        if known is None or read.start == 0:
            history = self.engine.history([event.item for event in read.events], read.revision)
        elif read.events:
            more = self.engine.history([event.item for event in read.events])
            history = History(
                [*known.items, *more.items],
                np.concatenate([known.tokens, more.tokens]),
                known.unknown + more.unknown,
                read.revision,
            )
        else:
            history = known
        self._histories[user] = history
        self._histories.move_to_end(user)
        self._events += len(history.items) - count
        while self._events > CACHED_EVENTS and len(self._histories) > 1:
            _, oldest = self._histories.popitem(last=False)
            self._events -= len(oldest.items)
        return history

    def vectors(
        self, group: Group, users: Sequence[tuple[str, str, History]], slots: Sequence[int]
    ) -> Float[Tensor, "B C"]:
        """Return the representation of each row from its state; see `rows.Streams`."""
        if self._pool is None:
            self._pool = StatePool(Stream(group.backbone), self.engine.config.states, self.engine.model.device)

        def patch_of(rows: Sequence[int]) -> TaskPatch | None:
            return group.patch_of([slots[row] for row in rows])

        keys = [(user, version) for user, version, _ in users]
        histories = [history for *_, history in users]
        return self._pool.vectors(keys, histories, patch_of, self.engine.config.batch_size)

    def stats(self) -> dict[str, float]:
        """Return how many states and histories are in memory, and how often they served."""
        found = {"histories": float(len(self._histories)), "history_events": float(self._events)}
        return found if self._pool is None else found | self._pool.stats()
