"""Every address wants its scope, and nothing of another site gets in."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peterrec.serving.http.app import ROUTERS
from peterrec.serving.http.auth import is_loopback

from .fakes import KEYS
from .in_process import FakeSite

BODY = {"events": [{"id": "e", "user": "u", "item": "i"}]}
# (method, template) -> scope, and what to send
ROUTES: dict[tuple[str, str], tuple[str | None, Any]] = {
    ("POST", "/v1/predict"): ("read", {"requests": [{"items": []}]}),
    ("POST", "/v1/explain"): ("read", {"items": [], "task": "age"}),
    ("GET", "/v1/tasks"): ("read", None),
    ("GET", "/v1/items"): ("read", None),
    ("POST", "/v1/items/titles"): ("read", {"items": []}),
    ("POST", "/v1/events"): ("write", BODY),
    ("POST", "/v1/users/{user}/predict"): ("read", {}),
    ("GET", "/v1/users/{user}"): ("read", None),
    ("DELETE", "/v1/users/{user}"): ("write", None),
    ("GET", "/v1/users/{user}/opt-outs"): ("read", None),
    ("PUT", "/v1/users/{user}/opt-outs/{task}"): ("write", None),
    ("DELETE", "/v1/users/{user}/opt-outs/{task}"): ("write", None),
    ("GET", "/v1/erasures"): ("write", None),
    ("GET", "/v1/bundles"): ("operate", None),
    ("GET", "/v1/bundles/{name}"): ("operate", None),
    ("PUT", "/v1/bundles/{name}"): ("operate", {"path": "new"}),
    ("POST", "/v1/bundles/{name}/rollback"): ("operate", {}),
    ("DELETE", "/v1/bundles/{name}"): ("operate", None),
    ("GET", "/healthz"): (None, None),
    ("GET", "/readyz"): (None, None),
    ("GET", "/metrics"): (None, None),
    ("GET", "/openapi.json"): (None, None),
    ("GET", "/"): (None, None),
    ("GET", "/assets/{file}"): (None, None),
}


def routes() -> Iterator[tuple[str, Any]]:
    for router in ROUTERS:
        for route in router.routes:
            listed: Any = route
            for method in listed.methods:
                yield method, listed


def test_every_route_has_its_scope() -> None:
    operations = {}
    for method, route in routes():
        scopes = {getattr(dependency.dependency, "scope", None) for dependency in route.dependencies}
        assert len(scopes) <= 1, route.path
        operations[method, route.path_format] = next(iter(scopes), None)
        assert not route.path.startswith("/v1") or scopes != {None}, f"{route.path} has no scope"
    assert operations == {route: scope for route, (scope, _) in ROUTES.items()}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("key", [*KEYS, "wrong-key", "", "reader-key\u00e9"])
def test_who_may_do_what(locked: FakeSite, key: str) -> None:
    scopes = KEYS[key][1] if key in KEYS else None
    for (method, template), (scope, body) in ROUTES.items():
        locked.bundle("new", "v2")
        path = template.format(user="u", task="age", name="age", file="app.js")
        locked.engine.__init__()
        headers = {"Authorization": f"Bearer {key}".encode("latin-1")} if key else {}
        answer = locked.ask(method, path, json=body, headers=headers)
        about = f"{method} {path} with {key!r}: {answer.text}"
        if scope is not None and scopes is None:
            assert answer.status_code == 401, about
            assert answer.headers["www-authenticate"] == "Bearer", about
        elif scope is not None and scope not in (scopes or ()):
            assert answer.status_code == 403, about
        else:
            assert answer.status_code in {200, 404}, about
            assert answer.status_code == 200 or answer.json()["error"]["code"] in {"unknown_user", "unknown_version"}, (
                about
            )


def test_the_key_may_be_in_either_header(locked: FakeSite) -> None:
    for headers in (
        {"X-API-Key": "reader-key"},
        {"authorization": "bearer reader-key"},
        {"Authorization": "BEARER  reader-key "},
    ):
        assert locked.ask("GET", "/v1/tasks", headers=headers).status_code == 200
    for headers in (
        {"Authorization": "Basic reader-key"},
        {"Authorization": "reader-key"},
        {"Authorization": "Bearer reader-key x"},
    ):
        assert locked.ask("GET", "/v1/tasks", headers=headers).status_code == 401


def test_the_key_is_asked_for_before_the_body_is_read(locked: FakeSite) -> None:
    sent: list[bytes] = []

    async def body() -> Any:
        sent.append(b"x")
        yield b"x" * 10_000_000

    answer = locked.ask("POST", "/v1/predict", content=body(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 401
    assert not sent


def test_with_keys_any_host_may_be_meant(locked: FakeSite) -> None:
    headers = {"Host": "models.example.org", "X-API-Key": "reader-key"}
    assert locked.ask("GET", "/v1/tasks", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.8.8.8:1", "[::1]:8000", "localhost."]
)
def test_without_keys_this_machine_may_do_everything(site: FakeSite, host: str) -> None:
    assert site.ask("GET", "/v1/bundles", headers={"Host": host}).status_code == 200


@pytest.mark.quick_cases(6)
@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[fe80::1]", "", "0.0.0.0"]
)
@pytest.mark.parametrize("path", ["/", "/v1/tasks", "/metrics"])
def test_without_keys_another_name_is_refused(site: FakeSite, host: str, path: str) -> None:
    answer = site.ask("GET", path, headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
def test_a_form_of_another_site_is_refused(site: FakeSite, kind: str) -> None:
    headers = {"Content-Type": kind, "Origin": "https://evil.example"}
    for path in ("/v1/events", "/v1/bundles/age/rollback"):
        answer = site.ask("POST", path, content=b'{"events": []}', headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "not_json")
    assert site.ask("OPTIONS", "/v1/events", headers={"Origin": "https://evil.example"}).status_code == 405


def test_json_may_name_its_charset_but_not_be_compressed(site: FakeSite) -> None:
    kind = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert site.ask("POST", "/v1/users/u/predict", content=b"{}", headers=kind).status_code == 200
    for packing in ("gzip", "br", "identity, gzip"):
        headers = kind | {"Content-Encoding": packing}
        for path in ("/v1/users/u/predict", "/v1/predict", "/v1/events"):
            packed = site.ask("POST", path, content=gzip.compress(b"{}"), headers=headers)
            assert (packed.status_code, packed.json()["error"]["code"]) == (415, "not_json"), path
            assert "compressed" in packed.json()["error"]["message"]
    plain = site.ask("POST", "/v1/users/u/predict", content=b"{}", headers=kind | {"Content-Encoding": "identity"})
    assert plain.status_code == 200


BODILESS = ("/v1/users/u/predict", "/v1/bundles/age/rollback")


@pytest.mark.parametrize("length", [None, "0"])
@pytest.mark.parametrize("path", BODILESS)
def test_a_body_may_be_left_out_where_all_of_it_may(site: FakeSite, path: str, length: str | None) -> None:
    site.ask("PUT", "/v1/bundles/age", json={"path": site.bundle("new", "v2")})
    headers = {"Content-Length": length} if length else {}
    left_out = site.ask("POST", path, headers=headers)
    assert left_out.status_code == 200, left_out.text
    assert site.ask("POST", path, headers=headers | {"Content-Type": "text/plain"}).status_code == 415
    for required in ("/v1/predict", "/v1/events", "/v1/explain"):
        assert site.ask("POST", required, headers=headers).status_code == 422
    with_body = site.ask("POST", "/v1/users/u/predict", json={})
    assert with_body.json() == site.ask("POST", "/v1/users/u/predict", headers=headers).json()


@pytest.mark.parametrize("path", BODILESS)
@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_another_site_may_not_leave_the_body_out(site: FakeSite, path: str, origin: str) -> None:
    for headers in ({}, {"Content-Length": "0"}):
        answer = site.ask("POST", path, headers={"Origin": origin} | headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "not_json")


def test_a_body_without_a_kind_is_refused(site: FakeSite) -> None:
    async def body() -> Any:
        yield b"{}"

    for path in BODILESS:
        assert site.ask("POST", path, content=b"{}").status_code == 415
        assert site.ask("POST", path, content=body()).status_code == 415


@pytest.mark.parametrize("path", ["/", "/v1/tasks", "/healthz"])
def test_two_hosts_are_one_too_many(site: FakeSite, locked: FakeSite, path: str) -> None:
    for service_site in (site, locked):
        headers = [("Host", "localhost"), ("Host", "localhost"), ("X-API-Key", "reader-key")]
        answer = service_site.ask("GET", path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


def test_loopback_names() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.255.0.1", "::1", "[::1]"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "", "example.org", "localhost.org", "192.168.0.1"]))


def test_a_key_with_all_scopes_is_named_in_the_log(tmp_path: Path) -> None:
    with FakeSite(tmp_path, keys=True) as site:
        site.ask("GET", "/v1/tasks", headers={"X-API-Key": "reader-key"})
        assert site.log()[0]["key"] == "reader"
