"""Estimators of scikit-learn over histories: alone, in pipelines, in cross-validation."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from peterrec.data.decision import Decision
from peterrec.errors import PeterRecError
from peterrec.sklearn import PatchClassifier, PatchRanker, PatchRegressor, UserEncoder

PRETRAINING: dict[str, Any] = {
    "prepare_params": {"source": {"min_item_events": 1}},
    "pretrain_params": {"epochs": 1, "backbone": {"channels": 8, "dilations": [1]}},
}
GENERATOR = np.random.default_rng(0)
CLASSES = np.tile([0, 1], 60)  # users of the second like other items
HISTORIES = [[f"item-{item}" for item in GENERATOR.integers(0, 12, 10) + 8 * label] for label in CLASSES]
STRANGER = ["nothing-known"]


@pytest.fixture(scope="module")
def encoder() -> UserEncoder:
    return UserEncoder(**PRETRAINING).fit(HISTORIES)


@pytest.fixture(scope="module")
def classifier(encoder: UserEncoder) -> PatchClassifier:
    return PatchClassifier(encoder.model_, adapt_params={"epochs": 2}).fit(HISTORIES, np.where(CLASSES, "old", "new"))


@pytest.mark.parametrize("estimator", [UserEncoder(), PatchClassifier(), PatchRegressor(), PatchRanker()], ids=str)
def test_what_scikit_learn_checks_of_such_estimators(estimator: Any) -> None:
    with pytest.warns(UserWarning, match="Can't test estimator"):  # its data are numbers, and ours are histories
        check_estimator(estimator)


def test_vectors_are_features(encoder: UserEncoder) -> None:
    vectors = encoder.transform([*HISTORIES[:2], STRANGER])
    at_token = encoder.model_.represent(HISTORIES[:2])
    np.testing.assert_allclose(vectors[:2, :8], at_token, atol=1e-5)  # the rest are sums over the events
    assert encoder.get_feature_names_out().tolist() == [f"userencoder{channel}" for channel in range(24)]
    frame = clone(encoder).set_output(transform="polars").fit(HISTORIES)
    assert frame.transform(HISTORIES[:2]).shape == (2, 24)


def test_in_a_pipeline_beside_other_columns(encoder: UserEncoder) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"history": HISTORIES, "age": np.arange(len(HISTORIES))})
    columns = [("user", UserEncoder(encoder.model_), "history"), ("rest", "passthrough", ["age"])]
    pipeline = make_pipeline(ColumnTransformer(columns), LogisticRegression(max_iter=2_000))
    scores = cross_val_score(pipeline, table, CLASSES, cv=3)
    assert scores.mean() > 0.9


def test_a_classifier_says_its_own_labels(classifier: PatchClassifier) -> None:
    labels = np.where(CLASSES, "old", "new")
    assert classifier.classes_.tolist() == ["new", "old"]
    probabilities = classifier.predict_proba([*HISTORIES, STRANGER])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert classifier.score(HISTORIES, labels) > 0.9
    assert (probabilities[:-1, 1] > 0.5).tolist() == (classifier.predict(HISTORIES) == "old").tolist()
    assert 0.4 < probabilities[-1, 0] < 0.6, "of a stranger, the shares of the classes"


@pytest.mark.parametrize("thresholds", [(None, 0.999), (0.999, None)])
def test_a_classifier_answers_by_the_threshold_of_its_bundle(
    classifier: PatchClassifier, thresholds: tuple[float | None, ...]
) -> None:
    estimator = copy.copy(classifier)
    estimator.bundle_ = replace(classifier.bundle_, decision=Decision(100, thresholds))
    names = estimator.bundle_.class_names
    positive = names[thresholds.index(0.999)]
    negative = names[1 - names.index(positive)]
    probability = estimator.predict_proba(HISTORIES)[:, estimator.classes_.tolist().index(positive)]
    expected = np.where(probability >= 0.999, positive, negative)
    assert estimator.predict(HISTORIES).tolist() == expected.tolist()
    assert expected.tolist() != classifier.predict(HISTORIES).tolist()


def test_labels_that_are_numbers_come_back_as_numbers(encoder: UserEncoder) -> None:
    labels = np.where(CLASSES, 10, -3)
    head = PatchClassifier(encoder.model_, strategy="head", adapt_params={"epochs": 1})
    assert set(head.fit(HISTORIES, labels).predict(HISTORIES).tolist()) <= {10, -3}
    assert head.classes_.dtype.kind == "i"
    assert encoder.model_.bundles == {}, "the caller's model is left alone"


def test_a_ranker_learns_targets_of_another_catalogue(encoder: UserEncoder) -> None:
    targets = [[int(GENERATOR.integers(0, 3)) + 10 * int(label)] for label in CLASSES]
    ranker = PatchRanker(encoder.model_, adapt_params={"epochs": 3}).fit(HISTORIES, targets)
    assert sorted(ranker.targets_.tolist()) == sorted({target for (target,) in targets})
    assert ranker.score(HISTORIES, targets) > 0.4
    liked = np.asarray(ranker.predict(HISTORIES)) >= 10
    assert (liked == CLASSES.astype(bool)).mean() > 0.9
    assert len(ranker.recommend(HISTORIES[:1], k=4).items[0]) == 4


def test_a_regressor_predicts_numbers_in_their_unit(encoder: UserEncoder) -> None:
    spend = 1_000.0 + 500.0 * CLASSES + np.random.default_rng(1).normal(0, 20, len(CLASSES))
    params = {"epochs": 2, "quantiles": (0.1, 0.5, 0.9)}
    regressor = PatchRegressor(encoder.model_, strategy="head", adapt_params=params).fit(HISTORIES, spend)
    assert regressor.score(HISTORIES, spend) > 0.7  # R2
    quantiles = regressor.predict_quantiles([*HISTORIES, STRANGER])
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert regressor.predict([STRANGER])[0] == quantiles[-1, 1]
    assert 950 < quantiles[-1, 1] < 1_550
    plain = PatchRegressor(encoder.model_, strategy="head", adapt_params={"epochs": 1})
    assert cross_val_score(plain, HISTORIES, spend, cv=2).mean() > 0.6
    for wrong in ([*spend[:-1], np.nan], ["much"] * len(spend), spend[:, None]):
        with pytest.raises(PeterRecError, match="one finite number for each user"):
            plain.fit(HISTORIES, wrong)


def test_an_estimator_is_copied_and_set_as_others_are(classifier: PatchClassifier) -> None:
    copied = clone(classifier).set_params(strategy="head", adapt_params={"epochs": 1})
    assert copied.get_params()["strategy"] == "head"
    with pytest.raises(NotFittedError):
        copied.predict(HISTORIES)
    with pytest.raises(NotFittedError):
        UserEncoder().transform(HISTORIES)


@pytest.mark.parametrize(
    ("histories", "labels", "words"),
    [
        (HISTORIES, [1, 2], "120 histories and 2 labels"),
        ([["a", 1], ["b"]], [0, 1], "texts and integers"),
        (np.zeros((4, 2)), [0, 1, 0, 1], "no id"),
        ("text", [0], "one text"),
    ],
)
def test_mistakes_are_told(encoder: UserEncoder, histories: Any, labels: Any, words: str) -> None:
    with pytest.raises(PeterRecError, match=words):
        PatchClassifier(encoder.model_).fit(histories, labels)
