"""Hashes of ids and of events that no engine, file form or library version can change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]


def id_hash(ids: Iterable[str | int]) -> UInt64Array:
    """Return the first 8 bytes (big-endian) of the sha256 of each id's text; (n,) uint64."""
    digests = b"".join(hashlib.sha256(str(value).encode()).digest()[:8] for value in ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def mix64(values: UInt64Array) -> UInt64Array:
    """Return the finaliser of splitmix64 (Steele, Lea and Flood, 2014) of each value; same shape."""
    mixed = np.asarray(values, dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)
