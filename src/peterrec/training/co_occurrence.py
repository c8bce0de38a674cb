"""Item embeddings to start from: what goes together in the histories, found without a label and without a network."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from peterrec.data.sequences import IntArray, Sequences
from peterrec.evaluation.baselines.tfidf_factors import factorise

DEVIATION = 0.1  # of the entries: about that of embeddings after some epochs of training


def item_factors(
    sequences: Sequences, rows: IntArray, items: int, channels: int, seed: int
) -> Float[np.ndarray, "items channels"]:
    """Return a vector for each item: those that the same users have are alike.

    The right singular vectors of the users' TF-IDF rows (`factorise`), each item's times the square of its inverse
    document frequency: a sum over a history is then what the user has of each factor, in which an item that everybody
    has says little. Items of no user, and channels beyond what the matrix has, are zeros but for a little noise, so
    that nothing is exactly alike.

    Args:
        sequences: histories as item indices.
        rows: users that may be looked at: evenly spread ones of them, if they are more than
            `tfidf_factors.MAX_USERS`.
        items: of the catalogue.
        channels: factors.
        seed: of the randomised factorisation, and of the noise.
    """
    vectors = np.random.default_rng(seed).normal(scale=0.01 * DEVIATION, size=(items, channels))
    factors = factorise(sequences, rows, items, channels, seed)
    if factors is not None:
        components = factors.components * factors.tfidf.idf_[:, None] ** 2
        vectors[:, : components.shape[1]] += components * (DEVIATION / max(float(components.std()), 1e-12))
    return np.asarray(vectors, dtype=np.float32)
