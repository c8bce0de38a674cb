"""How much of a request is read, and for how long."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peterrec.config import LimitsConfig
from peterrec.serving.http.errors import ApiError, busy
from peterrec.serving.http.schemas import LIMITS

HELD_BODIES = 64  # of the largest size, in memory at once


class BodyLimit:
    """Reads a body before anything else sees it, so that none is too large, or never ends.

    Args:
        app: gets the whole body at once.
        limits: bytes and seconds.
    """

    def __init__(self, app: ASGIApp, limits: LimitsConfig) -> None:
        self._app, self._limits = app, limits
        self._most, self._seconds = limits.body_bytes, limits.body_seconds
        self._held = 0  # bytes of all requests in progress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if "content-length" not in headers and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        body = bytearray()
        try:
            if not await self._read(headers, receive, body):
                return  # the client left
            LIMITS.set(self._limits)  # of this task, which is this request's
            await self._app(scope, _replay(bytes(body), receive), send)
        except _RefusedError as refused:
            await refused.error.response()(scope, receive, send)
        finally:
            self._held -= len(body)

    async def _read(self, headers: Headers, receive: Receive, body: bytearray) -> bool:
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > self._most:
            raise _RefusedError(self._too_large())
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    part = message.get("body", b"")
                    if len(body) + len(part) > self._most:
                        raise _RefusedError(self._too_large())
                    if self._held + len(part) > HELD_BODIES * self._most:
                        raise _RefusedError(busy(1))
                    body += part
                    self._held += len(part)
                    if not message.get("more_body", False):
                        return True
        except TimeoutError:
            error = ApiError(
                408, "too_slow", f"the body did not arrive within {self._seconds:g} s", "send it faster, or send less",
                {"Connection": "close"},
            )  # fmt: skip
            raise _RefusedError(error) from None

    def _too_large(self) -> ApiError:
        return ApiError(413, "too_large", f"a body has at most {self._most:,} bytes", "send less, in several requests")


class _RefusedError(Exception):
    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
