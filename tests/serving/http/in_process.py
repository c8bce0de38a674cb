"""The service on fakes, with a client in front of it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import httpx
from anyio.from_thread import start_blocking_portal

from peterrec.config import ServeConfig
from peterrec.serving.http.app import make_app
from peterrec.serving.http.bundles import Bundles
from peterrec.serving.http.logs import Log
from peterrec.serving.http.routes_open import Pages
from peterrec.serving.http.service import Parts, Service
from peterrec.serving.state_folder import COPIES

from .fakes import FakeEngine, FakeJournal, FakeKeys, FakeSearch, FakeStore, FakeUsers


class FakeSite:
    """The service with a client in front of it, in a thread; `keys` to ask for keys."""

    def __init__(self, tmp_path: Path, *, keys: bool = False, **settings: Any) -> None:
        (tmp_path / "page").mkdir(exist_ok=True)
        (tmp_path / "page" / "index.html").write_text("<!doctype html>")
        (tmp_path / "page" / "app.js").write_text("1")
        self.root = tmp_path / "bundles"
        self.root.mkdir(exist_ok=True)
        self.engine, self.store, self.journal = FakeEngine(), FakeStore(), FakeJournal()
        self.users = FakeUsers(self.engine, self.store)
        self.lines = io.StringIO()
        config = ServeConfig.model_validate(
            {"bundle_root": str(self.root), "state": str(self.root / "state"), "wait_ms": 1.0} | settings
        )
        log, copies = Log(self.lines), self.root / "state" / COPIES
        engine, journal = cast("Any", self.engine), cast("Any", self.journal)
        bundles = Bundles(engine, journal, config.bundle_root, copies, log)
        parts: Any = Parts(engine, self.users, self.store, FakeSearch(), bundles, FakeKeys() if keys else None)
        self.service = Service(parts, config, log)
        self.app = make_app(self.service, Pages(tmp_path / "page"))

    def __enter__(self) -> Self:
        self._context = start_blocking_portal()
        self.portal = self._context.__enter__()
        transport = httpx.ASGITransport(self.app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20)
        return self

    def __exit__(self, *_: object) -> None:
        self.users.may_run.set()
        self.engine.loading.set()
        self.portal.call(self.client.aclose)
        self.portal.call(self.service.close)
        self._context.__exit__(None, None, None)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.portal.call(partial(self.client.request, method, path, **options))

    def start(self, method: str, path: str, **options: Any) -> Any:
        """Ask without waiting; the future of the answer."""
        return self.portal.start_task_soon(partial(self.client.request, method, path, **options))

    def bundle(self, name: str, version: str) -> str:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        (folder / "version.json").write_text(version)
        return name

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.getvalue().splitlines()]


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)
