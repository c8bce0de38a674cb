"""Bodies in memory are bounded, all together too; who leaves is not worked for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from peterrec.config import LimitsConfig
from peterrec.serving.http import middleware
from peterrec.serving.http.errors import ApiError
from peterrec.serving.http.middleware import RequestBodyMiddleware


class MiddlewareRequest:
    """One request to the middleware, whose body comes when the test says so."""

    def __init__(self, app: Any, length: int | None = 8) -> None:
        self.parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        headers = [(b"content-length", str(length).encode())] if length is not None else [(b"transfer-encoding", b"x")]
        scope = {"type": "http", "headers": headers, "method": "POST", "path": "/"}
        self.task = asyncio.ensure_future(app(scope, self.parts.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def part(self, body: bytes, *, more_body: bool = True) -> None:
        self.parts.put_nowait({"type": "http.request", "body": body, "more_body": more_body})

    async def status(self) -> int:
        try:
            await asyncio.wait_for(self.task, 5)
        except ApiError as error:
            return error.status
        return int(self.sent[0]["status"])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


def make() -> RequestBodyMiddleware:
    return RequestBodyMiddleware(echo, LimitsConfig(body_bytes=10, body_seconds=5.0))


def test_a_body_arrives_whole() -> None:
    async def main() -> None:
        pending = MiddlewareRequest(make())
        pending.part(b"abcd")
        pending.part(b"efgh", more_body=False)
        assert await pending.status() == 200
        assert pending.sent[1]["body"] == b"abcdefgh"

    asyncio.run(main())


def test_all_bodies_together_are_bounded_and_the_room_comes_back() -> None:
    async def main() -> None:
        app = make()
        for _ in range(2):
            held = [MiddlewareRequest(app) for _ in range(middleware.HELD_BODIES)]
            for pending in held:
                pending.part(b"0123456789")
            await asyncio.sleep(0.01)
            extra = MiddlewareRequest(app)
            extra.part(b"x", more_body=False)
            assert await extra.status() == 429
            for pending in held:
                pending.part(b"", more_body=False)
            assert {await pending.status() for pending in held} == {200}

    asyncio.run(main())


def test_who_leaves_gets_nothing_and_its_room_comes_back() -> None:
    async def main() -> None:
        app = make()
        pending = MiddlewareRequest(app, None)
        pending.part(b"0123456789")
        pending.parts.put_nowait({"type": "http.disconnect"})
        with pytest.raises(ClientDisconnect):
            await asyncio.wait_for(pending.task, 5)
        assert not pending.sent
        assert app._held_bytes == 0

    asyncio.run(main())


def test_who_leaves_while_it_is_answered_is_not_worked_for() -> None:
    cancelled = asyncio.Event()

    async def work(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def main() -> None:
        pending = MiddlewareRequest(RequestBodyMiddleware(work, LimitsConfig()))
        pending.part(b"", more_body=False)
        await asyncio.sleep(0.01)
        pending.parts.put_nowait({"type": "http.disconnect"})
        with pytest.raises(ClientDisconnect):
            await asyncio.wait_for(pending.task, 5)
        assert cancelled.is_set()

    asyncio.run(main())


def test_the_application_too_can_wait_for_the_client_to_leave() -> None:
    received: list[str] = []

    async def listen(scope: Any, receive: Any, send: Any) -> None:
        received.extend([(await receive())["type"], (await receive())["type"]])

    async def main() -> None:
        pending = MiddlewareRequest(RequestBodyMiddleware(listen, LimitsConfig()))
        pending.part(b"", more_body=False)
        pending.parts.put_nowait({"type": "http.disconnect"})
        with contextlib.suppress(ClientDisconnect):
            await asyncio.wait_for(pending.task, 5)
        assert received[:1] == ["http.request"]

    asyncio.run(main())
