"""Bad input gets a status, one form of error, and nothing is done."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from peterrec.serving.http import errors, schemas

from .in_process import FakeSite, until

JSON = {"Content-Type": "application/json"}
ITEM = '{"requests": [{"items": [%s]}]}'
EVENT = '{"events": [{"id": %s, "user": %s, "item": %s, "timestamp": %s}]}'


def refused(site: FakeSite, path: str, body: bytes | str, status: int, message: str = "") -> dict[str, str]:
    answer = site.ask("POST", path, content=body, headers=JSON)
    assert answer.status_code == status, answer.text[:500]
    error: dict[str, str] = answer.json()["error"]
    assert set(error) == {"code", "message", "remedy"}
    assert message in error["message"]
    assert len(answer.text) < 2_000
    assert not site.store.events
    assert not site.users.runs
    return error


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b'{"requests": [', b"nothing", b'{"requests": []}}', b"\xff\xfe\x00", b'{"requests": "\xff"}',
        b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b'{"requests": [{"items": [' + b"9" * 5_000 + b"]}]}",
    ],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_json(site: FakeSite, body: bytes) -> None:
    for path in ("/v1/predict", "/v1/events"):
        answer = site.ask("POST", path, content=body, headers=JSON)
        assert answer.status_code in {400, 422}, answer.text
        assert answer.json()["error"]["code"] in {"malformed_json", "invalid_request"}
        assert "Error" not in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"[" * 3_000 + b"]" * 3_000, b'{"a":' * 3_000 + b"1" + b"}" * 3_000])
def test_what_is_nested_too_deep_is_told(site: FakeSite, body: bytes) -> None:
    assert refused(site, "/v1/predict", body, 400, "the body is nested too deep")["remedy"]


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize(
    "item",
    [
        "true",
        "1.5",
        "1e400",
        "NaN",
        "null",
        "[]",
        "{}",
        '""',
        '"a\\u0000b"',
        '"\\ud800"',
        str(2**63),
        str(-(2**64)),
        "1e300",
    ],
)
def test_what_is_no_id(site: FakeSite, item: str) -> None:
    error = refused(site, "/v1/predict", ITEM % item, 422, "requests.0.items.0: ")
    assert "constrained" not in error["message"]
    refused(site, "/v1/events", EVENT % ('"e"', '"u"', item, "1"), 422, "item")
    if item != str(-(2**64)):
        refused(site, "/v1/events", EVENT % ('"e"', item, '"i"', "1"), 422, "user")
        refused(site, "/v1/events", EVENT % (item, '"u"', '"i"', "1"), 422, "id")


@pytest.mark.parametrize("timestamp", ["NaN", "Infinity", "-Infinity", "1e999", '"1"', "true", "[]", '"2020-01-01"'])
def test_what_is_no_time(site: FakeSite, timestamp: str) -> None:
    refused(site, "/v1/events", EVENT % ('"e"', '"u"', '"i"', timestamp), 422, "timestamp")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("k", [0, -1, 1.5, "3", True, 1_001, 10**30, None]),
        ("tasks", [[], "age", 5, [5], [""], None, ["a"] * 1_001, "**"]),
        ("exclude_seen", [1, "yes", []]),
        ("patched", [0, "no"]),
        ("items", ["abc", 5, None, {"a": 1}]),
        ("more", [1]),
    ],
)
def test_what_is_no_question(site: FakeSite, field: str, values: list[Any]) -> None:
    for value in values:
        refused(site, "/v1/predict", json.dumps({"requests": [{"items": [], field: value}]}), 422, field)


def test_an_unknown_task_is_named_and_those_that_are_there(site: FakeSite) -> None:
    error = refused(site, "/v1/predict", '{"requests": [{"items": [], "tasks": ["income"]}]}', 404, "income")
    assert error["code"] == "unknown_task"
    refused(site, "/v1/users/u/predict", '{"tasks": ["income"]}', 404, "income")
    refused(site, "/v1/explain", '{"items": [], "task": "income"}', 404, "income")


def test_a_body_of_the_wrong_kind(site: FakeSite) -> None:
    for body in ("[]", "5", '"text"', "null", "{}"):
        refused(site, "/v1/predict", body, 422)


def test_an_event_of_many_is_wrong_and_none_is_kept(site: FakeSite) -> None:
    events = [{"id": f"e{i}", "user": "u", "item": 1} for i in range(50)]
    refused(site, "/v1/events", json.dumps({"events": [*events, {"id": "x", "user": "u"}]}), 422, "events.50.item")


def test_a_message_never_repeats_what_was_sent(site: FakeSite) -> None:
    secret = "secret" * 50
    for body in ({"requests": [{"items": [secret], "k": secret}]}, {"requests": secret}, {"requests": [secret]}):
        assert "secret" not in json.dumps(refused(site, "/v1/predict", json.dumps(body), 422))
    named = refused(site, "/v1/predict", json.dumps({"requests": [{"items": []}], "\n\x1b" + "x" * 500: 1}), 422)
    assert "x" * 61 not in named["message"]
    assert "\x1b" not in named["message"]


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("path", "body", "limit"),
    [
        ("/v1/predict", {"requests": [{"items": []}] * 257}, "256"),
        ("/v1/predict", {"requests": [{"items": []}, {"items": [1] * 10_001}]}, "10,000"),
        ("/v1/predict", {"requests": [{"items": [1, "x" * 257]}]}, "256"),
        ("/v1/predict", {"requests": [{"items": [], "k": 1_001}]}, "1,000"),
        ("/v1/events", {"events": [{"id": "e", "user": "u", "item": 1}] * 1_001}, "1,000"),
        ("/v1/events", {"events": [{"id": "e", "user": "x" * 257, "item": 1}]}, "256"),
        ("/v1/events", {"events": [{"id": "x" * 257, "user": "u", "item": 1}]}, "256"),
        ("/v1/events", {"events": [{"id": "e", "user": "u", "item": "x" * 257}]}, "256"),
        ("/v1/users/u/predict", {"k": 1_001}, "1,000"),
        (f"/v1/users/{'x' * 257}/predict", {}, "256"),
        ("/v1/explain", {"items": [1] * 201, "task": "age"}, "200"),
        ("/v1/items/titles", {"items": [1] * 10_001}, "10,000"),
    ],
    ids=range(12),
)
def test_more_than_is_allowed_names_the_limit(site: FakeSite, path: str, body: object, limit: str) -> None:
    refused(site, path, json.dumps(body), 422, f"at most {limit} are allowed")


WRONG = 100_000


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/events", {"events": [{}] * WRONG}),
        ("/v1/events", {"events": [{str(i): i for i in range(WRONG)}]}),
        ("/v1/events", {"events": [5] * WRONG}),
        ("/v1/predict", {"requests": [{}] * WRONG}),
        ("/v1/predict", {"requests": [{"items": []}] * WRONG}),
        ("/v1/predict", {"requests": [{"items": [True] * WRONG}]}),
        ("/v1/predict", {"requests": [{"items": [True] * 1_000}] * 100}),
        ("/v1/predict", {"requests": [{"items": [], "tasks": [1] * WRONG}]}),
        ("/v1/predict", {str(i): i for i in range(WRONG)}),
        ("/v1/users/u/predict", {str(i): i for i in range(WRONG)}),
        ("/v1/users/u/predict", {"tasks": [None] * WRONG}),
        ("/v1/explain", {"items": [[]] * WRONG, "task": "age"}),
        ("/v1/items/titles", {"items": [{}] * WRONG}),
        ("/v1/bundles/age/rollback", {str(i): i for i in range(WRONG)}),
    ],
    ids=range(14),
)
def test_a_body_of_many_mistakes_is_not_listed(
    site: FakeSite, path: str, body: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    as_before = errors._from_validation
    monkeypatch.setattr(
        errors, "_from_validation", lambda problems: (built.append(len(problems)), as_before(problems))[1]
    )
    sent = json.dumps(body)
    began = time.monotonic()
    refused(site, path, sent, 422)
    assert time.monotonic() - began < 8
    assert len(built) == 1
    assert built[0] <= 5


def test_mistakes_are_few_without_the_settings_too() -> None:
    for kind, body in (
        (schemas.EventsBody, {"events": [{}] * 1_000}),
        (schemas.PredictBody, {"requests": [{"items": [True] * 1_000}] * 100}),
        (schemas.RequestBody, {"items": [], "tasks": [1] * 900}),
        (schemas.ExplainBody, {"items": [None] * 1_000, "task": "a"}),
        (schemas.TitlesBody, {"items": [None] * 1_000}),
        (schemas.LoadBody, {str(i): i for i in range(1_000)}),
    ):
        with pytest.raises(ValidationError) as errors:
            kind.model_validate(body)
        assert errors.value.error_count() <= 5, kind


def test_a_few_wrong_keys_are_named(site: FakeSite) -> None:
    error = refused(site, "/v1/predict", '{"requests": [{"items": []}], "pathc": 1, "kk": 2}', 422, "pathc: ")
    assert "kk: " in error["message"]


def test_limits_are_settings(tmp_path: Path) -> None:
    with FakeSite(tmp_path, limits={"history": 3, "body_bytes": 200}) as site:
        refused(site, "/v1/predict", ITEM % "1,2,3,4", 422, "at most 3")
        refused(site, "/v1/predict", ITEM % ("1," * 200 + "1"), 413, "at most 200 bytes")
        document = site.ask("GET", "/openapi.json").json()
        assert document["components"]["schemas"]["RequestBody"]["properties"]["items"]["maxItems"] == 3


def test_a_body_that_is_too_large_is_not_read_on(site: FakeSite) -> None:
    parts: list[int] = []

    async def body() -> Any:
        for i in range(100):
            parts.append(i)
            yield b" " * 1_000_000

    answer = site.ask("POST", "/v1/predict", content=body(), headers=JSON)  # chunked: nobody says how long it is
    assert answer.status_code == 413
    assert len(parts) <= 6
    reply = site.ask("POST", "/v1/predict", content=b" " * 4_000_001, headers=JSON)
    assert reply.json()["error"]["code"] == "too_large"
    for length in ("-1", "5x", "9" * 400, "\u00b2"):
        headers = JSON | {"Content-Length": length.encode()}
        assert site.ask("POST", "/v1/predict", content=b"{}", headers=headers).status_code == 413, length


def test_a_body_that_does_not_arrive_is_408(tmp_path: Path) -> None:
    async def body() -> Any:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    with FakeSite(tmp_path, limits={"body_seconds": 0.2}) as site:
        answer = site.ask("POST", "/v1/predict", content=body(), headers=JSON)
        assert (answer.status_code, answer.json()["error"]["code"]) == (408, "too_slow")
        assert answer.headers["connection"] == "close"


def test_queries_and_paths(site: FakeSite) -> None:
    for query in ("limit=0", "limit=101", "limit=x", "q=" + "x" * 201, "q=%00"):
        assert site.ask("GET", f"/v1/items?{query}").status_code == 422, query
    for user in ("%00", "a%00b", "x" * 257):
        assert site.ask("GET", f"/v1/users/{user}").status_code == 422, user
        assert site.ask("DELETE", f"/v1/users/{user}").status_code == 422, user
    for path in ("/v1/users/%FF", "/v1/users/a%C3", "/assets/%ff", "/%e9"):
        answer = site.ask("GET", path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request"), path
    assert site.ask("GET", "/v1/users/%C3%A9%25FF").status_code == 404
    assert site.ask("GET", "/v1/users/").status_code in {404, 422}
    assert site.ask("DELETE", "/v1/users/").status_code in {404, 422}


def test_past_the_queue_the_answer_is_429_and_past_the_time_504(tmp_path: Path) -> None:
    with FakeSite(tmp_path, limits={"queue": 4, "answer_seconds": 1.0}) as site:
        site.users.may_run.clear()
        body = {"requests": [{"items": []}]}  # two rows: two tasks
        running = site.start("POST", "/v1/predict", json=body)
        until(lambda: len(site.users.runs) == 1)
        waiting = [site.start("POST", "/v1/predict", json=body) for _ in range(2)]
        until(lambda: site.service._answers.queued_rows == 4)
        full = site.ask("POST", "/v1/predict", json=body)
        assert (full.status_code, full.json()["error"]["code"]) == (429, "busy")
        assert int(full.headers["retry-after"]) >= 1
        assert site.ask("POST", "/v1/explain", json={"items": [], "task": "age"}).status_code == 429
        assert site.ask("POST", "/v1/events", json={"events": [{"id": "e", "user": "u", "item": 1}]}).status_code == 200
        for future in (running, *waiting):
            assert (future.result(10).status_code, future.result(10).json()["error"]["code"]) == (504, "too_slow")
        assert site.service._answers.queued_rows == 0
        site.users.may_run.set()
        assert site.ask("POST", "/v1/predict", json=body).status_code == 200
        assert site.users.runs == [1, 1], "who gave up was worked for"
