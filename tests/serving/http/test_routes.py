"""Answers of each address."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from .in_process import FakeSite

CLASSES = {
    "kind": "classification",
    "version": "v1",
    "label": "young",
    "probabilities": {"young": 0.75, "old": 0.25},
    "class_set": [],
}
ITEMS = {"kind": "ranking", "version": "v1", "items": ["item-1", "item-2"], "scores": [2.0, 1.0]}


def event(i: int, **fields: object) -> dict[str, object]:
    return {"id": f"e{i}", "user": "u/1", "item": f"item-{i}", "timestamp": 10.0 - i} | fields


# ---------------------------------------------------------------- questions


def test_tasks_about_given_histories(site: FakeSite) -> None:
    requests = [
        {"items": ["item-1", "nobody", 7], "tasks": ["age"]},
        {"items": [], "tasks": "*", "k": 1},
        {"items": ["item-1"] * 10_000, "tasks": ["shop", "shop"]},
    ]
    answer = site.ask("POST", "/v1/predict", json={"requests": requests})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "answers": [
            {"tasks": {"age": CLASSES}, "events": 3, "unknown_items": 2, "known_events": 1, "assumptions": []},
            {
                "tasks": {"age": CLASSES, "shop": ITEMS | {"items": ["item-1"], "scores": [2.0]}},
                "events": 0,
                "unknown_items": 0,
                "known_events": 0,
                "assumptions": [],
            },
            {"tasks": {"shop": ITEMS}, "events": 10_000, "unknown_items": 0, "known_events": 10_000, "assumptions": []},
        ]
    }
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert len(answer.headers["x-request-id"]) == 16
    assert "access-control-allow-origin" not in answer.headers


def test_which_events_mattered(site: FakeSite) -> None:
    answer = site.ask("POST", "/v1/explain", json={"items": ["item-1", "item-2"], "task": "age"})
    assert answer.json() == {
        "task": "age",
        "version": "v1",
        "of": "young",
        "value": 0.75,
        "contributions": [0.1, 0.1],
    }
    too_many = site.ask("POST", "/v1/explain", json={"items": ["item-1"] * 201, "task": "age"})
    assert too_many.status_code == 422
    assert "at most 200" in too_many.json()["error"]["message"]


def test_what_may_be_asked_and_the_items(site: FakeSite) -> None:
    matches = site.ask("GET", "/v1/tasks").json()
    assert [task["name"] for task in matches["tasks"]] == ["age", "shop"]
    assert matches["model"] == {
        "items": 12,
        "max_length": 6,
        "channels": 8,
        "blocks": 2,
        "kind": "causal",
        "fingerprint": "f" * 64,
    }
    items = site.ask("GET", "/v1/items", params={"q": "ITEM-1", "limit": 2}).json()["items"]
    assert [match["item"] for match in items] == ["item-1", "item-10"]
    assert len(site.ask("GET", "/v1/items").json()["items"]) == 12
    titles = site.ask("POST", "/v1/items/titles", json={"items": ["item-1", "item-2", 3]})
    assert titles.json() == {"titles": {"item-1": "The first"}}


# ---------------------------------------------------------------- users


def test_events_are_kept_once_shown_in_order_and_erased(site: FakeSite) -> None:
    events = [event(1, domain="books"), event(2, item="nobody"), event(1, item="item-9")]
    assert site.ask("POST", "/v1/events", json={"events": events}).json() == {
        "stored": 2,
        "duplicates": 1,
        "unknown_items": 1,
    }
    assert site.ask("POST", "/v1/events", json={"events": [event(1)]}).json()["duplicates"] == 1
    shown = site.ask("GET", "/v1/users/u%2F1").json()
    assert (shown["user"], shown["count"]) == ("u/1", 2)
    assert shown["events"] == [
        {"id": "e2", "item": "nobody", "timestamp": 8.0, "domain": None, "features": None, "known": False},
        {"id": "e1", "item": "item-1", "timestamp": 9.0, "domain": "books", "features": None, "known": True},
    ]
    answer = site.ask("POST", "/v1/users/u%2F1/predict", json={"tasks": ["age"]}).json()
    assert answer == {"tasks": {"age": CLASSES}, "events": 2, "unknown_items": 1, "known_events": 1, "assumptions": []}
    assert site.ask("DELETE", "/v1/users/u%2F1").json() == {"erased": 2, "complete": True}
    assert site.ask("DELETE", "/v1/users/u%2F1").json() == {"erased": 0, "complete": True}
    erased = site.ask("GET", "/v1/users/u%2F1")
    assert (erased.status_code, erased.json()["error"]["code"]) == (404, "unknown_user")
    unknown = site.ask("POST", "/v1/users/u%2F1/predict", json={})
    assert (unknown.status_code, unknown.json()["events"]) == (200, 0)


@pytest.mark.parametrize("user", ["a/b", "a%2Fb", "a%25b", "100%", "x/predict", "\u00e9 \U0001f600", "..", "?#&"])
def test_an_id_may_have_any_letters(site: FakeSite, user: str) -> None:
    path = quote(user, safe="") if user != ".." else "%2e%2e"
    site.ask("POST", "/v1/events", json={"events": [event(1, user=user)]})
    assert site.ask("POST", f"/v1/users/{path}/predict", json={"tasks": []}).status_code == 422
    assert site.ask("POST", f"/v1/users/{path}/predict", json={}).json()["events"] == 1
    assert site.ask("GET", f"/v1/users/{path}").json()["user"] == user
    assert site.ask("DELETE", f"/v1/users/{path}").json() == {"erased": 1, "complete": True}
    assert not site.store.events


def test_whole_numbers_are_integers_however_they_are_written(site: FakeSite) -> None:
    body = b'{"events": [{"id": "e", "user": "u", "item": 5.0, "timestamp": 1}]}'
    site.ask("POST", "/v1/events", content=body, headers={"Content-Type": "application/json"})
    assert repr(site.store.events["u"]["e"].item) == "5"


def test_an_event_without_a_time_is_of_now(site: FakeSite) -> None:
    site.ask("POST", "/v1/events", json={"events": [{"id": "e", "user": "u", "item": 5}]})
    event = site.store.events["u"]["e"]
    assert event.timestamp > 1.7e9
    assert (event.item, type(event.item)) == (5, int)


def test_events_without_a_time_keep_the_order_of_their_requests(site: FakeSite) -> None:
    for first in range(0, 900, 300):
        events = [{"id": str(i), "user": "u", "item": i} for i in range(first, first + 300)]
        site.ask("POST", "/v1/events", json={"events": events})
    times = [event.timestamp for event in site.store.events["u"].values()]
    assert len(set(times)) == len(times) == 900
    assert times == sorted(times)


def test_an_erasure_that_is_not_finished_is_pending(site: FakeSite) -> None:
    site.store.keeps_erased = True
    site.ask("POST", "/v1/events", json={"events": [event(1)]})
    assert site.ask("DELETE", "/v1/users/u%2F1").json() == {"erased": 1, "complete": False}
    pending = site.ask("GET", "/v1/erasures").json()
    assert pending == {"pending": 1, "since": site.store.erased[0]}
    site.store.keeps_erased = False
    site.store.finish_erasures()
    assert site.ask("GET", "/v1/erasures").json() == {"pending": 0, "since": None}


def test_a_broken_store_is_503_for_whom_it_concerns(site: FakeSite) -> None:
    site.store.broken = True
    body = {"events": [event(1)]}
    for method, path, sent in [
        ("POST", "/v1/events", body),
        ("GET", "/v1/users/u", None),
        ("DELETE", "/v1/users/u", None),
        ("GET", "/v1/erasures", None),
        ("POST", "/v1/users/u/predict", {}),
    ]:
        answer = site.ask(method, path, json=sent)
        assert answer.status_code == 503, path
        assert answer.json()["error"] == {
            "code": "store_unavailable",
            "message": "the disk is full",
            "remedy": "make room",
        }
    assert site.ask("POST", "/v1/predict", json={"requests": [{"items": []}]}).status_code == 200
    assert site.ask("GET", "/readyz").status_code == 503
    assert site.ask("GET", "/healthz").status_code == 200
    assert not site.store.events
    assert "peterrec_store_errors_total 5.0" in site.ask("GET", "/metrics").text


def test_opt_outs_are_set_shown_taken_back_and_erased(site: FakeSite) -> None:
    path = "/v1/users/u%2F1/opt-outs"
    assert site.ask("GET", path).json() == {"user": "u/1", "opt_outs": []}
    for task in ("shop", "age", "age"):
        answer = site.ask("PUT", f"{path}/{task}")
    assert (answer.status_code, answer.json()) == (200, {"user": "u/1", "opt_outs": ["age", "shop"]})
    assert site.ask("GET", "/v1/users/u%2F1").json()["opt_outs"] == ["age", "shop"]
    refused = site.ask("POST", "/v1/users/u%2F1/predict", json={"tasks": ["age"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "opted_out")
    assert "opted out of age" in refused.json()["error"]["message"]
    assert site.ask("POST", "/v1/users/u%2F1/predict", json={"tasks": "*"}).json()["tasks"] == {}
    assert site.ask("DELETE", f"{path}/age").json() == {"user": "u/1", "opt_outs": ["shop"]}
    assert site.ask("GET", path).json()["opt_outs"] == ["shop"]
    site.ask("DELETE", "/v1/users/u%2F1")
    assert site.ask("GET", path).json()["opt_outs"] == []
    assert site.ask("PUT", f"{path}/no%20task%2Fname").status_code in (404, 422)
    assert site.ask("PUT", f"/v1/users/{'u' * 2_000}/opt-outs/age").status_code == 422
