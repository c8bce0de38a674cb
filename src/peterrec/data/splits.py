"""Splitting users by a hash of their id, so that no engine, file order or library version can move one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from peterrec.config import SplitConfig
from peterrec.data.hashing import UInt64Array, id_hash, mix64
from peterrec.data.sequences import IntArray


def uniform(hashes: UInt64Array, salt: str) -> npt.NDArray[np.float64]:
    """Return one number in [0, 1) per user, independent between salts; (n,) float64.

    The salted hash is mixed with `mix64`.
    """
    mixed = mix64(np.asarray(hashes, dtype=np.uint64) ^ id_hash([f"salt:{salt}"])[0])
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def assign_parts(hashes: UInt64Array, config: SplitConfig) -> IntArray:
    """Return the part of each user: 0 train, 1 valid, 2 test; (n,) int64 (paper, section 4.1)."""
    edges = np.array([config.train, config.train + config.valid])
    return np.searchsorted(edges, uniform(hashes, config.salt), side="right").astype(np.int64)


def assign_folds(hashes: UInt64Array, folds: int, salt: str, strata: IntArray | None = None) -> IntArray:
    """Return the fold of each user, 0 .. folds - 1, of as equal sizes as can be; (n,) int64.

    Args:
        hashes: (n,) of the users' ids.
        folds: how many.
        salt: another one gives other folds.
        strata: (n,) such as classes: the users of each are spread evenly over the folds.
    """
    strata = np.zeros(len(hashes), dtype=np.int64) if strata is None else strata
    order = np.lexsort((uniform(hashes, salt), strata))  # by stratum, in it by the draw; then dealt like cards
    fold = np.empty(len(hashes), dtype=np.int64)
    fold[order] = np.arange(len(hashes)) % folds
    return fold
