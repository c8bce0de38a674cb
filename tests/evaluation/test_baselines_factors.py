"""Logistic regression on item factors: learned from histories without labels, never from one that has no items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from peterrec.config import EvaluateConfig
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.pretraining_users import unlabelled_sequences
from peterrec.data.sequences import UNK, Sequences
from peterrec.evaluation import evaluate as evaluation
from peterrec.evaluation.baselines import baseline_names, factors, fit_baseline
from peterrec.evaluation.baselines.classification import ClassificationBaseline
from peterrec.evaluation.baselines.factors import factor_regression
from peterrec.evaluation.baselines.tfidf_factors import factorise
from training.small import corpus_of

Make = Callable[..., TaskPart]
NAMES = ("64 factors + logistic regression", "256 factors + logistic regression")

# Two tastes: items 4 to 11, and items 12 to 19; each of these users has six of one taste.
RNG = np.random.default_rng(0)
HISTORIES = Sequences.from_rows([RNG.permutation(8)[:6] + 4 + 8 * (user % 2) for user in range(80)])


def labelled(histories: list[list[int]], labels: list[int]) -> TaskPart:
    ids = pa.array([f"user-{number}" for number in range(len(labels))])
    return TaskPart(ids, Sequences.from_rows(histories), labels=np.array(labels, dtype=np.int64))


NOBODY = labelled([], [])
# Of each taste only five items are in any labelled history.
TRAIN = labelled([(RNG.permutation(5)[:3] + 4 + 8 * (user % 2)).tolist() for user in range(20)], [0, 1] * 10)


def fitted(name: str = NAMES[0], train: TaskPart = TRAIN, valid: TaskPart = NOBODY, **options: Any) -> Any:
    baseline = fit_baseline(name, train, valid, classes=2, **options)
    assert isinstance(baseline, ClassificationBaseline), baseline
    return baseline


def test_both_are_in_the_one_list_of_baselines() -> None:
    assert set(NAMES) <= set(baseline_names("classification", "cheap"))
    assert not set(NAMES) & set(baseline_names("ranking"))


def test_users_without_a_label_say_what_items_mean_that_no_labelled_user_has() -> None:
    histories = Sequences.from_rows([[9, 10, 11], [17, 18, 19]])  # items of no labelled user
    blind, informed = (
        factor_regression(2, TRAIN, NOBODY, 2, unlabelled=learned_from) for learned_from in (TRAIN.sequences, HISTORIES)
    )
    assert isinstance(blind, ClassificationBaseline)
    assert isinstance(informed, ClassificationBaseline)
    probabilities = blind.probabilities(histories)
    assert probabilities[0, 1] == pytest.approx(probabilities[1, 1]), "nothing but the train users' items is known"
    probabilities = informed.probabilities(histories)
    assert probabilities[0, 1] < 0.4
    assert probabilities[1, 1] > 0.6


@pytest.mark.parametrize("name", NAMES)
def test_without_such_users_the_train_users_take_their_place(name: str) -> None:
    assert fitted(name).settings["learned from"] == "the histories of 20 users"
    assert fitted(name, unlabelled=HISTORIES).settings["learned from"] == "the histories of 80 users"


def test_features_are_sums_of_tfidf_weights_times_singular_vectors() -> None:
    counts = np.stack([np.bincount(np.asarray(row) - 4, minlength=16) for row in map(HISTORIES.__getitem__, range(80))])
    idf = np.log(81 / ((counts > 0).sum(axis=0) + 1)) + 1
    rows = counts * idf
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    right = np.linalg.svd(rows, full_matrices=False)[2]
    weights = np.bincount(np.array([4, 4, 9, 13]) - 4, minlength=16) * idf
    expected = weights / np.linalg.norm(weights) @ right.T
    factors_of_all = factorise(HISTORIES, np.arange(80), 16, 3, seed=0)
    assert factors_of_all is not None
    actual = factors_of_all.of_users(Sequences.from_rows([[4, UNK, 4, 9, 13, 999]]))[0]
    np.testing.assert_allclose(np.abs(actual[:2]), np.abs(expected[:2]), atol=1e-3)
    assert factors_of_all.users == 80


def test_factors_are_no_more_than_there_are_and_the_settings_say_how_many() -> None:
    settings = fitted(NAMES[1], unlabelled=HISTORIES).settings
    assert settings["factors"] == 15, "of 16 items"
    assert settings["learned from"] == "the histories of 80 users"
    assert settings["C"] == factors.DEFAULT_STRENGTH, "nobody to choose by"


def test_the_strength_is_chosen_on_the_valid_users(make_class_part: Make) -> None:
    """Valid users whose labels are noise ask for the strongest regularisation."""
    train, valid = make_class_part(300, 0), make_class_part(300, 1)
    clear = factor_regression(64, train, valid, 3, unlabelled=train.sequences)
    noise = TaskPart(valid.user_ids, valid.sequences, labels=np.random.default_rng(0).permutation(valid.labels))
    blind = factor_regression(64, train, noise, 3, unlabelled=train.sequences)
    assert isinstance(clear, ClassificationBaseline)
    assert isinstance(blind, ClassificationBaseline)
    assert clear.settings["C"] > blind.settings["C"]


def test_every_user_gets_an_answer_and_the_same_one_each_time() -> None:
    histories = Sequences.from_rows([[], [UNK], [999], [4, 12]])
    baseline = fitted(unlabelled=HISTORIES)
    probabilities = baseline.probabilities(histories)
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    assert np.array_equal(probabilities, fitted(unlabelled=HISTORIES).probabilities(histories))
    assert baseline.probabilities(Sequences.from_rows([])).shape == (0, 2)


def test_factors_that_tell_no_train_user_apart_are_left_out() -> None:
    train = labelled([[4, 5], [12, 13], [5, 4], [13, 12]], [0, 1, 0, 1])
    baseline = fitted(train=train)
    assert baseline.settings["factors"] == 2, "the third is rounding"
    assert baseline.probabilities(Sequences.from_rows([[9], [4], [12]]))[:, 0].min() > 0.3
    alike = labelled([[4, 5], [4, 5]], [0, 1])
    reason = fit_baseline(NAMES[0], alike, NOBODY, classes=2, unlabelled=HISTORIES)
    assert reason == f"{NAMES[0]} was skipped: no factor tells the train users apart"


def test_users_who_are_all_alike_are_factorised_without_a_warning() -> None:
    factors = factorise(Sequences.from_rows([[4, 5, 6]] * 20), np.arange(20), 9, 2, seed=0)
    assert factors is not None
    assert np.isfinite(factors.components).all()


@pytest.mark.parametrize("histories", [[[], []], [[4], [4]], []])
def test_nothing_to_factorise_is_a_reason_to_skip(histories: list[list[int]]) -> None:
    reason = fit_baseline(
        NAMES[0], labelled([[], []], [0, 1]), NOBODY, classes=2, unlabelled=Sequences.from_rows(histories)
    )
    assert reason == f"{NAMES[0]} was skipped: {len(histories)} users have too few items to factorise"


def test_evaluation_hands_the_histories_on(class_task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[Any] = []
    original = evaluation.fit_baselines

    def spy(*arguments: Any, **options: Any) -> Any:
        handed.append(options["unlabelled"])
        return original(*arguments, **options)

    monkeypatch.setattr(evaluation, "fit_baselines", spy)
    result = evaluation.evaluate_task(class_task(users=100), {}, EvaluateConfig(bootstrap=10), unlabelled=HISTORIES)
    assert handed == [HISTORIES]
    settings = {method.name: method.settings for method in result.methods}
    assert settings[NAMES[0]]["learned from"] == "the histories of 80 users"


def test_all_users_of_a_corpus_may_be_learned_from(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [[4, 5], [6], [5, 6, 4]], 3)
    histories = unlabelled_sequences(corpus)
    assert isinstance(corpus, Corpus)
    assert [histories[row].tolist() for row in range(3)] == [[4, 5], [6], [5, 6, 4]]
