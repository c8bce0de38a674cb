"""Bundles that replicas share: a registry says which versions answer, and each replica follows it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from peterrec.arguments import names_there
from peterrec.config import ReplicasConfig
from peterrec.errors import StoreError, UnknownTaskError
from peterrec.serving.http.bundle_operations import BundleOperations, failed_bundle
from peterrec.serving.http.errors import ApiError
from peterrec.serving.http.logs import Log
from peterrec.serving.replicas.base import Entry, Listing, SharedRegistry
from peterrec.serving.replicas.copies import SharedCopies
from peterrec.serving.replicas.leases import Leases
from peterrec.serving.requests import EVERY_TASK, Answer, Explanation, Question, VersionInfo
from peterrec.serving.versions import VersionHistory

if TYPE_CHECKING:
    from peterrec.serving.engine import Engine
    from peterrec.serving.loaded_bundle import LoadedBundle
    from peterrec.serving.registry import Staged

ATTEMPTS = 20  # at a change, while other replicas change the same bundle
RETRY_SECONDS = 1.0  # between two attempts to load a copy that cannot be loaded: it may be on its way

Versions = dict[str, "LoadedBundle"]
Change = Callable[[VersionHistory | None], VersionHistory | None]


class SharedBundles(BundleOperations):
    """Bundles of a registry. A thread asks it for changes; another one loads what is new, while the others answer.

    A version answers for `lease_ms` after the registry named it last: so no answer is of a version that was withdrawn
    longer ago, even where the registry cannot be reached or a new version takes long to load.

    Args:
        engine: answers with the bundles.
        registry: says which versions answer.
        copies: of these versions, which all replicas see.
        root: folder that bundles are loaded from.
        config: how often the registry is asked, and how long its word holds.
        log: gets a line for each change.
    """

    when_failed = "by this replica"

    def __init__(
        self,
        engine: Engine,
        registry: SharedRegistry,
        copies: SharedCopies,
        root: str,
        config: ReplicasConfig,
        log: Log,
    ) -> None:
        super().__init__(engine, root, log)
        self._registry, self._copies, self._config = registry, copies, config
        self._leases = Leases(config.lease_ms / 1000)
        self._asking = threading.Lock()  # held while the registry is asked
        self._lock = threading.RLock()  # of the following; held for moments
        self._listing = Listing()
        self._applied: dict[str, Entry] = {}  # that answer here
        self._memory: dict[str, Versions] = {}
        self._failed_at: dict[str, tuple[Entry, float]] = {}
        self._caught_up = False
        self._stop, self._missing = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []

    # ------------------------------------------------------------ start and end

    def start(self, command_line: Mapping[str, str]) -> None:
        """Load the bundles that the registry names; those of the command line that it has never named are added.

        Args:
            command_line: folders of bundles by name.

        Raises:
            PeterRecError: one of the command line cannot be loaded, or the copies are not there.
        """
        self._poll()
        self._copies.check(named=bool(self._listing.active))
        for name, path in command_line.items():
            if name in self._listing.entries:
                message = "the registry decides which version answers, not the command line"
                self._log.write("bundle remembered", name=name, message=message)
                continue
            self._add(self._engine.read(name, Path(path).resolve()))
        self._load_missing()
        self._copies.clean(self._named)
        self._threads = [
            threading.Thread(target=target, name=target.__name__, daemon=True)
            for target in (self._keep_polling, self._keep_loading)
        ]
        for thread in self._threads:
            thread.start()

    def _add(self, loaded: LoadedBundle) -> None:
        """Publish a bundle of the command line, unless another replica was first."""

        def change(history: VersionHistory | None) -> VersionHistory:
            return history or VersionHistory((loaded.version,))

        self._publish(loaded, change, seed=True)

    def close(self) -> None:
        """Stop following the registry."""
        self._stop.set()
        self._missing.set()
        for thread in self._threads:
            thread.join(self._leases.seconds)
        self._registry.close()

    # ------------------------------------------------------------ following the registry

    def _keep_polling(self) -> None:
        answered = True
        while not self._stop.wait(self._config.poll_ms / 1000):
            try:
                self._poll()
            except StoreError as error:
                if answered and not self._stop.is_set():
                    self._log.write("registry", "error", message=error.message, remedy=error.remedy)
                answered = False
            except Exception as error:
                self._log.failure("registry", error)
            else:
                answered = True

    def _poll(self) -> None:
        """Ask the registry, and make the changes for which nothing has to be loaded."""
        with self._asking:
            call_time = self._leases.clock()
            listing = self._registry.read(self._listing.state)
            with self._lock:
                self._listing = listing or self._listing
                self._leases.renew(self._listing.active, call_time)  # before what it names is switched to
                for name in self._behind():
                    entry = self._listing.entries.get(name)
                    history = None if entry is None else entry.history
                    if history is None or set(history.versions) <= set(self._memory.get(name, {})):
                        self._switch(name, entry, self._memory.get(name, {}))
                behind = self._behind()
        if behind:
            self._missing.set()
        else:
            self._caught_up = True

    def _behind(self) -> list[str]:
        """Return the names whose entry is not the one that answers here."""
        with self._lock:
            names = {**self._listing.entries, **self._applied}
            return [name for name in names if self._applied.get(name) != self._listing.entries.get(name)]

    def _switch(self, name: str, entry: Entry | None, versions: Versions) -> None:
        """Let an entry answer, whose versions are in memory."""
        if entry is not None and entry.history is not None:
            staged = self._engine.stage_versions(list(versions.values()), entry.history)
            self._engine.activate(staged)
            self._memory[name] = dict(staged.versions)
        else:
            self._unload(name)
            self._memory.pop(name, None)
        if entry is None:
            del self._applied[name]
        else:
            self._applied[name] = entry
            version, generation = entry.active, entry.generation
            self._log.write("bundle followed", name=name, version=version, generation=generation)
        self._forget_failure(name)
        self._failed_at.pop(name, None)

    def _unload(self, name: str) -> None:
        if name in self._engine.snapshot.loaded:
            self._engine.drop(name)

    def _keep_loading(self) -> None:
        while not self._stop.is_set():
            self._missing.wait()
            self._missing.clear()
            try:
                self._load_missing()
            except Exception as error:
                self._log.failure("registry", error)

    def _load_missing(self) -> None:
        """Load what answers elsewhere and not here; what cannot be loaded is listed as failed, and tried again."""
        for name in self._behind():
            entry = self._listing.entries.get(name)
            if entry is None or entry.history is None or self._failed_just_now(name, entry):
                continue  # the next poll drops it
            versions = self._read_versions(name, entry.history)
            with self._lock:
                if self._stop.is_set() or self._listing.entries.get(name) != entry:
                    continue  # it has changed again
                if entry.active in versions:
                    self._switch(name, entry, versions)
                else:
                    self._failed_at[name] = entry, self._leases.clock()
                    self._unload(name)  # what it replaces was withdrawn
                    self._applied.pop(name, None)
        self._caught_up = self._caught_up or all(name in self.failed for name in self._behind())

    def _failed_just_now(self, name: str, entry: Entry) -> bool:
        failed_entry, failed_at = self._failed_at.get(name, (None, 0.0))
        return failed_entry == entry and self._leases.clock() < failed_at + RETRY_SECONDS

    def _read_versions(self, name: str, history: VersionHistory) -> Versions:
        """Return the versions of a history that are in memory or can be read; one that cannot is reported."""
        versions: dict[str, LoadedBundle | None]
        versions = {version: self._memory.get(name, {}).get(version) for version in reversed(history.versions)}
        for version in versions:
            if versions[version] is not None:
                continue
            copy = self._copies.path(name, version)
            try:
                versions[version] = self._engine.read(name, copy, version)
            except Exception as error:
                failure = failed_bundle(name, version, copy, error)
                if self.failed.get(name) != failure:
                    self._log.write("bundle failed", "error", **asdict(failure))
                if version == history.active:
                    self.failed = {**self.failed, name: failure}
        in_memory = {version: versions[version] for version in history.versions}
        return {version: loaded for version, loaded in in_memory.items() if loaded is not None}

    # ------------------------------------------------------------ changes

    def roll_back(self, name: str, version: str | None) -> VersionInfo:
        """Activate another version, on all replicas; see `BundleOperations`."""
        self._poll()
        return super().roll_back(name, version)

    def _change(self, staged: Staged, *, roll_back: bool) -> VersionInfo:
        """Publish a version when its copy is written; every replica follows, this one before it answers."""
        version = staged.history.active

        def change(history: VersionHistory | None) -> VersionHistory:
            if history is None:
                return VersionHistory((version,))
            return (history.roll_back(version) if roll_back else history.load(version)).newest(self._kept_versions)

        generation = self._publish(staged.active, change)
        self._load_missing()
        for info in self._engine.versions(staged.name):
            if info.version == version:
                return replace(info, generation=generation)
        raise ApiError(404, "unknown_version", "another replica has replaced it meanwhile", "see GET /v1/bundles")

    @property
    def _kept_versions(self) -> int:
        return self._engine.config.keep_versions

    def drop(self, name: str) -> int:
        """Forget a bundle, on all replicas; returns the generation of the change."""

        def change(history: VersionHistory | None) -> None:
            if history is None:
                names = names_there(name, self._listing.active, "loaded")
                raise UnknownTaskError(f"no bundle answers {name!r}{names}", remedy="ask for one of these")

        generation = self._replace_entry(name, change)
        self._copies.clean(self._named)
        self._log.write("bundle dropped", name=name, generation=generation)
        return generation

    def _publish(self, loaded: LoadedBundle, change: Change, *, seed: bool = False) -> int:
        name, version = loaded.name, loaded.version
        with self._lock:
            self._memory[name] = {**self._memory.get(name, {}), version: loaded}
        self._copies.save(loaded, lambda copy: self._can_be_read(name, version, copy))
        generation = self._replace_entry(name, change, seed=seed)
        self._copies.save(loaded)  # nobody removes it any more; perhaps it was removed before
        self._copies.clean(self._named)
        return generation

    def _replace_entry(self, name: str, change: Change, *, seed: bool = False) -> int:
        """Replace the entry of a name, and follow."""
        for _ in range(ATTEMPTS):
            self._poll()
            before = self._listing.entries.get(name)
            history_before = None if before is None else before.history
            try:
                history = change(history_before)
            except LookupError:
                message = f"another replica has withdrawn this version of {name!r}"
                raise ApiError(404, "unknown_version", message, "see GET /v1/bundles") from None
            if history_before is not None:
                unlisted = set(history_before.versions) - set(() if history is None else history.versions)
                self._copies.touch(name, unlisted)
            generation = self._registry.publish(name, before, history, seed=seed)
            if generation is not None:
                self._poll()
                return generation
        raise StoreError("is busy with other changes of the same bundle", remedy="try again")

    def _named(self) -> set[tuple[str, str]]:
        listing = self._registry.read("") or Listing()
        histories = [(name, entry.history) for name, entry in listing.entries.items() if entry.history is not None]
        return {(name, version) for name, history in histories for version in history.versions}

    # ------------------------------------------------------------ what may answer

    @property
    def generation(self) -> int | None:
        """Generation of the last change that was made here, where no other change is waited for."""
        with self._lock:
            behind = [self._listing.entries[name] for name in self._behind() if name in self._listing.entries]
            return min((entry.generation for entry in behind), default=self._listing.generation + 1) - 1

    def not_ready(self) -> str | None:
        """Return why no question should be sent here; None: nothing is in the way."""
        if not self._caught_up:
            return "its bundles are behind those of the registry"
        if self._leases.age > self._leases.seconds:
            return "the registry of bundles does not answer"
        return None

    def check_questions(self, questions: Sequence[Question]) -> None:
        """Refuse questions about bundles that may not answer now.

        Raises:
            ApiError: one of them failed, or is behind the registry (503).
        """
        super().check_questions(questions)
        loaded, names = self._engine.snapshot.loaded, set[str]()
        for question in questions:
            names.update(loaded if question.tasks == EVERY_TASK else question.tasks)
        active = self._listing.active
        missing = [name for name in names if name not in loaded and name in active]
        self._check_leases([(name, loaded[name].version) for name in names if name in loaded], missing)

    def check_answers(self, answers: Sequence[Answer | Explanation]) -> None:
        """Refuse answers of versions that may not answer any more; see `BundleOperations`."""
        versions = {version for answer in answers for version in _versions_of(answer)}
        self._check_leases(versions, [])

    def _check_leases(self, versions: Iterable[tuple[str, str]], missing: list[str]) -> None:
        names = [*missing, *self._leases.lapsed(versions)]
        if names:
            message = f"this replica cannot say whether its version of {', '.join(sorted(names))} is the current one"
            raise ApiError(503, "bundle_behind", message, "ask again shortly", {"Retry-After": "1"})


def _versions_of(answer: Answer | Explanation) -> list[tuple[str, str]]:
    if isinstance(answer, Explanation):
        return [(answer.task, answer.version)]
    return [(name, task.version) for name, task in answer.tasks.items()]
