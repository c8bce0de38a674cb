"""Item embeddings to start from: what goes together in the histories, found without a label and without a network."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from peterrec.data.sequences import IntArray, Sequences
from peterrec.evaluation.baselines.bag import bag

MAX_USERS = 500_000
"""Users that are looked at; so many say what goes together, and the factors of more would not fit beside the rest."""

DEVIATION = 0.1  # of the entries: about that of embeddings after some epochs of training
ROUNDS = 5  # of the randomised factorisation; more change nothing that a network could see


def item_factors(
    sequences: Sequences, rows: IntArray, items: int, channels: int, seed: int
) -> Float[np.ndarray, "items channels"]:
    """Return a vector for each item: those that the same users have are alike.

    The right singular vectors of the users' TF-IDF rows (Deerwester et al., Indexing by Latent Semantic Analysis,
    1990), each item's times the square of its inverse document frequency: a sum over a history is then what the user
    has of each factor, in which an item that everybody has says little. Items of no user, and channels beyond what the
    matrix has, are zeros but for a little noise, so that nothing is exactly alike.

    Args:
        sequences: histories as item indices.
        rows: users that may be looked at: evenly spread ones of them, if they are more than `MAX_USERS`.
        items: of the catalogue.
        channels: factors.
        seed: of the randomised factorisation (Halko et al., 2011), and of the noise.
    """
    if len(rows) > MAX_USERS:
        rows = rows[np.linspace(0, len(rows) - 1, MAX_USERS).astype(np.int64)]
    counts = bag(sequences.take(rows), items)
    weigh = TfidfTransformer().fit(counts)
    noise = np.random.default_rng(seed).normal(scale=0.01 * DEVIATION, size=(items, channels))
    factors = min(channels, items - 1, len(rows) - 1)
    if factors < 1 or counts.nnz == 0:
        return np.asarray(noise, dtype=np.float32)
    components = TruncatedSVD(factors, n_iter=ROUNDS, random_state=seed).fit(weigh.transform(counts)).components_.T
    components = components * weigh.idf_[:, None] ** 2
    noise[:, :factors] += components * (DEVIATION / max(float(components.std()), 1e-12))
    return np.asarray(noise, dtype=np.float32)
