"""Log of the service: a JSON line for each request and event, by the standard library; nothing about users."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Any, TextIO

MAX_WAITING = 10_000  # lines
FLUSH_SECONDS = 1.0
CHECK_SECONDS = 0.005
# Of the server about a request for an upgrade, which is answered as if it did not ask; no client fills the log so.
UPGRADE_ADVICE = ("Unsupported upgrade request", "No supported WebSocket library")
REPEAT_SECONDS = 10.0  # between two lines of the server with the same message
MAX_MESSAGES = 1_000  # that are remembered for it


class JsonFormatter(logging.Formatter):
    """Formatter of a record as JSON: time, level, event and the record's `fields`.

    Of an error it gives the type and the places, not the text, which may quote what a user sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        created = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": created.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            frames = traceback.extract_tb(error.__traceback__)[-12:]
            places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
            line |= {"error": type(error).__name__, "places": places}
        return json.dumps(line | getattr(record, "fields", {}), default=str)


class MemoryHandler(logging.StreamHandler[TextIO]):
    """Handler that writes to a stream that is no file, at once."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Ignore the error: the stream is closed, or there is none."""


class FileHandler(logging.Handler):
    """Handler that writes to a file descriptor, past Python's buffers: a thread that holds one keeps a process alive.

    It has no lock, since only the listener's thread writes: at the end `logging` would wait for a lock that is held by
    a thread whose line nobody reads.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def createLock(self) -> None:  # noqa: N802
        """Make no lock: the listener's thread is the only one that writes."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a line; on a full disk or a closed pipe the service goes on."""
        with contextlib.suppress(OSError, ValueError):
            remaining = memoryview(f"{record.getMessage()}\n".encode())
            while remaining:
                remaining = remaining[os.write(self._stream.fileno(), remaining) :]
        return True


class BoundedQueueHandler(QueueHandler):
    """Handler that hands lines to a listener's thread; past the most that may wait they are dropped and counted.

    Args:
        max_waiting: lines.
    """

    queue: queue.SimpleQueue[logging.LogRecord]

    def __init__(self, max_waiting: int) -> None:
        super().__init__(queue.SimpleQueue())
        self.setFormatter(JsonFormatter())
        self._max_waiting = max_waiting
        self._guard = threading.RLock()  # a signal may come while it is held
        self._dropped = 0
        self.waiting = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put a line in the queue, or count it as dropped."""
        with self._guard:
            if self.waiting >= self._max_waiting:
                self._dropped += 1
                return
            self._report_dropped()
            self._put(record)

    def count_written(self) -> None:
        """Make room for another line."""
        with self._guard:
            if self.waiting == 1:
                self._report_dropped()
            self.waiting -= 1

    def _report_dropped(self) -> None:
        if self._dropped:
            fields = {"message": "nobody read the log in time", "lost": self._dropped}
            self._put(self.prepare(_record("log", logging.WARNING, fields)))
            self._dropped = 0

    def _put(self, record: logging.LogRecord) -> None:
        self.waiting += 1
        self.queue.put(record)


class _Listener(QueueListener):
    def __init__(self, source: BoundedQueueHandler, *handlers: logging.Handler) -> None:
        super().__init__(source.queue, *handlers)
        self._source = source

    def handle(self, record: logging.LogRecord) -> None:
        super().handle(record)
        self._source.count_written()


class Log:
    """Log of JSON lines; writing one never waits for the reader of the log.

    Args:
        stream: to write to; standard error if not given. One in memory is written to at once, others by a thread.
        max_waiting: lines.
    """

    def __init__(self, stream: TextIO | None = None, max_waiting: int = MAX_WAITING) -> None:
        stream = stream or sys.stderr
        self._queue: BoundedQueueHandler | None = None
        try:
            stream.fileno()
        except (OSError, ValueError, AttributeError):  # in memory, closed, or none at all
            self._handler: logging.Handler = MemoryHandler(stream)
            self._handler.setFormatter(JsonFormatter())
            return
        self._handler = self._queue = BoundedQueueHandler(max_waiting)
        _Listener(self._queue, FileHandler(stream)).start()
        atexit.register(self.flush)

    def write(self, event: str, level: str = "info", **fields: Any) -> None:
        """Write a line: time, level, event and the fields."""
        self._handler.handle(_record(event, logging.getLevelNamesMapping()[level.upper()], fields))

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        """Write where something failed, without the error's text: it may quote what a user sent."""
        self._handler.handle(_record(event, logging.ERROR, fields, error))

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until all lines are written, but not for ever where they are not read."""
        end = time.monotonic() + seconds
        while self._queue is not None and self._queue.waiting and time.monotonic() < end:
            time.sleep(CHECK_SECONDS)


def _record(event: str, level: int, fields: dict[str, Any], error: BaseException | None = None) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord(__name__, level, "", 0, event, None, exc_info)
    record.fields = fields
    return record


class ServerLogHandler(logging.Handler):
    """Handler that writes the records of the HTTP server and of the event loop as JSON lines too.

    Args:
        log: to write to.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        # Of each message and kind of error: when it was written, and how often not since.
        self._repeats: dict[tuple[str, type | None], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record: its template, without its arguments; the same one no more than once in some seconds."""
        if str(record.msg).startswith(UPGRADE_ADVICE):
            return
        lines = str(record.msg).splitlines()
        fields: dict[str, Any] = {"logger": record.name, "message": lines[0][:200] if lines else ""}
        error = record.exc_info[1] if record.exc_info else None
        key = fields["message"], None if error is None else type(error)
        written, suppressed = self._repeats.get(key, (-math.inf, 0))
        if record.created - written < REPEAT_SECONDS:
            self._repeats[key] = written, suppressed + 1
            return
        if len(self._repeats) >= MAX_MESSAGES:
            self._repeats.clear()
        self._repeats[key] = record.created, 0
        fields |= {"more": suppressed} if suppressed else {}
        if error is not None:
            self._log.failure("server", error, **fields)
        else:
            self._log.write("server", record.levelname.lower(), **fields)


def redirect_server_logs(log: Log) -> None:
    """Redirect the loggers of the server and of asyncio to `log`."""
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [ServerLogHandler(log)]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False


class EngineLines(logging.Handler):
    """Handler that writes the log of the engine as lines of the service.

    Args:
        log: to write to.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self._log.write("engine", record.levelname.lower(), message=record.getMessage())


@contextmanager
def engine_log_shown(log: Log) -> Iterator[None]:
    """Write what the engine logs within the block as lines of the service, and only there."""
    logger, handler = logging.getLogger("peterrec.serving"), EngineLines(log)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
