"""Sources of probes: vectors of the backbone, what heads of bundles read, and what bundles answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from peterrec.config import AuditConfig
from peterrec.data.sequences import Sequences
from peterrec.model import UserModel


@dataclass(frozen=True)
class ProbeSource:
    """Vectors of users that may tell an attribute.

    Attributes:
        reads: what they are.
        bundle: whose, or None.
        vectors: (N, R).
    """

    reads: Literal["backbone", "readout", "answers"]
    bundle: str | None
    vectors: Float[np.ndarray, "N R"]


def sources(model: UserModel, bundles: dict[str, str], users: Sequences, config: AuditConfig) -> Iterator[ProbeSource]:
    """Yield what is read of users, one after the other: each may be large.

    Args:
        model: with the bundles.
        bundles: by the names of the report, those that they are loaded by.
        users: N histories.
        config: readout, and what is read of recommendations.
    """
    size = config.batch_size
    plain = model.representations(users, readout=config.readout, batch_size=size)
    yield ProbeSource("backbone", None, plain.astype(np.float64))
    for name, key in bundles.items():
        vectors = model.representations(users, key, batch_size=size)
        yield ProbeSource("readout", name, vectors.astype(np.float64))
        yield ProbeSource("answers", name, _answers(model, key, users, config))


def _answers(model: UserModel, key: str, users: Sequences, config: AuditConfig) -> Float[np.ndarray, "N R"]:
    """Return what a bundle answers about each user: probabilities, numbers, or which items it recommends."""
    kind, size = model.bundle(key).kind, config.batch_size
    if kind == "classification":
        return model.probabilities(users, key, batch_size=size).astype(np.float64)
    if kind == "multilabel":
        return model.label_probabilities(users, key, batch_size=size).astype(np.float64)
    if kind == "regression":
        return model.numbers(users, key, batch_size=size)
    # Items of the user's own history are not left out: what is missing from a list would tell them.
    items = model.top_k(users, config.k, key, batch_size=size).positions
    shown = np.bincount(items.ravel(), minlength=len(model.targets(key)))
    columns = np.argsort(-shown, kind="stable")[: config.max_items]
    place = np.full(len(shown), -1)
    place[columns] = np.arange(len(columns))
    chosen = place[items]
    recommended = np.zeros((len(users), len(columns)))
    rows = np.repeat(np.arange(len(users)), items.shape[1])
    recommended[rows[chosen.ravel() >= 0], chosen.ravel()[chosen.ravel() >= 0]] = 1.0
    return recommended
