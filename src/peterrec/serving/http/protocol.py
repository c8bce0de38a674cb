"""HTTP/1.1 of the server, with an end to the patience for slow clients and a bound on how many there are."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from peterrec.config import LimitsConfig
from peterrec.serving.http.errors import ApiError
from peterrec.serving.http.watch import LEFT

REFUSED_MORE = 500  # connections past the limit that are still told so; any further one is only closed


def protocol_of(limits: LimitsConfig) -> type[asyncio.Protocol]:
    """Return the protocol class with the limits of a service."""
    return type("Protocol", (LimitedProtocol,), {"limits": limits})


class LimitedProtocol(HttpToolsProtocol):
    """A connection.

    It is closed if its headers do not arrive in time, or nobody reads its answer; where the client leaves, the work for
    it is cancelled.
    """

    limits: LimitsConfig
    _arriving: asyncio.TimerHandle | None = None
    _task: asyncio.Task[None] | None = None
    _accepted = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for headers."""
        super().connection_made(transport)
        self._accepted = len(self.connections) <= self.limits.connections
        if len(self.connections) > self.limits.connections + REFUSED_MORE:
            transport.abort()
            return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is done for a client that left before its answer."""
        self._arrived()
        cycle, task = self.cycle, self._task
        super().connection_lost(exc)
        if cycle is not None and not cycle.response_complete and task is not None and not task.done():
            cast("dict[str, Any]", cycle.scope)[LEFT] = True
            task.cancel()

    def data_received(self, data: bytes) -> None:
        """Read; between two requests, whatever comes is the start of the next one."""
        super().data_received(data)
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._arriving is None and not self.transport.is_closing():
            self._wait()

    def on_headers_complete(self) -> None:
        """Start answering."""
        self._arrived()
        app = self.app
        if not self._accepted:
            self.app = cast("Any", _full)
        super().on_headers_complete()
        self.app = app

    def on_message_complete(self) -> None:
        """Stop waiting also where the rest of a refused body was thrown away."""
        self._arrived()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Do not wait for ever for a client to read its answer."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size() > 0:
            self._unset_keepalive_if_required()
            self.loop.call_later(self.limits.body_seconds, self._close_unread)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the form of all errors."""
        self._say(ApiError(400, "bad_request", "the request is not HTTP that can be read", "send HTTP/1.1"))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            self._task = asyncio.current_task()  # the server does not say which of its tasks is whose
            await app(scope, receive, send)

        super()._start_asgi_task(cycle, cast("Any", run))

    def _wait(self) -> None:
        self._arriving = self.loop.call_later(self.limits.body_seconds, self._too_slow)

    def _arrived(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _too_slow(self) -> None:
        self._arriving = None
        seconds = self.limits.body_seconds
        self._say(ApiError(408, "too_slow", f"the headers did not arrive within {seconds:g} s", "send them faster"))

    def _close_unread(self) -> None:
        if self.transport.get_write_buffer_size() > 0:
            self.transport.abort()
        elif not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _say(self, error: ApiError) -> None:
        """Answer without an application behind it, and close."""
        if self.transport.is_closing():
            return
        body = json.dumps(error.body()).encode()
        head = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    error = ApiError(
        503, "too_many_connections", "the service has as many connections as it may", "try again shortly",
        {"Retry-After": "1", "Connection": "close"},
    )  # fmt: skip
    await error.response()(scope, receive, send)
