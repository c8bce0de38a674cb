"""Users whose events are stored: their histories and states follow the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from peterrec.arguments import checked
from peterrec.data.history_reader import Reading
from peterrec.errors import PeterRecError
from peterrec.nn.patch import TaskPatch
from peterrec.nn.stream import Stream
from peterrec.serving.batch_plan import History, Prepared
from peterrec.serving.bundle_groups import Group
from peterrec.serving.engine import Engine
from peterrec.serving.explain import explain
from peterrec.serving.opt_outs import changed_opt_outs, without_opted_out
from peterrec.serving.replicas.readers import Readers
from peterrec.serving.requests import Answer, Explanation, Question, Request
from peterrec.serving.states import StatePool
from peterrec.serving.store.base import Erased, Erasures, Event, EventStore, Read
from peterrec.serving.stored_events import stored_events

CACHED_EVENTS = 2_000_000  # of histories in memory
USERS_AT_ONCE = 1_000  # whose revisions are asked for together
OVERHEAD = 20  # events that a history in memory costs as much as, beside its own


class Users:
    """Stored users: keeps their events in a store, and answers questions about them.

    Histories and states in memory are copies of the events in the store: before each answer they are brought up to
    date, so that other processes may write to the store too.

    Args:
        engine: that answers.
        store: of the events, such as `SqliteStore`.
        readers: the services that have copies of the users of this store; None: there are no others.

    Attributes:
        engine: as given.
        store: as given.
        readers: as given.

    Raises:
        ConfigError: so many states do not fit into memory.
    """

    @checked
    def __init__(self, engine: Engine, store: EventStore, readers: Readers | None = None) -> None:
        self.engine = engine
        self.store = store
        self.readers = readers
        self._lock = threading.Lock()  # of the histories; held for moments
        self._histories: OrderedDict[str, History] = OrderedDict()
        self._size = 0
        self._followed = 0  # erasures of the store after which copies were last looked through
        self._erasures = 0  # so that a thread that read a user before its erasure does not cache it again
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
        """Store events, all of them or none.

        Args:
            events: of any users.

        Returns:
            For each event whether it is new: an id that its user already has is not stored again.

        Raises:
            StoreError: they could not be stored.
            RequestError: one of them is not as `Event` says.
        """
        return self.store.append(events)

    def read(self, user: str) -> Read:
        """Return the events of a user.

        Args:
            user: id, as `Event` has it.

        Returns:
            All stored events, oldest first, with their revision; no events for a user who is not stored.

        Raises:
            StoreError: the store does not answer.
            RequestError: the id is no text that can be encoded.
        """
        return self.store.read(user)

    def set_opt_out(self, user: str, task: str, *, opted_out: bool = True) -> frozenset[str]:
        """Keep whether a task is not to be answered about a user, for questions that are asked when this has returned.

        Args:
            user: id, as `Event` has it, who need not be stored; opt-outs are erased with the user.
            task: name of a bundle, which need not be loaded.
            opted_out: False: it may be answered again.

        Returns:
            All tasks that the user has opted out of.

        Raises:
            StoreError: it could not be stored.
            RequestError: the id is no text that can be encoded, or the user has opted out of too many tasks.
        """
        tasks = changed_opt_outs(self.store.read(user).opted_out, task, opted_out=opted_out)
        self.store.set_opt_out(user, task, opted_out=opted_out)
        return tasks

    def erase(self, user: str) -> Erased:
        """Erase a user: events, opt-outs, states and cached histories.

        Args:
            user: id, as `Event` has it.

        Returns:
            The number of events erased, 0 for a user who is not stored, and whether they are gone from all files of
            the store too.

        Raises:
            StoreError: the store could not erase them.
            RequestError: the id is no text that can be encoded.
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

    @property
    def may_copy(self) -> bool:
        """Whether histories and states may be kept in memory: not where other services do not hear of it."""
        return self.readers is None or not self.readers.lapsed

    def follow_erasures(self, *, finish: bool = True) -> Erasures:
        """Finish pending erasures where possible, and drop copies of users that other processes erased.

        It is to be called every few seconds, whether or not questions come; with `readers` several times a second, for
        they are told, and who erases a user waits for it.

        Args:
            finish: pending erasures are finished where possible.

        Returns:
            The erasures of the store, with those that are still pending.

        Raises:
            StoreError: the store does not answer.
        """
        erasures = self.store.erasures()
        if erasures.count != self._followed:
            self._forget_changed()
            self._followed = erasures.count
        if self.readers is not None:
            self.readers.follow(erasures.count)
        return self.store.finish_erasures() if finish and erasures.pending else erasures

    def forget_copies(self) -> None:
        """Drop all histories and states in memory; the next answers are computed from the events in the store."""
        with self._lock:
            self._erasures += 1
            self._histories.clear()
            self._size = 0
        with self._states:
            if self._pool is not None:
                self._pool.forget(lambda key: True)

    def erased_since(self, prepared: Prepared) -> bool:
        """Say whether any user was erased since the events of a question were read; quick.

        Args:
            prepared: by `fetch`.

        Returns:
            True if one was erased: `outdated` says more.
        """
        return prepared.user is not None and prepared.erasures != self._erasures

    def outdated(self, prepared: Prepared) -> bool:
        """Say whether the events of a question were erased or reordered since they were read.

        Args:
            prepared: by `fetch`.

        Returns:
            True if the question is to be answered by other events.

        Raises:
            StoreError: the store does not answer.
        """
        if prepared.user is None or prepared.history is None:
            return False
        return self.store.revisions([prepared.user]) != [prepared.history.revision]

    def _forget_changed(self) -> None:
        """Drop copies of users whose events in the store are others by now."""
        with self._lock:
            self._erasures += 1  # before the copies are listed: a thread that reads a user meanwhile does not cache it
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
        """Check a question about a stored user; a user who is not stored has no events.

        Args:
            user: id, as `Event` has it.
            question: tasks and options.

        Returns:
            The checked question for `run`, without events: these are read when it is answered.

        Raises:
            UnknownTaskError: a name that is not loaded.
            RequestError: a question that cannot be answered.
        """
        return replace(self.engine.prepare(Request((), question)), history=None, user=user)

    def fetch(self, prepared: Prepared) -> Prepared:
        """Read the events that a question about a stored user needs from the store; from any thread.

        Args:
            prepared: by `prepare`; a question that has its events already, as those of `Engine.prepare`, is returned as
                it is.

        Returns:
            The same question with its `history`; of all tasks (`*`) without those that the user has opted out of.

        Raises:
            OptedOutError: the question names a task that the user has opted out of.
            StoreError: the store does not answer.
            RequestError: the id is no text that can be encoded.
        """
        if prepared.user is None or prepared.history is not None:
            return prepared
        with self._lock:
            erasures, cached = self._erasures, self._histories.get(prepared.user)
        history, opted_out = self._read(prepared.user, cached)
        user, prepared = prepared.user, without_opted_out(prepared, opted_out)
        if not history.items:
            return replace(prepared, history=history, user=None)  # nothing to keep, in states or otherwise
        self._remember(user, history, erasures)
        return replace(prepared, history=history, erasures=erasures)

    def run(self, prepared: Sequence[Prepared]) -> list[Answer | PeterRecError]:
        """Answer questions, about stored users and others, in one pass; from one thread at a time.

        Args:
            prepared: N questions, by `prepare` or `Engine.prepare`.

        Returns:
            For each question its answer, or the error where the events of its user could not be read.

        Raises:
            AnswerError: a bundle answers with NaN or infinity.
            ConfigError: the process was forked, and the GPU was in use before.
        """
        results: list[Answer | PeterRecError | None] = []
        ready: list[Prepared] = []
        for query in prepared:
            try:
                ready.append(self.fetch(query))
                results.append(None)
            except PeterRecError as error:
                results.append(error)
        with self._states:
            # Users that were read before an erasure are answered, but leave no state behind.
            may_copy, erasures = self.may_copy, self._erasures
            ready = [query if may_copy and query.erasures == erasures else replace(query, user=None) for query in ready]
            answers = iter(self.engine.answer(ready, self))
        return [next(answers) if result is None else result for result in results]

    def explain(self, prepared: Prepared, task: str) -> Explanation:
        """Explain the answer of a task by the contribution of each event (leave one out).

        To be called from one thread at a time, as `run`.

        Args:
            prepared: by `prepare` or `Engine.prepare`.
            task: name of one of its tasks.

        Returns:
            The most probable class, or the best item, with its probability or score, and for each of the T events the
            loss of that value without it.

        Raises:
            UnknownTaskError: the task is not loaded.
            RequestError: the question is not about it, or there is no item left to recommend.
            StoreError: the events could not be read.
            AnswerError: the bundle answers with NaN or infinity.
            ConfigError: the process was forked, and the GPU was in use before.
        """
        return explain(self.engine, replace(self.fetch(prepared), user=None), task)

    def _read(self, user: str, cached: History | None) -> tuple[History, frozenset[str]]:
        """Return the history of a user and what the user has opted out of.

        Only events that the cached history lacks are read from the store.
        """
        count = 0 if cached is None else len(cached.items)
        read = self.store.read(user, "" if cached is None else cached.revision, count)
        if cached is None or read.start == 0:
            cached = None
        elif not read.events:
            return cached, read.opted_out
        items = [event.item for event in read.events]
        events = stored_events(self.engine, read.events, cached)
        items = items if cached is None else [*cached.items, *items]
        return History(items, events, read.revision), read.opted_out

    def _remember(self, user: str, history: History, erasures: int) -> None:
        with self._lock:
            if erasures != self._erasures or not self.may_copy:
                return
            self._drop(user)
            self._histories[user] = history
            self._size += len(history.items) + OVERHEAD
            while self._size > CACHED_EVENTS and len(self._histories) > 1:
                self._drop(next(iter(self._histories)))

    def _drop(self, user: str) -> None:
        cached = self._histories.pop(user, None)
        self._size -= 0 if cached is None else len(cached.items) + OVERHEAD

    def vectors(
        self, group: Group, users: Sequence[tuple[str, str, Reading]], slots: Sequence[int]
    ) -> Float[Tensor, "B C"]:
        """Return the representation of each of B rows from the state of its user, which is brought up to date.

        For `Engine.answer`, which takes this object as `streams`.

        Args:
            group: bundles whose rows go through the network together.
            users: for each row the id of the user, the key of the patch and reader that the state depends on, and the
                events that are read.
            slots: for each row the place of its patch in the group.

        Returns:
            (B, C) hidden states at [TCL]; C is the channels of the backbone.
        """
        assert self._pool is not None

        def patch_of(rows: Sequence[int]) -> TaskPatch | None:
            return group.patch_of([slots[row] for row in rows])

        keys = [(user, version) for user, version, _ in users]
        readings = [reading for *_, reading in users]
        return self._pool.vectors(keys, readings, patch_of, self.engine.config.batch_size)

    def stats(self) -> dict[str, float]:
        """Return counts of the histories and states in memory, and of how often states were continued.

        Returns:
            `histories` (users), `history_size` (events, and a surcharge for each history); where states are kept, also
            `states`, `states_capacity`, `state_hits` (continued), `state_rebuilds` (computed again) and `evictions`.
        """
        counts = {"histories": float(len(self._histories)), "history_size": float(self._size)}
        return counts if self._pool is None else counts | self._pool.stats()
