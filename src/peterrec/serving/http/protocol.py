"""HTTP/1.1 of the server, with an end to the patience for slow clients, and bounds on connections and heads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from http import HTTPStatus
from typing import Any, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from peterrec.config import LimitsConfig
from peterrec.serving.http.errors import ApiError
from peterrec.serving.http.middleware import LEFT

END = b"\r\n\r\n"
START = re.compile(rb"[A-Z][A-Z-]{0,23}(?: |\Z)")  # what may become a request
# An upgrade is not made, and the parser would take the body for what comes after it: it does not see the header.
UPGRADE = re.compile(rb"\nupgrade:", re.IGNORECASE)
OLD_CHUNKS = re.compile(rb"\A[^\r\n]* HTTP/1\.0\r?\n(?s:.*)\ntransfer-encoding[ \t]*:", re.IGNORECASE)
LINGER_SECONDS = 0.5  # that what is still sent is thrown away, so that who sends it gets to reading the answer
PROBE_SECONDS = 0.1  # between two looks whether a client that has sent all it will is still there
STILL_AT_IT = b"HTTP/1.1 100 Continue\r\n\r\n"


def protocol_of(limits: LimitsConfig, connections: int, refused: int) -> type[asyncio.Protocol]:
    """Return the protocol class with the limits of a service.

    Args:
        limits: of requests.
        connections: that are served.
        refused: past these, that are told so; any further one is only closed.
    """
    values = {"limits": limits, "most_connections": connections, "most_refused": refused}
    return type("Protocol", (LimitedProtocol,), values)


class LimitedProtocol(HttpToolsProtocol):
    """A connection.

    It is closed if its headers do not arrive in time or are too long, or nobody reads its answer; where the client
    leaves, the work for it is cancelled. The parser gets a head only when it is there whole, and alone.
    """

    limits: LimitsConfig
    most_connections: int
    most_refused: int
    _in_head = _headed = _whole = False  # of the message that is being parsed
    _in_body = False
    _left: int | None = None  # bytes of the body to come; None: in chunks
    _bare = 0  # bytes of a body in chunks since the last that was body
    _overrun = False  # a body in chunks had the next head behind it
    _deaf = False  # whatever comes is thrown away
    _arriving: asyncio.TimerHandle | None = None
    _task: asyncio.Task[None] | None = None
    _accepted = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for headers."""
        super().connection_made(transport)
        self._head = bytearray()
        self._accepted = len(self.connections) <= self.most_connections
        if len(self.connections) > self.most_connections + self.most_refused:
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
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        while rest and not self._deaf and not self.transport.is_closing():
            rest = self._feed_body(rest) if self._in_body else self._feed_head(rest)
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._arriving is None and not self._deaf and not self.transport.is_closing():
            self._wait()

    def _feed_head(self, data: memoryview) -> memoryview:
        """Parse a head that is complete now; return what is behind it."""
        most, had = self.limits.head_bytes, len(self._head)
        taken = bytes(data[: most + 1 - had])
        blank = 0 if had else len(taken) - len(taken.lstrip(b"\r\n"))
        if blank:
            return data[blank:]
        self._head += taken
        end = self._head.find(END, max(had - len(END), 0))
        size = len(self._head) if end < 0 else end + len(END)
        if size > most:
            self._refuse_head()
            return data[:0]
        if end < 0 and START.match(self._head):
            return data[:0]
        head = bytes(self._head[:size])
        self._head.clear()
        if OLD_CHUNKS.search(head):  # RFC 9112, 6.1: its end may be seen elsewhere by who is before us
            self._say(ApiError(400, "bad_request", "HTTP/1.0 has no Transfer-Encoding", "send HTTP/1.1"))
            return data[:0]
        self._in_head, self._headed, self._whole = True, False, False
        super().data_received(UPGRADE.sub(b"\nx-upgrade:", head))
        self._in_head = False
        if self.transport.is_closing() or self._deaf:
            return data[:0]
        if not self._headed:  # the parser sees the end of a head elsewhere
            self.send_400_response("")
        elif self.parser.should_upgrade():  # CONNECT: nothing behind it is a request
            self._end_after(self.cycle)
        elif not self._whole:
            lengths = [value for name, value in self.headers if name == b"content-length"]
            self._in_body, self._bare = True, 0
            self._left = int(lengths[0]) if lengths else None
        return data[size - had :]

    def _feed_body(self, data: memoryview) -> memoryview:
        """Parse what belongs to a body; return what is behind it."""
        part = data if self._left is None else data[: self._left]
        self._bare += len(part)
        cycle = self.cycle
        super().data_received(cast("bytes", part))  # the parser reads any buffer
        if self._left is not None:
            self._left -= len(part)
        elif self._overrun:
            # Where a body in chunks ends only the parser knows, so it has seen the next head as it was sent.
            self._end_after(cycle)
        elif self._bare > self.limits.head_bytes and not self._whole:
            self._refuse_head()
        if self._whole:
            self._in_body = False
        return data[len(part) :]

    def _refuse_head(self) -> None:
        most = f"have at most {self.limits.head_bytes:,} bytes"
        if self._head and b"\n" not in self._head[: self.limits.head_bytes]:
            error = ApiError(414, "too_large", f"the first line and the headers {most}", "use a shorter address")
        else:
            error = ApiError(431, "too_large", f"the first line and the headers {most}", "send fewer headers")
        self._head.clear()
        self._say(error)

    def _end_after(self, cycle: Any) -> None:
        """Answer one request more, and nothing that was sent after it."""
        self._deaf = True
        cycle.keep_alive = False
        if cycle.response_complete:
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer who has sent a whole request and says that no other will follow."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        self._end_after(cycle)
        self.loop.call_later(PROBE_SECONDS, self._probe, cycle.scope["http_version"] == "1.1")
        return True

    def _probe(self, ask: bool) -> None:
        """Find out whether the client only sends nothing more, or has left: both look the same until it is sent to.

        An interim answer, which every client of HTTP/1.1 must pass over (RFC 9110, 15.2), makes the system of one that
        has left say so.
        """
        if self.transport.is_closing() or self.cycle.response_complete:
            return
        peer: socket.socket = self.transport.get_extra_info("socket")
        if peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        if ask and not self.pipeline and not self.cycle.response_started:
            self.transport.write(STILL_AT_IT)
            ask = False
        self.loop.call_later(PROBE_SECONDS, self._probe, ask)

    def on_message_begin(self) -> None:
        """Notice a message where none was expected."""
        self._overrun = not self._in_head
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, and nothing that comes behind a body."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._bare = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Start answering."""
        self._headed = True
        self._arrived()
        app = self.app
        if not self._accepted:
            self.app = cast("Any", _full)
        super().on_headers_complete()
        self.app = app

    def on_message_complete(self) -> None:
        """Stop waiting also where the rest of a refused body was thrown away."""
        self._whole = True
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
        """Answer without an application behind it, and close; whoever asked before is answered first."""
        if self.transport.is_closing() or self._deaf:
            return
        cycle = self.cycle
        pending = cycle is not None and not cycle.response_complete
        if pending and not cycle.more_body:
            self._end_after(cycle)
            return
        if not self._in_body or (pending and not cycle.response_started):
            body = json.dumps(error.body()).encode()
            head = (
                f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self._deaf = True
        if pending:
            self.transport.close()
        else:
            with contextlib.suppress(OSError):  # it has left
                self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    error = ApiError(
        503, "too_many_connections", "the service has as many connections as it may", "try again shortly",
        {"Retry-After": "1", "Connection": "close"},
    )  # fmt: skip
    await error.response()(scope, receive, send)
