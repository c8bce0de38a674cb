"""Starts services as forks of a process that has imported everything: a real process each, in a tenth of a second."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROGRAM = """
import json, os, signal, sys, time
import torch
from peterrec.cli.main import execute
from peterrec.serving.http import serve

def child(arguments, log, clock):
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
    now, offset = time.time, os.open(clock, os.O_RDONLY)
    time.time = lambda: now() + float(os.pread(offset, 32, 0) or 0)  # a clock that is moved while it runs
    os._exit(execute(["serve", *arguments]))

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        until = time.monotonic() + order["seconds"]
        while not (ended := os.waitpid(order["wait"], os.WNOHANG))[0]:
            if time.monotonic() > until:
                os.kill(order["wait"], signal.SIGKILL)
            time.sleep(0.01)
        print(ended[1], flush=True)
    else:
        pid = os.fork()
        if not pid:
            child(**order)
        print(pid, flush=True)
"""
PATIENCE = 60.0  # seconds


class Starter:
    """The process that is forked."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM], text=True, env=environment, **pipes)  # type: ignore[call-overload]

    def start(self, arguments: list[str], log: Path, clock: Path) -> tuple[int, str]:
        """Start a service; returns its process id and its address, or an empty one if it refused to start."""
        log.write_bytes(b"")
        pid = self._order(arguments=arguments, log=str(log), clock=str(clock))
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for line in log.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    entry = json.loads(line)
                    if entry["event"] == "started":
                        return pid, entry["address"]
            if not Path(f"/proc/{pid}/status").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return pid, ""
            time.sleep(0.01)
        raise TimeoutError(log.read_text())

    def end(self, pid: int, number: int = signal.SIGKILL) -> int:
        """Send a signal, and wait for the end; returns the exit status. What does not end is killed."""
        os.kill(pid, number)
        return os.waitstatus_to_exitcode(self._order(wait=pid, seconds=PATIENCE))

    def _order(self, **order: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()
