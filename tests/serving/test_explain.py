"""Explanations, against leaving each event out by hand."""

from __future__ import annotations

import pytest

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.errors import RequestError, UnknownTaskError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.explain import explain
from peterrec.serving.requests import Question, Request

HISTORY = ["item-3", "item-1", "nothing", "item-7", "item-1"]


@pytest.fixture(scope="module")
def engine() -> Engine:
    pretrained = tiny_pretrained()
    served = Engine(UserModel(pretrained))
    served.add(tiny_bundle(pretrained, name="age"))
    served.add(tiny_bundle(pretrained, name="attention", readout="attention"))
    served.add(tiny_bundle(pretrained, name="shop", targets=tiny_catalogue(6, first=0)))
    return served


@pytest.mark.parametrize("patched", [True, False])
@pytest.mark.parametrize("task", ["age", "attention"])
def test_of_a_class_it_is_what_its_probability_loses(engine, task, patched):
    def ask(items):
        return engine.predict([Request(items, Question([task], patched=patched))])[0].tasks[task]

    explanation = explain(engine, engine.prepare(Request(HISTORY, Question(patched=patched))), task)
    full_answer = ask(HISTORY)
    assert explanation.of == full_answer.label
    assert explanation.version == full_answer.version
    assert explanation.value == pytest.approx(full_answer.probabilities[full_answer.label], abs=1e-5)
    for i, value in enumerate(explanation.contributions):
        without = ask(HISTORY[:i] + HISTORY[i + 1 :]).probabilities[full_answer.label]
        assert value == pytest.approx(explanation.value - without, abs=1e-5)
    assert explanation.contributions[2] == pytest.approx(0, abs=1e-6)
    assert max(abs(value) for value in explanation.contributions) > 0.01


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_of_a_ranking_it_is_what_the_score_of_the_best_loses(engine, exclude_seen):
    def ask(items, k, exclude):
        return engine.predict([Request(items, Question(["shop"], k=k, exclude_seen=exclude))])[0].tasks["shop"]

    explanation = explain(
        engine, engine.prepare(Request(HISTORY, Question(["shop"], exclude_seen=exclude_seen))), "shop"
    )
    best = ask(HISTORY, 1, exclude_seen)
    assert (explanation.of, explanation.value) == (best.items[0], pytest.approx(best.scores[0], abs=1e-5))
    for i, value in enumerate(explanation.contributions):
        without = ask(HISTORY[:i] + HISTORY[i + 1 :], 6, False)
        assert value == pytest.approx(explanation.value - without.scores[without.items.index(explanation.of)], abs=1e-5)


def test_of_no_events_there_is_nothing_to_say(engine):
    explanation = explain(engine, engine.prepare(Request([])), "age")
    assert explanation.contributions == []
    assert 0 < explanation.value < 1


def test_what_cannot_be_explained_is_refused(engine):
    with pytest.raises(UnknownTaskError):
        explain(engine, engine.prepare(Request(HISTORY)), "nobody")
    with pytest.raises(RequestError, match="not about 'shop'"):
        explain(engine, engine.prepare(Request(HISTORY, Question(["age"]))), "shop")
    all_items = [f"item-{i}" for i in range(6)]
    with pytest.raises(RequestError, match="nothing left to recommend"):
        explain(engine, engine.prepare(Request(all_items)), "shop")
