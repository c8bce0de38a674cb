"""Service behind the routes: engine, users and bundles behind bounded queues, off the event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from peterrec.config import ServeConfig
from peterrec.data.catalogue import ItemId
from peterrec.data.reference import Reference
from peterrec.data.sequences import UNK
from peterrec.errors import PeterRecError, RequestError, StoreError
from peterrec.serving.http.batcher import Batcher
from peterrec.serving.http.bundle_operations import BundleOperations
from peterrec.serving.http.erasure_follower import ErasureFollower
from peterrec.serving.http.errors import ApiError, too_slow
from peterrec.serving.http.logs import Log
from peterrec.serving.http.metrics import Metrics
from peterrec.serving.http.thread_pool import BoundedThreadPool
from peterrec.serving.http.watch import references_of
from peterrec.serving.requests import Answer, Explanation, Question, Request
from peterrec.serving.store.base import Erased, Erasures, Event, EventStore, Read

if TYPE_CHECKING:
    from filelock import FileLock

    from peterrec.serving.batch_plan import Prepared
    from peterrec.serving.engine import Engine
    from peterrec.serving.keys import Keys
    from peterrec.serving.titles import ItemSearch
    from peterrec.serving.users import Users

T = TypeVar("T")
AnswerT = TypeVar("AnswerT", Answer, Explanation)

MAX_ITEMS_ON_LOOP = 2_000  # items; more of them are looked up in a thread, so that nobody waits for it
EVENT_QUEUE_REQUESTS = 10  # requests of the most events that one may have
READY_SECONDS = 1.0  # that the store's last word is believed
CHECK_SECONDS = 2.0
ATTEMPTS = 5  # at an answer, while the events that it is computed from are erased or reordered
FAILED_SECONDS = 5.0  # for which a store that could not keep events is not tried by those who ask whether it is ready


@dataclass(frozen=True)
class Parts:
    """Parts of the service.

    Attributes:
        engine: answers.
        users: keeps events and answers about stored users.
        store: where the events are.
        items: search in the catalogue, and titles.
        bundles: which come and go, and are the same after a restart.
        keys: of clients; None: only this machine.
        lock: of the folder of the state; given up when the service is closed.
    """

    engine: Engine
    users: Users
    store: EventStore
    items: ItemSearch
    bundles: BundleOperations
    keys: Keys | None
    lock: FileLock | None = None


@dataclass(frozen=True)
class _Job:
    """A question, or (with a task) one about the contribution of each event."""

    prepared: Prepared
    task: str | None = None


class Service:
    """The service, without HTTP.

    Args:
        parts: what it is made of.
        config: limits and waits.
        log: for events of the service.
        metrics: its counters.
    """

    def __init__(
        self, parts: Parts, config: ServeConfig, log: Log | None = None, metrics: Metrics | None = None
    ) -> None:
        self.parts, self.config, self.limits = parts, config, config.limits
        self.log = log or Log()
        self.metrics = metrics or Metrics()
        self.stopping = self._closed = False
        self.bundles = parts.bundles
        self._answers = Batcher[_Job, Answer | Explanation](
            self._run, max_rows=config.engine.batch_size, max_queue=self.limits.queue, max_wait=config.wait_ms / 1000,
            observe=self.metrics.observer("answers"),
        )  # fmt: skip
        self._events = Batcher[list[Event], list[bool]](
            self._append, max_rows=self.limits.events, max_queue=EVENT_QUEUE_REQUESTS * self.limits.events,
            observe=self.metrics.observer("events"),
        )  # fmt: skip
        self._threads = BoundedThreadPool(self.limits.queue)
        self.follower = ErasureFollower(parts.users, self.log)
        self._loads = Batcher[Callable[[], Any], Any](_run_each, max_rows=1, max_queue=8)
        self.hanging = False  # whether a thread had to be left behind at the end
        self._checked_at = self._failed_at = -math.inf  # when the store was asked, and when it could not keep events
        self._ready = False
        self.metrics.watch(self._gauges, self._queues, parts.engine.versions, self._references)

    # ------------------------------------------------------------ questions

    async def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer questions about users whose events are given; all of them, or an error."""
        return await self._current(lambda: self._answer(requests))

    async def _answer(self, requests: Sequence[Request]) -> list[Answer]:
        self.bundles.check_questions([request.question for request in requests])
        prepare = self.parts.engine.prepare
        if sum(len(request.items) for request in requests) > MAX_ITEMS_ON_LOOP:
            prepared = await self.call(lambda: [prepare(request) for request in requests])
        else:
            prepared = [prepare(request) for request in requests]
        return await self._ask([_Job(prepared_question) for prepared_question in prepared])

    async def answer_user(self, user: str, question: Question) -> Answer:
        """Answer a question about a stored user.

        The events are read here, not in the thread of the answers: a store that hangs holds up nobody else.
        """
        return (await self._current(lambda: self._answer_user(user, question)))[0]

    async def _answer_user(self, user: str, question: Question) -> list[Answer]:
        self.bundles.check_questions([question])
        users = self.parts.users
        prepared = users.prepare(user, question)
        for _ in range(ATTEMPTS):
            fetched = await self.call(partial(users.fetch, prepared))
            answers = await self._ask([_Job(fetched)])
            # Only a moment ago, if at all: who asked is answered by what is stored now, not by what was erased.
            if not users.erased_since(fetched) or not await self.call(partial(users.outdated, fetched)):
                return answers
        raise StoreError("changes all the time", remedy="try again")

    async def explain(self, request: Request, task: str) -> Explanation:
        """Explain an answer by the contribution of each event."""
        return (await self._current(lambda: self._explain_once(request, task)))[0]

    async def _explain_once(self, request: Request, task: str) -> list[Explanation]:
        self.bundles.check_questions([request.question])
        prepared = self.parts.engine.prepare(request)
        jobs = [(_Job(prepared, task), len(request.items) + 1)]
        return cast("list[Explanation]", await self._in_time(self._answers.submit(jobs), "explain fewer events"))

    async def _current(self, ask: Callable[[], Awaitable[list[AnswerT]]]) -> list[AnswerT]:
        """Ask, and once more where replicas have withdrawn a version in the meantime.

        Raises:
            ApiError: it cannot be told whether a version is the current one (503).
        """
        answers = await ask()
        try:
            self.bundles.check_answers(answers)
        except ApiError:
            answers = await ask()
            self.bundles.check_answers(answers)
        return answers

    async def _ask(self, jobs: list[_Job]) -> list[Answer]:
        self._check_size([job.prepared for job in jobs])
        answers = await self._in_time(
            self._answers.submit([(job, job.prepared.rows) for job in jobs]), "ask fewer tasks or users at once"
        )
        return cast("list[Answer]", answers)

    def _check_size(self, prepared: list[Prepared]) -> None:
        """Refuse what one request may not ask for, however small it is itself.

        Raises:
            RequestError: too many rows, or items of answers.
        """
        sizes = {
            "users times tasks": (sum(question.rows for question in prepared), self.limits.rows),
            "items to answer with": (sum(question.answer_items for question in prepared), self.limits.answer_items),
        }
        for name, (size, limit) in sizes.items():
            if size > limit:
                raise RequestError(
                    f"{name}: {size:,} asked for, at most {limit:,} are allowed in a request",
                    remedy="ask for fewer users, tasks or items at once",
                )

    def _run(self, jobs: list[_Job]) -> list[Answer | Explanation | Exception]:
        questions = [job.prepared for job in jobs if job.task is None]
        answers = iter(self._run_together(questions))
        return [next(answers) if job.task is None else self._explain(job) for job in jobs]

    def _run_together(self, prepared: list[Prepared]) -> list[Answer | Exception]:
        """Answer together; where that fails, one by one, so that questions without a fault have an answer."""
        run = self.parts.users.run
        try:
            answers: list[Answer | Exception] = list(run(prepared)) if prepared else []
        except Exception as error:
            if len(prepared) == 1:
                return [error]
            return [answer for question in prepared for answer in self._run_together([question])]
        self.metrics.store_errors.inc(sum(isinstance(answer, StoreError) for answer in answers))
        references = self._references()
        for answer in answers:
            if isinstance(answer, Answer):
                self.metrics.answers.count(answer, references)
        return answers

    def _references(self) -> dict[str, Reference]:
        return references_of(self.parts.engine.snapshot)

    def _explain(self, job: _Job) -> Explanation | Exception:
        assert job.task is not None
        try:
            return self.parts.users.explain(job.prepared, job.task)
        except Exception as error:
            return error

    # ------------------------------------------------------------ users

    async def append(self, events: list[Event]) -> list[bool]:
        """Keep events, all of them or none; returns which of them are new, when they are durable."""
        results = await self._in_time(
            self._events.submit([(events, len(events))]),
            "send the same again: some may have been kept, and none is kept twice",
        )
        self.metrics.stored.inc(sum(results[0]))
        self.metrics.duplicates.inc(len(events) - sum(results[0]))
        return results[0]

    def _append(self, jobs: list[list[Event]]) -> list[list[bool]]:
        """Keep the events of several requests in one transaction."""
        try:
            new = self.parts.users.append([event for job in jobs for event in job])
        except StoreError:
            self._failed_at = time.monotonic()
            self.metrics.store_errors.inc()
            raise
        self._failed_at = -math.inf
        ends, start = [], 0
        for job in jobs:
            ends.append(new[start : start + len(job)])
            start += len(job)
        return ends

    async def read(self, user: str) -> Read:
        """Return the events of a user."""
        return await self.call(lambda: self.parts.users.read(user))

    async def erase(self, user: str) -> Erased:
        """Erase all that is known of a user; no service has a copy of it in memory when this returns."""
        erased = await self.call(lambda: self.parts.users.erase(user))
        waiting = self.follower.wait_for_readers(self.call)
        await self._in_time(waiting, "ask again: the events are erased, but a service may still have a copy of them")
        return erased

    async def set_opt_out(self, user: str, task: str, *, opted_out: bool) -> frozenset[str]:
        """Keep whether a task is not to be answered about a user, and return all that are not."""
        return await self.call(lambda: self.parts.users.set_opt_out(user, task, opted_out=opted_out))

    async def erasures(self) -> Erasures:
        """Return what is to be known of all erasures."""
        return await self.call(self.parts.store.erasures)

    def in_catalogue(self, items: Sequence[ItemId]) -> list[bool]:
        """Return which items the catalogue has."""
        return [place != UNK for place in self.parts.engine.model.catalogue.find(items)]

    def check_features(self, events: Sequence[Event]) -> None:
        """Refuse events with a feature that the model reads and that cannot be one.

        Raises:
            RequestError: the message has the value.
        """
        encoder = self.parts.engine.encoder
        for event in events:
            wrong = None if encoder is None else encoder.wrong_value(event.features)
            if wrong is not None:
                raise RequestError(wrong, remedy="send a number, or leave it out: then it is missing")

    # ------------------------------------------------------------ around

    async def call(self, work: Callable[[], T]) -> T:
        """Run something in the threads for what is neither the network nor new events."""
        try:
            return await self._in_time(self._threads.run(work), "try again")
        except StoreError:
            self.metrics.store_errors.inc()
            raise

    async def change(self, work: Callable[[], T]) -> T:
        """Change the bundles, one change at a time; what has begun is done, whether or not the client waits."""
        return cast("T", (await self._loads.submit([(work, 1)]))[0])

    async def _in_time(self, work: Awaitable[T], remedy: str) -> T:
        seconds = self.limits.answer_seconds
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise too_slow(seconds, remedy) from None

    async def ready(self) -> bool:
        """Return whether events can be kept and questions answered.

        The store may have room for a check and not for events, so that events that it could not keep count too.
        """
        if self.stopping or time.monotonic() - self._failed_at < FAILED_SECONDS:
            return False
        if time.monotonic() - self._checked_at >= READY_SECONDS:
            self._checked_at = time.monotonic()
            self._ready = await self._check()
        return self._ready

    async def _check(self) -> bool:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self.call(self.parts.store.check)
        except (PeterRecError, TimeoutError):
            return False
        except Exception as error:
            self.log.failure("store", error)
            return False
        return True

    async def close(self) -> None:
        """Finish what was taken on, keep all events, and close the store; once."""
        if self._closed:
            return
        self._closed = self.stopping = True
        for queue in (self._answers, self._events, self._threads):
            await queue.close()
        try:
            await asyncio.wait_for(self._loads.close(), self.limits.shutdown_seconds)
        except TimeoutError:  # such as a folder on a disk that hangs
            self.hanging = True
        self.bundles.close()
        await self.follower.close()
        self.parts.store.close()
        if self.parts.lock is not None:
            self.parts.lock.release()
        self.log.write("stopped")

    def _queues(self) -> dict[str, int]:
        return {"answers": self._answers.queued_rows, "events": self._events.queued_rows}

    def _gauges(self) -> dict[str, tuple[str, float]]:
        service_gauges = {
            "up": ("Always 1.", 1.0),
            "ready": (
                "Whether the store answered when last asked, and the service is not stopping.",
                self._is_ready(),
            ),
            "erasures_pending": ("Erased users that files may still hold.", float(self.follower.pending)),
            "bundles_failed": ("Bundles that could not be loaded after a restart.", float(len(self.bundles.failed))),
        }
        generation = self.bundles.generation
        if generation is not None:
            about = "Last change of the replicas' registry of bundles that was made here."
            service_gauges["bundles_generation"] = about, float(generation)
        stats = self.parts.users.stats()
        return service_gauges | {
            f"users_{name}": ("Of users in memory.", float(value)) for name, value in stats.items()
        }

    def _is_ready(self) -> float:
        return float(self._ready and not self.stopping)


def _run_each(jobs: list[Callable[[], Any]]) -> list[Any]:
    return [job() for job in jobs]
