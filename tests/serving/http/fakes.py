"""Small stand-ins for what is behind the service, so that tests of HTTP are quick and can make anything happen."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from peterrec.data.catalogue import Catalogue
from peterrec.errors import (
    ArtifactError,
    FingerprintError,
    PeterRecError,
    RequestError,
    StorageError,
    StoreError,
    UnknownTaskError,
)
from peterrec.serving.requests import (
    Answer,
    ClassAnswer,
    Explanation,
    ItemsAnswer,
    Question,
    Request,
    TaskInfo,
    VersionInfo,
)
from peterrec.serving.store.base import Event, Read

KEYS = {
    "reader-key": ("reader", frozenset({"read"})),
    "writer-key": ("writer", frozenset({"write"})),
    "operator-key": ("operator", frozenset({"operate"})),
}


@dataclass(frozen=True)
class FakePrepared:
    tasks: tuple[VersionInfo, ...]
    question: Question
    items: Sequence[Any] | None
    user: str | None = None

    @property
    def rows(self) -> int:
        return max(1, len(self.tasks))

    @property
    def answer_items(self) -> int:
        return sum(min(self.question.k, 5) for task in self.tasks if task.kind == "ranking")


def version(name: str, of: str, path: str = "", *, active: bool = True) -> VersionInfo:
    kind = "ranking" if name.startswith("shop") else "classification"
    return VersionInfo(name, of, active, path, 1.5, kind, "patch", 10, 2, True, None, {"accuracy": 0.5})


class FakeEngine:
    """Loads the version that a file of the bundle's folder names."""

    def __init__(self) -> None:
        catalogue = Catalogue(pa.array([f"item-{i}" for i in range(12)]), np.arange(12, 0, -1))
        config = SimpleNamespace(channels=8, kind="causal")
        backbone = SimpleNamespace(config=config, blocks=[0, 1])
        self.model = SimpleNamespace(
            catalogue=catalogue,
            fingerprint="f" * 64,
            network=SimpleNamespace(backbone=backbone),
            pretrained=SimpleNamespace(max_length=6),
        )
        self.kept = {"age": [version("age", "v1")], "shop": [version("shop", "v1")]}
        self.loading = threading.Event()
        self.loading.set()

    def _get(self, name: str) -> list[VersionInfo]:
        if name not in self.kept:
            raise UnknownTaskError(f"no bundle answers {name!r}", remedy="ask for one of these")
        return self.kept[name]

    def _active(self, name: str) -> VersionInfo:
        return next(one for one in self._get(name) if one.active)

    def prepare(self, request: Request) -> FakePrepared:
        tasks = request.question.tasks
        chosen = tuple(self._active(name) for name in (self.kept if tasks == "*" else dict.fromkeys(tasks)))
        return FakePrepared(chosen, request.question, request.items)

    def load(self, name: str, path: str | Path) -> VersionInfo:
        self.loading.wait(10)
        file = Path(path) / "version.json"
        if not file.is_file():
            raise ArtifactError("does not exist", remedy="check the path", path=path)
        if (found := file.read_text()) == "foreign":
            raise FingerprintError("was made for another backbone", remedy="adapt it to this one", path=path)
        older = [replace(one, active=False) for one in self.kept.get(name, []) if one.version != found]
        self.kept[name] = [version(name, found, str(path)), *older]
        return self.kept[name][0]

    def drop(self, name: str) -> None:
        self._get(name)
        del self.kept[name]

    def roll_back(self, name: str, version: str | None = None) -> VersionInfo:
        kept = self._get(name)
        found = [one for one in kept if one.version == version] if version else kept[1:2]
        if not found:
            raise RequestError("there is no such version", remedy="name another")
        self.kept[name] = [replace(one, active=one.version == found[0].version) for one in kept]
        return self._active(name)

    def save(self, name: str, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "adapter_config.json").write_text(json.dumps({"version": self._active(name).version}))

    def tasks(self) -> list[TaskInfo]:
        return [
            TaskInfo(name, one.kind, one.version, ("young", "old") if one.kind == "classification" else (), 5)
            for name, one in ((name, self._active(name)) for name in self.kept)
        ]

    def versions(self, name: str | None = None) -> list[VersionInfo]:
        return [one for each in ([name] if name else list(self.kept)) for one in self._get(each)]


class FakeStore:
    """Events in memory; `broken` makes every call fail."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Event]] = {}
        self.broken = self.closed = False
        self.groups: list[int] = []

    def append(self, events: Sequence[Event]) -> list[bool]:
        self.check()
        self.groups.append(len(events))
        new = []
        for event in events:
            own = self.events.setdefault(event.user, {})
            new.append(event.event_id not in own)
            own.setdefault(event.event_id, event)
        return new

    def read(self, user: str, revision: str = "", after: int = 0) -> Read:
        self.check()
        return Read("1", 0, sorted(self.events.get(user, {}).values(), key=lambda event: event.timestamp))

    def delete(self, user: str) -> int:
        self.check()
        return len(self.events.pop(user, {}))

    def check(self) -> None:
        if self.broken:
            raise StoreError("the disk is full", remedy="make room")

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeUsers:
    engine: FakeEngine
    store: FakeStore
    runs: list[int] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    going: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.going.set()

    def prepare(self, user: str, question: Question) -> FakePrepared:
        return replace(self.engine.prepare(Request((), question)), user=user)

    def fetch(self, prepared: FakePrepared) -> FakePrepared:
        assert prepared.user is not None
        return replace(prepared, items=[event.item for event in self.store.read(prepared.user).events], user=None)

    def run(self, prepared: Sequence[FakePrepared]) -> list[Answer | PeterRecError]:
        self.runs.append(len(prepared))
        self.going.wait(10)
        self.before()
        return [self._answer(one) for one in prepared]

    def _answer(self, one: FakePrepared) -> Answer | PeterRecError:
        items: Sequence[Any] = one.items or ()
        if "poison" in items:
            raise ValueError("poison of user-secret")
        tasks = {
            task.name: ClassAnswer(task.version, "young", {"young": 0.75, "old": 0.25})
            if task.kind == "classification"
            else ItemsAnswer(task.version, ["item-1", "item-2"][: one.question.k], [2.0, 1.0][: one.question.k])
            for task in one.tasks
        }
        unknown = sum(place < 4 for place in self.engine.model.catalogue.find(items))
        return Answer(tasks, len(items), unknown, len(items) - unknown)

    def append(self, events: Sequence[Event]) -> list[bool]:
        return self.store.append(events)

    def read(self, user: str) -> Read:
        return self.store.read(user)

    def erase(self, user: str) -> int:
        return self.store.delete(user)

    def explain(self, prepared: FakePrepared, task: str) -> Explanation:
        return Explanation(task, "v1", "young", 0.75, [0.1] * len(prepared.items or ()))

    def stats(self) -> dict[str, float]:
        return {"states": 3.0}


class FakeSearch:
    def search(self, q: str, limit: int) -> list[Any]:
        found = [f"item-{i}" for i in range(12) if q.lower() in f"item-{i}"]
        return [SimpleNamespace(item=item, title=None, count=3) for item in found[:limit]]

    def titles(self, items: Sequence[Any]) -> dict[str, str]:
        return {"item-1": "The first"} if "item-1" in items else {}


class FakeJournal:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str | None]] = []
        self.broken = False

    def record(self, name: str, path: str | None) -> None:
        if self.broken:
            raise StorageError("the disk is full", remedy="make room")
        self.lines.append((name, path))


class FakeKeys:
    def scopes(self, presented: str) -> tuple[str, frozenset[str]] | None:
        return KEYS.get(presented)
