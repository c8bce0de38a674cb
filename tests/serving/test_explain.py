"""Which events mattered: leave one out, by hand."""

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
    served.add(tiny_bundle(pretrained, name="shop", targets=tiny_catalogue(6, first=0)))
    return served


@pytest.mark.parametrize("patched", [True, False])
def test_of_a_class_it_is_what_its_probability_loses(engine, patched):
    def ask(items):
        return engine.predict([Request(items, Question(["age"], patched=patched))])[0].tasks["age"]

    found = explain(engine, engine.prepare(Request(HISTORY, Question(patched=patched))), "age")
    whole = ask(HISTORY)
    assert found.of == whole.label
    assert found.version == whole.version
    assert found.value == pytest.approx(whole.probabilities[whole.label], abs=1e-5)
    for i, value in enumerate(found.contributions):
        without = ask(HISTORY[:i] + HISTORY[i + 1 :]).probabilities[whole.label]
        assert value == pytest.approx(found.value - without, abs=1e-5)
    assert found.contributions[2] == pytest.approx(0, abs=1e-6)
    assert max(abs(value) for value in found.contributions) > 0.01


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_of_a_ranking_it_is_what_the_score_of_the_best_loses(engine, exclude_seen):
    def ask(items, k, exclude):
        return engine.predict([Request(items, Question(["shop"], k=k, exclude_seen=exclude))])[0].tasks["shop"]

    found = explain(engine, engine.prepare(Request(HISTORY, Question(["shop"], exclude_seen=exclude_seen))), "shop")
    best = ask(HISTORY, 1, exclude_seen)
    assert (found.of, found.value) == (best.items[0], pytest.approx(best.scores[0], abs=1e-5))
    for i, value in enumerate(found.contributions):
        without = ask(HISTORY[:i] + HISTORY[i + 1 :], 6, False)
        assert value == pytest.approx(found.value - without.scores[without.items.index(found.of)], abs=1e-5)


def test_of_no_events_there_is_nothing_to_say(engine):
    found = explain(engine, engine.prepare(Request([])), "age")
    assert found.contributions == []
    assert 0 < found.value < 1


def test_what_cannot_be_explained_is_refused(engine):
    with pytest.raises(UnknownTaskError):
        explain(engine, engine.prepare(Request(HISTORY)), "nobody")
    with pytest.raises(RequestError, match="not about 'shop'"):
        explain(engine, engine.prepare(Request(HISTORY, Question(["age"]))), "shop")
    every = [f"item-{i}" for i in range(6)]
    with pytest.raises(RequestError, match="nothing left to recommend"):
        explain(engine, engine.prepare(Request(every)), "shop")
