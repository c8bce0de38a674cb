"""The command line in processes of their own, forked from one that has imported it: a tenth of a second to start."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

CONTEXT = multiprocessing.get_context("forkserver")
PRELOAD = ["forked", "peterrec.cli.main", "peterrec.serving.http.serve"]


class ForkedCommand:
    """A running `peterrec ARGUMENTS...`, with what `subprocess.Popen` offers.

    Args:
        arguments: of the command line.
        limits: of resources, by the name that the module `resource` has for them.
        hangup: how it takes SIGHUP: not as the tests have it, for under nohup they ignore it.
        environment: variables that it gets beside those of the tests.

    Attributes:
        stderr: its standard error, as text, to its end.
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        limits: Mapping[str, int] | None = None,
        hangup: signal.Handlers = signal.SIG_DFL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            pipe = Path(folder) / "stderr"
            os.mkfifo(pipe)
            options = (arguments, str(pipe), dict(limits or {}), int(hangup), dict(environment or {}))
            CONTEXT.set_forkserver_preload(PRELOAD)  # here: tests/paper/worker.py has a list of its own
            self._process = CONTEXT.Process(target=_run, args=options)
            self._process.start()
            self.stderr: IO[str] = pipe.open()  # waits for the other end
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait for its end; returns the exit status."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("peterrec", timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _run(
    arguments: list[str], pipe: str, limits: dict[str, int], hangup: int, environment: dict[str, str]
) -> None:  # pragma: no cover - in another process
    descriptor = os.open(pipe, os.O_WRONLY)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    os.environ.update(environment)
    signal.signal(signal.SIGHUP, signal.Handlers(hangup))
    for name, size in limits.items():
        resource.setrlimit(getattr(resource, name), (size, size))

    from peterrec.cli.main import run

    sys.argv = ["peterrec", *arguments]
    try:
        run()
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends its processes without
