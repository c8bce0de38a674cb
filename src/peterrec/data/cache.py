"""Where verbs keep what they make when no folder is named: found again by what it was made of."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from peterrec.process import require_one_process
from peterrec.storage import storage_errors

VARIABLE = "PETERREC_CACHE"


def cache_folder() -> Path:
    """Return the folder of all that is kept: the environment's `PETERREC_CACHE`, or `~/.cache/peterrec`."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "peterrec")


def cached_path(kind: str, *facts: str) -> Path:
    """Return the folder of an artifact in the cache.

    Args:
        kind: of artifact, such as `corpus`.
        facts: all that decides what is in it, as texts: fingerprints of what it is made of, settings, the release.
    """
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()
    return cache_folder() / f"{kind}-{digest[:16]}"


@contextlib.contextmanager
def only_maker(path: Path) -> Iterator[None]:
    """Hold the right to make what is to be at a path of the cache; other processes wait for it.

    Raises:
        ConfigError: several processes of one launch make it together: they must name a folder.
        StorageError: the cache is not writable.
    """
    require_one_process()
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
