"""A replica that is slower than the registry, in this process: what it may answer meanwhile, and what not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import redis
from anyio.from_thread import BlockingPortal, start_blocking_portal

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.config import ServeConfig
from peterrec.errors import ConfigError
from peterrec.serving.http.errors import ApiError
from peterrec.serving.http.logs import Log
from peterrec.serving.http.serve import open_service
from peterrec.serving.http.service import Service
from peterrec.serving.requests import EVERY_TASK, Question, Request
from serving.store.servers import RedisServer

from .in_process import until

PRETRAINED = tiny_pretrained()
LEASE = 0.6


class Replica:
    """A service without HTTP, whose loading and answering can be held up."""

    def __init__(self, folder: Path, number: int, url: str, portal: BlockingPortal) -> None:
        settings = {"store": url, "registry": "store", "state": str(folder / f"state-{number}")}
        replicas = {"poll_ms": 30.0, "lease_ms": LEASE * 1000}
        config = ServeConfig.model_validate(settings | {"bundle_root": str(folder), "replicas": replicas})
        self._portal, self.may_load, self.may_run = portal, threading.Event(), threading.Event()
        self.service: Service = open_service(folder / "backbone", {}, config, None, Log())
        self.running = 0
        engine: Any = self.service.parts.engine
        users: Any = self.service.parts.users
        engine.read = self._held(engine.read, self.may_load)
        users.run = self._held(users.run, self.may_run)
        self.may_load.set()
        self.may_run.set()

    def _held(self, call: Callable[..., Any], may: threading.Event) -> Callable[..., Any]:
        def held(*arguments: Any, **options: Any) -> Any:
            self.running += 1
            may.wait(20)
            return call(*arguments, **options)

        return held

    def start(self, *tasks: str) -> Future[Any]:
        question = Question(tasks or EVERY_TASK)
        return self._portal.start_task_soon(self.service.answer, [Request(["item-1"], question)])

    def ask(self, *tasks: str) -> dict[str, str] | str:
        """Versions by task, or the code of the error."""
        try:
            (answer,) = self.start(*tasks).result(20)
        except ApiError as error:
            return error.code
        return {name: task.version for name, task in answer.tasks.items()}

    def close(self) -> None:
        self.may_load.set()
        self.may_run.set()
        asyncio.run(self.service.close())


@pytest.fixture
def replicas(tmp_path: Path, redis_server: RedisServer) -> Iterator[list[Replica]]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    save_backbone(tmp_path / "backbone", PRETRAINED)
    for seed in range(3):
        save_bundle(tmp_path / f"seed-{seed}", tiny_bundle(PRETRAINED, seed=seed))
    with start_blocking_portal() as portal:
        opened = [Replica(tmp_path, number, redis_server.url, portal) for number in range(2)]
        yield opened
        for replica in opened:
            portal.call(replica.service._answers.close)
            replica.close()


def load(replicas: list[Replica], **bundles: str) -> dict[str, str]:
    """Load bundles on the first replica, and wait for the others."""
    loaded = {name: replicas[0].service.bundles.load(name, folder).version for name, folder in bundles.items()}
    until(lambda: all(loaded.items() <= dict(replica.ask()).items() for replica in replicas))
    return loaded


def test_what_loads_slowly_refuses_when_the_lease_of_the_old_version_ends(replicas: list[Replica]) -> None:
    first, second = replicas
    old = load(replicas, age="seed-0", other="seed-1", gone="seed-1")
    second.may_load.clear()
    new = first.service.bundles.load("age", "seed-2").version
    published = time.monotonic()
    assert second.ask("age") in ({"age": old["age"]}, "bundle_behind")
    until(lambda: second.ask("age") == "bundle_behind")
    assert time.monotonic() - published < LEASE + 0.5
    assert second.ask() == "bundle_behind"
    assert second.ask("other") == {"other": old["other"]}
    assert second.service.bundles.not_ready() is None  # other bundles answer
    assert (second.service.bundles.generation or 0) < (first.service.bundles.generation or 0)
    first.service.bundles.drop("gone")  # is followed while the other one loads
    until(lambda: "gone" not in second.service.parts.engine.snapshot.loaded)
    second.may_load.set()
    until(lambda: second.ask() == {"age": new, "other": old["other"]})


def test_a_new_name_is_not_unknown_while_it_loads(replicas: list[Replica]) -> None:
    first, second = replicas
    second.may_load.clear()
    version = first.service.bundles.load("age", "seed-0").version
    until(lambda: second.running > 0)
    assert second.ask("age") == "bundle_behind"
    assert second.ask() == {}
    second.may_load.set()
    until(lambda: second.ask("age") == {"age": version})


def test_an_answer_that_took_longer_than_the_lease_is_asked_again(replicas: list[Replica]) -> None:
    first, second = replicas
    old = load(replicas, age="seed-0")
    second.may_run.clear()
    runs = second.running
    started = second.start("age")
    until(lambda: second.running > runs)
    new = first.service.bundles.load("age", "seed-2").version
    until(lambda: second.service.parts.engine.snapshot.loaded["age"].version == new)
    time.sleep(LEASE)
    second.may_run.set()
    assert started.result(20)[0].tasks["age"].version == new != old["age"]


def test_a_version_that_was_withdrawn_a_moment_ago_may_still_answer(replicas: list[Replica]) -> None:
    first, second = replicas
    old = load(replicas, age="seed-0")
    second.may_run.clear()
    runs = second.running
    started = second.start("age")
    until(lambda: second.running > runs)
    first.service.bundles.load("age", "seed-2")
    second.may_run.set()
    assert started.result(20)[0].tasks["age"].version == old["age"]


def test_a_file_is_no_store_that_replicas_share(tmp_path: Path) -> None:
    save_backbone(tmp_path / "backbone", PRETRAINED)
    config = ServeConfig(registry="store", state=str(tmp_path / "state"))
    with pytest.raises(ConfigError, match="needs a store that replicas share"):
        open_service(tmp_path / "backbone", {}, config, None, Log())
    assert not (tmp_path / "state").exists()


def test_a_lease_that_lapses_between_two_polls_is_refused() -> None:
    with pytest.raises(ValueError, match="twice poll_ms"):
        ServeConfig.model_validate({"replicas": {"poll_ms": 1_000.0, "lease_ms": 1_500.0}})
