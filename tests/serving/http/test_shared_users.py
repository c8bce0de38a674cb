"""An erasure is acknowledged when no service of the store has a copy of the user in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
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
from peterrec.serving.http.logs import Log
from peterrec.serving.http.serve import open_service
from peterrec.serving.http.service import Service
from peterrec.serving.replicas import readers
from peterrec.serving.requests import Question
from peterrec.serving.store.base import Event
from serving.store.servers import RedisServer

from .in_process import until

EVENTS = [Event("anna", str(number), f"item-{number}", float(number)) for number in range(3)]


class Replica:
    """A service without HTTP that follows erasures; its answers and its following can be held up."""

    def __init__(self, folder: Path, number: int, url: str, portal: BlockingPortal) -> None:
        config = ServeConfig(store=url, state=str(folder / f"state-{number}"))
        self.service: Service = open_service(folder / "backbone", {"age": str(folder / "age")}, config, None, Log())
        self.portal, self.may_run, self.may_follow = portal, threading.Event(), threading.Event()
        self.runs = 0
        self.users: Any = self.service.parts.users
        run, forget_changed = self.users.run, self.users._forget_changed

        def held_run(prepared: Any) -> Any:
            self.runs += 1
            self.may_run.wait(20)
            return run(prepared)

        def held_forget() -> None:
            self.may_follow.wait(20)
            forget_changed()

        self.users.run, self.users._forget_changed = held_run, held_forget
        self.may_run.set()
        self.may_follow.set()
        self.tasks = [
            portal.start_task_soon(work) for work in (self.service.follower.follow, self.service.follower.fence)
        ]
        until(lambda: self.users.may_copy)

    def ask(self) -> Future[Any]:
        return self.portal.start_task_soon(self.service.answer_user, "anna", Question(["age"]))

    def erase(self) -> Future[Any]:
        return self.portal.start_task_soon(self.service.erase, "anna")

    @property
    def copies(self) -> tuple[float, float]:
        stats = self.users.stats()
        return stats["histories"], stats["states"]

    def close(self) -> None:
        self.may_run.set()
        self.may_follow.set()
        for task in self.tasks:
            task.cancel()
        self.portal.call(self.service.close)


@pytest.fixture
def replicas(tmp_path: Path, redis_server: RedisServer) -> Iterator[list[Replica]]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    pretrained = tiny_pretrained()
    save_backbone(tmp_path / "backbone", pretrained)
    save_bundle(tmp_path / "age", tiny_bundle(pretrained))
    with start_blocking_portal() as portal:
        opened = [Replica(tmp_path, number, redis_server.url, portal) for number in range(2)]
        opened[0].users.append(EVENTS)
        for replica in opened:
            assert replica.ask().result(20).events == len(EVENTS)
            assert replica.copies == (1, 1)
        yield opened
        for replica in opened:
            replica.close()


def test_an_erasure_waits_until_all_services_have_dropped_their_copies(replicas: list[Replica]) -> None:
    first, second = replicas
    second.may_follow.clear()
    erasing = first.erase()
    until(lambda: first.copies == (0, 0))
    time.sleep(0.5)
    assert not erasing.done()
    assert second.copies == (1, 1)
    second.may_follow.set()
    assert erasing.result(20).events == len(EVENTS)
    assert second.copies == (0, 0)


def test_who_is_erased_twice_is_waited_for_twice(replicas: list[Replica]) -> None:
    first, second = replicas
    second.may_follow.clear()
    erasing = [replica.erase() for replica in (first, first)]
    time.sleep(0.5)
    assert not any(future.done() for future in erasing)
    second.may_follow.set()
    assert sorted(future.result(20).events for future in erasing) == [0, len(EVENTS)]


def test_an_answer_that_had_begun_does_not_tell_of_who_was_erased_since(replicas: list[Replica]) -> None:
    first, second = replicas
    second.may_run.clear()
    runs = second.runs
    answering = second.ask()
    until(lambda: second.runs > runs)
    assert first.erase().result(20).events == len(EVENTS)
    second.may_run.set()
    assert answering.result(20).events == 0
    assert second.copies == (0, 0)


def test_an_answer_is_not_computed_again_for_the_erasure_of_somebody_else(replicas: list[Replica]) -> None:
    first, second = replicas
    first.users.append([Event("bert", "1", "item-1", 1.0)])
    second.may_run.clear()
    runs = second.runs
    answering = second.ask()
    until(lambda: second.runs > runs)
    first.portal.call(first.service.erase, "bert")
    second.may_run.set()
    assert answering.result(20).events == len(EVENTS)
    assert second.runs == runs + 1


def test_a_service_that_is_cut_off_keeps_no_copies(
    replicas: list[Replica], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "LAPSE_SECONDS", 0.5)
    monkeypatch.setattr(readers, "RENEW_SECONDS", 0.1)
    redis_server.kill()
    try:
        until(lambda: all(replica.copies == (0, 0) for replica in replicas))
    finally:
        redis_server.start()
    until(lambda: all(replica.users.may_copy for replica in replicas))
    assert replicas[1].ask().result(20).events == len(EVENTS)
    assert replicas[1].copies == (1, 1)


def test_a_service_that_does_not_get_on_drops_all_copies_before_it_is_not_waited_for_any_more(
    replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = replicas
    monkeypatch.setattr(readers, "LAPSE_SECONDS", 0.5)
    monkeypatch.setattr(readers, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(readers, "READER_SECONDS", 1.5)
    time.sleep(0.5)  # until these hold
    second.may_follow.clear()
    assert first.erase().result(20).events == len(EVENTS)
    assert second.copies == (0, 0)
    assert not second.may_follow.is_set()


def test_a_service_that_has_ended_is_not_waited_for(replicas: list[Replica]) -> None:
    first, second = replicas
    second.close()
    began = time.monotonic()
    assert first.erase().result(20).events == len(EVENTS)
    assert time.monotonic() - began < 2.0


def test_an_erasure_that_is_not_everywhere_in_time_is_not_acknowledged(replicas: list[Replica]) -> None:
    first, second = replicas
    second.may_follow.clear()
    object.__setattr__(first.service, "limits", first.service.limits.model_copy(update={"answer_seconds": 0.5}))
    with pytest.raises(Exception, match="no answer within"):
        first.erase().result(20)
    assert asyncio.run(first.service.read("anna")).events == []
