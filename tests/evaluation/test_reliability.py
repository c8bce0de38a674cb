"""Expected calibration error and what thresholds and sets reach: by hand, and of models whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from peterrec.data.decision import Decision
from peterrec.evaluation.decision_statistics import (
    class_decision_statistics,
    describe_decisions,
    label_decision_statistics,
)
from peterrec.evaluation.intervals import Interval, Resamples, Statistic, bootstrap
from peterrec.evaluation.protocols import ClassificationOutcome, MultilabelOutcome
from peterrec.evaluation.reliability import (
    Judged,
    bin_of_user,
    error_statistic,
    judged_class,
    judged_labels,
    reliability,
)

USERS = 4000
DRAWS = np.random.default_rng(0)
TRUE = DRAWS.random(USERS)
CAME_TRUE = (DRAWS.random(USERS) < TRUE).astype(np.int64)
ONES = np.ones((1, USERS))


def values_of(statistics: dict[str, Statistic], users: int) -> dict[str, float]:
    return {name: float(statistic(np.ones((1, users)))[0]) for name, statistic in statistics.items()}


def test_the_error_by_hand() -> None:
    probabilities = np.repeat([0.2, 0.6], 10)
    came_true = np.array([1] * 4 + [0] * 6 + [1] * 5 + [0] * 5)
    error = error_statistic([Judged(probabilities, came_true)])(np.ones((1, 20)))[0]
    assert error == pytest.approx((0.2 + 0.1) / 2)
    rows = reliability([Judged(probabilities, came_true)])
    assert [row[:3] for row in rows] == [(pytest.approx(0.2), 0.4, 10), (pytest.approx(0.6), 0.5, 10)]
    assert rows[0].low == pytest.approx(0.1682, abs=1e-4)  # Wilson of 4 in 10
    assert rows[0].high == pytest.approx(0.6873, abs=1e-4)


def test_bins_have_as_many_users_each_and_equal_probabilities_stay_together() -> None:
    assert np.bincount(bin_of_user(TRUE)).tolist() == [USERS // 10] * 10
    assert bin_of_user(np.full(50, 0.3)).tolist() == [bin_of_user(np.full(50, 0.3))[0]] * 50
    rounded = TRUE.round(1)
    assert all(len(np.unique(bin_of_user(rounded)[rounded == value])) == 1 for value in np.unique(rounded))


@pytest.mark.parametrize(("shift", "error"), [(0.0, 0.0), (0.2, 0.1)])
def test_the_interval_has_the_value_and_the_truth_in_it(shift: float, error: float) -> None:
    probabilities = TRUE * (1 - shift)
    statistic = error_statistic([Judged(probabilities, CAME_TRUE)])
    interval = bootstrap({"ece": statistic}, Resamples(USERS, 300, 0))["ece"].interval()
    assert interval.low <= interval.value <= interval.high
    assert interval.value == pytest.approx(error, abs=0.025)
    assert (interval.low > 0.05) == (shift > 0)


def test_of_two_classes_the_second_is_judged_and_of_more_the_most_probable_one() -> None:
    two = ClassificationOutcome(np.stack([1 - TRUE, TRUE], axis=1), CAME_TRUE)
    np.testing.assert_array_equal(judged_class(two).probabilities, TRUE)
    three = ClassificationOutcome(np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]), np.array([1, 2]))
    assert judged_class(three).probabilities.tolist() == [0.5, 0.6]
    assert judged_class(three).came_true.tolist() == [1, 0]


def test_of_labels_the_error_is_the_mean_over_them() -> None:
    outcome = MultilabelOutcome(np.stack([TRUE, TRUE / 2], axis=1), np.stack([CAME_TRUE, CAME_TRUE], axis=1))
    by_label = [error_statistic([judged])(ONES)[0] for judged in judged_labels(outcome)]
    assert error_statistic(judged_labels(outcome))(ONES)[0] == pytest.approx(np.mean(by_label))
    assert by_label[1] > 5 * by_label[0]
    assert sum(row.users for row in reliability(judged_labels(outcome))) == 2 * USERS


def test_what_a_threshold_reaches() -> None:
    probabilities = np.array([[0.1, 0.9], [0.4, 0.6], [0.55, 0.45], [0.9, 0.1]])
    costs = (("false_positive_cost", 1.0), ("false_negative_cost", 5.0))
    outcome = ClassificationOutcome(probabilities, np.array([1, 0, 1, 0]), Decision(9, (None, 0.5), costs))
    values = {
        name: float(statistic(np.ones((1, 4)))[0]) for name, statistic in class_decision_statistics(outcome).items()
    }
    assert values == {"precision": 0.5, "recall": 0.5, "cost": pytest.approx((1 + 5) / 4)}
    assert outcome.predicted.tolist() == [1, 1, 0, 0]
    nobody = ClassificationOutcome(probabilities, np.array([1, 0, 1, 0]), Decision(9, (None, 0.95)))
    assert list(class_decision_statistics(nobody)) == ["recall"]


def test_what_thresholds_of_labels_reach() -> None:
    probabilities, having = np.array([[0.9, 0.2], [0.6, 0.3], [0.2, 0.4]]), np.array([[1, 0], [0, 1], [1, 1]])
    outcome = MultilabelOutcome(probabilities, having, Decision(9, (0.5, 0.25), (("precision", 0.8),)))
    values = {
        name: float(statistic(np.ones((1, 3)))[0]) for name, statistic in label_decision_statistics(outcome).items()
    }
    assert values == {"precision": pytest.approx((0.5 + 1) / 2), "recall": pytest.approx((0.5 + 1) / 2)}


def test_what_sets_of_classes_reach() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.28, 0.36, 0.36]])
    outcome = ClassificationOutcome(probabilities, np.array([1, 2, 1]), Decision(conformal=0.1, least=0.3))
    values = {
        name: float(statistic(np.ones((1, 3)))[0]) for name, statistic in class_decision_statistics(outcome).items()
    }
    assert values == {"set_coverage": pytest.approx(2 / 3), "set_size": pytest.approx(2.0)}


def test_the_words_say_what_was_asked_for_and_what_came_of_it() -> None:
    decision = Decision(100, (None, 0.4), (("precision", 0.8),), conformal=0.1, least=0.2)
    names = ("precision", "recall", "set_coverage", "set_size")
    intervals = {("patch", name): Interval(0.5, 0.25, 0.75) for name in names}
    lines = describe_decisions({"patch": decision, "head": None}, intervals)
    assert lines == [
        "patch answers by thresholds for precision 0.8, and reaches precision 0.500 (0.250 to 0.750), recall 0.500 "
        "(0.250 to 0.750)",
        "sets of classes of patch are to hold the true one of 90% of users, and reach set coverage 0.500 (0.250 to "
        "0.750), set size 0.500 (0.250 to 0.750)",
    ]
