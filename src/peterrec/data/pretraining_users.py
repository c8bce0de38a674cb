"""Users of whom all may be learned but their labels: train and held-out users of pre-training."""

from __future__ import annotations

import numpy as np

from peterrec.config import PretrainConfig
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import FIRST_ITEM, IntArray, Sequences
from peterrec.data.splits import uniform


def unlabelled_sequences(corpus: Corpus) -> Sequences:
    """Return the histories that may be learned from without labels: of all users but the new ones."""
    return corpus.sequences.take(corpus.pretraining_rows) if corpus.new_users.any() else corpus.sequences


def split_users(corpus: Corpus, config: PretrainConfig) -> tuple[IntArray, IntArray]:
    """Return the rows of the users that pre-training learns from, and of those held out that are scored; both sorted.

    Held out are `valid_fraction` of them by a hash of their id with the seed, of whom `max_valid_users` are scored.
    Users of whom there is nothing to predict, no known item after another event, are in neither, nor are new users.
    """
    draw = uniform(corpus.user_hashes, f"pretrain-{config.seed}")
    held_out, enough = draw < config.valid_fraction, ~corpus.new_users & (corpus.sequences.lengths >= 2)
    train = _predictable(corpus, np.flatnonzero(enough & ~held_out))
    valid = _predictable(corpus, np.flatnonzero(enough & held_out), config.max_length + 1)
    # By their draw: the first ones in the corpus may be the oldest accounts.
    return train, np.sort(valid[np.argsort(draw[valid], kind="stable")[: config.max_valid_users]])


def _predictable(corpus: Corpus, rows: IntArray, longest: int | None = None) -> IntArray:
    """Return which of these users have an item, not [UNK], after another event, among the `longest` last.

    All of them have two events or more.
    """
    if corpus.manifest["rare_items"] != "unk":  # then no event is [UNK], and no item need be read
        return rows
    sequences = corpus.sequences
    first, place = sequences.offsets[:-1][rows], sequences.offsets[1:][rows] - 1
    if longest is not None:
        first = np.maximum(first, place + 1 - longest)
    has_item, pending = np.zeros(len(rows), dtype=bool), np.arange(len(rows))
    while len(pending):  # from the last event back, as far as needed: of most users it is the last
        has_item[pending] = sequences.items[place[pending]] >= FIRST_ITEM
        pending = pending[~has_item[pending]]
        place[pending] -= 1
        pending = pending[place[pending] > first[pending]]
    return rows[has_item]
