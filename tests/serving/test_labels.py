"""Several labels from the engine and the verbs: what `UserModel.predict` says, beside classes and items in one pass."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.answers import LabelPredictions
from peterrec.artifacts.backbone_io import PretrainedBackbone, save_backbone
from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.errors import ArtifactError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.explain import explain
from peterrec.serving.files import predict
from peterrec.serving.requests import LabelsAnswer, Question, Request

LABELS = ("garden", "books", "toys")
SHARES = (0.75, 0.5, 0.125)
HISTORIES = [["item-1", "item-2"], ["item-3"], [], ["nothing"], ["item-5", "item-4", "item-9"]]


def interests_of(pretrained: PretrainedBackbone) -> Bundle:
    return tiny_bundle(pretrained, kind="multilabel", name="interests", class_names=LABELS, class_priors=SHARES, seed=6)


def model_of() -> UserModel:
    pretrained = tiny_pretrained()
    model = UserModel(pretrained, "cpu")
    model.add_bundle(interests_of(pretrained))
    model.add_bundle(tiny_bundle(pretrained))
    model.add_bundle(tiny_bundle(pretrained, targets=tiny_catalogue(4, first=0)))
    return model


def test_the_engine_answers_what_the_model_predicts() -> None:
    model = model_of()
    answers = Engine(model).predict([Request(history) for history in HISTORIES])
    predicted = model.predict(HISTORIES, "interests")
    assert isinstance(predicted, LabelPredictions)
    for row, answer in enumerate(answers):
        interests = answer.tasks["interests"]
        assert isinstance(interests, LabelsAnswer)
        assert tuple(interests.probabilities) == LABELS
        assert list(interests.probabilities.values()) == pytest.approx(predicted.probabilities[row].tolist(), abs=1e-5)
        assert interests.labels == predicted.labels[row]
        assert {answer.tasks[name].kind for name in ("age", "shop")} == {"classification", "ranking"}
    assert answers[2].tasks["interests"].labels == ["garden", "books"]  # type: ignore[union-attr]
    assert answers[3].tasks["interests"].probabilities["toys"] == 0.125  # type: ignore[union-attr]


def test_events_are_explained_by_what_they_add_to_the_most_probable_label() -> None:
    model = model_of()
    engine = Engine(model)
    explanation = explain(engine, engine.prepare(Request(HISTORIES[0], Question(["interests"]))), "interests")
    with_event, without = model.predict([HISTORIES[0], HISTORIES[0][1:]], "interests").probabilities  # type: ignore[union-attr]
    best = int(with_event.argmax())
    assert (explanation.of, explanation.value) == (LABELS[best], pytest.approx(with_event[best], abs=1e-5))
    assert explanation.contributions[0] == pytest.approx(with_event[best] - without[best], abs=1e-5)


def test_files_of_answers_have_a_column_for_each_label(tmp_path: Path) -> None:
    pretrained = tiny_pretrained()
    save_backbone(tmp_path / "backbone", pretrained)
    save_bundle(tmp_path / "interests", interests_of(pretrained))
    lines = [json.dumps({"user": str(n), "items": items}) for n, items in enumerate(HISTORIES)]
    (tmp_path / "users.jsonl").write_text("\n".join(lines))
    for ending in ("parquet", "csv", "jsonl"):
        out = tmp_path / f"answers.{ending}"
        table = predict(tmp_path / "backbone", tmp_path / "interests", tmp_path / "users.jsonl", out, allow_empty=True)
        assert table.column_names == ["user", "labels", "known_events", "p(garden)", "p(books)", "p(toys)"]
    assert pq.read_table(tmp_path / "answers.parquet")["labels"][2].as_py() == "garden|books"
    line = json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[2])
    assert line["probabilities"] == dict(zip(LABELS, SHARES, strict=True))


def test_a_bundle_is_the_same_after_it_was_saved_and_shares_that_are_none_are_refused(tmp_path: Path) -> None:
    pretrained = tiny_pretrained()
    model, bundle = UserModel(pretrained, "cpu"), interests_of(pretrained)
    save_bundle(tmp_path / "interests", bundle)
    model.add_bundle(bundle, "memory")
    model.load_bundle(tmp_path / "interests", "disk")
    assert (model.bundle("disk").class_names, model.bundle("disk").class_priors) == (LABELS, SHARES)
    first, second = (model.predict(HISTORIES, name).to_arrow() for name in ("memory", "disk"))
    assert first == second
    labels = tmp_path / "interests" / "labels.json"
    labels.write_text(labels.read_text().replace("0.75", "1.75"))
    with pytest.raises(ArtifactError, match="not one share for each"):
        model.load_bundle(tmp_path / "interests", "broken")
