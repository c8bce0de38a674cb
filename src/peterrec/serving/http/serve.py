"""`serve`: a backbone, its bundles and its users behind one address."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from peterrec.config import ServeConfig
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.http.auth import is_loopback
from peterrec.serving.http.logs import Log
from peterrec.serving.http.schemas import NAME_PATTERN
from peterrec.serving.http.server import bind, run
from peterrec.serving.http.service import Parts, Service
from peterrec.serving.journal import BundleJournal
from peterrec.serving.keys import Keys, read_keys
from peterrec.serving.requests import Request
from peterrec.serving.store.open import open_store
from peterrec.serving.titles import ItemSearch
from peterrec.serving.users import Users
from peterrec.storage import read_json

JOURNAL = "bundles.json"


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
        say: is told in a line for people where the service is.

    Raises:
        ConfigError: an address that cannot be had, no keys for one that others can reach, two bundles of one name.
        PeterRecError: an artifact, the store, the keys or the titles cannot be used; nothing listens then.
    """
    config = config or ServeConfig()
    log = Log()
    keys = _keys(config, log)
    given = given_bundles(bundles)
    listener = bind(config.host, config.port)
    try:
        service = open_service(backbone, given, config, keys, log)
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

        def started() -> None:
            loaded = [f"{task.name} {task.version}" for task in service.parts.engine.tasks()]
            log.write("started", address=address, bundles=loaded, keys=keys is not None)
            if say is not None:
                say(_next_steps(address, keyed=keys is not None))

        run(service, listener, started)
    finally:
        listener.close()


def open_service(
    backbone: str | Path, given: dict[str, str], config: ServeConfig, keys: Keys | None, log: Log
) -> Service:
    """Load and open all that the service is made of.

    Args:
        backbone: folder of it.
        given: folders of bundles by name; what operators loaded and dropped since then counts more.
        config: settings.
        keys: of clients.
        log: for lines of the service.

    Raises:
        PeterRecError: something of it cannot be used.
    """
    state = Path(config.state)
    model = UserModel.from_pretrained(backbone)
    items = ItemSearch(model.catalogue, config.titles)
    engine = Engine(model, config.engine, lambda line: log.write("engine", message=line))
    journal = BundleJournal(state / JOURNAL)
    for name, path in journal.start(given).items():
        engine.load(name, path)
    engine.predict([Request(model.catalogue.ids.slice(0, 1).to_pylist())])  # what is made when first needed, is made
    store = open_store(config.store, state, config.limits.keep_events)
    for warning in getattr(store, "warnings", ()):
        log.write("store", "warning", message=warning)
    return Service(Parts(engine, Users(engine, store), store, items, journal, keys), config, log)


def given_bundles(bundles: Sequence[str]) -> dict[str, str]:
    """Return folders by name; of a bundle without a name, its task's.

    Raises:
        ConfigError: two of one name, or a name that no address can have.
        ArtifactError: a bundle without a name cannot be read.
    """
    found: dict[str, str] = {}
    for each in bundles:
        name, separator, path = each.partition("=")
        if not separator or Path(each).is_dir():
            name, path = "", each
        folder = Path(path).resolve()
        name = name or str(read_json(folder / "adapter_config.json").get("name", ""))
        if not re.fullmatch(NAME_PATTERN, name):
            raise ConfigError(
                f"{name!r} is no name of a bundle", remedy="give it one of letters, digits, _ . and -, as NAME=PATH"
            )
        if name in found:
            raise ConfigError(f"two bundles are named {name!r}", remedy="name one of them otherwise, as NAME=PATH")
        found[name] = str(folder)
    return found


def _keys(config: ServeConfig, log: Log) -> Keys | None:
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


def _next_steps(address: str, *, keyed: bool) -> str:
    key = "-H 'Authorization: Bearer KEY' " if keyed else ""
    body = '{"requests": [{"items": [], "tasks": "*"}]}'
    return f"the page is at {address}/ (Ctrl-C stops it); next: curl {key}--json '{body}' {address}/v1/predict"
