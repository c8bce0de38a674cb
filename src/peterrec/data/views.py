"""Random views of histories: subsets and slices of a user's events, for contrastive pre-training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from peterrec.config import ContrastiveConfig
from peterrec.data.batching import Tokens, keep_events, last_events
from peterrec.data.sequences import PAD, IntArray, Sequences

LONGEST = 4096  # most recent events that views are drawn from


def draw_views(sequences: Sequences, rows: IntArray, config: ContrastiveConfig, rng: np.random.Generator) -> Tokens:
    """Draw views of some users, each a random part of the user's events in their order (Babaev et al., 2022).

    A length is drawn log-uniformly between `config.min_events` and `config.max_events` and is at most that of the
    history. A slice is consecutive events, a subset any; both uniformly.

    Args:
        sequences: histories.
        rows: (U,) of the users.
        config: number, kind and lengths of views.
        rng: of all draws.

    Returns:
        (U * views, W), the views of a user one after another, padded on the right.
    """
    tokens = np.repeat(last_events(sequences, rows, LONGEST), config.views, axis=0)
    real = tokens != PAD
    events = real.sum(axis=1, keepdims=True)
    shortest, longest = np.log(config.min_events), np.log(config.max_events + 1)
    wanted = np.exp(rng.uniform(shortest, longest, (len(tokens), 1))).astype(np.int64).clip(max=config.max_events)
    count = np.minimum(wanted, events)
    start = np.floor(rng.random(count.shape) * (events - count + 1)).astype(np.int64)
    columns = np.arange(tokens.shape[1])
    in_slice = (columns >= start) & (columns < start + count)
    if config.view == "slice":
        return keep_events(tokens, in_slice)
    in_subset = _random_subset(real, count, rng)
    if config.view == "subset":
        return keep_events(tokens, in_subset)
    return keep_events(tokens, np.where(rng.random(count.shape) < 0.5, in_slice, in_subset))


def _random_subset(real: npt.NDArray[np.bool_], count: IntArray, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Choose `count` (B, 1) of the real places of each row, all subsets alike."""
    keys = np.where(real, rng.random(real.shape), 2.0)  # padding comes last
    ranks = keys.argsort(axis=1).argsort(axis=1)
    chosen: npt.NDArray[np.bool_] = ranks < count
    return chosen
