"""A tiny corpus whose users have labels that their histories tell: by the cluster of items they choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from peterrec.data.corpus import Corpus
from peterrec.data.prepare import prepare
from peterrec.data.synthetic import synthetic

CERTAIN = 0.9  # share of users whose labels are as the cluster says


def label_corpus(folder: Path, *, users: int = 240, **settings: Any) -> Corpus:
    """Tasks `interests` (multilabel: low and first, planted by cluster, and noise) and `cluster` (classification)."""
    data = synthetic(users=users)
    clusters = np.array([int(name[1:]) for name in data.users["cluster"].to_pylist()])
    planted = np.stack([clusters < 2, clusters == 0, np.zeros(len(clusters), bool)], axis=1)
    noise = np.random.default_rng(0)
    planted ^= noise.random(planted.shape) > CERTAIN
    names = np.array(["low", "first", "noise"])
    table = data.users.append_column("interests", pa.array([names[row].tolist() for row in planted]))
    defaults: dict[str, Any] = {
        "source": {"domains": ["source"], "min_item_events": 1},
        "split": {"train": 0.5, "valid": 0.25, "test": 0.25},
    }
    return prepare(
        data.events, folder / "corpus", users=table, multilabel=["interests"], classify=["cluster"], domain="domain",
        **(defaults | settings),
    )  # fmt: skip
