"""Factors of the users' TF-IDF rows: what goes together in histories, found without a label and without a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from peterrec.data.sequences import IntArray, Sequences
from peterrec.evaluation.baselines.bag import bag

MAX_USERS = 500_000
"""Users that are looked at; so many say what goes together, and the factors of more would not fit beside the rest."""

ROUNDS = 5  # of the randomised factorisation; more change nothing that a network could see


@dataclass(frozen=True)
class TfidfFactors:
    """Factorised TF-IDF rows of users (Deerwester et al., Indexing by Latent Semantic Analysis, 1990).

    Attributes:
        tfidf: weights of the items, by the users that were looked at.
        components: (items, factors) right singular vectors, largest first; at most as many as the rows have.
        users: number of users that were looked at.
    """

    tfidf: TfidfTransformer
    components: Float[np.ndarray, "items factors"]
    users: int

    def of_users(self, sequences: Sequences) -> Float[np.ndarray, "N factors"]:
        """Return what users have of each factor: the sum over their items of TF-IDF weight times item factor.

        Args:
            sequences: N rows of item indices; the weights of a row have the Euclidean norm 1, whatever its length.
        """
        return np.asarray(self.tfidf.transform(bag(sequences, len(self.components))) @ self.components)


def factorise(sequences: Sequences, rows: IntArray, items: int, factors: int, seed: int) -> TfidfFactors | None:
    """Factorise the TF-IDF rows of users.

    Args:
        sequences: histories as item indices.
        rows: users that may be looked at: evenly spread ones of them, if they are more than `MAX_USERS`.
        items: columns of the rows; items beyond are left out.
        factors: at most.
        seed: of the randomised factorisation (Halko et al., 2011).

    Returns:
        The factors; None where there is nothing to factorise: fewer than two users or items, or nobody has an item.
    """
    if len(rows) > MAX_USERS:
        rows = rows[np.linspace(0, len(rows) - 1, MAX_USERS).astype(np.int64)]
    counts = bag(sequences.take(rows), items)
    factors = min(factors, items - 1, len(rows) - 1)
    if factors < 1 or counts.nnz == 0:
        return None
    tfidf = TfidfTransformer().fit(counts)
    with np.errstate(invalid="ignore"):  # the explained share of a variance of 0, where all rows are alike
        svd = TruncatedSVD(factors, n_iter=ROUNDS, random_state=seed).fit(tfidf.transform(counts))
    return TfidfFactors(tfidf, svd.components_.T, len(rows))
