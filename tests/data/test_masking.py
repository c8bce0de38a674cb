"""Masking of input items: how many, which, what becomes of them, and where the draws come from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.config import MaskingConfig
from peterrec.data.masking import mask_items
from peterrec.data.sequences import FIRST_ITEM, MASK, PAD, UNK
from peterrec.errors import ConfigError

ITEMS = 40
ALL_MASKED = MaskingConfig(mask_replace_fraction=1.0, keep_fraction=0.0, random_replace_fraction=0.0)
tables = st.integers(1, 30).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(0, ITEMS + FIRST_ITEM - 1) | st.just(PAD), min_size=width, max_size=width),
        min_size=1,
        max_size=6,
    )
)
shares = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]) | st.floats(0, 1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def items_of(rows: int, columns: int, seed: int = 1) -> np.ndarray:
    return rng(seed).integers(FIRST_ITEM, FIRST_ITEM + ITEMS, (rows, columns))


@given(table=tables, share=shares, least=st.integers(0, 3), max_masked=st.integers(1, 12), seed=st.integers(0, 99))
def test_the_rounded_share_of_each_row_is_chosen_at_least_and_at_most(table, share, least, max_masked, seed):
    least = min(least, max_masked)
    config = MaskingConfig(max_masked=max_masked)
    _, chosen = mask_items(np.array(table), share, config, ITEMS, rng(seed), least=least)
    for row, marks in zip(table, chosen, strict=True):
        items = sum(token >= FIRST_ITEM for token in row)
        assert int(marks.sum()) == min(items, max_masked, max(least, round(share * items)))


@given(table=tables, share=shares, least=st.integers(0, 1), seed=st.integers(0, 99))
def test_padding_and_what_is_no_item_are_never_chosen_and_nothing_else_changes(table, share, least, seed):
    tokens = np.array(table)
    before = tokens.copy()
    inputs, chosen = mask_items(tokens, share, MaskingConfig(), ITEMS, rng(seed), least=least)
    assert (tokens == before).all(), "the caller's tokens stay"
    assert not chosen[tokens < FIRST_ITEM].any()
    assert (inputs[~chosen] == tokens[~chosen]).all()
    assert ((inputs[chosen] == MASK) | (inputs[chosen] >= FIRST_ITEM)).all()
    assert inputs.max() < FIRST_ITEM + ITEMS
    assert (inputs.shape, chosen.shape, chosen.dtype) == (tokens.shape, tokens.shape, np.bool_)


@pytest.mark.parametrize(("share", "items", "wanted"), [(0.3, 20, 6), (0.3, 5, 2), (0.3, 1, 0), (0.3, 200, 30)])
def test_counts_by_hand(share, items, wanted):
    """The authors choose 30 % of the positions, at most 30."""
    for seed in range(5):
        _, chosen = mask_items(items_of(3, items), share, MaskingConfig(), ITEMS, rng(seed))
        assert chosen.sum(axis=1).tolist() == [wanted] * 3


def test_a_row_that_has_items_can_be_promised_one():
    tokens = np.array([[PAD, PAD, 7], [PAD, UNK, UNK], [PAD, PAD, PAD]])
    _, chosen = mask_items(tokens, 0.3, MaskingConfig(), ITEMS, rng(), least=1)
    assert chosen.tolist() == [[False, False, True], [False] * 3, [False] * 3]
    _, chosen = mask_items(tokens, 0.3, MaskingConfig(), ITEMS, rng())
    assert not chosen.any()


def test_the_shares_of_what_becomes_of_the_chosen_are_as_said():
    tokens = items_of(500, 100)
    inputs, chosen = mask_items(tokens, 0.3, MaskingConfig(), ITEMS, rng(2))
    old, new = tokens[chosen], inputs[chosen]
    assert len(old) == 500 * 30
    changed = (new != old) & (new != MASK)
    # A random item is the old one once in 40 times.
    shares = [(new == MASK).mean(), (new == old).mean(), changed.mean()]
    np.testing.assert_allclose(shares, [0.8, 0.1 + 0.1 / ITEMS, 0.1 - 0.1 / ITEMS], atol=0.01)
    drawn = np.bincount(new[changed], minlength=FIRST_ITEM + ITEMS)[FIRST_ITEM:]
    assert drawn.min() > 0.4 * drawn.mean(), "any item of the catalogue, the first and the last too"


FATES = ("mask_replace_fraction", "keep_fraction", "random_replace_fraction")


@pytest.mark.parametrize("fate", FATES)
def test_one_fate_alone(fate):
    config = MaskingConfig(**(dict.fromkeys(FATES, 0.0) | {fate: 1.0}))
    tokens = items_of(20, 30)
    inputs, chosen = mask_items(tokens, 0.5, config, ITEMS, rng())
    if fate == "mask_replace_fraction":
        assert (inputs[chosen] == MASK).all()
    elif fate == "keep_fraction":
        assert (inputs == tokens).all()
        assert chosen.sum() == 20 * 15, "these are asked for all the same"
    else:
        assert (inputs[chosen] >= FIRST_ITEM).all()
        assert (inputs[chosen] != tokens[chosen]).mean() > 0.9


def test_every_item_of_a_row_is_as_likely_to_be_chosen():
    """Wherever it stands, and however much padding is before it."""
    tokens = np.concatenate([np.full((4000, 3), PAD), items_of(4000, 7)], axis=1)
    _, chosen = mask_items(tokens, 0.3, ALL_MASKED, ITEMS, rng())
    np.testing.assert_allclose(chosen.mean(axis=0), [0] * 3 + [2 / 7] * 7, atol=0.025)
    pairs = np.cov(chosen[:, 3:].T.astype(float))
    assert abs(pairs[~np.eye(7, dtype=bool)] - pairs[0, 1]).max() < 0.015, "and with any other one"


def test_draws_come_from_the_generator_alone_and_are_fresh_each_time():
    tokens = items_of(8, 20)
    generator = rng(5)
    first, second = (mask_items(tokens, 0.3, MaskingConfig(), ITEMS, generator) for _ in range(2))
    np.random.seed(99)  # noqa: NPY002
    same_seed = mask_items(tokens, 0.3, MaskingConfig(), ITEMS, rng(5))
    assert all((a == b).all() for a, b in zip(first, same_seed, strict=True))
    assert (first[1] != second[1]).any()
    assert len({tuple(row) for row in first[1].tolist()}) > 1, "rows are not all alike"


def test_a_share_of_nothing_changes_nothing():
    tokens = items_of(4, 9)
    inputs, chosen = mask_items(tokens, 0.0, MaskingConfig(), ITEMS, rng())
    assert (inputs == tokens).all()
    assert not chosen.any()


def test_no_rows_and_no_columns_are_no_trouble():
    for shape in ((0, 5), (3, 0)):
        inputs, chosen = mask_items(np.empty(shape, np.int64), 0.3, MaskingConfig(), ITEMS, rng(), least=1)
        assert inputs.shape == chosen.shape == shape


def test_fates_that_do_not_add_up_are_refused():
    with pytest.raises(ConfigError, match="random_replace_fraction must be 1"):
        MaskingConfig(mask_replace_fraction=0.8, keep_fraction=0.1, random_replace_fraction=0.2)
