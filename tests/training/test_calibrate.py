"""Calibration and thresholds by hand, and what `adapt` does with them: fitted on valid users, kept, refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from peterrec.artifacts.bundle_io import Bundle, load_bundle
from peterrec.config import AdaptConfig, ThresholdConfig, dump_yaml
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import indicators
from peterrec.errors import ConfigError, TaskError
from peterrec.model import UserModel
from peterrec.nn.calibration import Calibration
from peterrec.training.adapt import adapt
from peterrec.training.calibrate import MAX_SLOPE, fit_curve, fit_isotonic, fit_temperature
from peterrec.training.decide import least_probability
from peterrec.training.pretrain import pretrain
from peterrec.training.thresholds import choose_threshold
from training.label_sets import label_corpus
from training.small import CHANNELS, LEARNS, adapt_config, pretrain_config

USERS = 20_000


def planted(scale: float, *, exclusive: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits that say `scale` times too much, who has what, and the probabilities that are true."""
    draws = np.random.default_rng(0)
    logits = draws.normal(size=(USERS, 3)) * 1.5
    if exclusive:
        true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        classes = (true.cumsum(axis=1) > draws.random((USERS, 1))).argmax(axis=1)
        return logits * scale, np.eye(3, dtype=np.int64)[classes], true
    true = expit(logits)
    return logits * scale, (draws.random(true.shape) < true).astype(np.int64), true


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_temperature_is_what_the_outputs_were_multiplied_by(scale: float, exclusive: bool) -> None:
    outputs, indicators, true = planted(scale, exclusive=exclusive)
    calibration = fit_temperature(outputs, indicators, exclusive=exclusive)
    assert calibration.temperature == pytest.approx(scale, rel=0.05)
    values = calibration.probabilities(torch.from_numpy(outputs), exclusive=exclusive).numpy()
    np.testing.assert_allclose(values, true, atol=0.02)


@pytest.mark.parametrize("exclusive", [True, False])
def test_isotonic_curves_find_the_true_probabilities(exclusive: bool) -> None:
    outputs, indicators, true = planted(3.0, exclusive=exclusive)
    calibration = fit_isotonic(outputs, indicators, exclusive=exclusive)
    values = calibration.probabilities(torch.from_numpy(outputs), exclusive=exclusive).numpy()
    assert np.abs(values - true).mean() < (0.06 if exclusive else 0.02)
    if exclusive:
        np.testing.assert_allclose(values.sum(axis=1), 1.0, atol=1e-6)


def test_a_curve_goes_through_the_centres_of_the_steps_and_is_never_certain() -> None:
    x, y = np.array([0.1, 0.2, 0.5, 0.7, 0.9]), np.array([0, 0, 1, 0, 1])
    curve = fit_curve(x, y)
    np.testing.assert_allclose(curve.x, [0.15, 0.6, 0.9])
    np.testing.assert_allclose(curve.y, [1 / 7, 0.5, 6 / 7])
    np.testing.assert_allclose(curve(np.array([0.0, 0.15, 0.375, 1.0])), [1 / 7, 1 / 7, (1 / 7 + 0.5) / 2, 6 / 7])


def test_no_curve_is_so_steep_that_rounding_moves_an_answer() -> None:
    x = np.array([0.5, 0.5 + 1e-9, 0.7, 0.8])
    curve = fit_curve(np.repeat(x, 50), np.repeat([0, 1, 1, 1], 50))
    assert (np.diff(curve.y) <= MAX_SLOPE * np.diff(curve.x)).all()


def test_a_calibration_is_read_as_it_was_written() -> None:
    outputs, indicators, _ = planted(3.0, exclusive=True)
    for fit in (fit_temperature, fit_isotonic):
        calibration = fit(outputs[:500], indicators[:500], exclusive=True)
        assert Calibration.from_json(json.loads(json.dumps(calibration.to_json())), 3) == calibration
    damaged: list[dict[str, Any]] = [
        {"method": "temperature", "users": 5, "temperature": 0.0},
        {"method": "platt", "users": 5},
        {"method": "isotonic", "users": 5, "curves": [{"x": [0.1], "y": [0.5]}]},
        {"method": "isotonic", "users": 5, "curves": [{"x": [0.2, 0.1], "y": [0.4, 0.5]}] * 3},
        {"method": "isotonic", "users": 5, "curves": [{"x": [0.1, 0.2], "y": [0.0, 0.5]}] * 3},
    ]
    for tree in damaged:
        with pytest.raises(ValueError, match=r"temperature|method|curve"):
            Calibration.from_json(tree, 3)


def test_a_threshold_for_a_precision_finds_as_many_as_it_allows() -> None:
    probabilities = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.5] * 20)
    labels = np.array([1, 1, 0, 1, 0, 0] * 20)
    threshold, warning = choose_threshold(probabilities, labels, ThresholdConfig(precision=0.7))
    assert (threshold, warning) == (pytest.approx(0.55), "")  # 3 of 4; of all 6 it is a half
    threshold, _ = choose_threshold(probabilities, labels, ThresholdConfig(precision=0.8))
    assert threshold == pytest.approx(0.75)
    threshold, warning = choose_threshold(probabilities, 1 - labels, ThresholdConfig(precision=0.9))
    assert "no threshold has a precision of 0.9" in warning


def test_a_threshold_for_costs_makes_them_lowest() -> None:
    draws = np.random.default_rng(0)
    probabilities = draws.random(USERS)
    labels = (draws.random(USERS) < probabilities).astype(np.int64)
    costs = ThresholdConfig(false_positive_cost=1, false_negative_cost=4)
    threshold, warning = choose_threshold(probabilities, labels, costs)
    assert (threshold, warning) == (pytest.approx(0.2, abs=0.05), "")  # of calibrated ones 1 / (1 + 4)
    costs = ThresholdConfig(false_positive_cost=1000, false_negative_cost=1)
    threshold, warning = choose_threshold(probabilities / 2, 1 - labels, costs)
    assert threshold > probabilities.max() / 2
    assert "never answered" in warning


@pytest.mark.parametrize(
    "settings", [{}, {"precision": 0.5, "false_positive_cost": 1.0}, {"false_negative_cost": 1.0}, {"precision": 1.0}]
)
def test_a_threshold_without_one_aim_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"ThresholdConfig|precision"):
        ThresholdConfig(**settings)


def test_sets_have_the_limit_of_split_conformal_prediction() -> None:
    pytest.importorskip("mapie", reason="sets of classes need MAPIE (peterrec[conformal])")
    _, indicators, true = planted(1.0, exclusive=True)
    classes = indicators.argmax(axis=1)
    class_probabilities = np.sort(true[np.arange(500), classes[:500]])[::-1]
    assert least_probability(true[:500], classes[:500], 0.1) == class_probabilities[math.ceil(501 * 0.9) - 1]


# ---------------------------------------------------------------- adapt


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    split = {"train": 0.3, "valid": 0.5, "test": 0.2}
    return label_corpus(tmp_path_factory.mktemp("labels"), users=500, split=split)


@pytest.fixture(scope="module")
def trunk(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> UserModel:
    path = tmp_path_factory.mktemp("trunk") / "backbone"
    pretrain(corpus, path, pretrain_config(backbone=CHANNELS, epochs=1, **LEARNS))
    return UserModel.from_pretrained(path, "cpu")


@pytest.mark.parametrize("task", ["cluster", "interests"])
def test_adapt_calibrates_on_valid_users_and_changes_nothing_else(
    task: str, corpus: Corpus, trunk: UserModel, tmp_path: Path
) -> None:
    config = adapt_config(epochs=1, strategy="head", optim={"lr": 3.0})  # so that it says too much
    plain = adapt(trunk, corpus, task, tmp_path / "plain", config)
    settings = {"method": "temperature"} | ({} if task == "cluster" else {"threshold": {"precision": 0.6}})
    calibrated = adapt(trunk, corpus, task, tmp_path / "calibrated", config, calibration=settings)
    assert plain.calibration is None
    assert "calibration" not in json.loads((tmp_path / "plain" / "labels.json").read_text())
    assert calibrated.calibration is not None
    assert calibrated.calibration.users == len(corpus.task(task).part("valid"))
    assert abs(math.log(calibrated.calibration.temperature)) > 0.05
    for name, tensor in plain.tensors().items():
        torch.testing.assert_close(calibrated.tensors()[name], tensor, rtol=0, atol=0)
    loaded = load_bundle(tmp_path / "calibrated", trunk.network.backbone, trunk.identity)
    assert (loaded.calibration, loaded.decision) == (calibrated.calibration, calibrated.decision)
    assert valid_log_loss(trunk, calibrated, corpus) < valid_log_loss(trunk, plain, corpus) - 1e-4


def valid_log_loss(trunk: UserModel, bundle: Bundle, corpus: Corpus) -> float:
    valid, name = corpus.task(bundle.name).part("valid"), trunk.add_bundle(bundle)
    if bundle.kind == "classification":
        probabilities = trunk.probabilities(valid.sequences, name)
        return float(-np.log(probabilities[np.arange(len(valid)), np.asarray(valid.labels)]).mean())
    having, probabilities = indicators(valid.label_sets, 3), trunk.label_probabilities(valid.sequences, name)
    return float(-np.log(np.where(having == 1, probabilities, 1 - probabilities)).mean())


def test_what_few_valid_users_cannot_decide_is_refused_before_training(
    corpus: Corpus, trunk: UserModel, tmp_path: Path
) -> None:
    def refused(task: str, **calibration: Any) -> str:
        with pytest.raises((ConfigError, TaskError)) as error:
            adapt(trunk, corpus, task, tmp_path / "bundle", adapt_config(calibration=calibration))
        assert not (tmp_path / "bundle").exists()
        assert not list(tmp_path.iterdir())
        return str(error.value)

    users = len(corpus.task("cluster").part("valid"))
    message = refused("cluster", method="isotonic")
    assert f"has {users} valid users with events, and calibration (isotonic) needs 1000 at least" in message
    assert "split.valid" in message
    assert "'cluster' has" in refused("cluster", threshold={"precision": 0.8})
    assert "of classes" in refused("interests", conformal=0.1)
    assert "labels have each" in refused("interests", threshold={"precision": 0.8, "positive_class": "low"})


def test_settings_of_before_are_written_as_they_were() -> None:
    assert "calibration" not in dump_yaml(AdaptConfig())
    assert "temperature" in dump_yaml(AdaptConfig(calibration={"method": "temperature"}))
