"""One JSON line for each request and each event of the service; nothing about users."""

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
from datetime import UTC, datetime
from typing import Any, TextIO

MOST_WAITING = 10_000  # lines
FLUSH_SECONDS = 1.0
CHECK_SECONDS = 0.005
SAME_SECONDS = 10.0  # between two lines of the server that say the same
MOST_MESSAGES = 1_000  # that are remembered for it


class Log:
    """Writes lines of JSON; nobody waits for who reads them.

    A thread writes them, where they go to a file, a pipe or a terminal. Lines past the most that may wait are dropped,
    and a line says how many.

    Args:
        stream: to write to; standard error if not given. In memory it is written to at once.
        most: lines that may wait.
    """

    def __init__(self, stream: TextIO | None = None, most: int = MOST_WAITING) -> None:
        self._stream, self._most = stream, most
        self._lock = threading.RLock()  # a signal may come while it is held
        self._waiting: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._accepted = self._written = self._dropped = 0
        self._started = False

    def write(self, event: str, level: str = "info", **fields: Any) -> None:
        """Write a line: time, level, event and what else is given."""
        line = _line(event, level, fields)
        stream = self._stream or sys.stderr
        try:
            file = stream.fileno()
        except (OSError, ValueError, AttributeError):  # in memory, closed, or none at all
            self._write_now(stream, line)
            return
        with self._lock:
            if self._accepted - self._written >= self._most:
                self._dropped += 1
                return
            self._say_dropped(file)
            self._put(file, line)

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until all lines are written, but not for ever for who does not read them."""
        end = time.monotonic() + seconds
        while self._accepted > self._written and time.monotonic() < end:
            time.sleep(CHECK_SECONDS)

    def _put(self, file: int, line: str) -> None:
        if not self._started:
            self._started = True
            threading.Thread(target=self._write_all, name="log", daemon=True).start()
            atexit.register(self.flush)
        self._accepted += 1
        self._waiting.put((file, line))

    def _say_dropped(self, file: int) -> None:
        if self._dropped:
            self._put(file, _line("log", "warning", {"message": "nobody read the log in time", "lost": self._dropped}))
            self._dropped = 0

    def _write_all(self) -> None:
        while True:
            file, line = self._waiting.get()
            # Past Python's own buffers: it cannot end while a thread holds one.
            left = memoryview(line.encode())
            try:
                while left:
                    left = left[os.write(file, left) :]
            except OSError:  # a full disk, a closed pipe: the service goes on
                pass
            with self._lock:
                if self._written + 1 == self._accepted:
                    self._say_dropped(file)
                self._written += 1

    def _write_now(self, stream: TextIO, line: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError, AttributeError):
            stream.write(line)
            stream.flush()

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        """Write what failed where, without the error's text: it may quote what a user sent."""
        places = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        self.write(event, "error", error=type(error).__name__, places=places[-12:], **fields)


def _line(event: str, level: str, fields: dict[str, Any]) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": now, "level": level, "event": event} | fields, default=str) + "\n"


class ServerLines(logging.Handler):
    """Puts what the HTTP server and the event loop report into the same form.

    Args:
        log: to write to.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        # Of each message and kind of error: when it was written, and how often not since.
        self._repeats: dict[tuple[str, type | None], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record: its template, not what was filled in; the same one no more than once in some seconds."""
        said = str(record.msg).splitlines()
        fields: dict[str, Any] = {"logger": record.name, "message": said[0][:200] if said else ""}
        error = record.exc_info[1] if record.exc_info else None
        key = fields["message"], None if error is None else type(error)
        written, more = self._repeats.get(key, (-math.inf, 0))
        if record.created - written < SAME_SECONDS:
            self._repeats[key] = written, more + 1
            return
        if len(self._repeats) >= MOST_MESSAGES:
            self._repeats.clear()
        self._repeats[key] = record.created, 0
        fields |= {"more": more} if more else {}
        if error is not None:
            self._log.failure("server", error, **fields)
        else:
            self._log.write("server", record.levelname.lower(), **fields)


def take_over(log: Log) -> None:
    """Let the loggers of the server and of asyncio write to `log`."""
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [ServerLines(log)]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False


class EngineLines(logging.Handler):
    """Writes the log of the engine as lines of the service.

    Args:
        log: to write to.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self._log.write("engine", record.levelname.lower(), message=record.getMessage())


def show_engine_log(log: Log) -> None:
    """Let the loggers of `peterrec.serving` write to `log`."""
    logger = logging.getLogger("peterrec.serving")
    logger.handlers = [EngineLines(log)]
    logger.setLevel(logging.INFO)
