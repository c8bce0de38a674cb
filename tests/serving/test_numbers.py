"""Numbers from the engine and the verbs: what `UserModel.predict` says, beside classes and items in one pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.answers import NumberPredictions
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.data.number_outputs import NumberOutputs
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.explain import explain
from peterrec.serving.files import predict
from peterrec.serving.requests import NumberAnswer, Question, Request

SPEND = NumberOutputs("log1p", 3.0, 1.5, (0.1, 0.5, 0.9), (2.0, 20.0, 90.0))
AGE = NumberOutputs("none", 40.0, 12.0, (), (41.5,))
HISTORIES = [["item-1", "item-2"], ["item-3"], [], ["nothing"], ["item-5", "item-4", "item-9"]]


def model_of() -> UserModel:
    pretrained = tiny_pretrained()
    model = UserModel(pretrained, "cpu")
    model.add_bundle(tiny_bundle(pretrained, numbers=SPEND, name="spend"))
    model.add_bundle(tiny_bundle(pretrained, numbers=AGE, name="years", strategy="head", seed=4))
    model.add_bundle(tiny_bundle(pretrained))
    model.add_bundle(tiny_bundle(pretrained, targets=tiny_catalogue(4, first=0)))
    return model


def test_the_engine_answers_what_the_model_predicts() -> None:
    model = model_of()
    answers = Engine(model).predict([Request(history) for history in HISTORIES])
    spend, years = (model.predict(HISTORIES, name) for name in ("spend", "years"))
    assert isinstance(spend, NumberPredictions)
    assert isinstance(years, NumberPredictions)
    for row, answer in enumerate(answers):
        number, age = answer.tasks["spend"], answer.tasks["years"]
        assert isinstance(number, NumberAnswer)
        assert isinstance(age, NumberAnswer)
        assert number.prediction == pytest.approx(spend.predictions[row], rel=1e-5)
        np.testing.assert_allclose(list(number.quantiles.values()), spend.quantile_predictions[row], rtol=1e-5)
        assert (list(number.quantiles), age.quantiles) == (["q0.1", "q0.5", "q0.9"], {})
        assert age.prediction == pytest.approx(years.predictions[row], rel=1e-5)
        assert {answer.tasks[name].kind for name in ("age", "shop")} == {"classification", "ranking"}
    assert answers[2].tasks["years"].prediction == 41.5  # type: ignore[union-attr]
    assert answers[3].tasks["spend"].quantiles["q0.9"] == 90.0  # type: ignore[union-attr]


def test_events_are_explained_by_what_they_add_to_the_number() -> None:
    model = model_of()
    engine = Engine(model)
    explanation = explain(engine, engine.prepare(Request(HISTORIES[0], Question(["years"]))), "years")
    complete, without = model.predict([HISTORIES[0], HISTORIES[0][1:]], "years").predictions  # type: ignore[union-attr]
    assert (explanation.of, explanation.value) == ("prediction", pytest.approx(complete, rel=1e-5))
    assert explanation.contributions[0] == pytest.approx(complete - without, abs=1e-3)


def test_files_of_answers_have_a_column_for_each_quantile(tmp_path: Path) -> None:
    pretrained = tiny_pretrained()
    save_backbone(tmp_path / "backbone", pretrained)
    save_bundle(tmp_path / "spend", tiny_bundle(pretrained, numbers=SPEND, name="spend"))
    lines = [json.dumps({"user": str(n), "items": items}) for n, items in enumerate(HISTORIES) if items]
    (tmp_path / "users.jsonl").write_text("\n".join(lines))
    for ending in ("parquet", "csv", "jsonl"):
        out = tmp_path / f"answers.{ending}"
        table = predict(tmp_path / "backbone", tmp_path / "spend", tmp_path / "users.jsonl", out)
        assert out.exists()
        assert table.column_names == ["user", "prediction", "known_events", "q0.1", "q0.5", "q0.9"]


def test_a_bundle_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    pretrained = tiny_pretrained()
    model, bundle = UserModel(pretrained, "cpu"), tiny_bundle(pretrained, numbers=SPEND, name="spend")
    save_bundle(tmp_path / "spend", bundle)
    model.add_bundle(bundle, "memory")
    model.load_bundle(tmp_path / "spend", "disk")
    assert model.bundle("disk").numbers == SPEND
    first, second = (model.predict(HISTORIES, name).to_arrow() for name in ("memory", "disk"))
    assert first == second
