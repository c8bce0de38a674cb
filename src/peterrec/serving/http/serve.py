"""`serve`: a backbone, its bundles and its users behind one address."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import socket
from typing import Any

from filelock import FileLock, Timeout

from peterrec.arguments import checked
from peterrec.artifacts.backbone_io import load_backbone
from peterrec.artifacts.hub import SCHEME, artifact_folder
from peterrec.config import ServeConfig
from peterrec.config.base import NAME_RULE, check_name
from peterrec.data.catalogue import ItemId
from peterrec.errors import ConfigError, PeterRecError, StorageError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.http.auth import is_loopback
from peterrec.serving.http.logs import Log, engine_log_shown
from peterrec.serving.http.metrics import Metrics
from peterrec.serving.http.open_bundles import check_registry, open_bundles
from peterrec.serving.http.server import bind, run
from peterrec.serving.http.service import Parts, Service
from peterrec.serving.http.workers import WorkerPlan, Workers, new_counts
from peterrec.serving.keys import Keys, read_keys
from peterrec.serving.replicas.file_registry import FileRegistry
from peterrec.serving.replicas.readers import Readers, RedisReaders, WorkerReaders
from peterrec.serving.requests import Request
from peterrec.serving.state_folder import LOADING, LOCK, WORKER_METRICS
from peterrec.serving.store.open import REDIS, check_store, open_store
from peterrec.serving.titles import ItemSearch
from peterrec.serving.users import Users
from peterrec.storage import read_artifact

EXAMPLE_ITEMS = 3  # of the first question that is printed: the most frequent ones


@checked
def serve(
    backbone: str | Path,
    bundles: Sequence[str] = (),
    config: ServeConfig | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Answer over HTTP until SIGTERM or Ctrl-C.

    Args:
        backbone: folder written by `pretrain`.
        bundles: folders written by `adapt`, each as PATH or NAME=PATH.
        config: address, store, keys, limits.
        say: is told in lines for people where the service is; the log says the same.

    Raises:
        ConfigError: an address that cannot be had, no keys for one that others can reach, two bundles of one name.
        PeterRecError: an artifact, the store, the keys or the titles cannot be used; nothing listens then.
    """
    config = config or ServeConfig()
    log = Log()
    keys = _read_keys(config, log)
    backbone, bundle_folders = artifact_folder(backbone, "backbone"), parse_bundles(bundles)
    listener = bind(config.host, config.port)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def started(report: dict[str, Any]) -> None:
        example = _example_command(address, report["items"], keyed=keys is not None)
        log.write("started", address=address, bundles=report["bundles"], keys=keys is not None, example=example)
        for line in report["bounds"]:
            log.write("bounds", message=line)
        if say is not None:
            for line in report["bounds"]:
                say(line)
            say(f"the page is at {address}/ (Ctrl-C stops it); next: {example}")

    with contextlib.closing(listener):
        if config.workers > 1:
            plan = WorkerPlan(str(backbone), bundle_folders, config, keys, new_counts(config.workers))
            _serve_by_workers(plan, listener, log, started)
            return
        with engine_log_shown(log):
            service = open_service(backbone, bundle_folders, config, keys, log)
            run(service, listener, lambda: started(_report(service)))


def _report(service: Service) -> dict[str, Any]:
    """Return what is told of a service when it answers."""
    engine = service.parts.engine
    loaded = [f"{task.name} {task.version}" for task in engine.tasks()]
    items = engine.model.catalogue.ids.slice(0, EXAMPLE_ITEMS).to_pylist()
    return {"bundles": loaded, "items": items, "bounds": engine.bounds()}


def _serve_by_workers(plan: WorkerPlan, listener: socket, log: Log, started: Callable[[dict[str, Any]], None]) -> None:
    """Answer by several processes until a signal ends them; this one holds the folder of state for them."""
    check_store(plan.config.store)
    check_registry(plan.config)
    with contextlib.ExitStack() as undo:
        lock_state_folder(plan.state, undo)
        registry = FileRegistry(plan.state, plan.bundle_folders)
        registry.create()

        def all_started(report: dict[str, Any]) -> None:
            registry.confirm()  # only now: a mistake of the command line overrules nothing
            started(report)

        Workers(plan, listener, _work, log).run(all_started)


def _work(plan: WorkerPlan, listener: socket, report: Callable[[dict[str, Any]], None]) -> None:
    """Answer as one of several processes."""
    log = Log()
    with engine_log_shown(log):
        service = open_service(plan.backbone, plan.bundle_folders, plan.config, plan.keys, log, plan)
        run(service, listener, lambda: report(_report(service)))


def load_model(backbone: str | Path, worker: WorkerPlan | None) -> UserModel:
    """Load the backbone; of several workers one after the other, each into the memory that they share."""
    if worker is None:
        return UserModel.from_pretrained(Path(backbone))
    with FileLock(worker.state / LOADING):
        load_backbone(Path(backbone))  # which checks all of it, as what is mapped is not
        return UserModel(load_backbone(Path(backbone), mapped=True))


def open_service(
    backbone: str | Path,
    bundle_folders: dict[str, str],
    config: ServeConfig,
    keys: Keys | None,
    log: Log,
    worker: WorkerPlan | None = None,
) -> Service:
    """Load and open all that the service is made of.

    Args:
        backbone: folder of it.
        bundle_folders: folders of bundles by name; what operators loaded and dropped since then counts more.
        config: settings.
        keys: of clients.
        log: for lines of the service.
        worker: of several that are this service; None: it is one process, and takes the folder of state.

    Raises:
        PeterRecError: something of it cannot be used.
    """
    state = Path(config.state)
    check_store(config.store)
    check_registry(config)
    with contextlib.ExitStack() as undo:
        lock = lock_state_folder(state, undo) if worker is None and state.exists() else None
        model = load_model(backbone, worker)
        items = ItemSearch(model.catalogue, config.titles)
        engine = Engine(model, config.engine)
        bundles = open_bundles(engine, config, log, worker)
        undo.callback(bundles.close)
        bundles.start(bundle_folders)
        try:  # what is made when it is first needed is made
            engine.predict([Request(model.catalogue.ids.slice(0, 1).to_pylist())])
        except PeterRecError as error:
            log.write("first answer", "error", message=error.message, remedy=error.remedy)
        # Only now, so that a mistake leaves nothing behind.
        lock = lock or (lock_state_folder(state, undo) if worker is None else None)
        store = open_store(config.store, state, config.limits.keep_events)
        undo.callback(store.close)
        for warning in getattr(store, "warnings", ()):
            log.write("store", "warning", message=warning)
        users = Users(engine, store, _readers(config, worker))
        metrics = Metrics(None if worker is None else state / WORKER_METRICS)
        service = Service(Parts(engine, users, store, items, bundles, keys, lock), config, log, metrics)
        undo.pop_all()
    return service


def _readers(config: ServeConfig, worker: WorkerPlan | None) -> Readers | None:
    """Return the services that have copies of the users of the store; None: there is only this one."""
    if config.store.startswith(REDIS):
        return RedisReaders(config.store)
    return None if worker is None else WorkerReaders(worker.followed, worker.number)


def lock_state_folder(state: Path, undo: contextlib.ExitStack) -> FileLock:
    """Take a folder of state for this process, until the lock is released or the process ends, however it ends.

    Args:
        state: the folder; it is made where it is not there.
        undo: releases the lock when it is unwound.

    Returns:
        The lock, held; any thread may release it.

    Raises:
        ConfigError: another service has it.
        StorageError: the folder cannot be made or written.
    """
    lock = FileLock(state / LOCK, thread_local=False)
    try:
        state.mkdir(parents=True, exist_ok=True)
        (state / LOCK).touch()
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ConfigError(
            "another service uses this folder",
            remedy="stop it, or give this one a --state of its own (services that share users need --store redis://...)",
            path=state,
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot be written ({error.strerror})", remedy="give a folder for the state that may be", path=state
        ) from error
    undo.callback(lock.release)
    return lock


def parse_bundles(bundles: Sequence[str]) -> dict[str, str]:
    """Return folders by name, as written or where the Hub's are kept; of a bundle without a name, its task's.

    Raises:
        ConfigError: two of one name, or a name that no address can have.
        ArtifactError: a bundle without a name cannot be read.
    """
    folders: dict[str, str] = {}
    for argument in bundles:
        name, separator, path = argument.partition("=")
        if not separator or Path(argument).is_dir():
            name, path = "", argument
        path = str(artifact_folder(path, "bundle")) if path.startswith(SCHEME) else path
        name = name or str(read_artifact(Path(path), "bundle").get("name", ""))
        try:
            name = check_name(name)
        except ValueError as error:
            remedy = f"give it one of {NAME_RULE}, as NAME=PATH"
            raise ConfigError(f"{name!r} is no name of a bundle", remedy=remedy) from error
        if name in folders:
            raise ConfigError(f"two bundles are named {name!r}", remedy="name one of them otherwise, as NAME=PATH")
        folders[name] = path
    return folders


def _read_keys(config: ServeConfig, log: Log) -> Keys | None:
    if config.keys is None:
        if not is_loopback(config.host):
            raise ConfigError(
                f"without keys the service listens only on a loopback address, not on {config.host!r}",
                remedy="give --keys FILE, or leave --host out",
            )
        return None
    keys = read_keys(Path(config.keys))
    for warning in getattr(keys, "warnings", ()):
        log.write("keys", "warning", message=warning)
    return keys


def _example_command(address: str, items: list[ItemId], *, keyed: bool) -> str:
    """Return a first question that a shell takes as it is."""
    key = "-H 'Authorization: Bearer KEY' " if keyed else ""
    body = shlex.quote(json.dumps({"requests": [{"items": items, "tasks": "*"}]}))
    return f"curl {key}--json {body} {address}/v1/predict"
