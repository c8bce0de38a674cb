"""Recommendation by popularity: the answer of a ranking task about a user without any known event."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from itertools import islice

import numpy as np
import torch

from peterrec.data.sequences import IntArray
from peterrec.nn.heads import log_share


class Popularity:
    """Items ranked by how often they were chosen; of equal ones the earlier comes first.

    Args:
        counts: (n,) events, or users, of each item.
    """

    def __init__(self, counts: IntArray) -> None:
        self.counts = counts
        self.scores = log_share(torch.from_numpy(counts))  # (n,) float32, finite: where item heads start

    @cached_property
    def order(self) -> list[int]:
        """Positions of all items, the most popular first."""
        ranked: list[int] = np.argsort(-self.counts, kind="stable").tolist()
        return ranked

    def best(self, k: int, excluded: Collection[int]) -> tuple[list[int], list[float]]:
        """Return positions and scores of the k most popular items not in `excluded`, or fewer if there are not k."""
        excluded = set(excluded)
        positions = list(islice((position for position in self.order if position not in excluded), k))
        return positions, self.scores[positions].tolist()
