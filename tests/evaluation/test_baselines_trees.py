"""Boosted trees give probabilities whatever is missing, and a baseline is fitted by its name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import accuracy_score

from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import UNK, Sequences
from peterrec.errors import ConfigError, TaskError
from peterrec.evaluation.baselines import baseline_names, fit_baseline, fit_baselines, trees
from peterrec.evaluation.baselines.classification import ClassificationBaseline
from peterrec.evaluation.baselines.trees import NAME, boosted_trees
from peterrec.evaluation.metrics import log_loss

Make = Callable[..., TaskPart]


def part_of(sequences: list[list[int]], labels: list[int]) -> TaskPart:
    ids = pa.array([str(i) for i in range(len(labels))])
    return TaskPart(ids, Sequences.from_rows(sequences), labels=np.array(labels, dtype=np.int64))


@pytest.fixture
def installed() -> None:
    try:
        importlib.import_module("lightgbm")
    except (ImportError, OSError) as error:
        pytest.skip(f"LightGBM cannot be used here: {error}")


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_trees_learn_and_are_the_same_every_time(make_class_part: Make) -> None:
    train, valid, test = (make_class_part(900 if seed == 0 else 300, seed) for seed in range(3))
    fitted = fit_baseline(NAME, train, valid, classes=3)
    majority = fit_baseline("majority", train, valid, classes=3)
    result, blind = fitted.probabilities(test.sequences), majority.probabilities(test.sequences)
    assert result.shape == (300, 3)
    assert result.sum(axis=1) == pytest.approx(1.0)
    assert accuracy_score(test.labels, result.argmax(axis=1)) > accuracy_score(test.labels, blind.argmax(axis=1)) + 0.15
    assert log_loss(result, test.labels) < log_loss(blind, test.labels) - 0.1
    assert 1 <= fitted.settings["rounds"] < trees.MAX_ROUNDS
    refitted = fit_baseline(NAME, train, valid, classes=3)
    assert np.array_equal(refitted.probabilities(test.sequences), result)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_threads_change_nothing(make_class_part: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid = make_class_part(150, 0), make_class_part(50, 1)
    monkeypatch.setattr(trees, "LEAVES", (8,))
    before, result = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            result.append(boosted_trees(train, valid, 3).probabilities(valid.sequences))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*result)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("present", [(0, 2), (0, 2, 3)])
def test_classes_that_train_users_lack_get_nothing(present: tuple[int, ...]) -> None:
    """Two classes: LightGBM gives one number a user, which must go to the right class; more: one for each."""
    labels = [label for label in present for _ in range(60)]
    train = part_of([[4 + label, 10] for label in labels], labels)
    valid = part_of([[4], [6], [5]], [0, 2, 1])
    fitted = boosted_trees(train, valid, 5)
    result = fitted.probabilities(Sequences.from_rows([[4, 10], [6, 10], [], [UNK], [999]]))
    assert result.shape == (5, 5)
    assert result.sum(axis=1) == pytest.approx(1.0)
    assert (result[:, [label for label in range(5) if label not in present]] == 0).all()
    assert result[:2].argmax(axis=1).tolist() == [0, 2]
    assert fitted.probabilities(Sequences.from_rows([])).shape == (0, 5)


@pytest.mark.usefixtures("installed")
def test_slow_rates_are_only_for_few_classes(make_class_part: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid = make_class_part(150, 0), make_class_part(50, 1)
    monkeypatch.setattr(trees, "RATES", (1e-5, 0.1))
    monkeypatch.setattr(trees, "LEAVES", (4,))
    monkeypatch.setattr(trees, "MAX_ROUNDS", 60)
    assert boosted_trees(train, valid, 3).settings["learning rate"] == 0.1
    monkeypatch.setattr(trees, "MANY_CLASSES", 2)
    assert boosted_trees(train, valid, 3).settings["learning rate"] == 1e-5


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("labels", [[], [1, 1]])
def test_without_valid_users_of_known_classes_the_rounds_are_fixed(labels: list[int]) -> None:
    train = part_of([[4]] * 40 + [[5]] * 40, [0] * 40 + [2] * 40)
    fitted = boosted_trees(train, part_of([[4]] * len(labels), labels), 3)
    assert fitted.settings["rounds"] == trees.ROUNDS_UNSEEN
    assert fitted.probabilities(Sequences.from_rows([[5]])).argmax() == 2


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_rare_items_are_left_out_and_no_item_is_enough() -> None:
    """No item has 20 users; the length of the history tells all."""
    rows = [[4 + 7 * i % 500] * (1 if i % 2 else 6) for i in range(200)]
    fitted = boosted_trees(
        part_of(rows, [i % 2 for i in range(200)]), part_of(rows[:20], [i % 2 for i in range(20)]), 2
    )
    result = fitted.probabilities(Sequences.from_rows([[900], [901] * 6]))
    assert result.argmax(axis=1).tolist() == [1, 0]


def test_without_lightgbm_it_says_what_to_install(make_class_part: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    result = fit_baseline(NAME, make_class_part(50, 0), make_class_part(20, 1), classes=3)
    assert isinstance(result, str)
    assert result.startswith("gradient-boosted trees was skipped: LightGBM")
    assert "peterrec[experiments]" in result


@pytest.mark.parametrize("name", ["history length", "tf-idf + logistic regression", NAME])
def test_one_class_is_a_reason_to_skip(name: str) -> None:
    train = part_of([[4], [5]], [1, 1])
    assert fit_baseline(name, train, train, classes=2) == f"{name} was skipped: the train users have one class"
    assert isinstance(fit_baseline("majority", train, train, classes=2), ClassificationBaseline)


def test_names_that_are_not_there_are_refused_with_those_that_are(make_class_part: Make, make_rank_part: Make) -> None:
    classes, ranks = make_class_part(30, 0), make_rank_part(30, 0)
    with pytest.raises(ConfigError, match=r"no baseline 'svd'(.|\n)*popularity, .*EASE across domains"):
        fit_baseline("svd", ranks, ranks, n_targets=30)
    with pytest.raises(ConfigError, match=r"'popularity' is not for classification(.|\n)*majority"):
        fit_baseline("popularity", classes, classes, classes=3)
    with pytest.raises(TaskError, match="no train users"):
        fit_baseline("majority", part_of([], []), classes, classes=3)


@pytest.mark.parametrize("name", baseline_names("ranking", "cheap"))
def test_every_ranking_baseline_is_fitted_by_its_name(name: str, make_rank_part: Make) -> None:
    assert fit_baseline(name, make_rank_part(60, 0), make_rank_part(20, 1), n_targets=30).name == name


def test_the_verbs_fit_the_quick_ones_only(make_class_part: Make, make_rank_part: Make) -> None:
    messages: list[str] = []
    fit_baselines(make_class_part(100, 0), make_class_part(30, 1), classes=3, say=messages.append)
    fit_baselines(make_rank_part(100, 0), make_rank_part(30, 1), n_targets=30, say=messages.append)
    assert len(messages) == 8
    assert not any(name in " ".join(messages) for name in (NAME, "EASE", "user-to-user"))
