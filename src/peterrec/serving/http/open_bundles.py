"""The bundles of a service by its settings: its own, or those of a registry that replicas share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peterrec.config import ServeConfig
from peterrec.errors import ConfigError
from peterrec.serving.http.bundle_operations import BundleOperations
from peterrec.serving.http.bundles import Bundles
from peterrec.serving.http.logs import Log
from peterrec.serving.http.shared_bundles import SharedBundles
from peterrec.serving.journal import BundleJournal
from peterrec.serving.replicas.base import SharedRegistry
from peterrec.serving.replicas.copies import SharedCopies
from peterrec.serving.replicas.file_registry import FileRegistry
from peterrec.serving.replicas.redis_registry import RedisRegistry
from peterrec.serving.state_folder import COPIES, JOURNAL, SHARED_COPIES
from peterrec.serving.store.open import REDIS

if TYPE_CHECKING:
    from peterrec.serving.engine import Engine
    from peterrec.serving.http.workers import WorkerPlan


def check_registry(config: ServeConfig) -> None:
    """Refuse a registry in a store that replicas cannot share.

    Raises:
        ConfigError: the store is not Redis.
    """
    if config.registry == "store" and not config.store.startswith(REDIS):
        raise ConfigError(
            "`registry: store` needs a store that replicas share, not a file",
            remedy="give --store redis://..., or leave the registry out",
        )


def open_bundles(engine: Engine, config: ServeConfig, log: Log, worker: WorkerPlan | None = None) -> BundleOperations:
    """Return the bundles of a service; nothing is loaded yet.

    Args:
        engine: answers with them.
        config: of the service.
        log: for lines of the service.
        worker: of several of the service, which share their bundles; None: it is one process.

    Raises:
        ArtifactError, FormatVersionError: what the service remembers of its own bundles is damaged.
        StoreError: the registry does not answer.
    """
    model, replicas, state = engine.model, config.replicas, Path(config.state)
    registry: SharedRegistry
    if config.registry == "store":
        oldest = model.identity.root  # a grown backbone takes the place of the one before, replica by replica
        owner = (oldest.fingerprint, oldest.catalogue_fingerprint)
        registry = RedisRegistry(config.store, owner, timeout=replicas.lease_ms / 1000)
        root = Path(config.bundle_root).resolve()
        copies = SharedCopies(root / SHARED_COPIES / registry.identity, replicas.grace_seconds, root)
    elif worker is not None:
        registry = FileRegistry(state, worker.bundle_folders)
        copies = SharedCopies((state / COPIES).resolve(), replicas.grace_seconds)
    else:
        return Bundles(engine, BundleJournal(state / JOURNAL), config.bundle_root, state / COPIES, log)
    return SharedBundles(engine, registry, copies, config.bundle_root, replicas, log)
