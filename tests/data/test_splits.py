"""Promise 11: users are split by a hash of their id, and no engine, order or library version can move one."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.config import SplitConfig
from peterrec.data.hashing import id_hash
from peterrec.data.splits import assign_folds, assign_parts, uniform

MANY = id_hash(range(40_000))
ids = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"])))


def uniform_by_hand(user: str | int, salt: str) -> float:
    """The same number from Python's own integers."""
    mixed = _first_eight(str(user)) ^ _first_eight(f"salt:{salt}")
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> shift)) * factor % 2**64
    return ((mixed ^ (mixed >> 31)) >> 11) / 2**53


def _first_eight(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)


# ---------------------------------------------------------------- nobody moves


def test_hashes_are_known():
    """Computed with `printf alice | sha256sum`: if one changes, users move between train and test."""
    expected = [0x2BD806C97F0E00AF, 0x6B86B273FF34FCE1, 7492547406371558448, 0x5FECEB66FFC86F38]
    assert [int(value) for value in id_hash(["alice", 1, "user-ä", "0"])] == expected


def test_numbers_and_parts_are_known():
    assert uniform(id_hash(["alice", "1", "user-ä"]), "peterrec").tolist() == [
        0.38945841301217254,
        0.9662344253250519,
        0.280289234453601,
    ]
    expected = [0, 2, 0, 2, 0, 0, 0, 0, 0, 2, 2, 2, 0, 0, 0, 0, 0, 0, 2, 2]
    assert assign_parts(id_hash(range(20)), SplitConfig()).tolist() == expected


def test_the_mixing_is_that_of_splitmix64():
    """Its published first output for seed 0, whose state is then the golden ratio's bits."""
    salt = id_hash(["salt:x"])[0]
    state = np.array([0x9E3779B97F4A7C15], dtype=np.uint64) ^ salt
    assert uniform(state, "x").tolist() == [(0xE220A8397B1DCDAF >> 11) / 2**53]


@given(st.lists(ids, max_size=5), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_user_gets_the_number_computed_by_hand(users, salt):
    assert uniform(id_hash(users), salt).tolist() == [uniform_by_hand(user, salt) for user in users]


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9, unique=True), st.randoms(use_true_random=False)
)
def test_neither_order_nor_id_type_nor_company_moves_a_user(users, random):
    part = dict(zip(users, assign_parts(id_hash(users), SplitConfig()).tolist(), strict=True))
    shuffled = random.sample(users, len(users))
    assert assign_parts(id_hash(shuffled), SplitConfig()).tolist() == [part[user] for user in shuffled]
    assert assign_parts(id_hash(str(user) for user in users), SplitConfig()).tolist() == list(part.values())
    assert assign_parts(id_hash(users[:1]), SplitConfig()).tolist() == [part[users[0]]]
    assert assign_parts(id_hash(np.array(users, dtype=np.int64)), SplitConfig()).tolist() == list(part.values())


# ---------------------------------------------------------------- shares


@pytest.mark.parametrize(
    "shares",
    [(0.70, 0.03, 0.27), (0.5, 0.25, 0.25), (0.9, 0.1, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.1, 0.9, 0.0)],
)
@pytest.mark.parametrize("salt", ["peterrec", "other", ""])
def test_shares_are_what_was_asked(shares, salt):
    config = SplitConfig(train=shares[0], valid=shares[1], test=shares[2], salt=salt)
    part_shares = np.bincount(assign_parts(MANY, config), minlength=3) / len(MANY)
    for share, expected in zip(part_shares, shares, strict=True):
        assert abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / len(MANY))  # exact where it is 0 or 1


def test_by_default_seventy_percent_are_trained_on_three_validated_and_the_rest_tested():
    drawn = uniform(MANY, "peterrec")
    expected = [0 if number < 0.70 else 1 if number < 0.73 else 2 for number in drawn]
    assert assign_parts(MANY, SplitConfig()).tolist() == expected
    np.testing.assert_allclose(np.bincount(expected) / len(MANY), [0.70, 0.03, 0.27], atol=0.01)


def test_the_numbers_are_spread_evenly_over_zero_to_one():
    drawn = uniform(MANY, "peterrec")
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = np.histogram(drawn, bins=100, range=(0, 1))[0]
    chi_square = ((counts - len(MANY) / 100) ** 2 / (len(MANY) / 100)).sum()
    assert 50 < chi_square < 160, "99 degrees of freedom: below 50 or above 160 is one in ten thousand"


def test_consecutive_ids_are_not_neighbours():
    drawn = uniform(MANY, "peterrec")
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.02


@pytest.mark.parametrize("other_salt", ["peterrec ", "Peterrec", "", "pretrain-0", "pretrain-1"])
def test_salts_are_independent(other_salt):
    first, second = uniform(MANY, "peterrec"), uniform(MANY, other_salt)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    joint = np.histogram2d(first, second, bins=10, range=((0, 1), (0, 1)))[0]
    chi_square = ((joint - len(MANY) / 100) ** 2 / (len(MANY) / 100)).sum()
    assert chi_square < 160


def test_nobody_is_nothing():
    assert id_hash([]).tolist() == uniform(id_hash([]), "x").tolist() == []
    assert assign_parts(id_hash([]), SplitConfig()).tolist() == []


# ---------------------------------------------------------------- folds


@given(strata=st.lists(st.integers(0, 3), min_size=1, max_size=60), folds=st.integers(2, 7), seed=st.integers(0, 99))
def test_folds_are_even_in_all_and_in_each_stratum_and_do_not_go_by_order(strata, folds, seed):
    hashes, labels = id_hash(range(len(strata))), np.array(strata)
    fold = assign_folds(hashes, folds, "salt", labels)
    for among in (np.ones(len(strata), bool), *(labels == value for value in set(strata))):
        sizes = np.bincount(fold[among], minlength=folds)
        assert sizes.max() - sizes.min() <= 1
        assert len(sizes) == folds
    order = np.random.default_rng(seed).permutation(len(strata))
    assert (assign_folds(hashes[order], folds, "salt", labels[order]) == fold[order]).all()


def test_folds_go_by_the_salt():
    folds = [assign_folds(MANY[:500], 5, salt) for salt in ("a", "b", "a")]
    assert (folds[0] == folds[2]).all()
    assert 0.1 < (folds[0] == folds[1]).mean() < 0.3  # as chance has it
