"""What the service does around the routes."""

from __future__ import annotations

import threading
import time

import pytest

from peterrec.errors import StoreError
from peterrec.serving.requests import Request

from .site import Site


def test_it_is_not_ready_while_it_stops(site: Site) -> None:
    assert site.ask("GET", "/readyz").json() == {"status": "ok"}
    site.service.stopping = True
    answer = site.ask("GET", "/readyz")
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the service is stopping")
    assert "peterrec_ready 0.0" in site.ask("GET", "/metrics").text


def test_the_stores_word_is_believed_for_a_moment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    checks: list[int] = []
    site.store.check = lambda: checks.append(1)  # type: ignore[method-assign]
    for _ in range(5):
        assert site.portal.call(site.service.ready)
    assert len(checks) == 1

    def broken() -> None:
        raise StoreError("gone")

    site.store.check = broken  # type: ignore[method-assign]
    assert site.portal.call(site.service.ready)
    now[0] += 1.5
    assert not site.portal.call(site.service.ready)


def test_many_items_are_looked_up_off_the_event_loop(site: Site) -> None:
    loop = site.portal.call(threading.get_ident)
    threads: list[int] = []
    prepare = site.engine.prepare

    def noting(request: Request) -> object:
        threads.append(threading.get_ident())
        return prepare(request)

    site.engine.prepare = noting  # type: ignore[method-assign, assignment]
    for items in (["item-1"], ["item-1"] * 5_000):
        assert site.ask("POST", "/v1/predict", json={"requests": [{"items": items}]}).status_code == 200
    assert [thread == loop for thread in threads] == [True, False]


def test_closing_keeps_what_waits_and_closes_the_store_last(site: Site) -> None:
    order: list[str] = []
    append, close = site.store.append, site.store.close

    def slow(events: list[object]) -> list[bool]:
        time.sleep(0.1)
        order.append("append")
        return append(events)  # type: ignore[arg-type]

    site.users.append = slow  # type: ignore[method-assign, assignment]
    site.store.close = lambda: (order.append("close"), close())[1]  # type: ignore[method-assign, func-returns-value]
    body = {"events": [{"id": "a", "user": "u", "item": 1}]}
    asked = [site.start("POST", "/v1/events", json={"events": [body["events"][0] | {"id": str(i)}]}) for i in range(3)]
    time.sleep(0.03)
    site.portal.call(site.service.close)
    assert [one.result(5).json()["stored"] for one in asked] == [1, 1, 1]
    assert order[-1] == "close"
    assert len(site.store.events["u"]) == 3
    assert site.ask("POST", "/v1/events", json=body).json()["error"]["code"] == "stopping"
