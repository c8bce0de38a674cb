"""Users whose events are stored: their histories and states follow the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from peterrec.arguments import checked
from peterrec.data.catalogue import ItemId
from peterrec.data.reading import Reading, UserEvents, event_codes
from peterrec.errors import PeterRecError
from peterrec.nn.patch import TaskPatch
from peterrec.nn.stream import Stream
from peterrec.serving.batch_plan import History, Prepared
from peterrec.serving.bundle_groups import Group
from peterrec.serving.engine import Engine
from peterrec.serving.explain import explain
from peterrec.serving.requests import Answer, Explanation, Question, Request
from peterrec.serving.states import StatePool
from peterrec.serving.store.base import Erased, Erasures, Event, EventStore, Read

CACHED_EVENTS = 2_000_000  # of histories in memory
USERS_AT_ONCE = 1_000  # whose revisions are asked for together
OVERHEAD = 20  # events that a history in memory costs as much as, beside its own


class Users:
    """Answers questions about stored users, and keeps their events.

    Histories and states in memory are copies of what the store says: before each answer they are brought up to date, so
    that other processes may write to the store too.

    Args:
        engine: answers.
        store: keeps the events.

    Raises:
        ConfigError: so many states do not fit into memory.
    """

    @checked
    def __init__(self, engine: Engine, store: EventStore) -> None:
        self.engine = engine
        self.store = store
        self._lock = threading.Lock()  # of the histories; held for moments
        self._histories: OrderedDict[str, History] = OrderedDict()
        self._size = 0
        self._followed = 0  # erasures of the store after which copies were last looked through
        self._erasures = 0  # so that who read a user before it was erased does not put it back
        self._states = threading.Lock()  # of the states; held while answers are computed
        config = engine.model.network.backbone.config
        streamable = config.kind == "causal" and config.architecture == "dilated"
        # Made now, though the largest thing here: that it does not fit should be known before users ask.
        self._pool = self._new_pool() if streamable else None

    def _new_pool(self) -> StatePool:
        stream = Stream(self.engine.model.network.backbone)
        return StatePool(stream, self.engine.config.states, self.engine.model.device)

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

    def erase(self, user: str) -> Erased:
        """Erase all that is known of a user: events, states, what is cached.

        Raises:
            StoreError: the store could not erase them.
        """
        try:
            return self.store.delete(user)
        finally:  # also if the store says that it could do only a part
            with self._lock:
                self._erasures += 1
                self._drop(user)
            with self._states:  # after answers in progress, which may have read the user before
                if self._pool is not None:
                    self._pool.forget_user(user)

    def follow_erasures(self) -> Erasures:
        """Go on with erasures that are pending, and forget who was erased by others; returns what is still pending.

        It is to be called every few seconds: others may never ask about a user whom they erased.

        Raises:
            StoreError: the store does not answer.
        """
        erasures = self.store.erasures()
        if erasures.count != self._followed:
            self._forget_changed()
            self._followed = erasures.count
        return self.store.finish_erasures() if erasures.pending else erasures

    def _forget_changed(self) -> None:
        """Drop copies of users whose events are no longer those that the copies are of."""
        with self._lock:
            self._erasures += 1  # before it is seen who is here: who reads a user meanwhile does not put it back
            copies: dict[str, set[str | None]] = {user: {history.revision} for user, history in self._histories.items()}
        with self._states:
            for user, revisions in {} if self._pool is None else self._pool.revisions().items():
                copies.setdefault(user, set()).update(revisions)
        users, changed = list(copies), set[str]()
        for start in range(0, len(users), USERS_AT_ONCE):
            part = users[start : start + USERS_AT_ONCE]
            stored = zip(part, self.store.revisions(part), strict=True)
            changed |= {user for user, revision in stored if copies[user] != {revision}}
        with self._lock:
            for user in changed:
                self._drop(user)
        with self._states:
            if self._pool is not None:
                self._pool.forget(lambda key: isinstance(key, tuple) and key[0] in changed)

    # ------------------------------------------------------------ questions

    def prepare(self, user: str, question: Question) -> Prepared:
        """Check a question about a stored user; someone unknown has no events.

        Raises:
            UnknownTaskError: a name that is not loaded.
            RequestError: a question that cannot be answered.
        """
        return replace(self.engine.prepare(Request((), question)), history=None, user=user)

    def fetch(self, prepared: Prepared) -> Prepared:
        """Read what a question about a stored user needs from the store; from any thread.

        Raises:
            StoreError: the store does not answer.
        """
        if prepared.user is None or prepared.history is not None:
            return prepared
        with self._lock:
            erasures, known = self._erasures, self._histories.get(prepared.user)
        history = self._read(prepared.user, known)
        if not history.items:
            return replace(prepared, history=history, user=None)  # nothing to keep, in states or otherwise
        self._remember(prepared.user, history, erasures)
        return replace(prepared, history=history, erasures=erasures)

    def run(self, prepared: Sequence[Prepared]) -> list[Answer | PeterRecError]:
        """Answer questions, those about stored users and others, in one pass; from one thread at a time.

        Returns:
            For each the answer, or the error that only this one met: its events could not be read.
        """
        found: list[Answer | PeterRecError | None] = []
        ready: list[Prepared] = []
        for one in prepared:
            try:
                ready.append(self.fetch(one))
                found.append(None)
            except PeterRecError as error:
                found.append(error)
        with self._states:
            # Who was read before somebody was erased is answered, but leaves no state behind.
            ready = [one if one.erasures == self._erasures else replace(one, user=None) for one in ready]
            answers = iter(self.engine.answer(ready, self))
        return [next(answers) if of is None else of for of in found]

    def explain(self, prepared: Prepared, task: str) -> Explanation:
        """Tell which events mattered for a task; see `Explanation`. From one thread at a time, as `run`.

        Raises:
            PeterRecError: as `prepare`, or the events could not be read.
        """
        return explain(self.engine, replace(self.fetch(prepared), user=None), task)

    def _read(self, user: str, known: History | None) -> History:
        """Return what the store says of a user; only what is new is read."""
        count = 0 if known is None else len(known.items)
        read = self.store.read(user, "" if known is None else known.revision, count)
        if known is None or read.start == 0:
            known = None
        elif not read.events:
            return known
        items = [event.item for event in read.events]
        events = self._events(items, read.events, known)
        return History(items if known is None else [*known.items, *items], events, read.revision)

    def _events(self, items: list[ItemId], new: list[Event], known: History | None) -> UserEvents:
        """Return new events as numbers, behind those that are known."""
        before = UserEvents(np.empty(0, np.int64), np.empty(0)) if known is None else known.events
        ids = () if known is None else known.items
        unknown = {str(ids[row]): int(before.codes[row]) for row in np.flatnonzero(before.codes < 0).tolist()}
        codes = event_codes(self.engine.model.catalogue, items, unknown)
        seconds = np.array([event.timestamp for event in new])
        domains = [*(before.domains or [None] * len(before)), *(event.domain for event in new)]
        assert before.seconds is not None
        return UserEvents(
            np.concatenate([before.codes, codes]),
            np.concatenate([before.seconds, seconds]),
            domains if any(name is not None for name in domains) else None,
        )

    def _remember(self, user: str, history: History, erasures: int) -> None:
        with self._lock:
            if erasures != self._erasures:
                return
            self._drop(user)
            self._histories[user] = history
            self._size += len(history.items) + OVERHEAD
            while self._size > CACHED_EVENTS and len(self._histories) > 1:
                self._drop(next(iter(self._histories)))

    def _drop(self, user: str) -> None:
        known = self._histories.pop(user, None)
        self._size -= 0 if known is None else len(known.items) + OVERHEAD

    def vectors(
        self, group: Group, users: Sequence[tuple[str, str, Reading]], slots: Sequence[int]
    ) -> Float[Tensor, "B C"]:
        """Return the representation of each row from its state; see `batch_plan.Streams`."""
        assert self._pool is not None

        def patch_of(rows: Sequence[int]) -> TaskPatch | None:
            return group.patch_of([slots[row] for row in rows])

        keys = [(user, version) for user, version, _ in users]
        readings = [reading for *_, reading in users]
        return self._pool.vectors(keys, readings, patch_of, self.engine.config.batch_size)

    def stats(self) -> dict[str, float]:
        """Return how many states and histories are in memory, and how often they served."""
        found = {"histories": float(len(self._histories)), "history_size": float(self._size)}
        return found if self._pool is None else found | self._pool.stats()
