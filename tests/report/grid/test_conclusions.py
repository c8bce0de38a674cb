"""Sentences say what the numbers say, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from peterrec.report.formatting import counted, p_value, share
from peterrec.report.grid.analysis import load
from peterrec.report.grid.cells import CellKey
from peterrec.report.grid.conclusions import Answer, conclude
from report.grid.grid_cells import CLASSIFICATION, METHODS, cell, grid_config, users_table

IDS = [f"u{at:03d}" for at in range(100)]
MANY = {"patch": 80, "patch-random": 60, "majority": 50, "tfidf": 90}


def answers(
    right: Mapping[tuple[str, str, int], int | Sequence[float]],
    *questions: Mapping[str, Any],
    shares: Sequence[float] = (1.0,),
    **columns: Mapping[str, Sequence[float]],
) -> list[Answer]:
    """Answers from how many of 100 users each (task, method, seed) gets right; `columns` are metrics by method."""
    tables = {}
    for (task, method, seed), values in right.items():
        accuracy = [1.0] * values + [0.0] * (100 - values) if isinstance(values, int) else list(values)
        metrics = {name: list(by_method[method]) for name, by_method in columns.items() if method in by_method}
        for entry in shares:
            tables[CellKey("demo", task, method, seed, entry)] = users_table(IDS, {"accuracy": accuracy, **metrics})
    tasks = {task: CLASSIFICATION for task, *_ in right}
    config = grid_config([{"name": f"q{at}", "text": "?", **entry} for at, entry in enumerate(questions)], tasks=tasks)
    return conclude(load(config, [cell(key, table) for key, table in tables.items()], tables.__getitem__))


def plain(sentences: Sequence[str]) -> list[str]:
    return [sentence.replace("\u00a0", " ") for sentence in sentences]


def test_better_worse_and_neither() -> None:
    right = {(task, method, seed): n for task in ("age", "job") for method, n in MANY.items() for seed in range(3)}
    right |= {("same", method, seed): 60 for method in ("patch", "patch-random") for seed in range(3)}
    pairs = [["patch", "patch-random"], ["patch-random", "patch"]]
    (answer,) = answers(right, {"methods": ["patch", "patch-random"], "compare": pairs})
    texts = plain(answer.sentences)
    assert texts[0] == (
        "patch against patch-random: better on 2 of 3 tasks (demo/age and demo/job), "
        "no clear difference on 1 (demo/same)."
    )
    assert texts[1].startswith(
        "patch-random against patch: no clear difference on 1 of 3 tasks (demo/same), worse on 2"
    )
    (line,) = (sentence for sentence in texts if sentence.startswith("On demo/age, patch ("))
    assert line.startswith("On demo/age, patch (accuracy 0.800) is better than patch-random (0.600): +0.200 [+0.1")
    assert line.endswith(", p < 0.001.")
    assert any(
        "On demo/age, patch-random (accuracy 0.600) is worse than patch (0.800): \u22120.200 [" in sentence
        for sentence in texts
    )
    equal = "On demo/same, there is no clear difference between patch (accuracy 0.600) and patch-random (0.600)"
    assert f"{equal}: +0.000 [+0.000, +0.000], p = 1." in texts
    assert answer.short.replace("\u00a0", " ") == " ".join(texts[:2])


def test_nothing_can_be_told_where_nobody_beats_the_constant_answer() -> None:
    right = {("noise", method, 0): n for method, n in (("patch", 52), ("patch-random", 48), ("majority", 50))}
    right |= {("age", method, 0): n for method, n in MANY.items()}
    compared, best = answers(
        right,
        {"methods": ["patch", "patch-random"], "compare": [["patch", "patch-random"]]},
        {"methods": ["patch", "patch-random", "majority"]},
    )
    nothing = "Nothing can be told about noise from these histories: no method is better than majority by accuracy."
    for answer in (compared, best):
        assert plain(answer.sentences).count(nothing) == 1
        assert not any("about age" in sentence for sentence in answer.sentences)
    assert best.short == "Best: patch on demo/age. Nothing can be told about noise."
    assert not any("On demo/noise" in sentence and "best" in sentence for sentence in best.sentences)


def test_a_task_is_not_called_noise_if_another_question_has_a_method_that_beats_the_constant_answer() -> None:
    right = {("age", "patch", 0): 80, ("age", "head", 0): 50, ("age", "scratch", 0): 50, ("age", "majority", 0): 50}
    first, _ = answers(right, {"methods": ["head", "scratch"]}, {"methods": ["patch"]})
    assert not any("Nothing can be told" in sentence for sentence in first.sentences)


def test_a_task_that_only_another_metric_tells_about_is_not_called_noise() -> None:
    losses = {"patch": [0.5, 0.7] * 50, "majority": [0.69, 0.9] * 50}
    right = {("rare", "patch", 0): 90, ("rare", "majority", 0): 90}
    (answer,) = answers(right, {"methods": ["patch", "majority"]}, log_loss=losses)
    assert "On demo/rare, no method is better than majority by accuracy; by log-loss, patch is." in answer.sentences


def test_a_baseline_that_beats_the_patch_is_named() -> None:
    right = {("age", method, 0): n for method, n in MANY.items()}
    (answer,) = answers(right, {"methods": list(MANY), "compare": [["patch", "patch-random"]]})
    assert "patch against tf-idf + logistic regression: worse on demo/age." in plain(answer.sentences)
    assert any(
        "patch (accuracy 0.800) is worse than tf-idf + logistic regression (0.900)" in s for s in answer.sentences
    )
    assert {comparison.role for comparison in answer.further} == {"constant", "baseline"}


def test_without_pairs_the_best_is_named_and_who_is_not_clearly_worse() -> None:
    right = {("age", "patch", 0): 80, ("age", "head", 0): 79, ("age", "scratch", 0): 50}
    (answer,) = answers(right, {"methods": ["scratch", "head", "patch"]})
    assert answer.sentences == ["On demo/age, patch has the best accuracy (0.800); not clearly worse: head."]
    (clear,) = answers(right, {"methods": ["scratch", "patch"]})
    assert clear.sentences == ["On demo/age, patch has the best accuracy (0.800); all others are clearly worse."]
    (alone,) = answers(right, {"methods": ["patch"]})
    assert "no other method" in alone.sentences[0]


def test_smaller_shares_are_told_together() -> None:
    right = {("age", "patch", 0): 80, ("age", "head", 0): 60}
    question = {"methods": ["patch", "head"], "compare": [["patch", "head"]], "label_fractions": (0.05, 0.1, 1.0)}
    (answer,) = answers(right, question, shares=(0.05, 0.1, 1.0))
    texts = plain(answer.sentences)
    assert "With fewer labels on demo/age, patch against head: better at 5 % and 10 %." in texts
    assert sum(sentence.startswith("On demo/age") for sentence in texts) == 1


def test_missing_and_contrary_seeds_are_told() -> None:
    right = {("age", "patch", seed): n for seed, n in ((0, 90), (1, 58))}
    right |= {("age", "head", seed): 60 for seed in (0, 1, 2)}
    (answer,) = answers(right, {"methods": ["patch", "head"], "compare": [["patch", "head"]]})
    note = "(2 of 3 seeds only; the other way round with 1 of 2 seeds)."
    assert any(sentence.endswith(note) for sentence in answer.sentences)
    apart = {("age", "patch", 0): 80, ("age", "head", 1): 60}
    (answer,) = answers(apart, {"methods": ["patch", "head"], "compare": [["patch", "head"]]})
    assert answer.sentences == ["patch against head: not compared on demo/age, where no seed has both."]


def test_a_metric_that_says_the_contrary_is_named() -> None:
    losses = {"patch": [0.9, 1.0] * 50, "head": [0.5, 0.6] * 50}
    right = {("age", "patch", 0): 80, ("age", "head", 0): 60}
    (answer,) = answers(right, {"methods": ["patch", "head"], "compare": [["patch", "head"]]}, log_loss=losses)
    assert "By log-loss it is the other way round: there, patch is worse than head." in answer.sentences


def test_without_cells_nothing_is_claimed() -> None:
    config = grid_config([{"name": "q", "text": "?", "methods": list(METHODS), "compare": [["patch", "head"]]}])
    (answer,) = conclude(load(config, [], lambda key: pytest.fail(str(key))))
    assert answer.short == "Not computed yet."
    assert answer.comparisons == answer.further == []


def test_phrases() -> None:
    assert counted({"better": ["a"]}, 1) == "better on a"
    assert counted({"better": ["a", "b"]}, 2) == "better on all 2 tasks"
    assert counted({"better": ["a", "b"], "worse": ["c"]}, 3) == "better on 2 of 3 tasks (a and b), worse on 1 (c)"
    assert counted({}, 0) == ""
    phrases = [p_value(value).replace("\u00a0", " ") for value in (0.0, 0.0011, 0.0496, 1.0)]
    assert phrases == ["p < 0.001", "p = 0.001", "p = 0.050", "p = 1"]
    assert share(0.005).replace("\u00a0", " ") == "0.5 %"
