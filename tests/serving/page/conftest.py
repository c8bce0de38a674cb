"""One browser and one made-up service for a module; a page of its own, and no faults left over, for a test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serving.page.fake_api import FakeApi, Fakes

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    api = FakeApi()
    yield api
    api.close()


@pytest.fixture
def fakes(api: FakeApi) -> Fakes:
    return api.reset()


Opener = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, api: FakeApi, fakes: Fakes) -> Iterator[Opener]:
    """Open the page in a context of its own; afterwards nothing may have gone wrong in it, nor gone elsewhere."""
    contexts, mistakes, elsewhere = [], [], []

    def note(message: Any) -> None:
        # the browser itself reports every refusal of a test of refusals
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            mistakes.append(message.text)

    def open_page(width: int = 1280, height: int = 900, wait: str = ".card", **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)  # a busy machine is slow; nothing waits so long where all is well
        page.on("console", note)
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        page.on("request", lambda request: request.url.startswith(api.url) or elsewhere.append(request.url))
        page.goto(api.url)
        page.locator(wait).first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert mistakes == []
    assert elsewhere == []
