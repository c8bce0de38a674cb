"""A real Redis server, with a folder of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis

DURABLE = {"appendonly": "yes", "appendfsync": "always"}


class RedisServer:
    """Started at once; `kill` and `start` again keep its folder and its port.

    Args:
        folder: for its files.
        settings: of the server.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("there is no redis-server on this machine (Debian's package of that name has it)")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.url = folder, f"redis://127.0.0.1:{self.port}/0"
        all_settings = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(folder), "save": ""} | settings
        self._command = [program, *[part for key, value in all_settings.items() for part in (f"--{key}", value)]]
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until = time.monotonic() + 20
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except (redis.AuthenticationError, redis.ResponseError):
                    return
                except redis.RedisError:
                    if time.monotonic() > until or self.process.poll() is not None:
                        raise RuntimeError((self.folder / "log").read_text()) from None
                    time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
