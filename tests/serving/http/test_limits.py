"""Bodies in memory are bounded, all together too."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from peterrec.config import LimitsConfig
from peterrec.serving.http import limits
from peterrec.serving.http.limits import BodyLimit


class Asked:
    """One request to the middleware, whose body comes when the test says so."""

    def __init__(self, app: Any, length: int | None = 8) -> None:
        self.parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        headers = [(b"content-length", str(length).encode())] if length is not None else [(b"transfer-encoding", b"x")]
        scope = {"type": "http", "headers": headers, "method": "POST", "path": "/"}
        self.task = asyncio.ensure_future(app(scope, self.parts.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def part(self, body: bytes, *, more: bool = True) -> None:
        self.parts.put_nowait({"type": "http.request", "body": body, "more_body": more})

    async def status(self) -> int:
        await asyncio.wait_for(self.task, 5)
        return int(self.sent[0]["status"])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


def make() -> BodyLimit:
    return BodyLimit(echo, LimitsConfig(body_bytes=10, body_seconds=5.0))


def test_a_body_arrives_whole() -> None:
    async def main() -> None:
        asked = Asked(make())
        asked.part(b"abcd")
        asked.part(b"efgh", more=False)
        assert await asked.status() == 200
        assert asked.sent[1]["body"] == b"abcdefgh"

    asyncio.run(main())


def test_all_bodies_together_are_bounded_and_the_room_comes_back() -> None:
    async def main() -> None:
        app = make()
        for _ in range(2):
            held = [Asked(app) for _ in range(limits.HELD_BODIES)]
            for one in held:
                one.part(b"0123456789")
            await asyncio.sleep(0.01)
            extra = Asked(app)
            extra.part(b"x", more=False)
            assert await extra.status() == 429
            assert json.loads(extra.sent[1]["body"])["error"]["code"] == "busy"
            for one in held:
                one.part(b"", more=False)
            assert {await one.status() for one in held} == {200}

    asyncio.run(main())


def test_who_leaves_gets_nothing_and_its_room_comes_back() -> None:
    async def main() -> None:
        app = make()
        asked = Asked(app, None)
        asked.part(b"0123456789")
        asked.parts.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(asked.task, 5)
        assert not asked.sent
        assert app._held == 0

    asyncio.run(main())
