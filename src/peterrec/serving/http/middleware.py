"""ASGI middleware around every request: body limits, clients that leave, request ids, log lines, metrics, faults."""

from __future__ import annotations

import asyncio
import random
import re
import time
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peterrec.config import LimitsConfig
from peterrec.serving.http.auth import CLIENT
from peterrec.serving.http.errors import ApiError, as_api_error, busy, stopping
from peterrec.serving.http.logs import Log
from peterrec.serving.http.metrics import Metrics
from peterrec.serving.http.schemas import LIMITS

HELD_BODIES = 64  # of the largest size, in memory at once
ENCODED_SLASH_OR_PERCENT = re.compile("%(2[Ff]|25)")
CLIENT_CLOSED_REQUEST = 499  # the client left before the answer; nginx's name and number
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
SECURITY_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class RequestBodyMiddleware:
    """Middleware that reads a whole body before the application, and cancels the application where the client leaves.

    Args:
        app: gets the whole body at once.
        limits: bytes and seconds.
    """

    def __init__(self, app: ASGIApp, limits: LimitsConfig) -> None:
        self._app, self._limits = app, limits
        self._held_bytes = 0  # of all requests in progress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body.

        Raises:
            ApiError: the body is too large, too slow, or too much is held already.
            ClientDisconnect: the client left before its answer.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        try:
            await self._read(Headers(scope=scope), receive, body)
            LIMITS.set(self._limits)  # of this task, which is this request's
            await self._run(scope, bytes(body), receive, send)
        finally:
            self._held_bytes -= len(body)

    async def _read(self, headers: Headers, receive: Receive, body: bytearray) -> None:
        max_bytes, seconds = self._limits.body_bytes, self._limits.body_seconds
        too_large = ApiError(
            413, "too_large", f"a body has at most {max_bytes:,} bytes", "send less, in several requests"
        )
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > max_bytes:
            raise too_large
        try:
            async with asyncio.timeout(seconds):
                more_body = True
                while more_body:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    part = message.get("body", b"")
                    if len(body) + len(part) > max_bytes:
                        raise too_large
                    if self._held_bytes + len(part) > HELD_BODIES * max_bytes:
                        raise busy(1)
                    body += part
                    self._held_bytes += len(part)
                    more_body = message.get("more_body", False)
        except TimeoutError:
            raise ApiError(
                408, "too_slow", f"the body did not arrive within {seconds:g} s", "send it faster, or send less",
                {"Connection": "close"},
            ) from None  # fmt: skip

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application in this task, which another one cancels where the client leaves.

        Raises:
            ClientDisconnect: the client left before its answer.
        """
        request = asyncio.current_task()
        assert request is not None
        disconnect = asyncio.create_task(_cancel_on_disconnect(receive, request))
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        def ended_by_client() -> bool:
            return disconnect.done() and request.uncancel() == 0  # nobody else cancelled it

        async def receive_body() -> Message:
            if messages:
                return messages.pop()
            try:
                return await asyncio.shield(disconnect)
            except asyncio.CancelledError:
                if ended_by_client():  # it is told, as it asked
                    return disconnect.result()
                raise

        try:
            await self._app(scope, receive_body, send)
        except asyncio.CancelledError:
            if ended_by_client():
                raise ClientDisconnect from None
            raise
        finally:
            disconnect.cancel()


async def _cancel_on_disconnect(receive: Receive, request: asyncio.Task[Any]) -> Message:
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
    request.cancel()
    return message


class ObservabilityMiddleware:
    """The outermost layer of the service: request id, log line, metrics, and an answer where the service fails.

    Args:
        app: answers.
        log: gets a line for each request.
        metrics: counts them.
    """

    def __init__(self, app: ASGIApp, log: Log, metrics: Metrics) -> None:
        self._app, self._log, self._metrics = app, log, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and see it through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Whoever answers GET answers HEAD too; the server leaves the body out.
        inner = dict(scope, method="GET") if scope["method"] == "HEAD" else scope
        answer = _ResponseSender(send, f"{random.getrandbits(64):016x}")  # no secret: it finds a line of the log
        started = time.perf_counter()
        try:
            inner["path"] = _path_for_routing(scope)
            await self._app(inner, receive, answer)
        except ClientDisconnect:
            answer.status = CLIENT_CLOSED_REQUEST
        except asyncio.CancelledError:  # the time for stopping is over
            await self._fail(inner, receive, answer, stopping())
        except ApiError as error:
            await self._fail(inner, receive, answer, error)
        except Exception as error:
            self._log.failure("failed", error, request_id=answer.request_id, route=_route_template(inner))
            await self._fail(inner, receive, answer, error)
        finally:
            self._count(inner, scope["method"], answer, time.perf_counter() - started)

    async def _fail(self, scope: Scope, receive: Receive, answer: _ResponseSender, error: Exception) -> None:
        if not answer.started:
            await as_api_error(error).response()(scope, receive, answer)

    def _count(self, scope: Scope, method: str, answer: _ResponseSender, seconds: float) -> None:
        method = method if method in METHODS else "other"
        route, status = _route_template(scope), answer.status
        self._metrics.request(route, method, status, seconds)
        client = scope.get(CLIENT)
        self._log.write(
            "request", "error" if status >= 500 else "info", request_id=answer.request_id, method=method, route=route,
            status=status, ms=round(seconds * 1000, 2), key=client.name if client else "",
        )  # fmt: skip


def _path_for_routing(scope: Scope) -> str:
    """Return the path with its encoded slashes still encoded (and so %): an id may have them, and is one part of it.

    Raises:
        ApiError: it is not UTF-8; replaced, two users would become one.
    """
    raw: bytes = scope.get("raw_path") or b""
    if b"%" not in raw:
        return str(scope["path"])
    try:
        return unquote(ENCODED_SLASH_OR_PERCENT.sub(r"%25\1", raw.decode("ascii")), errors="strict")
    except UnicodeDecodeError:
        raise ApiError(
            400, "bad_request", "the address is not UTF-8", "encode ids in UTF-8 before they are percent-encoded"
        ) from None


def _route_template(scope: Scope) -> str:
    """Return the template of a route: a path may have a user's id in it."""
    route: Any = scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", "other"))


class _ResponseSender:
    """Sender of an answer, with the headers that all answers have; it keeps the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self.request_id = send, request_id
        self.started = False
        self.status = CLIENT_CLOSED_REQUEST

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode()), *SECURITY_HEADERS]
            if all(name.lower() != b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": headers}
        await self._send(message)
