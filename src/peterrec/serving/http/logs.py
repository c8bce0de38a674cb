"""One JSON line for each request and each event of the service; nothing about users."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO


class Log:
    """Writes lines of JSON.

    Args:
        stream: to write to; standard error if not given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, event: str, level: str = "info", **fields: Any) -> None:
        """Write a line: time, level, event and what else is given."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": time, "level": level, "event": event} | fields, default=str)
        stream = self._stream or sys.stderr
        try:
            with self._lock:
                stream.write(line + "\n")
                stream.flush()
        except (OSError, ValueError):  # nobody reads it (a full disk, a closed pipe): the service goes on
            return

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        """Write what failed where, without the error's text: it may quote what a user sent."""
        places = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        self.write(event, "error", error=type(error).__name__, places=places[-12:], **fields)


class ServerLines(logging.Handler):
    """Puts what the HTTP server and the event loop report into the same form.

    Args:
        log: to write to.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record: its template, not what was filled in."""
        said = str(record.msg).splitlines()
        fields = {"logger": record.name, "message": said[0][:200] if said else ""}
        error = record.exc_info[1] if record.exc_info else None
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
