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
    sums = {
        seed: UserSums(np.array(above), np.array(rows[seed]) if rows else np.ones(len(above)))
        for seed, above in values.items()
    }
    users = len(next(iter(values.values())))
    return estimate_all({"m": sums}, Resamples(users, count, 0))["m"]


def test_replicates_are_those_of_a_loop_over_users_and_seeds() -> None:
    rng = np.random.default_rng(0)
    sums = {name: {seed: some_sums(rng) for seed in seeds} for name, seeds in (("a", (2, 0)), ("b", (0, 1, 2)))}
    resamples = Resamples(USERS, COUNT, 3)
    estimates = estimate_all(sums, resamples)
    weights = np.concatenate(list(resamples.blocks()))
    for name, by_seed in sums.items():
        assert list(estimates[name].sums) == sorted(by_seed)
        for at, seed in enumerate(sorted(by_seed)):
            seed_sums = by_seed[seed]
            assert estimates[name].values[seed] == pytest.approx(sum(seed_sums.above) / sum(seed_sums.below))
            for draw in range(COUNT):
                above = sum(weights[draw, user] * seed_sums.above[user] for user in range(USERS))
                below = sum(weights[draw, user] * seed_sums.below[user] for user in range(USERS))
                assert estimates[name].replicates[draw, at] == pytest.approx(
                    above / below if below else math.nan, nan_ok=True
                )
    over = estimates["b"].over_seeds()
    assert over.value == pytest.approx(sum(estimates["b"].values.values()) / 3)
    assert over.replicates == pytest.approx(np.nanmean(estimates["b"].replicates, axis=1))


def test_a_user_has_the_same_weight_in_every_seed_so_that_seeds_are_no_new_users() -> None:
    values = [float(user % 2) for user in range(40)]
    once, thrice = single({0: values}), single({0: values, 1: values, 2: values})
    interval, repeated = (estimate.over_seeds().interval(0.95) for estimate in (once, thrice))
    assert vars(repeated) == pytest.approx(vars(interval))
    assert interval.low < 0.5 < interval.high


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
    assert estimate.select([1]) is None
    selected = estimate.select([2, 5])
    assert selected is not None
    assert list(selected.sums) == [2]
    assert selected.over_seeds().value == 1.0
    assert selected.users == 2


def test_a_difference_flips_with_its_sides_and_its_p_value_stays() -> None:
    rng = np.random.default_rng(1)
    resamples = Resamples(60, 300, 0)
    rows = np.ones(60)
    sums = {
        name: {seed: UserSums(rng.random(60) + skill, rows) for seed in (0, 1)}
        for name, skill in (("a", 0.2), ("b", 0.0))
    }
    estimates = estimate_all(sums, resamples)
    forward, reverse = paired(estimates["a"], estimates["b"], 0.9), paired(estimates["b"], estimates["a"], 0.9)
    assert forward is not None
    assert reverse is not None
    assert forward.difference.value == -reverse.difference.value
    assert (forward.difference.low, forward.difference.high) == pytest.approx(
        (-reverse.difference.high, -reverse.difference.low)
    )
    assert forward.p == reverse.p
    replicates = estimates["a"].replicates.mean(axis=1) - estimates["b"].replicates.mean(axis=1)
    z = forward.difference.value / replicates.std(ddof=1)
    assert forward.p == pytest.approx(math.erfc(abs(z) / math.sqrt(2)))
    assert forward.by_seed == pytest.approx(
        {seed: estimates["a"].values[seed] - estimates["b"].values[seed] for seed in (0, 1)}
    )
    assert (
        forward.means == (estimates["a"].over_seeds().value, estimates["b"].over_seeds().value) == reverse.means[::-1]
    )


def test_only_seeds_that_both_have_with_the_same_users_are_paired() -> None:
    resamples = Resamples(3, 50, 0)
    rows, fewer_rows = np.ones(3), np.array([1.0, 1.0, 0.0])
    ones, zeros = np.array([1.0, 1.0, 0.0]), np.zeros(3)
    sums = {
        "a": {0: UserSums(ones, rows), 1: UserSums(ones, rows), 2: UserSums(ones, rows)},
        "b": {1: UserSums(zeros, rows), 2: UserSums(zeros, fewer_rows), 3: UserSums(ones, rows)},
        "c": {7: UserSums(ones, rows)},
    }
    estimates = estimate_all(sums, resamples)
    pair = paired(estimates["a"], estimates["b"], 0.95)
    assert pair is not None
    assert list(pair.by_seed) == [1]
    assert pair.difference.value == pytest.approx(2 / 3)
    assert paired(estimates["a"], estimates["c"], 0.95) is None


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
            ability = luck + rng.normal(size=users)
            sums[name] = {
                seed: UserSums(((ability + 0.5 * rng.normal(size=users)) > 0) * rows, rows)
                for seed in range(3)
                for rows in [(np.random.default_rng([grid, seed]).random(users) < 0.4).astype(float)]
            }
        estimates = estimate_all(sums, Resamples(users, 200, grid))
        pair = paired(estimates["a"], estimates["b"], 0.95)
        assert pair is not None
        clear += pair.p < 0.05
    assert 0.025 < clear / grids < 0.085
