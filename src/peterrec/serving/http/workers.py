"""Several processes (workers) that answer at one address; the one that starts them restarts those that end."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any, cast

from peterrec.config import ServeConfig
from peterrec.errors import PeterRecError
from peterrec.serving.http.logs import Log
from peterrec.serving.keys import Keys
from peterrec.serving.replicas.readers import NO_COPIES
from peterrec.serving.state_folder import WORKER_METRICS

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

CONTEXT = multiprocessing.get_context("spawn")  # nothing of torch's threads is inherited
LOOK_SECONDS = 0.1  # between two looks at signals
RESTART_SECONDS = 1.0  # before a worker that could not start is started again
END_SECONDS = 5.0  # beyond `limits.shutdown_seconds`, twice: requests in flight, then what is being loaded
SIGNAL_EXIT_STATUS = 128  # plus the signal: the exit status that shells use
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client keeps the counters of all workers


@dataclass(frozen=True)
class WorkerPlan:
    """All that a worker is started with.

    Attributes:
        backbone: folder of it.
        bundle_folders: folders of the bundles of the command line by name.
        config: settings of the service.
        keys: of clients.
        followed: erasures that each worker has followed.
        number: of this worker, from 0.
    """

    backbone: str
    bundle_folders: dict[str, str]
    config: ServeConfig
    keys: Keys | None
    followed: MutableSequence[int]
    number: int = 0

    @property
    def state(self) -> Path:
        """Folder of state, which all workers share."""
        return Path(self.config.state)


Work = Callable[[WorkerPlan, socket, Callable[[dict[str, Any]], None]], None]


@dataclass
class _Worker:
    """A worker as its parent sees it."""

    process: SpawnProcess
    pipe: Connection
    report: dict[str, Any] | None = None
    error: PeterRecError | None = None


@dataclass
class Workers:
    """Workers of a service, from the first to the last.

    Args:
        plan: of all of them.
        listener: socket that each accepts connections from.
        work: runs in a worker until a signal ends it; told what to call, with a report, when it answers.
        log: gets a line for each worker that ends.
    """

    plan: WorkerPlan
    listener: socket
    work: Work
    log: Log
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _signals: list[int] = field(default_factory=list)
    _started: bool = False

    def run(self, started: Callable[[dict[str, Any]], None]) -> None:
        """Start all workers, and keep as many until a signal comes; they finish the requests in flight then.

        Args:
            started: called with the report of a worker when all of them answer.

        Raises:
            PeterRecError: a worker could not start; the others are ended.
        """
        os.environ[METRICS_VARIABLE] = str(new_metrics_folder(self.plan.state))
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            numbers.append(signal.SIGHUP)
        for number in numbers:
            signal.signal(number, lambda received, _: self._signals.append(received))
        try:
            for place in range(self.plan.config.workers):
                self._start(place)
            while not self._signals:
                self._look(started)
            self.log.write("stopping")
        finally:
            self._end()

    def _start(self, place: int) -> None:
        parent_end, worker_end = CONTEXT.Pipe()
        plan = WorkerPlan(**{**vars(self.plan), "number": place})
        process = CONTEXT.Process(
            target=_run, args=(self.work, plan, self.listener, worker_end), name=f"worker-{place}"
        )
        self.plan.followed[place] = NO_COPIES
        process.start()
        worker_end.close()
        self._workers[place] = _Worker(process, parent_end)

    def _look(self, started: Callable[[dict[str, Any]], None]) -> None:
        """Wait for a moment for what workers say, and for their end."""
        ready = wait([worker.process.sentinel for worker in self._workers.values()], LOOK_SECONDS)
        for worker in self._workers.values():
            _receive(worker)
        for place, worker in list(self._workers.items()):
            if worker.process.sentinel in ready and not self._signals:
                self._replace(place, worker)
        reports = [worker.report for worker in self._workers.values()]
        if not self._started and reports[0] is not None and all(report is not None for report in reports):
            self._started = True
            started(reports[0])

    def _replace(self, place: int, worker: _Worker) -> None:
        worker.process.join()
        self.plan.followed[place] = NO_COPIES  # what it had in memory is gone
        worker.pipe.close()
        if worker.error is not None and not self._started:
            raise worker.error
        message = None if worker.error is None else worker.error.message
        self.log.write("worker ended", "error", worker=place, status=worker.process.exitcode, message=message)
        if not self._started and worker.report is None:
            raise PeterRecError(
                "a worker ended before it answered", remedy="see its lines above, or its status in the log"
            )
        if worker.report is None:
            time.sleep(RESTART_SECONDS)
        self._start(place)

    def _end(self) -> None:
        """End all workers in order; a second SIGTERM or SIGINT ends them and this process at once."""
        before = len(self._signals)
        for worker in self._workers.values():
            worker.process.terminate()
        deadline = time.monotonic() + 2 * self.plan.config.limits.shutdown_seconds + END_SECONDS
        while any(worker.process.is_alive() for worker in self._workers.values()):
            repeated = [number for number in self._signals[before:] if number != signal.SIGHUP]
            if repeated or time.monotonic() > deadline:
                for worker in self._workers.values():
                    worker.process.kill()
            if repeated:
                self.log.flush(LOOK_SECONDS)
                os._exit(SIGNAL_EXIT_STATUS + repeated[0])
            time.sleep(LOOK_SECONDS)
        self.log.write("stopped")


def new_counts(workers: int) -> MutableSequence[int]:
    """Return a number in shared memory for each worker, as if each had ended."""
    return cast("MutableSequence[int]", CONTEXT.RawArray(ctypes.c_longlong, [NO_COPIES] * workers))


def new_metrics_folder(state: Path) -> Path:
    """Return an empty folder for the counters of the workers."""
    folder = state / WORKER_METRICS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _receive(worker: _Worker) -> None:
    with contextlib.suppress(EOFError, OSError):
        while worker.pipe.poll():
            kind, content = worker.pipe.recv()
            if kind == "started":
                worker.report = content
            else:
                worker.error = PeterRecError(*content[:1], remedy=content[1], path=content[2])


def _run(work: Work, plan: WorkerPlan, listener: socket, pipe: Connection) -> None:  # pragma: no cover - in a worker
    os.setsid()  # Ctrl-C in a terminal is for the parent, which passes it on
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    try:
        work(plan, listener, lambda report: pipe.send(("started", report)))
    except PeterRecError as error:
        pipe.send(("failed", (error.message, error.remedy, None if error.path is None else str(error.path))))
        raise SystemExit(1) from None


def _end_with_parent(pipe: Connection) -> None:  # pragma: no cover - in a worker
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()  # it sends nothing
    os.kill(os.getpid(), signal.SIGTERM)
