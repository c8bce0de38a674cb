"""Calibrated probabilities, thresholds and sets of classes: whoever is asked, and however, what `evaluate` judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import CLASSES, tiny_bundle, tiny_pretrained
from peterrec.answers import LabelPredictions, Predictions
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.data.decision import Decision
from peterrec.evaluation.bundles import BundleScorer
from peterrec.model import UserModel
from peterrec.nn.calibration import Calibration, Curve
from peterrec.serving.engine import Engine
from peterrec.serving.explain import explain
from peterrec.serving.files import predict
from peterrec.serving.requests import ClassAnswer, LabelsAnswer, Question, Request

HISTORIES = [["item-1", "item-2"], ["item-3"], [], ["nothing"], ["item-5", "item-4", "item-9"], ["item-7"]]
TEMPERATURE = Calibration("temperature", 100, temperature=3.0)
CURVES = Calibration(
    "isotonic",
    1000,
    curves=(Curve((0.1, 0.6), (0.2, 0.5)), Curve((0.1, 0.2, 0.7), (0.01, 0.3, 0.9)), Curve((0.5,), (0.25,))),
)
SETS = Decision(conformal=0.1, least=0.305, conformal_users=100)
CLASS_LIMIT = Decision(100, (None, 0.634), (("precision", 0.8),))
LABEL_LIMITS = Decision(100, (0.3, 0.9, 0.45), (("precision", 0.8),))


def bundles() -> dict[str, Bundle]:
    pretrained = tiny_pretrained()
    labels: dict[str, Any] = {"kind": "multilabel", "class_names": ("garden", "books", "toys"), "seed": 6}
    labels["class_priors"] = (0.75, 0.5, 0.125)
    two = tiny_bundle(pretrained, class_names=("no", "yes"), seed=9, strategy="head")
    return {
        "plain": tiny_bundle(pretrained, name="plain"),
        "hot": tiny_bundle(pretrained, name="hot", calibration=TEMPERATURE, decision=SETS),
        "bent": tiny_bundle(pretrained, name="bent", calibration=CURVES),
        "two": replace(two, name="two", calibration=TEMPERATURE, decision=CLASS_LIMIT),
        "labels": tiny_bundle(pretrained, name="labels", calibration=CURVES, decision=LABEL_LIMITS, **labels),
    }


@pytest.fixture(scope="module")
def model() -> UserModel:
    user_model = UserModel(tiny_pretrained(), "cpu")
    for bundle in bundles().values():
        user_model.add_bundle(bundle)
    return user_model


def test_probabilities_are_calibrated_but_for_users_of_whom_nothing_is_known(model: UserModel) -> None:
    plain, hot = model.predict(HISTORIES, "plain"), model.predict(HISTORIES, "hot")
    assert isinstance(plain, Predictions)
    assert isinstance(hot, Predictions)
    with_events = plain.known_events > 0
    expected = plain.probabilities[with_events] ** (1 / 3)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(hot.probabilities[with_events], expected, atol=1e-5)
    np.testing.assert_array_equal(hot.probabilities[~with_events], plain.probabilities[~with_events])
    bent = model.predict(HISTORIES, "bent")
    assert isinstance(bent, Predictions)
    p = plain.probabilities[with_events].astype(np.float64)
    curves = [np.interp(p[:, 0], [0.1, 0.6], [0.2, 0.5]), np.interp(p[:, 1], [0.1, 0.2, 0.7], [0.01, 0.3, 0.9])]
    expected = np.stack([*curves, np.full(len(p), 0.25)], axis=1)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(bent.probabilities[with_events], expected, atol=1e-5)


def test_labels_and_sets_follow_what_the_valid_users_chose(model: UserModel) -> None:
    two, labels, hot = (model.predict(HISTORIES, name) for name in ("two", "labels", "hot"))
    assert isinstance(two, Predictions)
    assert two.labels == ["yes" if row[1] >= 0.634 else "no" for row in two.probabilities]
    assert any(row[1] > row[0] for row, label in zip(two.probabilities, two.labels, strict=True) if label == "no")
    table = two.to_arrow()
    for row in table.to_pylist():
        assert row["probability"] == row[f"p({row['label']})"]
    assert isinstance(labels, LabelPredictions)
    for row, answered in zip(labels.probabilities, labels.labels, strict=True):
        reached = [value >= limit for value, limit in zip(row, (0.3, 0.9, 0.45), strict=True)]
        assert answered == [name for name, held in zip(labels.label_names, reached, strict=True) if held]
    assert isinstance(hot, Predictions)
    for row, classes in zip(hot.probabilities, hot.class_sets, strict=True):
        assert classes == [
            name for name, value in zip(CLASSES, row, strict=True) if value >= 0.305 or value == max(row)
        ]
    assert hot.to_arrow().column_names[-1] == "class_set"


def test_the_engine_answers_what_the_model_predicts_and_evaluate_judges(model: UserModel) -> None:
    answers = Engine(model).predict([Request(history) for history in HISTORIES])
    sequences = model.encode(HISTORIES, "plain").sequences
    for name in bundles():
        predicted = model.predict(HISTORIES, name)
        assert isinstance(predicted, Predictions | LabelPredictions)
        scorer = BundleScorer(model, name, 4)
        judged = scorer.label_probabilities(sequences) if name == "labels" else scorer.probabilities(sequences)
        np.testing.assert_allclose(judged, predicted.probabilities, atol=1e-5)
        for row, answer in enumerate(answers):
            task = answer.tasks[name]
            assert isinstance(task, ClassAnswer | LabelsAnswer)
            expected = predicted.probabilities[row].tolist()
            assert list(task.probabilities.values()) == pytest.approx(expected, abs=1e-5)
            if isinstance(task, LabelsAnswer):
                assert task.labels == predicted.labels[row]
            else:
                assert isinstance(predicted, Predictions)
                assert (task.label, task.class_set) == (predicted.labels[row], predicted.class_sets[row])


def test_what_is_explained_is_the_class_that_is_answered(model: UserModel) -> None:
    engine = Engine(model)
    for history in (HISTORIES[0], HISTORIES[4]):
        request = Request(history, Question(["two"]))
        answer = engine.predict([request])[0].tasks["two"]
        explanation = explain(engine, engine.prepare(request), "two")
        assert isinstance(answer, ClassAnswer)
        assert explanation.of == answer.label
        assert explanation.value == pytest.approx(answer.probabilities[answer.label], abs=1e-5)


def test_a_saved_bundle_answers_the_same_from_files_and_is_another_version(model: UserModel, tmp_path: Path) -> None:
    save_backbone(tmp_path / "backbone", tiny_pretrained())
    lines = [json.dumps({"user": str(n), "items": items}) for n, items in enumerate(HISTORIES)]
    (tmp_path / "users.jsonl").write_text("\n".join(lines))
    for name, bundle in bundles().items():
        save_bundle(tmp_path / name, bundle)
        out = tmp_path / f"{name}.parquet"
        predict(tmp_path / "backbone", tmp_path / name, tmp_path / "users.jsonl", out, allow_empty=True)
        expected = model.predict(HISTORIES, name).to_arrow()
        table = pq.read_table(out)
        assert table.drop_columns(["user"]).equals(expected.drop_columns(["user"]))


def test_a_bundle_that_decides_otherwise_is_another_version() -> None:
    pretrained = tiny_pretrained()
    user_model = UserModel(pretrained, "cpu")
    plain = tiny_bundle(pretrained)
    decided = [plain, replace(plain, calibration=TEMPERATURE), replace(plain, decision=SETS)]
    versions = set()
    for bundle in decided:
        user_model.add_bundle(bundle)
        versions |= {task.version for task in Engine(user_model).tasks()}
    assert len(versions) == len(decided)
