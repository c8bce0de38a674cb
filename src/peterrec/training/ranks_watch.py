"""Threads that end a rank when another has ended: none waits for ever for one that is gone."""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

INTERVAL = 0.2  # seconds between looks
GRACE = 10.0  # seconds for a rank to notice by itself, in an exchange, and to end with its own message

logger = logging.getLogger(__name__)


def watch_children(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End this process, and its children, some time after one of them has failed; wait for them before it ends.

    Args:
        children: ranks 1, 2, ... that this process started.
    """

    def failed() -> str | None:
        codes = [child.poll() for child in children]
        ended = [f"rank {rank} ended with status {code}" for rank, code in enumerate(codes, 1) if code]
        return ", ".join(ended) or None

    def end_children() -> None:
        deadline = time.monotonic() + GRACE
        for child in children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()

    def kill_children() -> None:
        for child in children:
            child.kill()

    atexit.register(end_children)
    _watch(failed, kill_children)


def watch_parent() -> None:
    """End this process some time after the one that started it."""
    parent = os.getppid()
    _watch(lambda: None if os.getppid() == parent else "the process that started this rank ended", lambda: None)


def _watch(problem: Callable[[], str | None], before_end: Callable[[], None]) -> None:
    def watch() -> None:
        while (ended := problem()) is None:
            time.sleep(INTERVAL)
        time.sleep(GRACE)
        logger.error(f"{ended}: continue with --resume")
        before_end()
        os._exit(1)  # the main thread may wait in an exchange that no signal ends

    threading.Thread(target=watch, name="watch of the ranks", daemon=True).start()
