"""The lines that the library logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Collector(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(("warning: " if record.levelno >= logging.WARNING else "") + record.getMessage())


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """Collect what is logged within the block; a warning is `warning: ` and its text."""
    lines: list[str] = []
    logger, handler = logging.getLogger("peterrec"), _Collector(lines)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
