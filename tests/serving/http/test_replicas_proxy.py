"""Two replicas, Redis and nginx by the sample, under load: one is killed, bundles are replaced, users are erased."""

from __future__ import annotations

import contextlib
import itertools
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from serving.store.servers import RedisServer

from .in_own_process import ServiceProcess, write_artifacts
from .in_process import until
from .test_proxy import NGINX, free_port

SAMPLE = Path(__file__).parents[3] / "deploy" / "nginx-replicas.conf"
LOAD_SECONDS = 12.0
WITHDRAWN_SECONDS = 2.0
USERS = 40

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="needs nginx (apt-get install nginx-light)")]


class Site:
    """Two replicas behind nginx, each on a port of its own that a restart keeps."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.artifacts = write_artifacts(folder / "artifacts")
        self.ports = [free_port(), free_port()]
        self.port = free_port()
        self.replicas = [self.start(number) for number in range(2)]
        sample = SAMPLE.read_text()
        pairs = {"listen 8000": f"listen 127.0.0.1:{self.port}", "/run/": f"{folder}/"}
        pairs |= {f"127.0.0.1:{8001 + number}": f"127.0.0.1:{port}" for number, port in enumerate(self.ports)}
        for old, new in pairs.items():
            assert old in sample, old
            sample = sample.replace(old, new)
        (folder / "nginx.conf").write_text(sample)
        command = [
            str(NGINX),
            "-c",
            str(folder / "nginx.conf"),
            "-p",
            str(folder),
            "-g",
            "daemon off; master_process off;",
        ]
        self.nginx = subprocess.Popen(command)
        self.address = f"http://127.0.0.1:{self.port}"
        until(self.answers)

    def answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.address}/readyz", timeout=2).status_code == 200
        return False

    def start(self, number: int) -> ServiceProcess:
        options = ["--port", str(self.ports[number]), "--store", self.url, "--registry", "store"]
        options += ["--bundle", f"age={self.artifacts / 'age'}"]
        return ServiceProcess(self.artifacts, self.folder / f"state-{number}", *options)

    def kill(self, number: int) -> None:
        self.replicas[number].process.kill()
        self.replicas[number].join()
        self.replicas[number].process.stderr.close()

    def close(self) -> None:
        self.nginx.terminate()
        self.nginx.wait(20)
        for number in range(2):
            self.kill(number)


class Load:
    """Clients that append events, ask and erase through the proxy, and write down what they were told."""

    def __init__(self, address: str) -> None:
        self.address, self.stop = address, threading.Event()
        self.acknowledged: dict[str, set[str]] = {}
        self.answers: list[tuple[float, str]] = []  # when the answer was there, and its version
        self.statuses: list[int] = []
        self.faults: list[str] = []
        self.erasures = 0
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(3)]

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        with httpx.Client(base_url=self.address, timeout=20) as client:
            for step in itertools.count():
                if self.stop.wait(0.02):
                    return
                try:
                    self._act(client, f"user-{number}-{rng.randrange(USERS)}", f"{number}-{step}", rng)
                except httpx.HTTPError as error:  # not acknowledged
                    self.faults.append(repr(error))

    def _act(self, client: httpx.Client, user: str, event_id: str, rng: random.Random) -> None:
        if rng.random() < 0.1:
            if self._send(client, "DELETE", f"/v1/users/{user}") is not None:
                self.erasures += 1
                self.acknowledged[user] = set()
            elif user in self.acknowledged:
                del self.acknowledged[user]  # it may have been erased
                return
        elif rng.random() < 0.5:
            event = {"id": event_id, "user": user, "item": f"item-{rng.randrange(12)}"}
            if self._send(client, "POST", "/v1/events", {"events": [event]}) is not None and user in self.acknowledged:
                self.acknowledged[user].add(event_id)
        reply = self._send(client, "POST", f"/v1/users/{user}/predict", {"tasks": ["age"]})
        if reply is not None:
            self.answers.append((time.monotonic(), reply["tasks"]["age"]["version"]))
            if (
                user in self.acknowledged
                and not len(self.acknowledged[user]) <= reply["events"] <= len(self.acknowledged[user]) + 1
            ):
                self.faults.append(f"{user}: {reply['events']} events, {len(self.acknowledged[user])} acknowledged")

    def _send(self, client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
        answer = client.request(method, path, json=body)
        self.statuses.append(answer.status_code)
        return answer.json() if answer.status_code == 200 else None


@pytest.fixture
def site(tmp_path: Path, redis_server: RedisServer) -> Iterator[Site]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    opened = Site(tmp_path, redis_server.url)
    yield opened
    opened.close()


def replace_bundles(site: Site, load: Load, withdrawn: list[tuple[float, str]]) -> None:
    """Replace the bundle again and again; note when each version was acknowledged to be withdrawn."""
    active = ""
    with httpx.Client(base_url=site.address, timeout=20) as client:
        for folder in itertools.cycle(["age2", "age"]):
            if load.stop.wait(3.0):
                return
            with contextlib.suppress(httpx.HTTPError):
                answer = client.put("/v1/bundles/age", json={"path": folder})
                if answer.status_code == 200 and answer.json()["version"] != active:
                    withdrawn.append((time.monotonic(), active))
                    active = answer.json()["version"]


def test_nothing_acknowledged_is_lost_and_nothing_withdrawn_answers(site: Site) -> None:
    load, withdrawn = Load(site.address), list[tuple[float, str]]()
    changes = threading.Thread(target=replace_bundles, args=(site, load, withdrawn))
    for user in (f"user-{number}-{place}" for number in range(3) for place in range(USERS)):
        load.acknowledged[user] = set()
    for thread in (*load.threads, changes):
        thread.start()
    began = time.monotonic()
    number = 0
    while time.monotonic() - began < LOAD_SECONDS:
        time.sleep(random.uniform(1.0, 3.0))
        site.kill(number)
        site.replicas[number] = site.start(number)
        number = 1 - number
    load.stop.set()
    for thread in (*load.threads, changes):
        thread.join()
    assert not load.faults, load.faults[:5]
    assert load.statuses.count(200) > 50
    assert load.erasures > 0
    assert len(withdrawn) > 1
    changes_at = [*withdrawn, (float("inf"), "")]
    for (at, version), (next_change, _) in itertools.pairwise(changes_at):
        stale = [
            when
            for when, answered in load.answers
            if answered == version and at + WITHDRAWN_SECONDS < when < next_change
        ]
        assert not stale, f"{version} answered {max(stale) - at:.2f} s after it was withdrawn"
    with httpx.Client(base_url=site.address, timeout=20) as client:
        for user, event_ids in load.acknowledged.items():
            answer = client.get(f"/v1/users/{user}")
            stored = {event["id"] for event in answer.json()["events"]} if answer.status_code == 200 else set()
            assert event_ids <= stored, user
