"""Search in the targets of a ranking task."""

from __future__ import annotations

import sys

import pytest
import torch

from builders import tiny_bundle, tiny_catalogue, tiny_pretrained
from peterrec.config import EngineConfig
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.serving.engine import Engine
from peterrec.serving.index import ApproximateIndex, ItemIndex, build_index
from peterrec.serving.requests import Question, Request

N, R = 3_000, 16
GENERATOR = torch.Generator().manual_seed(0)
WEIGHT, BIAS = torch.randn(N, R, generator=GENERATOR), torch.randn(N, generator=GENERATOR)
USERS = torch.randn(20, R, generator=GENERATOR)


def by_hand(user: int, k: int, excluded: list[int]) -> list[int]:
    scores = (WEIGHT @ USERS[user] + BIAS).tolist()
    return sorted((i for i in range(N) if i not in excluded), key=lambda i: -scores[i])[:k]


@pytest.mark.parametrize("kind", [ItemIndex, ApproximateIndex])
def test_the_best_come_first_without_those_seen(kind):
    index = kind(WEIGHT, BIAS)
    best = by_hand(0, 200, [])
    excluded = [best[:150], [], [best[3]] * 4, list(range(N))]
    results = index.search(USERS[[0, 0, 0, 0]], 30, excluded)
    for (places, scores), excluded_positions in zip(results, excluded, strict=True):
        right = by_hand(0, 30, excluded_positions)
        assert not set(places) & set(excluded_positions)
        assert len(places) == min(30, N - len(set(excluded_positions)))
        assert len(set(places) & set(right)) >= 0.9 * len(right)
        assert scores == sorted(scores, reverse=True)
        torch.testing.assert_close(torch.tensor(scores), WEIGHT[places] @ USERS[0] + BIAS[places])
    if kind is ItemIndex:  # the graph may miss an item: it is built by several threads, and not the same every time
        assert results[1][0] == best[:30]


def test_what_the_graph_looks_at_too_little_for_is_searched_exactly():
    index = ApproximateIndex(WEIGHT, 20 * BIAS)
    exact = ItemIndex(WEIGHT, 20 * BIAS)
    ((best, _),) = exact.search(USERS[:1], 2_000, [[]])
    excluded = [best[:1_500], [], best[:3]]
    results = index.search(USERS[[0, 0, 0]], 10, excluded)
    assert results[0][0] == exact.search(USERS[:1], 10, excluded[:1])[0][0]
    assert len(set(results[1][0]) & set(best[:10])) >= 9
    assert len(set(index.search(USERS[:1], 1_000, [[]])[0][0]) & set(best[:1_000])) == 1_000


def test_more_is_asked_than_there_is():
    for index in (ItemIndex(WEIGHT[:5], BIAS[:5]), ApproximateIndex(WEIGHT[:5], BIAS[:5])):
        ((places, scores),) = index.search(USERS[:1], 100, [[2]])
        assert sorted(places) == [0, 1, 3, 4]
        assert len(scores) == 4
        assert float(index.score(USERS[:1], 3)) == pytest.approx(float(WEIGHT[3] @ USERS[0] + BIAS[3]), abs=1e-5)


def test_a_small_catalogue_is_searched_exactly_and_a_large_one_says_what_it_finds(caplog):
    caplog.set_level("INFO", "peterrec")
    exact = build_index(WEIGHT, BIAS, EngineConfig(approximate_above=N), lambda: USERS)
    assert exact.describe() == {"kind": "exact", "recall": 1.0}
    assert caplog.messages == []
    index = build_index(WEIGHT, BIAS, EngineConfig(approximate_above=N - 1), lambda: USERS)
    described = index.describe()
    assert described["kind"] == "approximate"
    shares = [
        len(set(places) & set(by_hand(user, 10, []))) / 10
        for user, (places, _) in enumerate(index.search(USERS, 10, [[] for _ in USERS]))
    ]
    assert described["recall"] == pytest.approx(sum(shares) / len(shares))
    assert "3,000 targets" in caplog.messages[0]


def test_an_index_that_finds_too_little_is_not_used(monkeypatch, caplog):
    caplog.set_level("INFO", "peterrec")
    plain = ApproximateIndex.search
    monkeypatch.setattr(
        ApproximateIndex, "search", lambda self, *args: [(p[::2], s[::2]) for p, s in plain(self, *args)]
    )
    index = build_index(WEIGHT, BIAS, EngineConfig(approximate_above=10), lambda: USERS)
    assert type(index) is ItemIndex
    assert "every target is scored instead" in caplog.messages[0]


def test_without_the_library_it_is_said_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(ConfigError, match="peterrec\\[serve\\]"):
        ApproximateIndex(WEIGHT, BIAS)


def test_the_engine_measures_its_index_when_a_bundle_is_loaded(caplog):
    caplog.set_level("INFO", "peterrec")
    pretrained = tiny_pretrained()
    served = Engine(UserModel(pretrained), EngineConfig(approximate_above=50, least_recall=0.5))
    targets = tiny_catalogue(400, first=0)
    info = served.add(tiny_bundle(pretrained, targets=targets, name="shop"))
    assert info.index is not None
    assert info.index["kind"] == "approximate"
    assert 0.5 <= info.index["recall"] <= 1
    assert "400 targets" in caplog.messages[0]
    history = ["item-1", "item-2"]
    approximate_items = served.predict([Request(history, Question(["shop"], k=5))])[0].tasks["shop"].items
    exact = Engine(UserModel(pretrained))
    exact.add(tiny_bundle(pretrained, targets=targets, name="shop"))
    exact_items = exact.predict([Request(history, Question(["shop"], k=5))])[0].tasks["shop"].items
    assert (
        len(set(approximate_items) & set(exact_items)) >= 3
    )  # the graph is not the same every time: it is built by several threads
