"""Processes that do units of a grid: side by side, none of them outliving the one that started them for long.

Each worker is an executor with one process. A process that is killed breaks its executor, which loses all that it runs:
here that is one unit, and it is known which. Executors neither tell workers to save a resume point when they are to
stop, nor let them end with their parent while they are busy: SIGTERM and a thread do that.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from peterrec.errors import InterruptedRun
from peterrec.process import tune_process  # nothing here imports torch: a worker sets its threads first

RETRY_SECONDS = 0.02  # seconds until a signal is tried again
GRACE = 15.0  # seconds to save a resume point in, when told to stop
SPAWN = multiprocessing.get_context("spawn")  # a fork of a process with threads of torch and DuckDB may hang

T = TypeVar("T")
JobT = TypeVar("JobT")


class Worker:
    """Worker that does one job at a time.

    Args:
        threads: of its own process, which is started when it is first needed, and anew when it died; None: jobs are
            done in this process.

    Attributes:
        busy: whether it has a job.
        processes: its own process, once it is started.
    """

    def __init__(self, threads: int | None) -> None:
        self.threads = threads
        self.busy = False
        self.processes: list[BaseProcess] = []
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, work: Callable[[JobT], T], job: JobT) -> Future[T]:
        """Start a job; in this process do it."""
        self.busy = True
        if self.threads is None:
            future: Future[T] = Future()
            future.set_result(work(job))
            return future
        if self._executor is not None:
            with contextlib.suppress(BrokenProcessPool):
                return self._executor.submit(work, job)
        self._executor = ProcessPoolExecutor(1, SPAWN, start_worker, (self.threads,))
        before = multiprocessing.active_children()
        try:
            return self._executor.submit(work, job)
        finally:
            self.processes = [process for process in multiprocessing.active_children() if process not in before]

    def death(self, error: BaseException) -> str:
        """Return what became of the process, where a job ended with an error."""
        if not isinstance(error, BrokenProcessPool):
            return f"its process was stopped ({type(error).__name__})"
        self.close()  # waits for it
        code = self.processes[0].exitcode if self.processes else None
        ending = f"its process ended ({code})"
        if code is not None and code < 0:
            ending = f"its process died of signal {-code}"
        return f"{ending}\n  What to do: it may have needed more memory than there is: run again with fewer --jobs"

    def close(self) -> None:
        """End the process, after its job."""
        if self._executor is not None:
            self._executor.shutdown()


def stop(workers: Sequence[Worker], running: Iterable[Future[Any]]) -> None:
    """Stop all workers; those that have a job have a moment to save its resume point."""
    busy = [process for worker in workers if worker.busy for process in worker.processes]
    for process in busy:
        process.terminate()
    try:
        wait(running, GRACE)
    finally:
        for process in busy:
            process.kill()
        for worker in workers:
            worker.close()


def start_worker(threads: int) -> None:
    """Make this process ready for jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent says what happens
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    tune_process(alone=False)
    importlib.import_module("torch").set_num_threads(threads)
    importlib.import_module("peterrec.experiments.grid.run_unit")  # before a signal could hit an import
    signal.signal(signal.SIGTERM, raising_handler(SystemExit(128 + signal.SIGTERM)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # nobody would read what comes; what is written appears whole or not at all


@contextlib.contextmanager
def stoppable(out: Path) -> Iterator[None]:
    """Raise `InterruptedRun` for Ctrl-C and SIGTERM, and never where Python would only print it.

    In another thread than the main one signals are left as they are.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if in_main_thread}
    try:
        for number, handler in before.items():
            if number == signal.SIGTERM or handler is signal.default_int_handler:  # not where it is ignored
                signal.signal(number, raising_handler(KeyboardInterrupt()))
        yield
    except (KeyboardInterrupt, InterruptedRun) as error:
        raise InterruptedRun("stopped by the user", remedy="run the same command again to go on", path=out) from error
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
