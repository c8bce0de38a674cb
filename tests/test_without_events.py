"""A user of whom nothing is known is answered with what is known of everybody, whichever way is asked."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from builders import CLASSES, tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.artifacts.bundle_io import load_bundle, save_bundle
from peterrec.config import EngineConfig
from peterrec.data.catalogue import Catalogue
from peterrec.errors import ArtifactError, UnknownItemsError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.explain import explain
from peterrec.serving.files import AnswerOptions, embed, predict, recommend
from peterrec.serving.requests import ClassAnswer, ItemsAnswer, Question, Request
from peterrec.serving.store.base import Event
from peterrec.serving.store.sqlite import SqliteStore
from peterrec.serving.users import Users

SHARES = (0.2, 0.5, 0.3)
# Counts out of order, as in a catalogue that has grown, and one twice; `nowhere` is no source item.
TARGETS = Catalogue(pa.array(["a", "b", "item-1", "nowhere", "c"]), [3, 9, 5, 5, 0], first=0)
POPULAR = ["b", "item-1", "nowhere", "a", "c"]
SCORES = [math.log(count / 27) for count in (10, 6, 6, 4, 1)]
EMPTY: list[list[Any]] = [[], ["x"], ["x", "y", "x"]]


@pytest.fixture(scope="module", params=["skip", "unk"])
def model(request: pytest.FixtureRequest) -> UserModel:
    model = UserModel(tiny_pretrained(unknown=request.param), "cpu")
    model.add_bundle(tiny_bundle(model.pretrained, class_priors=SHARES))
    model.add_bundle(tiny_bundle(model.pretrained, targets=TARGETS))
    return model


def with_known_user(histories: list[list[Any]]) -> list[list[Any]]:
    """With a user of whom something is known: alone, unknown items only are taken for ids of another domain."""
    return [*histories, ["item-1"]]


# ---------------------------------------------------------------- the model


def test_classes_are_answered_by_their_shares(model):
    predictions = model.predict(with_known_user(EMPTY), "age")
    np.testing.assert_allclose(predictions.probabilities[:3], [SHARES] * 3, atol=1e-7)
    assert predictions.labels[:3] == ["old"] * 3
    assert predictions.known_events.tolist() == [0, 0, 0, 1]
    assert not np.allclose(predictions.probabilities[3], SHARES, atol=1e-3)


def test_targets_are_ranked_by_popularity(model):
    recommendations = model.recommend(with_known_user(EMPTY), "shop", 9)
    assert recommendations.items[:3] == [POPULAR] * 3
    np.testing.assert_allclose(recommendations.scores[:3], [SCORES] * 3, atol=1e-6)
    assert recommendations.known_events == [0, 0, 0, 1]
    assert recommendations.items[3] != [item for item in POPULAR if item != "item-1"]
    assert model.recommend([[]], "shop", 2).items == [["b", "item-1"]]


def test_what_was_seen_is_left_out_also_where_nothing_is_known(model):
    recommendations = model.recommend(with_known_user([["nowhere", "x"]]), "shop", 3)
    assert recommendations.items[0] == ["b", "item-1", "a"]
    assert model.recommend(with_known_user([["nowhere"]]), "shop", 3, exclude_seen=False).items[0] == POPULAR[:3]


def test_without_a_bundle_the_source_catalogue_is_ranked_by_popularity(model):
    recommendations = model.recommend([[]], None, 3)
    assert recommendations.items == [["item-0", "item-1", "item-2"]]
    total = sum(range(1, 13)) + 12
    np.testing.assert_allclose(recommendations.scores, [[math.log(count / total) for count in (13, 12, 11)]], atol=1e-6)


def test_evaluation_counts_the_same_answers(model):
    sequences = model.encode(with_known_user(EMPTY)).sequences
    np.testing.assert_allclose(model.probabilities(sequences, "age")[:3], [SHARES] * 3, atol=1e-7)
    for batch_size in (1, 3, 9):
        scores = np.concatenate(list(model.score_batches(sequences, "shop", batch_size=batch_size)))
        expected = [SCORES[POPULAR.index(item)] for item in TARGETS.ids.to_pylist()]
        np.testing.assert_allclose(scores[0], expected, atol=1e-6)
        assert (scores[:3] == scores[0]).all()


def test_the_guard_against_ids_of_another_kind_stays(model):
    for histories in ([["x"], ["y"]], [[], ["y"]]):
        with pytest.raises(UnknownItemsError, match="not in the catalogue"):
            model.predict(histories, "age")


# ---------------------------------------------------------------- engine, stored users, files


@pytest.mark.parametrize("patched", [True, False])
def test_the_engine_says_what_the_model_says(model, patched):
    engine = Engine(model, EngineConfig(batch_size=2))
    histories = [*with_known_user(EMPTY), ["nowhere"]]
    answers = engine.predict([Request(items, Question(k=3, patched=patched)) for items in histories])
    classes, items = model.predict(histories, "age"), model.recommend(histories, "shop", 3)
    for row, answer in enumerate(answers):
        assert answer.known_events == classes.known_events[row]
        assert (answer.events, answer.unknown_items) == (len(histories[row]), len(histories[row]) - answer.known_events)
        if answer.known_events:
            continue
        class_answer, items_answer = answer.tasks["age"], answer.tasks["shop"]
        assert isinstance(class_answer, ClassAnswer)
        assert isinstance(items_answer, ItemsAnswer)
        assert (class_answer.label, list(class_answer.probabilities)) == ("old", list(CLASSES))
        assert list(class_answer.probabilities.values()) == classes.probabilities[row].tolist()
        assert (items_answer.items, items_answer.scores) == (items.items[row], items.scores[row])


def test_a_stored_user_of_whom_nothing_is_known(model, tmp_path):
    engine = Engine(model)
    users = Users(engine, SqliteStore(tmp_path / "events.sqlite", 100))
    users.append([Event("anna", "1", "x", 1.0)])
    for user, events in (("anna", ["x"]), ("nobody", [])):
        (answer,) = users.run([users.prepare(user, Question())])
        assert answer == engine.predict([Request(events)])[0]
        assert answer.known_events == 0
    users.append([Event("anna", "2", "item-1", 2.0)])
    (answer,) = users.run([users.prepare("anna", Question())])
    assert answer.known_events == 1
    assert not np.allclose(list(answer.tasks["age"].probabilities.values()), SHARES, atol=1e-3)
    users.store.close()


def test_the_only_known_event_is_explained_against_what_is_known_of_everybody(model):
    engine = Engine(model)
    for task, task_shares in (("age", SHARES), ("shop", None)):
        prepared = engine.prepare(Request(["x", "item-1"], Question(exclude_seen=False)))
        explanations = explain(engine, prepared, task)
        without = (
            task_shares[CLASSES.index(explanations.of)]
            if task_shares is not None
            else SCORES[POPULAR.index(str(explanations.of))]
        )
        assert explanations.contributions[1] == pytest.approx(explanations.value - without, abs=1e-5)
        nobody = explain(engine, engine.prepare(Request([], Question(exclude_seen=False))), task)
        best, value = ("old", 0.5) if task == "age" else ("b", SCORES[0])
        assert (nobody.of, nobody.value) == (best, pytest.approx(value))


def test_files_say_how_much_is_known(model, tmp_path, caplog):
    caplog.set_level("INFO", "peterrec")
    save_bundle(tmp_path / "age", model.bundle("age"))
    save_bundle(tmp_path / "shop", model.bundle("shop"))
    lines = "\n".join(json.dumps({"user": i, "items": items}) for i, items in enumerate(with_known_user(EMPTY)))
    options = AnswerOptions(allow_empty=True)
    classes = predict(model, tmp_path / "age", io.StringIO(lines), options=options)
    assert classes["known_events"].to_pylist() == [0, 0, 0, 1]
    np.testing.assert_allclose([classes[f"p({name})"][1].as_py() for name in CLASSES], SHARES, atol=1e-7)
    assert caplog.messages == ["4 users, 5 events; 4 of items that are unknown; nothing is known of 3 users"]
    items = recommend(model, tmp_path / "shop", io.StringIO(lines), options=options, k=2).to_pylist()
    assert [(row["item"], row["known_events"]) for row in items[:6]] == [("b", 0), ("item-1", 0)] * 3
    assert embed(model, io.StringIO(lines), options=options)["known_events"].to_pylist() == [0, 0, 0, 1]


# ---------------------------------------------------------------- the bundle on disk


def loaded(model: UserModel, path: Path) -> Any:
    return load_bundle(path, model.network.backbone, model.identity)


def test_a_bundle_keeps_the_class_shares(model, tmp_path):
    save_bundle(tmp_path / "age", model.bundle("age"))
    assert loaded(model, tmp_path / "age").class_priors == SHARES


def test_a_bundle_of_before_they_were_kept_answers_as_it_did(model, tmp_path):
    path = tmp_path / "age"
    save_bundle(path, model.bundle("age"))
    labels = json.loads((path / "labels.json").read_text())
    del labels["class_priors"]
    (path / "labels.json").write_text(json.dumps(labels))
    old = UserModel(model.pretrained, "cpu")
    old.load_bundle(path)
    predictions = old.predict([[]], "age")
    vector = old.represent([[]], "age")
    logits = vector @ old.bundle("age").head.weight.numpy().T + old.bundle("age").head.bias.numpy()
    np.testing.assert_allclose(predictions.probabilities, np.exp(logits) / np.exp(logits).sum(), atol=1e-5)
    assert predictions.known_events.tolist() == [0]
    answer = Engine(old).predict([Request([])])[0]
    np.testing.assert_allclose(
        list(answer.tasks["age"].probabilities.values()), predictions.probabilities[0], atol=1e-6
    )


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.5, 0.6, -0.1], [0.2, 0.2, 0.2], ["a", 0, 1], [math.nan, 0, 1], 3])
def test_shares_that_are_none_are_refused(model, tmp_path, shares):
    path = tmp_path / "age"
    save_bundle(path, model.bundle("age"))
    labels = json.loads((path / "labels.json").read_text())
    (path / "labels.json").write_text(json.dumps(labels | {"class_priors": shares}))
    with pytest.raises(ArtifactError, match=r"labels\.json: cannot be used"):
        loaded(model, path)


def test_a_bundle_with_other_shares_is_another_version(model):
    engine = Engine(model)
    other_bundle = tiny_bundle(model.pretrained, class_priors=(0.3, 0.5, 0.2))
    assert engine.add(other_bundle, "other").version != engine.versions("age")[0].version


def test_targets_may_be_fewer_than_are_asked_for():
    model = UserModel(tiny_pretrained(tiny_catalogue(3)), "cpu")
    recommendations = model.recommend([[], ["item-0"]], None, 10)
    assert recommendations.items[0] == ["item-0", "item-1", "item-2"]
    assert sorted(recommendations.items[1]) == ["item-1", "item-2"]
