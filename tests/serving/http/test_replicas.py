"""Two services that share a registry of bundles, on a real Redis server: what one of them is told, both answer by."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from serving.store.servers import RedisServer

from .in_own_process import ServiceProcess, process, write_artifacts
from .in_process import until

SHARED = ("--set", "registry=store", "--set", "replicas.poll_ms=50", "--set", "replicas.lease_ms=1000")
WITHDRAWN_SECONDS = 2.0
ASK = {"requests": [{"items": ["item-1"], "tasks": "*"}]}
Pair = tuple[ServiceProcess, ServiceProcess]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def services(artifacts: Path, tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Pair]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    states = [tmp_path_factory.mktemp("state") for _ in range(2)]
    options = ["--store", redis_server.url, *SHARED]
    command_line = ["--bundle", f"age={artifacts / 'age'}"]
    with (
        process(artifacts, states[0], *options, *command_line) as first,
        process(artifacts, states[1], *options) as second,
    ):
        yield first, second


@pytest.fixture
def pair(services: Pair) -> Pair:
    """Both, after every change that the test before has made on either."""
    follow(services, max(generation(service) for service in services))
    return services


def versions(service: ServiceProcess, body: Any = ASK) -> dict[str, str]:
    answer = service.post("/v1/predict", body)
    assert answer.status_code == 200, answer.text
    return {name: task["version"] for name, task in answer.json()["answers"][0]["tasks"].items()}


def put(service: ServiceProcess, name: str, path: str) -> dict[str, Any]:
    answer = service.client.put(f"/v1/bundles/{name}", json={"path": path})
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def generation(service: ServiceProcess) -> int:
    return int(service.client.get("/v1/bundles").json()["generation"])


def follow(services: Pair, wanted: int) -> float:
    """Wait until both have made a change; returns the seconds."""
    began = time.monotonic()
    until(lambda: all(generation(service) >= wanted for service in services), WITHDRAWN_SECONDS)
    return time.monotonic() - began


def test_a_bundle_that_one_replica_is_given_answers_on_both(pair: Pair) -> None:
    first, second = pair
    old = versions(first)
    assert versions(second) == old  # of the command line of the first one
    loaded = put(second, "age", "age2")
    assert versions(second)["age"] == loaded["version"] != old["age"]  # at once, where it was loaded
    follow(pair, loaded["generation"])
    assert versions(first) == versions(second)
    rolled_back = first.post("/v1/bundles/age/rollback", {}).json()
    assert (rolled_back["version"], rolled_back["generation"]) == (old["age"], loaded["generation"] + 1)
    follow(pair, rolled_back["generation"])
    listed = second.client.get("/v1/bundles/age").json()["versions"]
    assert {version["version"]: version["withdrawn"] for version in listed} == {
        loaded["version"]: True,
        old["age"]: False,
    }
    assert versions(second) == old
    new = put(first, "shop", "shop")
    follow(pair, new["generation"])
    assert versions(second) == old | {"shop": new["version"]}
    dropped = second.client.delete("/v1/bundles/shop").json()
    assert dropped == {"dropped": "shop", "generation": new["generation"] + 1}
    follow(pair, dropped["generation"])
    assert versions(first) == versions(second) == old
    assert first.client.delete("/v1/bundles/shop").status_code == 404


def test_a_refusal_changes_nothing_on_either(pair: Pair) -> None:
    before, number = versions(pair[1]), generation(pair[0])
    for path, status in (("foreign", 409), ("corrupt", 422), ("nowhere", 404), ("../age", 403)):
        assert pair[0].client.put("/v1/bundles/age", json={"path": path}).status_code == status
    assert (versions(pair[0]), generation(pair[1])) == (before, number)


def test_changes_at_once_on_both_are_all_made(pair: Pair) -> None:
    names = [f"at-once-{number}" for number in range(6)]
    numbers = [put(pair[number % 2], name, "age")["generation"] for number, name in enumerate(names)]
    assert len(set(numbers)) == len(numbers)
    follow(pair, max(numbers))
    assert set(names) <= set(versions(pair[0]))
    assert versions(pair[0]) == versions(pair[1])
    for number, name in enumerate(names):
        assert pair[number % 2].client.delete(f"/v1/bundles/{name}").status_code == 200


def test_no_version_answers_that_the_registry_has_not_confirmed(pair: Pair, redis_server: RedisServer) -> None:
    before = versions(pair[0])
    redis_server.kill()
    try:
        killed = time.monotonic()
        until(lambda: all(service.post("/v1/predict", ASK).status_code == 503 for service in pair), WITHDRAWN_SECONDS)
        assert time.monotonic() - killed < WITHDRAWN_SECONDS
        refused = pair[0].post("/v1/predict", ASK)
        assert (refused.json()["error"]["code"], refused.headers["Retry-After"]) == ("bundle_behind", "1")
        assert pair[1].client.get("/readyz").status_code == 503
        assert pair[1].client.put("/v1/bundles/age", json={"path": "age2"}).status_code == 503
    finally:
        redis_server.start()
    until(lambda: all(service.client.get("/readyz").status_code == 200 for service in pair))
    assert versions(pair[0]) == versions(pair[1]) == before


def test_a_copy_that_cannot_be_loaded_is_reported_and_what_it_replaces_does_not_answer(
    pair: Pair, artifacts: Path, redis_server: RedisServer
) -> None:
    before = put(pair[0], "torn", "age")
    follow(pair, before["generation"])
    (registry,) = (artifacts / ".peterrec-versions").iterdir()
    copy = registry / "torn" / put(pair[0], "other", "age2")["version"]
    copy.mkdir()  # what a file system that shows half of it would have
    (copy / "adapter_config.json").write_text("{")
    with redis.Redis.from_url(redis_server.url) as client:
        (bundles,), (state,) = client.keys("peterrec:bundles:*"), client.keys("peterrec:registry:*")
        number = client.hincrby(state, "generation", 1)
        history = {"answered": [before["version"], copy.name], "withdrawn": []}
        client.hset(bundles, "torn", f"{number} x {json.dumps(history)}")
        client.hset(state, "state", f"{number} x")
    for service in pair:
        until(lambda service=service: bool(service.client.get("/readyz").json()["failed"] == ["torn"]))
        refused = service.post("/v1/predict", {"requests": [{"items": [], "tasks": ["torn"]}]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "bundle_failed")
        assert "torn" not in versions(service)
    shutil.rmtree(copy)
    shutil.copytree(registry / "other" / copy.name, copy)  # it has arrived
    until(lambda: all(service.client.get("/readyz").json()["failed"] == [] for service in pair))
    assert versions(pair[1])["torn"] == copy.name


@pytest.mark.slow
def test_a_replica_that_starts_again_has_what_the_registry_says(
    pair: Pair, artifacts: Path, redis_server: RedisServer, tmp_path: Path
) -> None:
    put(pair[0], "age", "age2")
    options = ["--store", redis_server.url, *SHARED, "--bundle", f"age={artifacts / 'age'}"]
    with process(artifacts, tmp_path / "state", *options) as third:
        assert versions(third) == versions(pair[0])
        assert third.log("bundle remembered")
        third.client.delete("/v1/bundles/age")
    with process(artifacts, tmp_path / "state", *options) as third:
        assert "age" not in versions(third)
    empty = tmp_path / "not-shared"
    shutil.copytree(artifacts, empty, ignore=shutil.ignore_patterns(".*"))
    stranger = ServiceProcess(empty, tmp_path / "state", "--store", redis_server.url, *SHARED)
    assert stranger.join() == 1
    assert "not the folder that the other replicas have" in stranger.stderr_text
    stranger.process.stderr.close()


def test_metrics_tell_the_generation(pair: Pair) -> None:
    text = httpx.get(f"{pair[0].address}/metrics").text
    assert f"peterrec_bundles_generation {float(generation(pair[0]))}" in text
