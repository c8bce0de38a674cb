"""Anything that clients, operators and faults do to a service, in any order, beside a model of it."""

from __future__ import annotations

import itertools
import resource
import secrets
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.model import UserModel
from peterrec.serving.backup import backup
from peterrec.serving.store.base import Event
from serving.soak.starter import Starter
from serving.store.oracle import Oracle
from serving.store.servers import DURABLE, RedisServer

KEEP_EVENTS, KEEP_VERSIONS, BUNDLES = 12, 3, 5
USERS, NAMES = "abc", ("age", "more")
UNKNOWN = "nobody"
ITEMS = [*(f"item-{i}" for i in range(12)), UNKNOWN]
ENDS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGHUP": signal.SIGHUP}
PATIENCE = 60.0  # seconds


def write_artifacts(folder: Path) -> list[UserModel]:
    """Write a backbone and bundles 0, 1, ...; returns what is to be said with each of them."""
    pretrained = tiny_pretrained()
    save_backbone(folder / "base", pretrained)
    models = []
    for seed in range(BUNDLES):
        bundle = tiny_bundle(pretrained, seed=seed)
        save_bundle(folder / str(seed), bundle)
        models.append(UserModel(pretrained))
        models[-1].add_bundle(bundle)
    save_bundle(folder / "foreign", tiny_bundle(tiny_pretrained(seed=5)))
    return models


class Versions:
    """Bundles of one name as operators left them: those that have answered, and those that were withdrawn."""

    def __init__(self) -> None:
        self.answered: list[int] = []
        self.withdrawn: list[int] = []

    def let(self, bundle: int) -> None:
        if self.answered[-1:] != [bundle]:
            self.answered = [earlier for earlier in self.answered if earlier != bundle] + [bundle]
            self.withdrawn = [earlier for earlier in self.withdrawn if earlier != bundle]
            while len(self.withdrawn) + len(self.answered) > KEEP_VERSIONS:
                (self.withdrawn or self.answered).pop(0)

    def go_back(self, bundle: int) -> None:
        end = self.answered.index(bundle) + 1
        self.answered, later = self.answered[:end], self.answered[end:]
        self.withdrawn += later


class ServiceMachine(RuleBasedStateMachine):
    """The service over HTTP. Subclasses say which store; `folder`, `models` and `starter` are of all examples."""

    folder: ClassVar[Path]
    models: ClassVar[list[UserModel]]
    starter: ClassVar[Starter]
    counts: ClassVar[dict[str, int]]
    redis = False
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=self.folder))
        self.state, self.clock = self.home / "state", self.home / "clock"
        self.clock.write_text("0")
        self.server: RedisServer | None = None
        if self.redis:
            (self.home / "redis").mkdir()
            self.server = RedisServer(self.home / "redis", **DURABLE, rdbcompression="no")
        self.oracle = Oracle(KEEP_EVENTS)
        self.bundles: dict[str, Versions] = {}
        self.named: dict[str, str] = {}  # version of each bundle, once it is told
        self.secret = secrets.token_hex(6)  # in the names of this example's users
        self.erased: set[str] = set()
        self.full = self.down = False  # the disk of the service; the Redis server
        self.client: httpx.Client
        self.pid = 0

    @initialize()
    def start(self) -> None:
        self.start_process()
        self.load("age", 0)
        self.load("age", 1)
        self.post_new()

    def start_process(self) -> None:
        store = self.server.url if self.server else "sqlite"
        arguments = [str(self.folder / "base"), "--port", "0", "--state", str(self.state), "--store", store]
        arguments += ["--bundle-root", str(self.folder), "-s", f"engine.keep_versions={KEEP_VERSIONS}"]
        arguments += ["-s", f"limits.keep_events={KEEP_EVENTS}", "-s", "engine.states=4"]
        self.pid, address = self.starter.start(arguments, self.home / "log", self.clock)
        assert address, (self.home / "log").read_text()
        self.client = httpx.Client(base_url=address, timeout=30)
        self.full = False

    def teardown(self) -> None:
        if self.pid:
            self.starter.end(self.pid)
            self.client.close()
        if self.server:
            self.server.process.send_signal(signal.SIGCONT)
            self.server.kill()
        shutil.rmtree(self.home)

    def count(self, action: str) -> None:
        self.counts[action] = self.counts.get(action, 0) + 1

    def user(self, letter: str) -> str:
        return f"user-{self.secret}-{letter}"

    # ------------------------------------------------------------ clients

    @rule(
        letter=st.sampled_from(USERS),
        drawn=st.lists(
            st.tuples(st.integers(0, 40), st.sampled_from(ITEMS), st.none() | st.integers(0, 12)),
            min_size=1,
            max_size=9,
        ),
    )
    def post(self, letter: str, drawn: list[tuple[int, str, int | None]]) -> None:
        self.post_events([Event(self.user(letter), f"e{i}", item, at) for i, item, at in drawn])  # type: ignore[arg-type]

    @rule()
    def post_new(self) -> None:
        """Of all users, so many that the oldest are dropped sooner or later."""
        users = [self.user(letter) for letter in USERS]
        self.post_events([Event(user, f"n{next(self.numbers)}", ITEMS[i], None) for user in users for i in range(3)])

    def post_events(self, events: list[Event]) -> None:
        sent = [{"id": e.event_id, "user": e.user, "item": e.item, "timestamp": e.timestamp} for e in events]
        answer = self.client.post("/v1/events", json={"events": sent})
        if answer.status_code == 200:
            self.count("acknowledged writes")
            stored = sum(self.oracle.append(events))
            assert answer.json()["stored"] == stored, (answer.json(), stored)
        else:
            assert answer.status_code == 503, answer.text
            assert self.full or self.down
            self.count("refused writes")

    @rule(letter=st.sampled_from(USERS))
    def erase(self, letter: str) -> None:
        user = self.user(letter)
        answer = self.client.delete(f"/v1/users/{user}")
        if answer.status_code == 200:
            self.count("erased users")
            assert answer.json()["erased"] == self.oracle.delete(user).events
            self.erased.add(user)
        else:
            assert answer.status_code == 503, answer.text
            assert self.full or self.down

    @rule(letter=st.sampled_from(USERS), name=st.sampled_from(NAMES))
    def ask(self, letter: str, name: str) -> None:
        answer = self.client.post(f"/v1/users/{self.user(letter)}/predict", json={"tasks": [name]})
        if name not in self.bundles:
            assert answer.status_code == 404, answer.text
        elif self.down:
            assert answer.status_code == 503, answer.text
        else:
            self.count("answers")
            items = [event.item for event in self.oracle.read(self.user(letter)).events]
            self.check_answer(answer, name, items)

    @rule(items=st.lists(st.sampled_from(ITEMS), max_size=8), name=st.sampled_from(NAMES))
    def ask_with_items(self, items: list[str], name: str) -> None:
        answer = self.client.post("/v1/predict", json={"requests": [{"items": items, "tasks": [name]}]})
        if name not in self.bundles:
            assert answer.status_code == 404, answer.text
        else:
            self.check_answer(answer, name, items)

    def check_answer(self, answer: httpx.Response, name: str, items: list[Any]) -> None:
        assert answer.status_code == 200, answer.text
        body = answer.json()
        task = (body["answers"][0] if "answers" in body else body)["tasks"][name]
        active = self.bundles[name].answered[-1]
        assert task["version"] == self.named[str(active)]
        known_items = [item for item in items if item != UNKNOWN]
        expected = self.models[active].predict([known_items], "age").probabilities[0].tolist()
        assert list(task["probabilities"].values()) == pytest.approx(expected, abs=1e-5)

    # ------------------------------------------------------------ operators

    @rule(name=st.sampled_from(NAMES), bundle=st.integers(0, BUNDLES - 1))
    def load(self, name: str, bundle: int) -> None:
        answer = self.client.put(f"/v1/bundles/{name}", json={"path": str(bundle)})
        if self.full:
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
            self.count("refused loads")
            return
        assert answer.status_code == 200, answer.text
        self.count("loads")
        self.named[str(bundle)] = answer.json()["version"]
        self.bundles.setdefault(name, Versions()).let(bundle)

    @rule(name=st.sampled_from(NAMES))
    def load_what_is_refused(self, name: str) -> None:
        assert self.client.put(f"/v1/bundles/{name}", json={"path": "foreign"}).status_code == 409

    @rule(name=st.sampled_from(NAMES), bundle=st.none() | st.integers(0, BUNDLES - 1))
    def roll_back(self, name: str, bundle: int | None) -> None:
        body = {} if bundle is None else {"version": self.named.get(str(bundle), "none")}
        answer = self.client.post(f"/v1/bundles/{name}/rollback", json=body)
        versions = self.bundles.get(name)
        if versions is None or not self.can_go_back(versions, bundle):
            assert answer.status_code == 404, answer.text
        elif self.full and answer.status_code == 503:  # to what answers already nothing is written
            self.count("refused roll-backs")
        else:
            assert answer.status_code == 200, answer.text
            self.count("roll-backs")
            if bundle in versions.withdrawn:
                versions.let(bundle)
            else:
                versions.go_back(versions.answered[-2] if bundle is None else bundle)
            assert answer.json()["version"] == self.named[str(versions.answered[-1])]

    @staticmethod
    def can_go_back(versions: Versions, bundle: int | None) -> bool:
        return len(versions.answered) > 1 if bundle is None else bundle in versions.answered + versions.withdrawn

    @rule(name=st.sampled_from(NAMES))
    def drop(self, name: str) -> None:
        answer = self.client.delete(f"/v1/bundles/{name}")
        if name not in self.bundles:
            assert answer.status_code == 404, answer.text
        elif self.full:
            assert answer.status_code == 503, answer.text
        else:
            assert answer.status_code == 200, answer.text
            del self.bundles[name]

    # ------------------------------------------------------------ faults

    @precondition(lambda self: not self.down)
    @rule(interruption=st.sampled_from(["kill", "move", "backup", *ENDS]))
    def restart(self, interruption: str) -> None:
        """End the process in some way, and start it again, perhaps elsewhere."""
        folder = self.home / f"state-{next(self.numbers)}"
        if interruption == "backup":
            backup(self.state, folder)  # while it runs
        self.client.close()
        ended, self.pid = self.pid, 0
        if interruption in ENDS:
            status = self.starter.end(ended, ENDS[interruption])
            assert status == 0 or self.full
            self.count("ends by a signal")
        else:
            self.starter.end(ended)
            self.count("kills of the service")
        if interruption == "backup":
            shutil.rmtree(self.state)
            self.state = folder
        elif interruption == "move":
            self.state = self.state.rename(folder)
        self.start_process()

    @rule(full=st.booleans())
    def fill_the_disk(self, full: bool) -> None:
        hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0 if full else hard, hard))
        self.full = full
        self.count("full disks")

    @rule(seconds=st.sampled_from([-1e6, -3600.0, -0.5, 0.0, 0.5, 3600.0]))
    def move_the_clock(self, seconds: float) -> None:
        with self.clock.open("r+") as file:
            file.write(f"{seconds:<20}")
        self.count("moves of the clock")

    @precondition(lambda self: self.server is not None and not self.down)
    @rule()
    def kill_redis(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.down = True
        self.count("kills of Redis")

    @precondition(lambda self: self.down)
    @rule()
    def start_redis(self) -> None:
        assert self.server is not None
        self.server.start()
        self.down = False

    # ------------------------------------------------------------ what holds after each step

    @invariant()
    def users_are_as_in_the_model(self) -> None:
        if not self.pid or self.down:
            return
        for letter in USERS:
            expected = self.oracle.read(self.user(letter)).events
            answer = self.client.get(f"/v1/users/{self.user(letter)}")
            stored_events = answer.json().get("events", [])
            assert [(e["id"], e["item"]) for e in stored_events] == [(e.event_id, e.item) for e in expected]
            times = [event["timestamp"] for event in stored_events]
            assert times == sorted(times)

    @invariant()
    def bundles_are_as_in_the_model(self) -> None:
        if not self.pid:
            return
        listed = self.client.get("/v1/bundles").json()
        assert listed["failed"] == []
        expected = {
            (name, self.named[str(bundle)], bundle == versions.answered[-1], bundle in versions.withdrawn)
            for name, versions in self.bundles.items()
            for bundle in versions.answered + versions.withdrawn
        }
        assert {(v["name"], v["version"], v["active"], v["withdrawn"]) for v in listed["versions"]} == expected

    @precondition(lambda self: not self.full and not self.down)
    @rule()
    def erased_users_leave_all_files(self) -> None:
        until = time.monotonic() + PATIENCE
        while self.client.get("/v1/erasures").json()["pending"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        erased_ids = [user.encode() for user in self.erased if not self.oracle.read(user).events]
        for path in (path for path in self.home.rglob("*") if path.is_file()):
            content = path.read_bytes()
            assert not [user for user in erased_ids if user in content], path


class SqliteMachine(ServiceMachine):
    """Events in SQLite."""


class RedisMachine(ServiceMachine):
    """Events in Redis, which may die too; another service uses the same server."""

    redis = True
    other_pid = 0

    @initialize()
    def start(self) -> None:
        assert self.server is not None
        arguments = [str(self.folder / "base"), "--port", "0", "--state", str(self.home / "other-state")]
        arguments += ["--store", self.server.url, "--bundle", f"age={self.folder / '0'}"]
        arguments += ["-s", f"limits.keep_events={KEEP_EVENTS}", "-s", "engine.states=4"]
        self.other_pid, address = self.starter.start(arguments, self.home / "other-log", self.clock)
        assert address, (self.home / "other-log").read_text()
        self.other_client = httpx.Client(base_url=address, timeout=30)
        super().start()

    def teardown(self) -> None:
        if self.other_pid:
            self.starter.end(self.other_pid)
            self.other_client.close()
        super().teardown()

    @precondition(lambda self: not self.down)
    @rule(letter=st.sampled_from(USERS))
    def ask_the_other_service(self, letter: str) -> None:
        answer = self.other_client.post(f"/v1/users/{self.user(letter)}/predict", json={"tasks": ["age"]})
        assert answer.status_code == 200, answer.text
        items = [event.item for event in self.oracle.read(self.user(letter)).events if event.item != UNKNOWN]
        expected = self.models[0].predict([items], "age").probabilities[0].tolist()
        assert list(answer.json()["tasks"]["age"]["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
        self.count("answers of the other service")

    @precondition(lambda self: not self.down)
    @rule()
    def the_other_service_forgets(self) -> None:
        """Nobody asks it about who was erased."""
        present = sum(bool(self.oracle.read(self.user(letter)).events) for letter in USERS)
        until = time.monotonic() + PATIENCE
        while self.histories() > present:
            assert time.monotonic() < until
            time.sleep(0.05)

    def histories(self) -> float:
        lines = self.other_client.get("/metrics").text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("peterrec_users_histories ")))
