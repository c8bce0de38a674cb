"""Bootstrap over users: what is drawn, how wide intervals are, and what paired differences say."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from peterrec.evaluation import intervals
from peterrec.evaluation.intervals import Interval, Resamples, bootstrap, paired_difference, verdict
from peterrec.evaluation.protocols import RankingOutcome
from peterrec.evaluation.statistics import ranking_statistics


def mean_of(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(axis=1)


def test_a_resample_draws_as_many_users_as_there_are() -> None:
    weights = np.concatenate(list(Resamples(50, 30, 0).blocks()))
    assert weights.shape == (30, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.max() > 1
    assert 0.30 < (weights == 0).mean() < 0.44  # 1/e of the users are not drawn


def test_resamples_are_the_same_for_the_same_seed_and_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.concatenate(list(Resamples(50, 30, 3).blocks()))
    assert not np.array_equal(weights, np.concatenate(list(Resamples(50, 30, 4).blocks())))
    monkeypatch.setattr(intervals, "_BLOCK", 120)
    assert np.array_equal(weights, np.concatenate(list(Resamples(50, 30, 3).blocks())))


def test_the_interval_has_the_width_that_theory_gives() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    interval = bootstrap({"mean": partial(mean_of, values)}, Resamples(2000, 2000, 0))["mean"].interval(0.95)
    error = values.std() / math.sqrt(2000)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    half = bootstrap({"mean": partial(mean_of, values)}, Resamples(2000, 2000, 0))["mean"].interval(0.5)
    assert half.high - half.low == pytest.approx(2 * 0.674 * error, rel=0.15)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        values = (rng.random(100) < 0.3).astype(float)
        interval = bootstrap({"share": partial(mean_of, values)}, Resamples(100, 300, 0))["share"].interval()
        covered += interval.low <= 0.3 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_users_are_drawn_not_rows() -> None:
    """Ten like rows a user say no more than one: rows drawn on their own would give a third of the width."""
    users = 200
    hits = np.random.default_rng(0).random(users) < 0.5
    user = np.repeat(np.arange(users), 10)
    ranks = np.where(hits[user], 1.0, 50.0)
    none = np.zeros(len(user), np.int64)
    outcome = RankingOutcome(users, user, ranks, none, ranks, none, none + 100, none + 100)
    statistics = ranking_statistics(outcome, k=5, sampled_negatives=99)
    interval = bootstrap(statistics, Resamples(users, 1000, 0))["hr@5"].interval()
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / users), rel=0.15)


def test_pairing_sees_a_difference_that_separate_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    luck = rng.normal(size=500)  # what makes a user easy for every method
    first, second = luck + 0.05 + 0.1 * rng.normal(size=500), luck
    estimates = bootstrap({"a": partial(mean_of, first), "b": partial(mean_of, second)}, Resamples(500, 1000, 0))
    a, b = estimates["a"].interval(), estimates["b"].interval()
    assert a.low < b.high, "the separate intervals overlap"
    difference = paired_difference(estimates["a"], estimates["b"])
    assert difference.value == pytest.approx(first.mean() - second.mean())
    assert verdict(difference) == "better"
    assert verdict(paired_difference(estimates["b"], estimates["a"])) == "worse"
    assert verdict(paired_difference(estimates["a"], estimates["a"])) == "no clear difference"


def test_noise_is_no_clear_difference() -> None:
    rng = np.random.default_rng(5)
    makers = {name: partial(mean_of, rng.normal(size=300)) for name in "ab"}
    estimates = bootstrap(makers, Resamples(300, 1000, 0))
    assert verdict(paired_difference(estimates["a"], estimates["b"])) == "no clear difference"


@pytest.mark.parametrize(
    ("low", "high", "higher", "lower"),
    [
        (0.1, 0.2, "better", "worse"),
        (-0.2, -0.1, "worse", "better"),
        (-0.1, 0.1, "no clear difference", "no clear difference"),
        (0.0, 0.1, "no clear difference", "no clear difference"),
        (math.nan, math.nan, "no clear difference", "no clear difference"),
    ],
)
def test_verdicts(low: float, high: float, higher: str, lower: str) -> None:
    difference = Interval((low + high) / 2, low, high)
    assert verdict(difference) == higher
    assert verdict(difference, lower_is_better=True) == lower


def test_only_the_same_resamples_can_be_paired() -> None:
    statistic = {"mean": partial(mean_of, np.arange(9.0))}
    first = bootstrap(statistic, Resamples(9, 20, 0))["mean"]
    second = bootstrap(statistic, Resamples(9, 20, 1))["mean"]
    with pytest.raises(ValueError, match="different resamples"):
        paired_difference(first, second)


def test_an_undefined_metric_has_no_limits() -> None:
    estimate = bootstrap({"nan": lambda weights: np.full(len(weights), np.nan)}, Resamples(5, 10, 0))["nan"]
    assert math.isnan(estimate.interval().low)
    assert math.isnan(estimate.interval().high)
