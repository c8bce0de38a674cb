"""A tiny corpus whose users have a number that their histories tell: how many events, by which items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from peterrec.data.corpus import Corpus
from peterrec.data.prepare import prepare
from peterrec.data.synthetic import synthetic


def number_corpus(folder: Path, *, users: int = 240, **settings: Any) -> Corpus:
    """Tasks `spend` (regression; 2 to 12, by the user's cluster, and noise) and `cluster` (classification)."""
    data = synthetic(users=users)
    clusters = [int(name[1:]) for name in data.users["cluster"].to_pylist()]
    noise = np.random.default_rng(0).normal(0, 0.5, len(clusters))
    spend = 2.0 + 3.0 * np.array(clusters) + noise
    table = data.users.append_column("spend", pa.array(spend))
    defaults: dict[str, Any] = {
        "source": {"domains": ["source"], "min_item_events": 1},
        "split": {"train": 0.5, "valid": 0.25, "test": 0.25},
    }
    return prepare(
        data.events, folder / "corpus", users=table, regress=["spend"], classify=["cluster"], domain="domain",
        **(defaults | settings),
    )  # fmt: skip
