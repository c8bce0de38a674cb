"""Small stand-ins for what is behind the service, so that tests of HTTP are quick and can make anything happen."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import numpy as np
import pyarrow as pa

from peterrec.data.catalogue import Catalogue
from peterrec.data.reference import Distribution, Reference
from peterrec.errors import (
    ArtifactError,
    FingerprintError,
    PeterRecError,
    RequestError,
    StorageError,
    StoreError,
    UnknownTaskError,
)
from peterrec.serving.opt_outs import without_opted_out
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
from peterrec.serving.store.base import Erased, Erasures, Event, Read
from peterrec.serving.store.values import with_timestamps
from peterrec.serving.versions import VersionHistory

KEYS = {
    "reader-key": ("reader", frozenset({"read"})),
    "writer-key": ("writer", frozenset({"write"})),
    "operator-key": ("operator", frozenset({"operate"})),
}

# What the valid users of `age` were like.
REFERENCES = {
    "age": Reference(
        100,
        {
            "known events": Distribution((50, 50), (3.0,)),
            "class": Distribution((60, 40, 0), names=("young", "old")),
            "p(old)": Distribution((70, 30), (0.5,)),
        },
    )
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


@dataclass(frozen=True)
class FakeLoaded:
    """A version of a bundle, whose folder has a file that names it."""

    name: str
    version: str
    path: str = ""

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "version.json").write_text(self.version)

    def info(self, history: VersionHistory) -> VersionInfo:
        kind = "ranking" if self.name.startswith("shop") else "classification"
        return VersionInfo(
            self.name, self.version, self.version == history.active, self.path, 1.5, kind, "patch", 10, 2, True, None,
            {"accuracy": 0.5}, self.version in history.withdrawn,
        )  # fmt: skip


@dataclass(frozen=True)
class FakeStaged:
    name: str
    versions: dict[str, FakeLoaded]
    history: VersionHistory

    @classmethod
    def first_version(cls, name: str, version: str) -> Self:
        return cls(name, {version: FakeLoaded(name, version)}, VersionHistory((version,)))


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
        self.encoder = None  # a backbone that reads no features of events
        self.bundles = {name: FakeStaged.first_version(name, "v1") for name in ("age", "shop")}
        self.loading = threading.Event()
        self.loading.set()

    @property
    def snapshot(self) -> SimpleNamespace:
        references = {name: SimpleNamespace(reference=REFERENCES.get(name)) for name in self.bundles}
        return SimpleNamespace(loaded={name: SimpleNamespace(bundle=bundle) for name, bundle in references.items()})

    def _get(self, name: str) -> FakeStaged:
        if name not in self.bundles:
            raise UnknownTaskError(f"no bundle answers {name!r}", remedy="ask for one of these")
        return self.bundles[name]

    def _active(self, name: str) -> VersionInfo:
        bundle = self._get(name)
        return bundle.versions[bundle.history.active].info(bundle.history)

    def prepare(self, request: Request) -> FakePrepared:
        tasks = request.question.tasks
        chosen = tuple(self._active(name) for name in (self.bundles if tasks == "*" else dict.fromkeys(tasks)))
        return FakePrepared(chosen, request.question, request.items)

    def read(self, name: str, path: Path, version: str | None = None) -> FakeLoaded:
        self.loading.wait(10)
        file = Path(path) / "version.json"
        if not file.is_file():
            raise ArtifactError("does not exist", remedy="check the path", path=path)
        bundle = file.read_text()
        if bundle == "foreign":
            raise FingerprintError("was made for another backbone", remedy="adapt it to this one", path=path)
        if version not in (None, bundle):
            raise ArtifactError(f"is the version {bundle}", remedy="load it again", path=path)
        return FakeLoaded(name, bundle, str(path))

    def load(self, name: str, path: str) -> VersionInfo:
        return self.activate(self.stage(name, Path(path)))

    def stage(self, name: str, path: Path) -> FakeStaged:
        loaded = self.read(name, path)
        before = self.bundles.get(name)
        if before is None:
            return FakeStaged(name, {loaded.version: loaded}, VersionHistory((loaded.version,)))
        return FakeStaged(name, before.versions | {loaded.version: loaded}, before.history.load(loaded.version))

    def stage_versions(self, versions: Sequence[FakeLoaded], history: VersionHistory) -> FakeStaged:
        read = {loaded.version: loaded for loaded in versions}
        return FakeStaged(versions[0].name, read, history.only(list(read)))

    def stage_roll_back(self, name: str, version: str | None = None) -> FakeStaged:
        bundle = self._get(name)
        try:
            return replace(bundle, history=bundle.history.roll_back(version))
        except LookupError:
            raise RequestError("there is no such version", remedy="name another") from None

    def activate(self, staged: FakeStaged) -> VersionInfo:
        self.bundles[staged.name] = staged
        return self._active(staged.name)

    def drop(self, name: str) -> None:
        self._get(name)
        del self.bundles[name]

    def tasks(self) -> list[TaskInfo]:
        return [
            TaskInfo(name, active.kind, active.version, ("young", "old") if active.kind == "classification" else (), 5)
            for name, active in ((name, self._active(name)) for name in self.bundles)
        ]

    def versions(self, name: str | None = None) -> list[VersionInfo]:
        bundles = [self._get(bundle_name) for bundle_name in ([name] if name else list(self.bundles))]
        return [bundle.versions[key].info(bundle.history) for bundle in bundles for key in reversed(bundle.versions)]


class FakeStore:
    """Events in memory; `broken` makes every call fail, `keeps_erased` leaves erasures pending."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Event]] = {}
        self.broken = self.closed = self.keeps_erased = False
        self.groups: list[int] = []
        self.erased: list[float] = []  # when
        self.finished = 0
        self.opted_out: dict[str, set[str]] = {}

    def append(self, events: Sequence[Event]) -> list[bool]:
        self.check()
        self.groups.append(len(events))
        new = []
        times = {event.user: [old.timestamp for old in self.events.get(event.user, {}).values()] for event in events}
        newest = {user: max(timestamps, default=-math.inf) for user, timestamps in times.items()}
        for event in with_timestamps(events, newest, time.time()):
            user_events = self.events.setdefault(event.user, {})
            new.append(event.event_id not in user_events)
            user_events.setdefault(event.event_id, event)
        return new

    def read(self, user: str, revision: str = "", after: int = 0) -> Read:
        self.check()
        events = sorted(self.events.get(user, {}).values(), key=lambda event: event.timestamp)
        return Read("1", 0, events, frozenset(self.opted_out.get(user, ())))

    def set_opt_out(self, user: str, task: str, *, opted_out: bool) -> None:
        self.check()
        tasks = self.opted_out.setdefault(user, set())
        (tasks.add if opted_out else tasks.discard)(task)

    def delete(self, user: str) -> Erased:
        self.check()
        self.opted_out.pop(user, None)
        self.erased.append(time.time())
        return Erased(len(self.events.pop(user, {})), complete=self.finish_erasures().pending == 0)

    def erasures(self) -> Erasures:
        self.check()
        pending = self.erased[self.finished :]
        return Erasures(len(self.erased), len(pending), min(pending, default=None))

    def finish_erasures(self) -> Erasures:
        self.finished = self.finished if self.keeps_erased else len(self.erased)
        return self.erasures()

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
    readers: Any = None
    may_run: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_run.set()

    def prepare(self, user: str, question: Question) -> FakePrepared:
        return replace(self.engine.prepare(Request((), question)), user=user)

    def fetch(self, prepared: FakePrepared) -> FakePrepared:
        assert prepared.user is not None
        stored = self.store.read(prepared.user)
        allowed = cast("FakePrepared", without_opted_out(cast("Any", prepared), stored.opted_out))
        return replace(allowed, items=[event.item for event in stored.events], user=None)

    def run(self, prepared: Sequence[FakePrepared]) -> list[Answer | PeterRecError]:
        self.runs.append(len(prepared))
        self.may_run.wait(10)
        self.before()
        return [self._answer(question) for question in prepared]

    def _answer(self, prepared: FakePrepared) -> Answer | PeterRecError:
        items: Sequence[Any] = prepared.items or ()
        if "poison" in items:
            raise ValueError("poison of user-secret")
        tasks = {
            task.name: ClassAnswer(task.version, "young", {"young": 0.75, "old": 0.25})
            if task.kind == "classification"
            else ItemsAnswer(
                task.version, ["item-1", "item-2"][: prepared.question.k], [2.0, 1.0][: prepared.question.k]
            )
            for task in prepared.tasks
        }
        unknown = sum(place < 4 for place in self.engine.model.catalogue.find(items))
        return Answer(tasks, len(items), unknown, len(items) - unknown)

    def append(self, events: Sequence[Event]) -> list[bool]:
        return self.store.append(events)

    def read(self, user: str) -> Read:
        return self.store.read(user)

    def erase(self, user: str) -> Erased:
        return self.store.delete(user)

    def set_opt_out(self, user: str, task: str, *, opted_out: bool) -> frozenset[str]:
        self.store.set_opt_out(user, task, opted_out=opted_out)
        return self.store.read(user).opted_out

    def erased_since(self, prepared: FakePrepared) -> bool:
        return False

    def follow_erasures(self, *, finish: bool = True) -> Erasures:
        return self.store.finish_erasures() if finish else self.store.erasures()

    def explain(self, prepared: FakePrepared, task: str) -> Explanation:
        return Explanation(task, "v1", "young", 0.75, [0.1] * len(prepared.items or ()))

    def stats(self) -> dict[str, float]:
        return {"states": 3.0}


class FakeSearch:
    def search(self, q: str, limit: int) -> list[Any]:
        matches = [f"item-{i}" for i in range(12) if q.lower() in f"item-{i}"]
        return [SimpleNamespace(item=item, title=None, count=3) for item in matches[:limit]]

    def titles(self, items: Sequence[Any]) -> dict[str, str]:
        return {"item-1": "The first"} if "item-1" in items else {}


class FakeJournal:
    def __init__(self) -> None:
        self.lines: list[tuple[str, VersionHistory | None]] = []
        self.broken = False

    def record(self, name: str, history: VersionHistory | None) -> None:
        if self.broken:
            raise StorageError("the disk is full", remedy="make room")
        self.lines.append((name, history))

    def refers_to(self, name: str, version: str) -> bool:
        return False


class FakeKeys:
    def scopes(self, presented: str) -> tuple[str, frozenset[str]] | None:
        return KEYS.get(presented)
