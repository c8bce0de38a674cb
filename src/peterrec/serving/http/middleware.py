"""Around every request: an id, a line in the log, counts, and an answer even where the service fails."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peterrec.serving.http.auth import CLIENT
from peterrec.serving.http.errors import ApiError, as_api_error, stopping
from peterrec.serving.http.logs import Log
from peterrec.serving.http.metrics import Metrics

LEFT = "peterrec.left"  # set by the protocol where the client closed the connection
KEPT = re.compile("%(2[Ff]|25)")
NO_ANSWER = 499  # the client left before the answer
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Watch:
    """The outermost layer of the service.

    Args:
        app: what is watched.
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
        answer = _Answer(send, secrets.token_hex(8))
        started = time.perf_counter()
        try:
            inner["path"] = _routed(scope)
            await self._app(inner, receive, answer)
        except asyncio.CancelledError:
            if scope.get(LEFT):
                answer.status = NO_ANSWER
            else:  # the time for stopping is over
                await self._fail(inner, receive, answer, None)
        except ApiError as error:
            await self._fail(inner, receive, answer, error)
        except Exception as error:
            self._log.failure("failed", error, request_id=answer.request_id, route=_route(inner))
            await self._fail(inner, receive, answer, error)
        finally:
            self._count(inner, scope["method"], answer, time.perf_counter() - started)

    async def _fail(self, scope: Scope, receive: Receive, answer: _Answer, error: Exception | None) -> None:
        if not answer.started:
            told = stopping() if error is None else as_api_error(error)
            await told.response()(scope, receive, answer)

    def _count(self, scope: Scope, method: str, answer: _Answer, seconds: float) -> None:
        method = method if method in METHODS else "other"
        route, status = _route(scope), answer.status
        self._metrics.request(route, method, status, seconds)
        client = scope.get(CLIENT)
        self._log.write(
            "request", "error" if status >= 500 else "info", request_id=answer.request_id, method=method, route=route,
            status=status, ms=round(seconds * 1000, 2), key=client.name if client else "",
        )  # fmt: skip


def _routed(scope: Scope) -> str:
    """Return the path with its encoded slashes still encoded (and so %): an id may have them, and is one part of it.

    Raises:
        ApiError: it is not UTF-8; replaced, two users would become one.
    """
    raw: bytes = scope.get("raw_path") or b""
    if b"%" not in raw:
        return str(scope["path"])
    try:
        return unquote(KEPT.sub(r"%25\1", raw.decode("ascii")), errors="strict")
    except UnicodeDecodeError:
        raise ApiError(
            400, "bad_request", "the address is not UTF-8", "encode ids in UTF-8 before they are percent-encoded"
        ) from None


def _route(scope: Scope) -> str:
    """Return the template of a route: a path may have a user's id in it."""
    route: Any = scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", "other"))


class _Answer:
    """Sends an answer with the headers that all answers have, and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self.request_id = send, request_id
        self.started = False
        self.status = NO_ANSWER

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode()), *HEADERS]
            if all(name.lower() != b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": headers}
        await self._send(message)
