"""The process behind an address: one socket, one event loop, and an end that loses nothing."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import torch
import uvicorn

from peterrec.config import ServeConfig
from peterrec.errors import ConfigError
from peterrec.serving.http.app import make_app
from peterrec.serving.http.logs import take_over
from peterrec.serving.http.protocol import protocol_of
from peterrec.serving.http.service import Service

OTHER_FILES = 128  # open beside connections: the store, libraries
REFUSED_MORE = 500  # connections past the limit that are still told so; any further one is only closed
BACKLOG = 2_048
LEAST_SPARE = 16
IDLE_SECONDS = 30  # between two requests of a connection
LAST_LINES_SECONDS = 0.2  # for the log, of who wants it to end at once
SHELL_SIGNAL = 128  # a shell says so of a process that a signal ended


def bind(host: str, port: int) -> socket.socket:
    """Take an address, before anything slow is done.

    Raises:
        ConfigError: there is no such address, or another process has it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"there is no address {host!r} ({error.strerror})", remedy="give another --host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port} ({error.strerror})",
            remedy="stop what listens there, or give another --port or --host",
        ) from error
    return listener


class Server(uvicorn.Server):
    """Runs until SIGTERM, SIGINT or SIGHUP: then takes nothing more, and ends what it has.

    A second SIGTERM or SIGINT ends it at once.

    Args:
        service: is told that it stops.
        config: limits.
        started: called when the address answers.
        room: for connections.
    """

    def __init__(self, service: Service, config: ServeConfig, started: Callable[[], None], room: Room) -> None:
        super().__init__(
            uvicorn.Config(
                make_app(service),
                http=protocol_of(config.limits, room.connections, room.refused),
                backlog=room.backlog,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=config.limits.shutdown_seconds,
            )
        )
        self._service, self._started_hook = service, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self._started_hook()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, finish, close."""
        self._service.stopping = True
        self._service.log.write("stopping")
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop. The signal is not raised again afterwards: stopping when told to is no failure."""
        if self.should_exit and sig == signal.SIGHUP:  # a terminal that closes sends two
            return
        if self.should_exit:
            self._service.log.flush(LAST_LINES_SECONDS)
            os._exit(SHELL_SIGNAL + sig)  # what was acknowledged is on disk
        self._service.stopping = True
        self.should_exit = True


def run(service: Service, listener: socket.socket, started: Callable[[], None]) -> None:
    """Serve until a signal ends it; the service is closed then.

    The process ends here where a thread of the service hangs: Python would wait for it without end.
    """
    take_over(service.log)
    share_cores(service.config)
    gc.collect()
    gc.freeze()  # what was loaded stays: looking through it again and again would stop everything for a while
    server = Server(service, service.config, started, find_room(service))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, server.handle_exit)
    server.run([listener])
    if getattr(service, "hanging", False):
        service.log.flush()
        os._exit(0)


def share_cores(config: ServeConfig) -> None:
    """Leave a core to the event loop: threads of the network that wait for each other make every answer late."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))


@dataclass(frozen=True)
class Room:
    """How many connections there is room for among the files that the process may have open.

    Attributes:
        connections: that are served.
        refused: past these, that are told so.
        backlog: that are taken from the system at once, before any of them can be closed.
    """

    connections: int
    refused: int
    backlog: int

    @classmethod
    def among(cls, files: int, connections: int) -> Room:
        """Return what fits; all that is asked for, where the files are enough.

        Args:
            files: that may be open.
            connections: that should be served.
        """
        spare = max(files - OTHER_FILES, LEAST_SPARE)
        if spare >= connections + REFUSED_MORE + BACKLOG:
            return cls(connections, REFUSED_MORE, BACKLOG)
        served, refused = min(connections, spare // 2), min(REFUSED_MORE, spare // 8)
        return cls(served, refused, min(BACKLOG, spare - served - refused))


def find_room(service: Service) -> Room:
    """Let the process open as many files as its connections may need, and see how many of them fit."""
    wanted = service.limits.connections
    needed = wanted + REFUSED_MORE + BACKLOG + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = Room.among(needed if soft == resource.RLIM_INFINITY else soft, wanted)
    if room.connections < wanted:
        service.log.write("few files", "warning", allowed=soft, needed=needed, connections=room.connections)
    return room
