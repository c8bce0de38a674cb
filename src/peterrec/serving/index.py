"""The best items of a catalogue of targets: all of them scored, or an approximate index with measured recall."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from peterrec.config import EngineConfig
from peterrec.errors import ConfigError
from peterrec.nn.heads import grouped_topk, item_scores

logger = logging.getLogger(__name__)

MEASURED_AT = 10  # k of the recall that is measured
MEASURED_ON = 64  # users that recall is measured on, at most
CONNECTIVITY, EFFORT_TO_ADD, EFFORT_TO_SEARCH = 32, 200, 400  # of the graph: HNSW's M, ef_construction, ef_search

Floats = npt.NDArray[np.float32]
SearchResults = list[tuple[list[int], list[float]]]


class ItemIndex:
    """Exact search: every target is scored.

    Args:
        weight: (n, R) of the head.
        bias: (n,) of the head.
    """

    def __init__(self, weight: Float[Tensor, "n R"], bias: Float[Tensor, " n"]) -> None:
        self.weight = weight
        self.bias = bias

    def search(self, vectors: Float[Tensor, "B R"], k: int, excluded: Sequence[Sequence[int]]) -> SearchResults:
        """Return positions and scores of the k best targets of each user, best first; fewer where there are fewer.

        Args:
            vectors: B representations.
            k: targets of each user.
            excluded: for each user, positions of targets to leave out.
        """
        scores = item_scores(vectors, self.weight, self.bias)
        rows = [row for row, positions in enumerate(excluded) for _ in positions]
        if rows:
            columns = [place for positions in excluded for place in positions]
            scores[torch.tensor(rows), torch.tensor(columns)] = -torch.inf
        best, positions = grouped_topk(scores, min(k, scores.shape[1]))
        return [
            ([i for i, s in zip(places, values, strict=True) if s != -np.inf], [s for s in values if s != -np.inf])
            for places, values in zip(positions.tolist(), best.tolist(), strict=True)
        ]

    def score(self, vectors: Float[Tensor, "B R"], place: int) -> Float[Tensor, " B"]:
        """Return the score of one target for each row."""
        return vectors @ self.weight[place] + self.bias[place]

    def describe(self) -> dict[str, Any]:
        """Return how targets are searched."""
        return {"kind": "exact", "recall": 1.0}


class ApproximateIndex(ItemIndex):
    """Search in a graph of neighbours (HNSW: Malkov and Yashunin, 2018; usearch's), with exact scores.

    The bias is one more coordinate, against which users have a 1; and another one, against which they have a 0, makes
    all items as long as the longest: the largest product is then the smallest angle, which is what such a graph is
    good at (Bachrach et al., RecSys 2014).

    Args:
        weight: as for `ItemIndex`.
        bias: the same.

    Raises:
        ConfigError: usearch is not installed.
    """

    def __init__(self, weight: Float[Tensor, "n R"], bias: Float[Tensor, " n"]) -> None:
        super().__init__(weight, bias)
        self.recall: float | None = None
        try:
            from usearch.index import Index  # noqa: PLC0415 - only large catalogues need it
        except ImportError as error:
            raise ConfigError(
                f"{len(bias):,} targets are to be searched approximately, and usearch is not installed",
                remedy="pip install 'peterrec[serve]', or raise engine.approximate_above",
            ) from error
        plain = torch.cat([weight, bias.unsqueeze(1)], dim=1)
        length = plain.square().sum(dim=1, keepdim=True)
        table = torch.cat([plain, (length.max() - length).clamp(min=0).sqrt()], dim=1).cpu().numpy()
        graph = Index(
            ndim=table.shape[1], metric="cos", dtype="f32", connectivity=CONNECTIVITY,
            expansion_add=EFFORT_TO_ADD, expansion_search=EFFORT_TO_SEARCH,
        )  # fmt: skip
        graph.add(np.arange(len(table)), table)
        self._graph: Any = graph

    def search(self, vectors: Float[Tensor, "B R"], k: int, excluded: Sequence[Sequence[int]]) -> SearchResults:
        """Return the best targets that the graph finds, as `ItemIndex.search` does.

        It is searched for k targets and as many as are left out. Users for whom that is more than a quarter of the
        effort of a search are searched exactly.
        """
        ends = vectors.new_tensor([1.0, 0.0]).expand(len(vectors), 2)
        queries = torch.cat([vectors, ends], dim=1).cpu().numpy()
        results: SearchResults = []
        for row, positions in enumerate(excluded):
            candidates = k + len(set(positions))
            in_graph = candidates <= EFFORT_TO_SEARCH // 4
            results += (
                [self._search_graph(queries[row], k, candidates, positions)]
                if in_graph
                else super().search(vectors[row : row + 1], k, [positions])
            )
        return results

    def _search_graph(
        self, query: Floats, k: int, candidates: int, excluded: Sequence[int]
    ) -> tuple[list[int], list[float]]:
        keys = np.sort(np.asarray(self._graph.search(query, min(candidates, len(self.bias))).keys, dtype=np.int64))
        keys = keys[~np.isin(keys, np.asarray(excluded, dtype=np.int64))]
        scores = self.weight[keys].cpu().numpy() @ query[:-2] + self.bias[keys].cpu().numpy()
        order = np.argsort(-scores, kind="stable")[:k]
        return keys[order].tolist(), scores[order].tolist()

    def describe(self) -> dict[str, Any]:
        """Return how targets are searched, and the recall that was measured."""
        return {"kind": "approximate", "recall": self.recall, "measured_at": MEASURED_AT}


def build_index(weight: Tensor, bias: Tensor, config: EngineConfig, sample: Callable[[], Tensor]) -> ItemIndex:
    """Return the index for the targets of a head: exact for up to `approximate_above`, or where that finds more.

    The measured recall is logged.

    Args:
        weight: (n, R) of the head.
        bias: (n,) of the head.
        config: from how many targets on an approximate index is tried, and what it must find.
        sample: returns vectors of users (N, R) to measure its recall on.
    """
    exact = ItemIndex(weight, bias)
    if len(bias) <= config.approximate_above:
        return exact
    index = ApproximateIndex(weight, bias)
    vectors = sample()[:MEASURED_ON]
    nothing_excluded: list[list[int]] = [[] for _ in vectors]
    pairs = zip(
        exact.search(vectors, MEASURED_AT, nothing_excluded),
        index.search(vectors, MEASURED_AT, nothing_excluded),
        strict=True,
    )
    shares = [
        len(set(exact_items) & set(approximate_items)) / max(1, len(exact_items))
        for (exact_items, _), (approximate_items, _) in pairs
    ]
    index.recall = sum(shares) / len(shares)
    line = f"the approximate index of {len(bias):,} targets finds {index.recall:.1%} of the best {MEASURED_AT}"
    if index.recall < config.least_recall:
        logger.info(f"{line}, less than {config.least_recall:.1%}: every target is scored instead")
        return exact
    logger.info(line)
    return index
