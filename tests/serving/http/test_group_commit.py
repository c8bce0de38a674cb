"""Several requests' events are committed together; each is told what became of its own."""

from __future__ import annotations

from .in_process import FakeSite, until


def body(user: str, *ids: str) -> dict[str, object]:
    return {"events": [{"id": event_id, "user": user, "item": "item-1", "timestamp": 1.0} for event_id in ids]}


def slow(site: FakeSite) -> None:
    """Let the store wait for `may_run`."""
    append = site.store.append

    def waiting(events: list[object]) -> list[bool]:
        site.users.may_run.wait(10)
        return append(events)

    site.users.append = waiting
    site.users.may_run.clear()


def test_requests_that_wait_are_one_transaction(site: FakeSite) -> None:
    slow(site)
    first = site.start("POST", "/v1/events", json=body("u0", "a"))
    until(lambda: site.service._events.queued_rows == 0 and site.service._events._worker is not None)
    waiting = [site.start("POST", "/v1/events", json=body("u1", "a", f"b{i}")) for i in range(5)]
    until(lambda: site.service._events.queued_rows == 10)
    site.users.may_run.set()
    assert first.result(10).json() == {"stored": 1, "duplicates": 0, "unknown_items": 0}
    replies = [item.result(10).json() for item in waiting]
    assert sorted(item["stored"] for item in replies) == [1, 1, 1, 1, 2]
    assert site.store.groups == [1, 10]


def test_a_group_that_fails_is_told_to_each_and_keeps_nothing(site: FakeSite) -> None:
    slow(site)
    first = site.start("POST", "/v1/events", json=body("u0", "a"))
    until(lambda: site.service._events.queued_rows == 0 and site.service._events._worker is not None)
    waiting = [site.start("POST", "/v1/events", json=body("u1", f"b{i}")) for i in range(3)]
    until(lambda: site.service._events.queued_rows == 3)
    site.store.broken = True
    site.users.may_run.set()
    assert [future.result(10).status_code for future in (first, *waiting)] == [503] * 4
    assert not site.store.events
    assert "peterrec_store_errors_total 2.0" in site.ask("GET", "/metrics").text
    site.store.broken = False
    assert site.ask("POST", "/v1/events", json=body("u1", "b0")).json()["stored"] == 1
