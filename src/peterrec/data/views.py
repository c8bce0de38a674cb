"""Random views of histories: subsets and slices of a user's events, for contrastive pre-training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from peterrec.config import ContrastiveConfig
from peterrec.data.batching import Tokens, last_events, padded_width
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
    width = padded_width(count, tokens.shape[1])
    beyond = tokens.shape[1]  # where nothing is
    slices = np.where(np.arange(width) < count, start + np.arange(width), beyond)
    if config.view == "slice":
        return _take(tokens, slices)
    subsets = _random_subsets(real, count, width, rng)
    if config.view == "subset":
        return _take(tokens, subsets)
    return _take(tokens, np.where(rng.random(count.shape) < 0.5, slices, subsets))


def _random_subsets(real: npt.NDArray[np.bool_], count: IntArray, width: int, rng: np.random.Generator) -> IntArray:
    """Choose `count` (B, 1) of the real places of each row, all subsets alike: their columns in order, (B, width)."""
    keys = np.where(real, rng.random(real.shape), 2.0)  # padding comes last
    least = np.argpartition(keys, width - 1, axis=1)[:, :width] if width else np.empty((len(keys), 0), np.int64)
    least = np.take_along_axis(least, np.take_along_axis(keys, least, axis=1).argsort(axis=1), axis=1)
    return np.sort(np.where(np.arange(width) < count, least, real.shape[1]), axis=1)


def _take(tokens: Tokens, columns: IntArray) -> Tokens:
    """Return the tokens at some columns of each row; [PAD] at the one behind the last."""
    return np.take_along_axis(np.pad(tokens, ((0, 0), (0, 1)), constant_values=PAD), columns, axis=1)
