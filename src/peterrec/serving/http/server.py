"""The process behind an address: one socket, one event loop, and an orderly end."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import torch
import uvicorn

from peterrec.config import ServeConfig
from peterrec.errors import ConfigError
from peterrec.serving.http.app import make_app
from peterrec.serving.http.logs import redirect_server_logs
from peterrec.serving.http.service import Service

try:
    import resource
except ModuleNotFoundError:  # not a POSIX system
    resource = None  # type: ignore[assignment]

OTHER_FILES = 128  # open beside connections: the store, libraries
MIN_CONNECTIONS = 8  # however few files may be open
IDLE_SECONDS = 30  # between two requests of a connection
LAST_LINES_SECONDS = 0.2  # for the log, where a second signal ends the process at once
SIGNAL_EXIT_STATUS = 128  # plus the signal: the exit status that shells use


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
    """HTTP server that runs until SIGTERM, SIGINT or SIGHUP; then it finishes the requests in flight.

    A second SIGTERM or SIGINT ends the process at once.

    Args:
        service: answers; its `stopping` is set when the server stops.
        connections: open at once; past them the answer is 503.
        started: called when the address answers.
    """

    def __init__(self, service: Service, connections: int, started: Callable[[], None]) -> None:
        limits = service.config.limits
        super().__init__(
            uvicorn.Config(
                make_app(service),
                http="h11",  # the parser whose heads the server can bound, and that reads the body of an upgrade
                h11_max_incomplete_event_size=limits.head_bytes,
                limit_concurrency=connections + 1,  # the first one that is refused
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=limits.shutdown_seconds,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        self._service, self._on_started = service, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the socket, and call `started`."""
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, finish the requests in flight, and close the application with the service."""
        self._service.stopping = True
        self._service.log.write("stopping")
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop. The signal is not raised again afterwards: stopping when told to is no failure."""
        if self.should_exit and sig == signal.SIGHUP:  # a terminal that closes sends two
            return
        if self.should_exit:
            self._service.log.flush(LAST_LINES_SECONDS)
            os._exit(SIGNAL_EXIT_STATUS + sig)  # everything acknowledged is on disk
        self._service.stopping = True
        self.should_exit = True


def run(service: Service, listener: socket.socket, started: Callable[[], None]) -> None:
    """Serve until a signal ends it; the service is closed then.

    The process ends here where a thread of the service hangs: Python would wait for it without end.
    """
    redirect_server_logs(service.log)
    share_cores(service.config)
    gc.collect()
    gc.freeze()  # the loaded objects stay: collecting them again and again would stop everything for a while
    server = Server(service, open_files_for_connections(service), started)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, server.handle_exit)
    server.run([listener])
    if getattr(service, "hanging", False):
        service.log.flush()
        os._exit(0)


def share_cores(config: ServeConfig) -> None:
    """Leave a core to the event loop: threads of the network that wait for each other make every answer late.

    Workers share the cores.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (torch.get_num_threads() - 1) // config.workers))


def open_files_for_connections(service: Service) -> int:
    """Raise the limit on open files as far as connections need it, and return how many connections fit.

    All of `LimitsConfig.connections` fit where the system has no such limit.
    """
    wanted = service.limits.connections
    if resource is None:
        return wanted
    needed = wanted + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    fitting = min(wanted, max(soft - OTHER_FILES, MIN_CONNECTIONS))
    service.log.write("few files", "warning", allowed=soft, needed=needed, connections=fitting)
    return fitting
