"""Service behind the routes: readiness, a store that fails or hangs, limits, closing."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from peterrec.errors import StoreError
from peterrec.serving.http import thread_pool
from peterrec.serving.requests import Request
from peterrec.serving.store.base import Read

from .in_process import FakeSite, until


def test_it_is_not_ready_while_it_stops(site: FakeSite) -> None:
    assert site.ask("GET", "/readyz").json() == {"status": "ok", "failed": []}
    site.service.stopping = True
    answer = site.ask("GET", "/readyz")
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the service is stopping")
    assert "peterrec_ready 0.0" in site.ask("GET", "/metrics").text


def test_the_stores_word_is_believed_for_a_moment(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_store_with_room_for_a_check_and_not_for_events_is_not_ready(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    site.store.check = lambda: None  # type: ignore[method-assign]
    assert site.portal.call(site.service.ready)
    append = site.store.append

    def full(events: list[object]) -> list[bool]:
        raise StoreError("the disk is full")

    site.store.append = full  # type: ignore[method-assign, assignment]
    body = {"events": [{"id": "a", "user": "u", "item": 1}]}
    assert site.ask("POST", "/v1/events", json=body).status_code == 503
    now[0] += 2
    assert not site.portal.call(site.service.ready)
    now[0] += 4
    assert site.portal.call(site.service.ready)  # somebody must try
    assert site.ask("POST", "/v1/events", json=body).status_code == 503
    site.store.append = append  # type: ignore[method-assign]
    assert site.ask("POST", "/v1/events", json=body).status_code == 200
    assert site.portal.call(site.service.ready)


def test_a_store_that_hangs_holds_up_nobody_who_does_not_need_it(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_pool, "HANG_SECONDS", 0.0)
    monkeypatch.setattr(thread_pool, "OPEN_SECONDS", 60.0)
    tries: list[str] = []
    give_up = threading.Event()

    def hangs(user: str, *_: object) -> object:
        tries.append(user)
        give_up.wait(20)
        raise StoreError("does not answer", remedy="wait")

    site.store.read = hangs  # type: ignore[method-assign, assignment]
    users = [site.start("POST", f"/v1/users/u{i}/predict", json={}) for i in range(40)]
    until(lambda: len(tries) == thread_pool.POOL_THREADS)
    assert site.ask("POST", "/v1/predict", json={"requests": [{"items": []}]}).status_code == 200
    assert not any(user.done() for user in users)
    give_up.set()
    answers = [user.result(20) for user in users]
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["error"]["code"] for answer in answers} == {"store_unavailable"}
    assert len(tries) < 3 * thread_pool.POOL_THREADS  # the others were told at once


def test_calls_are_bounded(site: FakeSite) -> None:
    site.service._threads._max_pending = 2
    go_on = threading.Event()
    site.store.read = lambda *_: go_on.wait(10) and Read("", 0, [])  # type: ignore[method-assign, assignment]
    waiting = [site.start("GET", "/v1/users/u") for _ in range(2)]
    until(lambda: site.service._threads._pending == 2)
    answer = site.ask("GET", "/v1/users/u")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    go_on.set()
    assert [future.result(10).status_code for future in waiting] == [404, 404]


@pytest.mark.parametrize(
    ("limit", "requests", "message"),
    [
        ({"rows": 3}, [{"tasks": "*"}] * 2, "users times tasks: 4 asked for, at most 3"),
        ({"answer_items": 9}, [{"tasks": ["shop"], "k": 5}] * 2, "items to answer with: 10 asked for, at most 9"),
    ],
    ids=["rows", "items"],
)
def test_a_small_request_may_not_ask_for_a_large_answer(tmp_path: Path, limit, requests, message) -> None:
    with FakeSite(tmp_path, limits=limit) as site:
        body = {"requests": [{"items": []} | request for request in requests]}
        answer = site.ask("POST", "/v1/predict", json=body)
        assert (answer.status_code, message in answer.json()["error"]["message"]) == (422, True)
        body["requests"].pop()
        assert site.ask("POST", "/v1/predict", json=body).status_code == 200


def test_events_of_the_future_are_refused_milliseconds_say(site: FakeSite) -> None:
    event = {"id": "a", "user": "u", "item": 1}
    answer = site.ask("POST", "/v1/events", json={"events": [event | {"timestamp": time.time() * 1000}]})
    assert (answer.status_code, "not milliseconds" in answer.json()["error"]["remedy"]) == (422, True)
    assert not site.store.events
    soon = event | {"timestamp": time.time() + 3_600}
    assert site.ask("POST", "/v1/events", json={"events": [soon]}).status_code == 200


def test_a_change_of_bundles_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with FakeSite(tmp_path, limits={"shutdown_seconds": 1}) as site:
        site.engine.loading.clear()
        site.start("PUT", "/v1/bundles/age", json={"path": site.bundle("new", "v2")})
        until(lambda: site.service._loads._worker is not None)
        site.portal.call(site.service.close)
        assert site.service.hanging
        assert site.store.closed
        site.engine.loading.set()


def test_many_items_are_looked_up_off_the_event_loop(site: FakeSite) -> None:
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


def test_closing_keeps_what_waits_and_closes_the_store_last(site: FakeSite) -> None:
    order: list[str] = []
    append, close = site.store.append, site.store.close

    go_on = threading.Event()

    def slow(events: list[object]) -> list[bool]:
        go_on.wait(20)
        order.append("append")
        return append(events)  # type: ignore[arg-type]

    site.users.append = slow  # type: ignore[method-assign, assignment]
    site.store.close = lambda: (order.append("close"), close())[1]  # type: ignore[method-assign, func-returns-value]
    body = {"events": [{"id": "a", "user": "u", "item": 1}]}
    futures = [
        site.start("POST", "/v1/events", json={"events": [body["events"][0] | {"id": str(i)}]}) for i in range(3)
    ]
    until(lambda: site.service._events.queued_rows == 2)  # and one is at it
    closing = site.portal.start_task_soon(site.service.close)
    until(lambda: site.service.stopping)
    go_on.set()
    closing.result(20)
    assert [future.result(5).json()["stored"] for future in futures] == [1, 1, 1]
    assert order[-1] == "close"
    assert len(site.store.events["u"]) == 3
    assert site.ask("POST", "/v1/events", json=body).json()["error"]["code"] == "stopping"
