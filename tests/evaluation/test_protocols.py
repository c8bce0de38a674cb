"""Full and sampled ranking of every (user, target) pair, and the negatives they are ranked against."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.config import EvaluateConfig
from peterrec.data.sequences import Sequences
from peterrec.errors import DataError
from peterrec.evaluation import protocols
from peterrec.evaluation.candidates import Pairs, draw_negatives
from peterrec.evaluation.metrics import hit_rate, mrr, ndcg
from peterrec.evaluation.protocols import RankingOutcome, classification_outcome, ranking_outcome
from peterrec.evaluation.statistics import ranking_statistics

USERS = st.lists(st.lists(st.integers(0, 11), max_size=12), min_size=1, max_size=6)


def outcome(scores: np.ndarray, targets: Sequences, *, batch: int = 100, count: int = 99, seed: int = 0):
    cuts = (scores[start : start + batch] for start in range(0, len(scores), batch))
    return ranking_outcome(cuts, targets, sampled_negatives=count, seed=seed)


def test_full_ranking_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.1, 0.5, 0.1], [0.0, 0.0, 0.0, 1.0]])
    result = outcome(scores, Sequences.from_rows([[2, 0], [3], []]))
    # user 0: target 0 is first; target 2 has 0 (another positive, left out), 1 above it -> 2. user 1: one higher, two
    # equal -> 1 + 1 + 1 = 3. user 2 has no target.
    assert result.user.tolist() == [0, 0, 1]
    assert result.full_rank.tolist() == [1.0, 2.0, 3.0]
    assert result.full_ties.tolist() == [0, 0, 2]
    assert result.candidates.tolist() == [3, 3, 4]
    assert (result.users, len(result)) == (3, 3)
    # fewer than 99 negatives: all of them are taken, so both rankings agree
    assert result.sampled_rank.tolist() == result.full_rank.tolist()
    assert result.sampled_candidates.tolist() == [3, 3, 4]


def test_a_perfect_model_gets_one_also_for_users_with_twelve_positives() -> None:
    targets = Sequences.from_rows([np.arange(12), np.arange(100, 112), [7]])
    scores = np.random.default_rng(0).random((3, 300))
    for user in range(3):
        scores[user, targets[user]] += 1.0
    result = outcome(scores, targets)
    for ranks, ties in ((result.full_rank, result.full_ties), (result.sampled_rank, result.sampled_ties)):
        for metric in (hit_rate, mrr, ndcg):
            assert (metric(ranks, 5, ties=ties) == 1.0).all()
    assert len(result) == 25


@pytest.mark.parametrize("n_targets", [3, 7, 9, 10, 50])
def test_constant_scores_are_worth_chance(n_targets: int) -> None:
    result = outcome(np.zeros((2, n_targets)), Sequences.from_rows([[1], [0, 2]]))
    chance = np.minimum(5, result.candidates) / result.candidates
    assert hit_rate(result.full_rank, 5, ties=result.full_ties) == pytest.approx(chance)
    chance = np.minimum(5, result.sampled_candidates) / result.sampled_candidates
    assert hit_rate(result.sampled_rank, 5, ties=result.sampled_ties) == pytest.approx(chance)


def test_a_target_that_stands_twice_counts_once() -> None:
    assert len(outcome(np.zeros((1, 4)), Sequences.from_rows([[2, 2, 1]]))) == 2


@given(USERS, st.integers(0, 2**32 - 1))
def test_full_ranking_equals_a_naive_loop(rows: list[list[int]], seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 5, (len(rows), 12)).astype(np.float32)
    if not any(rows):
        with pytest.raises(DataError, match="no user has a target"):
            outcome(scores, Sequences.from_rows(rows))
        return
    expected = []
    for user, row in enumerate(rows):
        for target in sorted(set(row)):
            competitors = [scores[user, j] for j in range(12) if j not in row]
            positive_score = scores[user, target]
            expected.append(
                (
                    user,
                    1
                    + sum(o > positive_score for o in competitors)
                    + sum(o == positive_score for o in competitors) / 2,
                )
            )
    result = outcome(scores, Sequences.from_rows(rows))
    assert list(zip(result.user.tolist(), result.full_rank.tolist(), strict=True)) == expected


@given(USERS, st.integers(1, 15), st.integers(0, 2**32 - 1), st.integers(12, 40))
def test_negatives_are_distinct_and_never_positive(
    rows: list[list[int]], count: int, seed: int, n_targets: int
) -> None:
    """Promise 10, for any users, catalogue and number of negatives."""
    pairs = Pairs.from_targets(Sequences.from_rows(rows), n_targets)
    negatives, valid = draw_negatives(pairs, slice(0, len(pairs)), count, np.random.default_rng(seed))
    assert negatives.shape == valid.shape == (len(pairs), count)
    for user, drawn, real in zip(pairs.user, negatives, valid, strict=True):
        chosen = drawn[real].tolist()
        assert len(set(chosen)) == len(chosen) == min(count, n_targets - len(set(rows[user])))
        assert not set(chosen) & set(rows[user])
        assert all(0 <= item < n_targets for item in chosen)


def test_negatives_are_uniform() -> None:
    """8 of 16 negatives, 20,000 times: each in half of them (standard deviation 0.0035), first places as well."""
    users, n_targets, positives = 20_000, 20, {0, 7, 8, 19}
    pairs = Pairs.from_targets(Sequences.from_rows([[7]] * users), n_targets)
    negatives, _ = draw_negatives(pairs, slice(0, users), 8, np.random.default_rng(0))
    share = np.bincount(negatives.ravel(), minlength=n_targets) / users
    assert share[7] == 0
    assert np.delete(share, 7) == pytest.approx(8 / 19, abs=0.018)
    pairs = Pairs.from_targets(Sequences.from_rows([sorted(positives)] * (users // 4)), n_targets)
    negatives, _ = draw_negatives(pairs, slice(0, users), 8, np.random.default_rng(0))
    share = np.bincount(negatives.ravel(), minlength=n_targets) / users
    assert share[[0, 7, 8, 19]].tolist() == [0, 0, 0, 0]
    assert np.delete(share, [0, 7, 8, 19]) == pytest.approx(0.5, abs=0.018)


@given(USERS.filter(any), st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000), st.sampled_from([1, 300, 10**9]))
def test_batching_changes_nothing(rows: list[list[int]], first: int, second: int, seed: int, block: int) -> None:
    scores = np.random.default_rng(seed).random((len(rows), 30))
    targets = Sequences.from_rows(rows)
    first_outcome = outcome(scores, targets, batch=first, count=5, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocols, "_BLOCK", block)
        two = outcome(scores, targets, batch=second, count=5, seed=seed)
    for name in RankingOutcome.__dataclass_fields__:
        assert np.array_equal(getattr(first_outcome, name), getattr(two, name)), name


def test_every_method_meets_the_same_negatives() -> None:
    """Scores that name their column: the sampled rank then tells how many negatives lie above the positive."""
    targets = Sequences.from_rows([[50]] * 200)
    up = np.tile(np.arange(101.0), (200, 1))
    result, mirrored = outcome(up, targets, count=20), outcome(-up, targets, count=20)
    assert (result.sampled_rank + mirrored.sampled_rank == 22).all()
    assert len(set(result.sampled_rank)) > 5, "users must not all share one draw"
    second_outcome, other_seed = outcome(up, targets, count=20), outcome(up, targets, count=20, seed=1)
    assert np.array_equal(result.sampled_rank, second_outcome.sampled_rank)
    assert not np.array_equal(result.sampled_rank, other_seed.sampled_rank)


def test_by_default_a_positive_meets_99_negatives_and_counts_within_the_first_five() -> None:
    config, rng = EvaluateConfig(), np.random.default_rng(3)
    rows = [rng.permutation(200)[:size].tolist() for size in rng.integers(1, 4, 60)]
    scores = rng.normal(size=(60, 200))
    for user, row in enumerate(rows):
        scores[user, row] += 2.0
    targets = Sequences.from_rows(rows)
    result = ranking_outcome([scores], targets, sampled_negatives=config.sampled_negatives, seed=config.seed)
    pairs = Pairs.from_targets(targets, 200)
    negatives, _ = draw_negatives(pairs, slice(0, len(pairs)), 99, np.random.default_rng(0))
    ranks = [
        1 + sum(scores[user, negative] > scores[user, target] for negative in row)
        for user, target, row in zip(pairs.user, pairs.target, negatives, strict=True)
    ]
    assert (min(ranks) == 1, 2 <= sorted(ranks)[len(ranks) // 2] <= 5, max(ranks) > 5) == (True, True, True)
    statistics = ranking_statistics(result, k=config.k, sampled_negatives=config.sampled_negatives)
    all_alike = np.ones((1, 60))
    assert statistics["hr@5 sampled-99"](all_alike)[0] == pytest.approx(np.mean([rank <= 5 for rank in ranks]))
    reciprocal = [1 / rank if rank <= 5 else 0.0 for rank in ranks]
    assert statistics["mrr@5 sampled-99"](all_alike)[0] == pytest.approx(np.mean(reciprocal))


def test_scores_that_do_not_fit_are_refused() -> None:
    targets = Sequences.from_rows([[0], [1], [2]])
    with pytest.raises(DataError, match="2 users were scored of 3"):
        outcome(np.zeros((2, 5)), targets)
    with pytest.raises(DataError, match="do not fit"):
        outcome(np.zeros((4, 5)), targets)
    with pytest.raises(DataError, match="do not fit"):
        ranking_outcome(iter([np.zeros((1, 5)), np.zeros((2, 4))]), targets, sampled_negatives=9, seed=0)
    with pytest.raises(DataError, match="a target is not in 0"):
        outcome(np.zeros((3, 2)), targets)
    with pytest.raises(DataError, match="NaN"):
        outcome(np.full((3, 5), np.nan), targets)


def test_scores_of_the_caller_do_not_change() -> None:
    scores = np.random.default_rng(0).random((3, 5))
    before = scores.copy()
    outcome(scores, Sequences.from_rows([[0], [1], [2]]))
    assert np.array_equal(scores, before)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.5]], [0, 1], "do not fit"),
        ([[0.5, 0.6]], [0], "sum to 1"),
        ([[1.5, -0.5]], [0], "sum to 1"),
        ([[np.nan, 0.5]], [0], "not finite"),
        ([[0.5, 0.5]], [2], "outside the classes"),
        (np.empty((0, 2)), [], "no users"),
    ],
)
def test_wrong_probabilities_are_refused(probabilities: object, labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        classification_outcome(np.array(probabilities), np.array(labels, dtype=np.int64))
