"""User-to-user cosine: targets of the train users with the most similar source items."""

from __future__ import annotations

from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import Sequences
from peterrec.evaluation.baselines.bag import bag, bag_width
from peterrec.evaluation.baselines.ranking import RankingBaseline, Score, choose, popularity_counts, targets_of

NAME = "user-to-user cosine"
MAX_USERS = 200_000
"""Train users above which it is skipped: each user that is scored is compared with all of them."""

_BLOCK = 20_000_000  # similarities held at once, 8 bytes each and a few copies
_LEAST = 1e-9  # of popularity, below any sum of cosines

NEIGHBOURS = (None, 300, 100, 30)
SHRINKAGES = (0.0, 3.0, 10.0, 30.0)
WEIGHTS: tuple[Literal["plain", "idf"], ...] = ("plain", "idf")


class Setting(NamedTuple):
    """Weights of the source items, the number of neighbours (None: all) and the shrinkage h."""

    weights: Literal["plain", "idf"]
    neighbours: int | None
    shrinkage: float


def user_to_user(train: TaskPart, valid: TaskPart, n_targets: int) -> RankingBaseline | str:
    """Sum, over the train users who have a target, their cosine with the user in the source items.

    cosine(u, v) = u . v / (|u| |v| + h), where u and v say which items a user has, each once, plain or times its
    inverse document frequency; those are scaled so that a mean user is as long as in the plain form, and h means the
    same. Only the `neighbours` most similar train users count, and all that are as similar as the last of them.
    Targets that none of these has follow in order of popularity. Weights, neighbours and h are chosen by the valid
    users' MRR.

    Returns:
        The baseline, or why it was skipped.
    """
    if len(train) > MAX_USERS:
        return f"{NAME} was skipped: it would compare every user with {len(train):,} train users"
    width = bag_width(train.sequences)
    source = bag(train.sequences, width, binary=True)
    owned = bag(targets_of(train), n_targets, first=0, binary=True)
    counts = popularity_counts(train, n_targets)
    last = counts * (_LEAST / max(1.0, float(counts.max())))

    def score(setting: Setting) -> Score:
        scale = _item_weights(source, setting.weights)
        weighted = sp.csr_array(source @ scale)
        index = sp.csc_array(weighted.T)
        norms = _norms(weighted)

        def score_batch(sequences: Sequences) -> Float[np.ndarray, "B n_targets"]:
            queries = sp.csr_array(bag(sequences, width, binary=True) @ scale)
            step = max(1, _BLOCK // max(1, len(train)))
            blocks = [queries[start : start + step] for start in range(0, queries.shape[0], step)]
            scores = [_nearest(block @ index, _norms(block), norms, setting) @ owned for block in blocks]
            return (sp.vstack(scores).toarray() if scores else np.zeros((0, n_targets))) + last

        return score_batch

    grid = [Setting(*values) for values in product(WEIGHTS, NEIGHBOURS, SHRINKAGES)]
    best, chosen = choose(grid, score, valid)
    settings = {
        "weights": chosen.weights, "neighbours": chosen.neighbours or "all", "shrinkage": chosen.shrinkage,
        "chosen by": "MRR of the valid users",
    }  # fmt: skip
    return RankingBaseline(NAME, best, settings)


def _item_weights(source: sp.csr_array, weights: Literal["plain", "idf"]) -> sp.csr_array:
    """Return a diagonal matrix; with IDF such that the mean squared length of the train users stays what it was."""
    users, items = source.shape
    values = np.ones(items)
    if weights == "idf":
        having = np.bincount(source.indices, minlength=items)
        values = np.log((1 + users) / (1 + having)) + 1.0
        values *= np.sqrt(having.sum() / max(1e-12, float(having @ values**2)))
    return sp.diags_array(values).tocsr()


def _norms(rows: sp.csr_array) -> Float[np.ndarray, " users"]:
    return np.sqrt(np.asarray(rows.power(2).sum(axis=1), dtype=np.float64))


def _nearest(
    products: sp.csr_array, query_norms: Float[np.ndarray, " B"], norms: Float[np.ndarray, " users"], setting: Setting
) -> sp.csr_array:
    """Turn inner products (B, users) into cosines, and leave those of the nearest users only."""
    products = sp.csr_array(products)
    rows = np.repeat(np.arange(len(query_norms)), np.diff(products.indptr))
    products.data /= query_norms[rows] * norms[products.indices] + setting.shrinkage
    if setting.neighbours is not None and products.shape[1] > setting.neighbours:
        for start, end in zip(products.indptr[:-1], products.indptr[1:], strict=True):
            cosines = products.data[start:end]
            if len(cosines) > setting.neighbours:
                last = np.partition(cosines, -setting.neighbours)[-setting.neighbours]
                # All ties stay, so that the order of the train users decides nothing; rounding must not part them.
                cosines[cosines < last * (1 - 1e-12)] = 0.0
    return products
