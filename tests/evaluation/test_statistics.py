"""Metrics of weighted users: with weights of 1 they are the metrics, with others scikit-learn's weighted ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from peterrec.data.sequences import Sequences
from peterrec.evaluation import metrics
from peterrec.evaluation.protocols import classification_outcome, ranking_outcome
from peterrec.evaluation.statistics import classification_statistics, ranking_statistics

SEEDS = st.integers(0, 2**32 - 1)


@given(st.integers(2, 40), st.integers(2, 6), SEEDS)
def test_class_statistics_equal_scikit_learn_with_weights(users: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), users).round(1)  # rounded: scores that tie
    probabilities[:, 0] += 1 - probabilities.sum(axis=1)
    probabilities = np.clip(probabilities, 0, 1) / np.clip(probabilities, 0, 1).sum(axis=1, keepdims=True)
    labels = rng.integers(0, classes, users)
    labels[:2] = 0, 1
    weights = rng.integers(0, 3, (4, users)).astype(float)
    weights[:, :2] += 1  # both classes stay present
    statistics = classification_statistics(classification_outcome(probabilities, labels))
    assert list(statistics) == ["accuracy", "macro_f1", "log_loss"] + ["auc"] * (classes == 2)
    predicted = probabilities.argmax(axis=1)
    clipped = np.clip(probabilities, metrics.CLIP, 1.0)[np.arange(users), labels]
    for row, weight in enumerate(weights):
        drawn = np.unique(labels[weight > 0])
        f1 = f1_score(labels, predicted, labels=drawn, average="macro", sample_weight=weight, zero_division=0)
        assert statistics["accuracy"](weights)[row] == pytest.approx(
            accuracy_score(labels, predicted, sample_weight=weight)
        )
        assert statistics["macro_f1"](weights)[row] == pytest.approx(f1)
        assert statistics["log_loss"](weights)[row] == pytest.approx(-np.average(np.log(clipped), weights=weight))
        if classes == 2:
            expected = roc_auc_score(labels, probabilities[:, 1], sample_weight=weight)
            assert statistics["auc"](weights)[row] == pytest.approx(expected)


@given(st.integers(2, 40), st.integers(2, 4), SEEDS)
def test_weights_of_one_give_the_plain_metrics(users: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), users)
    labels = rng.integers(0, classes, users)
    statistics = classification_statistics(classification_outcome(probabilities, labels))
    values = {name: statistic(np.ones((1, users)))[0] for name, statistic in statistics.items()}
    predicted = probabilities.argmax(axis=1)
    f1 = f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
    assert values["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert values["macro_f1"] == pytest.approx(f1)
    assert values["log_loss"] == pytest.approx(metrics.log_loss(probabilities, labels))
    if "auc" in values:
        assert values["auc"] == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))


def test_log_loss_equals_scikit_learn_where_nothing_is_clipped() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(3) * 5, 50), rng.integers(0, 3, 50)
    assert metrics.log_loss(probabilities, labels) == pytest.approx(sklearn_log_loss(labels, probabilities))


def test_auc_is_left_out_where_one_class_is_absent() -> None:
    outcome = classification_outcome(np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([1, 1]))
    assert "auc" not in classification_statistics(outcome)


def test_auc_of_a_resample_with_one_class_is_undefined() -> None:
    outcome = classification_outcome(np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([0, 1]))
    assert np.isnan(classification_statistics(outcome)["auc"](np.array([[2.0, 0.0], [1.0, 1.0]]))).tolist() == [
        True,
        False,
    ]


@given(SEEDS)
def test_ranking_statistics_are_ratios_of_sums_over_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = Sequences.from_rows([[0, 3], [], [1], [2, 4, 5]])
    scores = rng.integers(0, 9, (4, 12)).astype(float)
    outcome = ranking_outcome(iter([scores]), targets, sampled_negatives=4, seed=0)
    statistics = ranking_statistics(outcome, k=3, sampled_negatives=4)
    names = ["hr@3", "mrr@3", "ndcg@3"]
    assert list(statistics) == names + [f"{name} sampled-4" for name in names]
    weights = np.array([[1.0, 1, 1, 1], [3, 0, 1, 0], [0, 4, 0, 0]])
    for suffix, ranks, ties in (
        ("", outcome.full_rank, outcome.full_ties),
        (" sampled-4", outcome.sampled_rank, outcome.sampled_ties),
    ):
        gains = metrics.mrr(ranks, 3, ties=ties)
        values = statistics[f"mrr@3{suffix}"](weights)
        assert values[0] == pytest.approx(gains.mean())
        assert values[1] == pytest.approx(np.average(gains, weights=weights[1][outcome.user]))
        assert np.isnan(values[2]), "only a user without targets was drawn"
