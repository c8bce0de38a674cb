"""Hiding input items in pre-training: fresh draws for every batch, never of padding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from peterrec.config import MaskingConfig
from peterrec.data.sequences import FIRST_ITEM, ITEM_MASK, MASK, IntArray, items_of

Tokens = npt.NDArray[np.int64]


def mask_items(
    tokens: Tokens, share: float, config: MaskingConfig, items: int, rng: np.random.Generator, *, least: int = 0
) -> tuple[Tokens, npt.NDArray[np.bool_]]:
    """Choose items of each row, and replace most of them (paper, section 3.2; GRec, Yuan et al., WWW 2020).

    Of n items a share is chosen, rounded, at least `least` (where there are as many) and at most `config.max_masked`;
    which ones is uniform without replacement. Padding and [UNK] are never chosen. [MASK] hides the features of an
    event, too; a random item has them.

    Args:
        tokens: (B, T) indices, with the features of events above their bits.
        share: of the items of a row, 0 .. 1.
        config: the most that are chosen; the shares of the chosen that become [MASK], stay, or become a random item.
        items: size of the catalogue that random items are drawn from.
        rng: of all draws.
        least: chosen in a row that has items.

    Returns:
        The input (B, T), and what was chosen (B, T).
    """
    if share == 0 and least == 0:  # the usual causal pre-training: nothing to draw
        return tokens, np.zeros(tokens.shape, dtype=bool)
    real = items_of(tokens) >= FIRST_ITEM
    count: IntArray = real.sum(axis=1)
    wanted = np.minimum(np.clip(np.round(share * count).astype(np.int64), least, config.max_masked), count)
    keys = np.where(real, rng.random(tokens.shape), 2.0)  # what is no item comes last
    place = keys.argsort(axis=1).argsort(axis=1)  # the rank of each key in its row
    chosen = place < wanted[:, None]
    fate = rng.random(tokens.shape)
    random = tokens & ~ITEM_MASK | rng.integers(FIRST_ITEM, FIRST_ITEM + items, tokens.shape)
    not_random = fate < config.mask_replace_fraction + config.keep_fraction
    replaced = np.where(fate < config.mask_replace_fraction, MASK, np.where(not_random, tokens, random))
    return np.where(chosen, replaced, tokens), chosen
