"""Processes that do units of a grid: side by side, none of them outliving the one that started them for long.

Why not the executor of loky (joblib) or of concurrent.futures:
- A worker that is killed breaks the whole executor, and all units that run are lost. Here one unit fails, and says so.
- Their exception says how workers died, but not which unit the dead one had: all that ran would have to be tried again.
- Stopping kills loky's workers at once. Here they get SIGTERM and time to save a resume point.
- Their workers do not look whether the parent is still there while they are busy. Here they end with it.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import TYPE_CHECKING, Any

from peterrec.errors import InterruptedRun
from peterrec.process import tune_process

if TYPE_CHECKING:  # torch must not be imported before a worker has set its threads
    from peterrec.experiments.grid.run_cell import Job
    from peterrec.experiments.grid.run_unit import Outcome

RETRY_SECONDS = 0.02  # seconds until a signal is tried again
GRACE = 15.0  # seconds to save a resume point in, when told to stop
SPAWN = multiprocessing.get_context("spawn")  # a fork of a process with threads of torch and DuckDB may hang


class SameProcess:
    """Worker in this process, which does one job at a time."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()

    @property
    def free(self) -> int:
        """Number of jobs that may be started now: 1, or 0 while there is a job."""
        return 1 - len(self._jobs)

    def start(self, job: Job) -> None:
        """Take the job."""
        self._jobs.append(job)

    def results(self, timeout: float) -> list[tuple[Job, Outcome]]:
        """Run the job to its end, and return it with its result."""
        job = self._jobs.popleft()
        return [(job, _do(job))]

    def close(self) -> None:
        """Return at once: there is no other process."""


@dataclass
class _Worker:
    process: Any
    connection: Connection
    job: Job | None = None


class WorkerProcesses:
    """Worker processes, each with its share of the cores.

    Args:
        count: how many processes at most; each is started when it is first needed.
        threads: of each.
    """

    def __init__(self, count: int, threads: int) -> None:
        self.count = count
        self.threads = threads
        self._workers: list[_Worker] = []

    @property
    def free(self) -> int:
        """Number of jobs that may be started now."""
        return self.count - sum(worker.job is not None for worker in self._workers)

    def start(self, job: Job) -> None:
        """Start a job in a process that has none."""
        alive = (worker for worker in self._workers if worker.job is None and worker.process.is_alive())
        worker = next(alive, None) or self._new()
        worker.job = job
        with contextlib.suppress(OSError):  # it died just now: `results` finds that out
            worker.connection.send(job)

    def _new(self) -> _Worker:
        parent_end, worker_end = SPAWN.Pipe()
        process = SPAWN.Process(target=_work, args=(worker_end, self.threads), daemon=True)
        process.start()
        worker_end.close()
        self._workers.append(_Worker(process, parent_end))
        return self._workers[-1]

    def results(self, timeout: float) -> list[tuple[Job, Outcome]]:
        """Wait until something is done, or for so many seconds; return what is. A process that died has failed."""
        busy = {worker.connection: worker for worker in self._workers if worker.job is not None}
        finished = []
        for connection in wait(list(busy), timeout):
            worker = busy[connection]  # type: ignore[index]
            job, worker.job = worker.job, None
            assert job is not None
            try:
                finished.append((job, worker.connection.recv()))
            except (EOFError, OSError):
                finished.append((job, self._died(worker)))
        return finished

    def _died(self, worker: _Worker) -> Outcome:
        self._workers.remove(worker)
        worker.process.join(GRACE)
        code = worker.process.exitcode
        ending = (
            f"its process died of signal {-code}" if code is not None and code < 0 else f"its process ended ({code})"
        )
        remedy = "it may have needed more memory than there is: run again with fewer --jobs"
        outcome: type[Outcome] = importlib.import_module("peterrec.experiments.grid.run_unit").Outcome
        return outcome("failed", f"{ending}\n  What to do: {remedy}", 0.0)

    def close(self) -> None:
        """Stop all workers; they have a moment to save their resume points."""
        for worker in self._workers:
            worker.connection.close()  # ends those that wait for a job
            if worker.job is not None:
                worker.process.terminate()
        deadline = time.monotonic() + GRACE
        for worker in self._workers:
            worker.process.join(max(0.1, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


def _do(job: Job) -> Outcome:
    outcome: Outcome = importlib.import_module("peterrec.experiments.grid.run_unit").do(job)
    return outcome


def _work(connection: Connection, threads: int) -> None:
    """Run jobs as they come, until the other end is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent says what happens
    signals: list[int] = []
    stop = raising_handler(SystemExit(128 + signal.SIGTERM))

    def stop_at(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        stop(number, frame)

    signal.signal(signal.SIGTERM, stop_at)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    tune_process()
    importlib.import_module("torch").set_num_threads(threads)
    try:
        while True:
            connection.send(_do(connection.recv()))
    except (InterruptedRun, EOFError, OSError):
        pass  # it was told to stop, and what it can go on from is saved; or nobody is at the other end
    except BaseException:
        # Where the signal hit, its error may have become another one: whoever asked it to stop need not read that.
        if not signals:
            raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # nobody would read what comes; what is written appears whole or not at all


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Raise KeyboardInterrupt for SIGTERM too, and never where Python would only print it, where signals can be."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handler in before.items():
            if number == signal.SIGTERM or handler is signal.default_int_handler:  # not where it is ignored
                signal.signal(number, raising_handler(KeyboardInterrupt()))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raising_handler(error: BaseException) -> Callable[[int, FrameType | None], None]:
    """Return a handler that raises an error; in a finaliser, where it would be lost, it waits until that is over."""

    def handle(number: int, frame: FrameType | None) -> None:
        enclosing = frame
        while enclosing is not None:
            if enclosing.f_code.co_name == "__del__":
                timer = threading.Timer(RETRY_SECONDS, os.kill, (os.getpid(), number))
                timer.daemon = True
                timer.start()
                return
            enclosing = enclosing.f_back
        raise error

    return handle


Workers = SameProcess | WorkerProcesses
