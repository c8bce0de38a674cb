"""The cluster bootstrap, p-values and Holm's correction, against slow loops and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peterrec.evaluation.intervals import Resamples
from peterrec.evaluation.seed_bootstrap import SeedEstimate, UserSums, estimate_all, holm, p_value, paired

USERS, COUNT = 7, 40


def some_sums(rng: np.random.Generator, users: int = USERS) -> UserSums:
    below = rng.integers(0, 3, size=users).astype(float)
    return UserSums(rng.random(users) * below, below)


def single(
    values: dict[int, list[float]], rows: dict[int, list[float]] | None = None, count: int = 200
) -> SeedEstimate:
    """One metric with the sums given by seed."""
    made = {
        seed: UserSums(np.array(above), np.array(rows[seed]) if rows else np.ones(len(above)))
        for seed, above in values.items()
    }
    users = len(next(iter(values.values())))
    return estimate_all({"m": made}, Resamples(users, count, 0))["m"]


def test_replicates_are_those_of_a_loop_over_users_and_seeds() -> None:
    rng = np.random.default_rng(0)
    sums = {name: {seed: some_sums(rng) for seed in seeds} for name, seeds in (("a", (2, 0)), ("b", (0, 1, 2)))}
    resamples = Resamples(USERS, COUNT, 3)
    found = estimate_all(sums, resamples)
    weights = np.concatenate(list(resamples.blocks()))
    for name, by_seed in sums.items():
        assert found[name].seeds == tuple(sorted(by_seed))
        for at, seed in enumerate(sorted(by_seed)):
            one = by_seed[seed]
            assert found[name].values[seed] == pytest.approx(sum(one.above) / sum(one.below))
            for draw in range(COUNT):
                above = sum(weights[draw, user] * one.above[user] for user in range(USERS))
                below = sum(weights[draw, user] * one.below[user] for user in range(USERS))
                assert found[name].replicates[draw, at] == pytest.approx(
                    above / below if below else math.nan, nan_ok=True
                )
    over = found["b"].over_seeds()
    assert over.value == pytest.approx(sum(found["b"].values.values()) / 3)
    assert over.replicates == pytest.approx(np.nanmean(found["b"].replicates, axis=1))


def test_a_user_has_the_same_weight_in_every_seed_so_that_seeds_are_no_new_users() -> None:
    values = [float(user % 2) for user in range(40)]
    once, thrice = single({0: values}), single({0: values, 1: values, 2: values})
    assert vars(thrice.interval(0.95)) == pytest.approx(vars(once.interval(0.95)))
    assert once.interval(0.95).low < 0.5 < once.interval(0.95).high


def test_users_with_more_rows_count_more() -> None:
    estimate = single({0: [3.0, 0.0]}, rows={0: [3.0, 1.0]})
    assert estimate.values == {0: 0.75}


def test_where_a_resample_leaves_a_seed_without_users_the_others_are_averaged() -> None:
    estimate = single({0: [1.0, 0.0], 1: [0.0, 0.5]}, rows={0: [1.0, 0.0], 1: [0.0, 1.0]})
    over = estimate.over_seeds()
    assert over.value == 0.75
    assert set(over.replicates) == {0.5, 0.75, 1.0}  # the second user only, both, the first only


def test_a_seed_that_is_not_there_gives_no_estimate() -> None:
    estimate = single({0: [1.0, 0.0], 2: [1.0, 1.0]})
    assert estimate.of([1]) is None
    kept = estimate.of([2, 5])
    assert kept is not None
    assert kept.seeds == (2,)
    assert kept.over_seeds().value == 1.0
    assert kept.users == 2


def test_a_difference_flips_with_its_sides_and_its_p_value_stays() -> None:
    rng = np.random.default_rng(1)
    resamples = Resamples(60, 300, 0)
    rows = np.ones(60)
    sums = {
        name: {seed: UserSums(rng.random(60) + skill, rows) for seed in (0, 1)}
        for name, skill in (("a", 0.2), ("b", 0.0))
    }
    found = estimate_all(sums, resamples)
    one, other = paired(found["a"], found["b"], 0.9), paired(found["b"], found["a"], 0.9)
    assert one is not None
    assert other is not None
    assert one.difference.value == -other.difference.value
    assert (one.difference.low, one.difference.high) == pytest.approx((-other.difference.high, -other.difference.low))
    assert one.p == other.p
    replicates = found["a"].replicates.mean(axis=1) - found["b"].replicates.mean(axis=1)
    z = one.difference.value / replicates.std(ddof=1)
    assert one.p == pytest.approx(math.erfc(abs(z) / math.sqrt(2)))
    assert one.by_seed == pytest.approx([found["a"].values[seed] - found["b"].values[seed] for seed in (0, 1)])


def test_only_seeds_that_both_have_with_the_same_users_are_paired() -> None:
    resamples = Resamples(3, 50, 0)
    rows, others = np.ones(3), np.array([1.0, 1.0, 0.0])
    ones, zeros = np.array([1.0, 1.0, 0.0]), np.zeros(3)
    sums = {
        "a": {0: UserSums(ones, rows), 1: UserSums(ones, rows), 2: UserSums(ones, rows)},
        "b": {1: UserSums(zeros, rows), 2: UserSums(zeros, others), 3: UserSums(ones, rows)},
        "c": {7: UserSums(ones, rows)},
    }
    found = estimate_all(sums, resamples)
    pair = paired(found["a"], found["b"], 0.95)
    assert pair is not None
    assert pair.seeds == (1,)
    assert pair.difference.value == pytest.approx(2 / 3)
    assert paired(found["a"], found["c"], 0.95) is None


def test_p_values_by_hand() -> None:
    replicates = np.array([0.0, 2.0, 1.0, 1.0, 0.0, 2.0])  # standard deviation 0.894
    spread = replicates.std(ddof=1)
    assert p_value(1.959964 * spread, replicates, 1000) == pytest.approx(0.05, abs=1e-6)
    assert p_value(-1.959964 * spread, replicates, 1000) == pytest.approx(0.05, abs=1e-6)
    assert p_value(10 * spread, replicates, 1000) < 1e-20  # 6 resamples do not bound it
    assert p_value(10 * spread, replicates, 5) == 2.0**-4  # as few users as differ do
    assert p_value(0.0, replicates, 1000) == 1.0
    assert p_value(1.0, replicates, 0) == 1.0
    assert p_value(1.0, np.full(6, math.nan), 1000) == 1.0
    assert p_value(1.0, np.ones(6), 3) == 0.25  # all users differ by the same


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_methods_of_equal_truth_are_rarely_told_apart() -> None:
    """Three seeds, whose test users overlap; what two methods get right of a user is alike in all seeds."""
    rng = np.random.default_rng(5)
    grids, users, clear = 400, 150, 0
    for grid in range(grids):
        luck = rng.normal(size=users)
        sums: dict[str, dict[int, UserSums]] = {}
        for name in ("a", "b"):
            own = luck + rng.normal(size=users)
            sums[name] = {
                seed: UserSums(((own + 0.5 * rng.normal(size=users)) > 0) * rows, rows)
                for seed in range(3)
                for rows in [(np.random.default_rng([grid, seed]).random(users) < 0.4).astype(float)]
            }
        found = estimate_all(sums, Resamples(users, 200, grid))
        pair = paired(found["a"], found["b"], 0.95)
        assert pair is not None
        clear += pair.p < 0.05
    assert 0.025 < clear / grids < 0.085
