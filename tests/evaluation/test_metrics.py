"""Metrics, against numbers worked out by hand, naive loops and scikit-learn."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.errors import DataError
from peterrec.evaluation import metrics
from peterrec.evaluation.metrics import count_places, hit_rate, log_loss, mrr, ndcg, rank_of
from peterrec.evaluation.protocols import classification_outcome
from peterrec.evaluation.statistics import classification_statistics

METRICS = (hit_rate, mrr, ndcg)


def test_metrics_from_ranks_by_hand() -> None:
    ranks = np.array([1, 2, 3, 5, 6])
    assert hit_rate(ranks, 5).tolist() == [1, 1, 1, 1, 0]
    assert mrr(ranks, 5) == pytest.approx([1, 0.5, 1 / 3, 0.2, 0])
    assert mrr(ranks) == pytest.approx([1, 0.5, 1 / 3, 0.2, 1 / 6])
    # 1 / log2(1 + rank): log2(2) = 1, log2(3) = 1.58496, log2(4) = 2, log2(6) = 2.58496
    assert ndcg(ranks, 5) == pytest.approx([1, 1 / 1.5849625, 0.5, 1 / 2.5849625, 0])


def test_ranks_by_hand() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.5], [3.0, 3.0, 3.0, 3.0], [0.0, -np.inf, np.inf, 1.0]])
    # row 0: one higher, one equal -> 1 + 1 + 0.5; row 1: three equal -> 1 + 1.5; row 2: the lowest of four
    assert rank_of(scores, np.array([2, 0, 1])).tolist() == [2.5, 2.5, 4.0]


def test_only_candidates_count_and_the_positive_always_does() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.5]])
    candidates = np.array([[True, False, False, False]])
    assert rank_of(scores, np.array([2]), candidates).tolist() == [1.0]
    places = np.array([[True, False, True, False]])
    assert rank_of(scores, np.array([2]), places).tolist() == [1.0]
    assert places.tolist() == [[True, False, True, False]], "the caller's mask must not change"


def test_integer_scores_are_taken() -> None:
    assert rank_of(np.array([[3, 1, 2]]), np.array([2])).tolist() == [2.0]


def test_nan_scores_are_refused() -> None:
    with pytest.raises(DataError, match="not a number"):
        rank_of(np.array([[0.0, np.nan]]), np.array([0]))


def test_scores_must_be_a_matrix() -> None:
    with pytest.raises(DataError, match="shape"):
        rank_of(np.zeros(3), np.array([0]))


@pytest.mark.parametrize("n", range(2, 12))
def test_constant_scores_are_worth_chance_and_no_more(n: int) -> None:
    """Also where the middle place n/2 is within the cut-off, which alone would count as a sure hit."""
    k = 5
    scores = np.zeros((n, n))
    positives = np.arange(n)
    higher, ties = count_places(scores, positives)
    assert (rank_of(scores, positives) == (n + 1) / 2).all()
    ranks = 1.0 + higher + ties / 2
    places = np.arange(1, n + 1)
    assert hit_rate(ranks, k, ties=ties) == pytest.approx(min(k, n) / n)
    assert mrr(ranks, k, ties=ties) == pytest.approx((1 / places[:k]).sum() / n)
    assert ndcg(ranks, k, ties=ties) == pytest.approx((1 / np.log2(1 + places[:k])).sum() / n)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(1, 7))
def test_ties_give_the_mean_over_every_shuffle(values: list[int], k: int) -> None:
    """Any small list of scores: shuffle equal scores in every way, look at the mean."""
    scores = np.array([values], dtype=float)
    higher, ties = count_places(scores, np.array([0]))
    rank = 1.0 + higher + ties / 2
    places = []
    for order in permutations(range(len(values))):
        placed = sorted(order, key=lambda item: -values[item])  # stable: equal scores keep the shuffled order
        places.append(placed.index(0) + 1)
    assert rank[0] == pytest.approx(np.mean(places))
    for metric in METRICS:
        assert metric(rank, k, ties=ties)[0] == pytest.approx(metric(np.array(places), k).mean())


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([1, 5, 10**9]))
def test_ranks_equal_a_naive_loop(rows: int, n: int, seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (rows, n)).astype(np.float32)
    positives = rng.integers(0, n, rows)
    candidates = rng.random((rows, n)) < 0.7
    expected = []
    for row, positive, allowed in zip(scores, positives, candidates, strict=True):
        competitors = [row[j] for j in range(n) if allowed[j] and j != positive]
        expected.append(
            1 + sum(o > row[positive] for o in competitors) + sum(o == row[positive] for o in competitors) / 2
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK", block)
        assert rank_of(scores, positives, candidates).tolist() == expected


def test_no_rows_give_no_values() -> None:
    for metric in METRICS:
        assert metric(np.empty(0), 5, ties=np.empty(0, np.int64)).shape == (0,)


def class_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    statistics = classification_statistics(classification_outcome(probabilities, labels))
    return {name: float(statistic(np.ones((1, len(labels))))[0]) for name, statistic in statistics.items()}


def test_class_metrics_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.2, 0.8, 0.0], [0.1, 0.1, 0.8]])
    labels = np.array([0, 1, 1, 0])
    # predicted 0, 0, 1, 2. Class 0: tp 1, predicted 2, true 2 -> F1 = 2 / 4. Class 1: tp 1, predicted 1, true 2: 2 / 3.
    # Class 2 is nobody's: it does not count.
    values = class_metrics(probabilities, labels)
    assert values["accuracy"] == 0.5
    assert values["macro_f1"] == pytest.approx((0.5 + 2 / 3) / 2)
    expected = -(math.log(0.7) + math.log(0.4) + math.log(0.8) + math.log(0.1)) / 4
    assert log_loss(probabilities, labels) == pytest.approx(expected)
    assert values["log_loss"] == pytest.approx(expected)


def test_log_loss_of_a_sure_mistake_is_finite() -> None:
    assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-math.log(1e-7))
    assert log_loss(np.array([[1.0, 0.0]]), np.array([0])) == 0.0


def test_auc_by_hand() -> None:
    # pairs (class 1, class 0): 0.8 > 0.1 and 0.8 > 0.4 win, 0.4 > 0.1 wins, 0.4 = 0.4 is a half -> 3.5 / 4
    for scores, labels, expected in (
        ([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1], 3.5 / 4),
        ([0.0] * 6, [0, 1, 1, 0, 0, 0], 0.5),
    ):
        probabilities = np.stack([1.0 - np.array(scores), scores], axis=1)
        assert class_metrics(probabilities, np.array(labels))["auc"] == pytest.approx(expected)
