"""Bundles come and go while the service answers."""

from __future__ import annotations

import os

import pytest

from peterrec.serving.versions import VersionHistory

from .in_process import FakeSite, until


def test_bundles_come_and_go(site: FakeSite) -> None:
    path = site.bundle("new", "v2")
    loaded = site.ask("PUT", "/v1/bundles/age", json={"path": path})
    assert (loaded.status_code, loaded.json()["version"], loaded.json()["active"]) == (200, "v2", True)
    versions = site.ask("GET", "/v1/bundles/age").json()["versions"]
    assert [(version["version"], version["active"]) for version in versions] == [("v2", True), ("v1", False)]
    back = site.ask("POST", "/v1/bundles/age/rollback", json={})
    assert (back.json()["version"], back.json()["active"]) == ("v1", True)
    assert site.ask("POST", "/v1/bundles/age/rollback", json={"version": "v2"}).json()["version"] == "v2"
    none = site.ask("POST", "/v1/bundles/age/rollback", json={"version": "v9"})
    assert (none.status_code, none.json()["error"]["code"]) == (404, "unknown_version")
    assert site.ask("DELETE", "/v1/bundles/age").json() == {"dropped": "age"}
    assert [version["name"] for version in site.ask("GET", "/v1/bundles").json()["versions"]] == ["shop"]
    histories = [VersionHistory(("v1", "v2")), VersionHistory(("v1",), ("v2",)), VersionHistory(("v1", "v2")), None]
    assert site.journal.lines == [("age", history) for history in histories]
    message = [line["event"] for line in site.log() if line["event"].startswith("bundle")]
    assert message == ["bundle loaded", "bundle rolled back", "bundle rolled back", "bundle dropped"]


def test_a_bundle_may_have_a_name_in_any_script(site: FakeSite) -> None:
    path = site.bundle("new", "v2")
    for name, written in (("性别", "性别"), ("naïve", "nai\u0308ve"), ("लिंग", "%E0%A4%B2%E0%A4%BF%E0%A4%82%E0%A4%97")):
        assert site.ask("PUT", f"/v1/bundles/{written}", json={"path": path}).json()["name"] == name
        answer = site.ask("POST", "/v1/predict", json={"requests": [{"items": [], "tasks": [name]}]})
        assert answer.status_code == 200, answer.text
        assert (site.root / "state" / "bundles" / name / "v2").is_dir()
        assert site.ask("DELETE", f"/v1/bundles/{written}").json() == {"dropped": name}
    answer = site.ask("DELETE", "/v1/bundles/.a")
    assert answer.json()["error"]["message"].startswith("name: a name is made of letters and digits of any script")


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/bundles/none", None, 404),
        ("DELETE", "/v1/bundles/none", None, 404),
        ("POST", "/v1/bundles/none/rollback", {}, 404),
        ("PUT", "/v1/bundles/age", {"path": "../outside"}, 403),
        ("PUT", "/v1/bundles/age", {"path": "/etc"}, 403),
        ("PUT", "/v1/bundles/age", {"path": "link"}, 403),
        ("PUT", "/v1/bundles/age", {"path": "x" * 999}, 404),
        ("PUT", "/v1/bundles/age", {"path": "nowhere"}, 404),
        ("PUT", "/v1/bundles/age", {"path": "."}, 404),
        ("PUT", "/v1/bundles/age", {"path": "broken"}, 422),
        ("PUT", "/v1/bundles/age", {"path": "foreign"}, 409),
        ("PUT", "/v1/bundles/-age", {"path": "foreign"}, 422),
        ("PUT", "/v1/bundles/a%2Fb", {"path": "foreign"}, 422),
    ],
)
def test_a_bundle_that_cannot_be_used(site: FakeSite, method: str, path: str, body: object, status: int) -> None:
    site.bundle("foreign", "foreign")
    (site.root / "broken").mkdir()
    (site.root / "broken" / "adapter_config.json").write_text("{")
    (site.root / "link").symlink_to("/etc")
    answer = site.ask(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert str(site.root) not in answer.text
    assert [info.version for info in site.engine.versions()] == ["v1", "v1"]
    assert not site.journal.lines


def test_a_bundle_that_cannot_be_remembered_is_not_kept(site: FakeSite) -> None:
    site.journal.broken = True
    for name in ("age", "other"):
        answer = site.ask("PUT", f"/v1/bundles/{name}", json={"path": site.bundle("new", "v2")})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
    assert "other" not in site.engine.bundles
    assert list((site.root / "state").rglob("version.json")) == []
    assert site.engine._active("age").version == "v1"


def test_every_version_that_may_answer_has_a_copy(site: FakeSite) -> None:
    folder = site.bundle("new", "v2")
    site.ask("PUT", "/v1/bundles/age", json={"path": folder})
    copies = site.root / "state" / "bundles" / "age"
    for version in ("v1", "v2", "v1"):
        assert site.ask("POST", "/v1/bundles/age/rollback", json={"version": version}).status_code == 200
        assert {copy.name: (copy / "version.json").read_text() for copy in copies.iterdir()} == {"v1": "v1", "v2": "v2"}
    assert site.ask("DELETE", "/v1/bundles/age").status_code == 200
    assert list(copies.iterdir()) == []


def test_a_withdrawn_version_comes_back_only_if_it_is_named(site: FakeSite) -> None:
    def change(method: str, path: str, body: dict[str, str]) -> str:
        answer = site.ask(method, f"/v1/bundles/age{path}", json=body)
        return answer.json().get("version") or answer.json()["error"]["code"]

    assert change("PUT", "", {"path": site.bundle("new", "v2")}) == "v2"
    assert change("POST", "/rollback", {}) == "v1"
    assert change("PUT", "", {"path": site.bundle("new", "v3")}) == "v3"
    assert change("POST", "/rollback", {}) == "v1"
    assert change("POST", "/rollback", {}) == "unknown_version"
    listed = site.ask("GET", "/v1/bundles/age").json()["versions"]
    assert [(version["version"], version["active"], version["withdrawn"]) for version in listed] == [
        ("v3", False, True), ("v2", False, True), ("v1", True, False),
    ]  # fmt: skip
    assert change("POST", "/rollback", {"version": "v2"}) == "v2"
    assert change("POST", "/rollback", {}) == "v1"


def test_a_folder_with_what_cannot_be_read_to_an_end_is_no_bundle(site: FakeSite) -> None:
    folder = site.root / site.bundle("pipes", "v2")
    os.mkfifo(folder / "labels.json")
    answer = site.ask("PUT", "/v1/bundles/age", json={"path": "pipes"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_bundle")


def test_a_roll_back_that_cannot_be_remembered_does_not_hold(site: FakeSite) -> None:
    site.ask("PUT", "/v1/bundles/age", json={"path": site.bundle("new", "v2")})
    site.journal.broken = True
    answer = site.ask("POST", "/v1/bundles/age/rollback", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
    assert site.engine._active("age").version == "v2"


def test_answers_go_on_while_a_bundle_loads_by_the_versions_they_started_with(site: FakeSite) -> None:
    site.engine.loading.clear()
    loading = site.start("PUT", "/v1/bundles/age", json={"path": site.bundle("new", "v2")})
    body = {"requests": [{"items": [], "tasks": ["age"]}]}
    assert site.ask("POST", "/v1/predict", json=body).status_code == 200
    site.users.may_run.clear()
    started = site.start("POST", "/v1/predict", json=body)
    until(lambda: len(site.users.runs) == 2)
    waiting = site.start("POST", "/v1/predict", json=body)
    until(lambda: site.service._answers.queued_rows == 1)
    site.engine.loading.set()
    assert loading.result(10).json()["version"] == "v2"
    site.users.may_run.set()
    versions = [future.result(10).json()["answers"][0]["tasks"]["age"]["version"] for future in (started, waiting)]
    assert versions == ["v1", "v1"]
    assert site.ask("POST", "/v1/predict", json=body).json()["answers"][0]["tasks"]["age"]["version"] == "v2"


def test_a_change_goes_on_without_its_client(site: FakeSite) -> None:
    site.engine.loading.clear()
    future = site.start("PUT", "/v1/bundles/age", json={"path": site.bundle("new", "v2")})
    until(lambda: site.service._loads._worker is not None)
    future.cancel()
    site.engine.loading.set()
    until(lambda: bool(site.journal.lines))
    assert site.engine._active("age").version == "v2"
