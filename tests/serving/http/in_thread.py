"""The server in a thread, on a real socket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peterrec.serving.http.server import Server, bind

from .in_process import FakeSite

PATIENCE = 10.0  # seconds for headers and bodies to arrive
PREDICT = json.dumps({"requests": [{"items": [], "tasks": ["age"]}]}).encode()


class ServerThread:
    """A server in a thread."""

    def __init__(self, site: FakeSite) -> None:
        self.site = site
        self.listener = bind("127.0.0.1", 0)
        self.address = self.listener.getsockname()
        started = threading.Event()
        self.server = Server(site.service, site.service.limits.connections, started.set)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
        self.thread.start()
        assert started.wait(10)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=10)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        with self.connect() as client:
            client.sendall(request(method, path, body, "Connection: close\r\n"))
            return answer(client)

    def close(self) -> None:
        self.site.users.may_run.set()
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


def request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def read(client: socket.socket) -> bytes:
    """Read until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def answer(client: socket.socket) -> tuple[int, dict[str, Any]]:
    received = read(client)
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@contextlib.contextmanager
def serve_in_thread(folder: Path, **limits: Any) -> Iterator[ServerThread]:
    site = FakeSite(folder, limits={"body_seconds": PATIENCE} | limits)
    server_thread = ServerThread(site)
    try:
        yield server_thread
    finally:
        server_thread.close()
