"""Replicas whose backbone grew take the place of those before them, one by one, while users ask."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import redis

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.training.new_items import with_items
from serving.store.servers import RedisServer

from .in_own_process import ServiceProcess, process, write_artifacts
from .in_process import until

SHARED = ("--set", "registry=store", "--set", "replicas.poll_ms=50", "--set", "replicas.lease_ms=1000")
USERS = [f"u{number}" for number in range(8)]
NEWCOMER = "somebody-with-a-new-item"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone and bundles; `grown`, the backbone with `item-new`; and `later`, a bundle made on that."""
    folder = write_artifacts(tmp_path_factory.mktemp("artifacts"))
    pretrained = tiny_pretrained()
    catalogue = pretrained.catalogue.extended(pa.array(["item-new"]), np.array([3]))
    features = np.random.default_rng(0).normal(size=(len(catalogue), 4))
    grown = with_items(pretrained, catalogue, features, np.ones(len(pretrained.catalogue)))
    save_backbone(folder / "grown", grown)
    save_bundle(folder / "later", tiny_bundle(grown, seed=11))
    return folder


class Clients:
    """Clients who ask all the time, of whichever replica is there, and keep what they are told."""

    def __init__(self, services: list[ServiceProcess]) -> None:
        self.services = services
        self.answers: dict[str, list[Any]] = {user: [] for user in USERS}
        self.refusals: list[str] = []
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(user,)) for user in USERS]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, answers: int) -> None:
        """Wait until each user has been told so many more."""
        counts = {user: len(self.answers[user]) + answers for user in USERS}
        until(lambda: all(len(self.answers[user]) >= count for user, count in counts.items()) or self.refusals, 30)

    def _ask(self, user: str) -> None:
        for turn in itertools.count():
            if self._ends.is_set():
                return
            service = self.services[turn % len(self.services)]
            try:  # as behind a proxy: a replica that is not there, or not ready, is passed over
                reply = httpx.post(f"{service.address}/v1/users/{user}/predict", json={}, timeout=20)
            except httpx.TransportError:
                continue
            if reply.status_code == 200:
                self.answers[user].append(reply.json())
            elif reply.status_code != 503:
                self.refusals.append(reply.text)


@pytest.fixture
def empty_store(redis_server: RedisServer) -> str:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


def post(service: ServiceProcess, user: str, items: list[str]) -> None:
    events = [{"id": f"{item}-{n}", "user": user, "item": item, "timestamp": float(n)} for n, item in enumerate(items)]
    reply = service.post("/v1/events", {"events": events})
    assert reply.status_code == 200, reply.text


def test_nobody_hears_of_it(artifacts: Path, empty_store: str, tmp_path: Path) -> None:
    options = ["--store", empty_store, *SHARED]
    bundles = ["--bundle", f"age={artifacts / 'age'}", "--bundle", f"shop={artifacts / 'shop'}"]
    with (
        process(artifacts, tmp_path / "1", *options, *bundles) as first,
        process(artifacts, tmp_path / "2", *options) as second,
    ):
        for number, user in enumerate(USERS):
            post(first, user, [f"item-{(number + step) % 12}" for step in range(5)])
        post(second, NEWCOMER, ["item-1", "item-new"])
        services = [first, second]
        with Clients(services) as clients:
            clients.wait_for(3)
            with (
                process(artifacts, tmp_path / "3", *options, backbone="grown") as third,
                process(artifacts, tmp_path / "4", *options, backbone="grown") as fourth,
            ):
                for old, new in ((second, third), (first, fourth)):  # one by one
                    services.append(new)
                    services.remove(old)
                    assert old.stop() == 0
                    clients.wait_for(3)
                newcomer = [
                    httpx.post(f"{service.address}/v1/users/{NEWCOMER}/predict", json={}).json()
                    for service in (third, fourth)
                ]
                assert [reply["unknown_items"] for reply in newcomer] == [0, 0]
                classes = [reply["tasks"]["age"]["probabilities"] for reply in newcomer]
                assert classes[0] == pytest.approx(classes[1], abs=1e-6)
                loaded = third.client.put("/v1/bundles/later", json={"path": "later"})
                assert loaded.status_code == 200, loaded.text
        assert clients.refusals == []
        for user, answers in clients.answers.items():
            assert len(answers) >= 9
            expected = answers[0]["tasks"]["age"]
            for answer in answers:  # whoever answers, and with whom in one batch
                probabilities = answer["tasks"]["age"]["probabilities"]
                assert probabilities == pytest.approx(expected["probabilities"], abs=1e-6), user
                assert answer["tasks"]["age"]["version"] == expected["version"]
                assert answer["tasks"]["shop"]["items"] == answers[0]["tasks"]["shop"]["items"]
