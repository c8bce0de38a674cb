"""Numbers of a grid: over seeds, over users, by group of users; which methods are compared, and the verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from peterrec.report.grid import comparisons as comparing
from peterrec.report.grid.analysis import (
    NOT_PRETRAINED_ON,
    PRETRAINED_ON,
    Measured,
    QuestionResults,
    load,
    shown,
    strata_names,
)
from peterrec.report.grid.cells import CellKey, expected_cells
from report.grid.grid_cells import CLASSIFICATION, METHODS, RANKING, cell, grid_config, users_table

IDS = [f"u{at:03d}" for at in range(60)]
QUESTION: dict[str, Any] = {"name": "q", "text": "Which?", "methods": ["patch", "head", "majority"]}


def grid_of(
    right: Mapping[tuple[str, int], Sequence[float]],
    question: Mapping[str, Any] | None = None,
    metric: str = "accuracy",
    **about_users: Any,
) -> QuestionResults:
    """The results of a grid of one task, `demo/gender`; by method and seed, the value of each user."""
    tables = {
        CellKey("demo", "gender", method, seed): users_table(IDS, {metric: values}, **about_users)
        for (method, seed), values in right.items()
    }
    config = grid_config([QUESTION | dict(question or {})], tasks={"gender": CLASSIFICATION})
    grid = load(config, [cell(key, table, primary=metric) for key, table in tables.items()], tables.__getitem__)
    return QuestionResults(grid, config.questions[0])


def value_of(results: QuestionResults, metric: str = "", stratum: str = "") -> Measured | None:
    """The value of `patch` on `demo/gender`."""
    return results.column("demo/gender", metric, stratum).get("patch")


def share_of(right: int) -> list[float]:
    return [1.0] * right + [0.0] * (len(IDS) - right)


def test_mean_spread_and_interval() -> None:
    value = value_of(grid_of({("patch", seed): share_of(right) for seed, right in ((0, 30), (1, 36), (2, 45))}))
    assert value is not None
    assert value.seeds == pytest.approx({0: 0.5, 1: 0.6, 2: 0.75})
    assert value.mean == pytest.approx(1.85 / 3)
    assert value.sd == pytest.approx(statistics.stdev([0.5, 0.6, 0.75]))
    assert value.users == 60
    assert value.low is not None
    assert value.high is not None
    assert value.low < value.mean < value.high
    assert 0.1 < value.high - value.low < 0.3


def test_a_question_with_fewer_seeds_has_the_mean_of_those() -> None:
    right = {("patch", seed): share_of(30 + 6 * seed) for seed in range(3)}
    value = value_of(grid_of(right, {"seeds": (1,)}))
    assert value is not None
    assert (value.mean, value.sd, list(value.seeds)) == (0.6, None, [1])


def test_a_metric_that_is_no_sum_over_users_has_no_interval() -> None:
    key = CellKey("demo", "gender", "patch", 0)
    table = users_table(IDS, {"accuracy": share_of(30)})
    config = grid_config([QUESTION], tasks={"gender": CLASSIFICATION})
    cells = [cell(place, table, metrics={"auc": 0.7}) for place in (key, CellKey("demo", "gender", "head", 0))]
    results = QuestionResults(load(config, cells, lambda key: table), config.questions[0])
    value = value_of(results, "auc")
    assert value is not None
    assert (value.mean, value.low, value.high, value.users) == (0.7, None, None, None)
    assert results.metrics("demo/gender") == ["accuracy", "auc"]
    assert results.pair("demo/gender", 1.0, "patch", "head", "accuracy") is not None
    assert results.pair("demo/gender", 1.0, "patch", "head", "auc") is None


def test_groups_of_users_by_events_and_by_pre_training() -> None:
    events = [1] * 10 + [2] * 10 + [5] * 10 + [6] * 10 + [20] * 10 + [21] * 10
    right = [1.0] * 10 + [0.0] * 10 + [1.0] * 10 + [0.0] * 20 + [1.0] * 10
    in_pretraining = [True] * 15 + [False] * 45
    results = grid_of({("patch", 0): right}, {"sections": ["events"]}, events=events, seen=in_pretraining)
    assert strata_names(results.config) == ["1", "2\u20135", "6\u201320", "21+", PRETRAINED_ON, NOT_PRETRAINED_ON]
    strata = [value_of(results, stratum=name) for name in strata_names(results.config)]
    assert [(measured.mean, measured.users) for measured in strata if measured] == [
        (1.0, 10),
        (0.5, 20),
        (0.0, 20),
        (1.0, 10),
        (pytest.approx(10 / 15), 15),
        (pytest.approx(20 / 45), 45),
    ]


def test_an_empty_group_of_users_has_no_value() -> None:
    results = grid_of({("patch", 0): share_of(30)}, {"sections": ["events"]}, events=[1] * 60)
    assert value_of(results, stratum="1") is not None
    assert value_of(results, stratum="21+") is None


def test_the_order_of_cells_changes_nothing() -> None:
    right = {("patch", 0): share_of(30), ("head", 0): share_of(40), ("patch", 1): share_of(20)}
    first, second = (value_of(grid_of(cells)) for cells in (right, dict(reversed(list(right.items())))))
    assert first == second
    assert first is not None


def test_the_order_of_users_changes_nothing() -> None:
    rows = users_table(IDS, {"accuracy": [at**2 / 3600 for at in range(60)]})
    config = grid_config([QUESTION], tasks={"gender": CLASSIFICATION})
    key = CellKey("demo", "gender", "patch", 0)
    grids = [
        load(config, [cell(key, rows)], lambda _, t=table: t)
        for table in (rows, rows.sort_by([("user_id", "descending")]))
    ]
    first, second = (value_of(QuestionResults(grid, config.questions[0])) for grid in grids)
    assert first == second
    assert first is not None


def test_without_test_users_and_with_undefined_metrics_there_are_no_values() -> None:
    key = CellKey("demo", "gender", "patch", 0)
    table = users_table([], {"accuracy": []})
    config = grid_config([QUESTION], tasks={"gender": CLASSIFICATION})
    result = cell(key, users_table(["a"], {"accuracy": [1.0]}), metrics={"auc": float("nan"), "accuracy": float("nan")})
    results = QuestionResults(load(config, [result], {key: table}.__getitem__), config.questions[0])
    assert results.methods("demo/gender") == ["patch"]
    assert results.values == []


def test_the_order_of_metrics() -> None:
    names = ["mrr@5 sampled-99", "ndcg@5", "mrr@5", "hr@5 sampled-99", "hr@5"]
    assert shown(names) == ["hr@5", "mrr@5", "hr@5 sampled-99", "mrr@5 sampled-99"]
    assert shown(["log_loss", "auc", "accuracy", "macro_f1"]) == ["accuracy", "auc", "macro_f1", "log_loss"]


@pytest.mark.parametrize(
    ("patch", "head", "metric", "verdict"),
    [
        (50, 20, "accuracy", "better"),
        (20, 50, "accuracy", "worse"),
        (31, 30, "accuracy", "no clear difference"),
        (50, 20, "log_loss", "worse"),
        (20, 50, "log_loss", "better"),
    ],
)
def test_verdicts(patch: int, head: int, metric: str, verdict: str) -> None:
    right = {(name, seed): share_of(n) for name, n in (("patch", patch), ("head", head)) for seed in range(3)}
    (comparison,) = comparing.question_comparisons(grid_of(right, {"compare": [("patch", "head")]}, metric))
    assert comparison.verdict == verdict
    assert comparison.difference == pytest.approx((patch - head) / 60)
    assert (comparison.seeds, comparison.p_adjusted) == ((0, 1, 2), comparison.p)


def test_pairs_over_common_seeds_only() -> None:
    right = {
        ("patch", 0): share_of(60),
        ("patch", 1): share_of(40),
        ("head", 1): share_of(30),
        ("head", 2): share_of(0),
    }
    (comparison,) = comparing.question_comparisons(grid_of(right, {"compare": [("patch", "head")]}))
    assert comparison.seeds == (1,)
    assert comparison.difference == pytest.approx(10 / 60)
    alone = grid_of({("patch", 0): share_of(60), ("head", 1): share_of(30)}, {"compare": [("patch", "head")]})
    assert comparing.question_comparisons(alone) == []


def test_p_values_are_corrected_within_the_question() -> None:
    right = {("patch", 0): share_of(30), ("head", 0): share_of(24), ("majority", 0): share_of(21)}
    pairs = [("patch", "head"), ("patch", "majority"), ("head", "majority")]
    corrected = comparing.question_comparisons(grid_of(right, {"compare": pairs}))
    raw = sorted(comparison.p for comparison in corrected)
    assert sorted(comparison.p_adjusted for comparison in corrected)[0] == pytest.approx(3 * raw[0])
    alone = grid_of(right, {"compare": [("patch", "head")]})
    (comparison,) = comparing.question_comparisons(alone)
    assert comparison.verdict == "better"  # p = 0.03, which does not last among three
    assert corrected[0].p == comparison.p
    assert corrected[0].p_adjusted > 0.05
    assert corrected[0].verdict == "no clear difference"


def test_the_constant_baseline_is_that_of_the_kind_of_task() -> None:
    config = grid_config([QUESTION])
    assert comparing.constant_baseline(config, "demo/gender") == "majority"
    assert comparing.constant_baseline(config, "demo/food") == "popularity"
    methods = {name: method for name, method in METHODS.items() if name != "popularity"}
    assert comparing.constant_baseline(grid_config([QUESTION], methods=methods), "demo/food") is None


def test_baselines_are_expected_only_where_they_suit() -> None:
    question = QUESTION | {"methods": ["patch", "majority", "popularity", "conet"], "label_fractions": (0.1, 1.0)}
    methods = METHODS | {"conet": {"baseline": "conet"}}
    tasks = {"gender": CLASSIFICATION, "food": RANKING}
    config = grid_config([question, question | {"name": "again"}], tasks=tasks, methods=methods, seeds=(0, 4))
    keys = expected_cells(config)
    assert len(keys) == len(set(keys)) == (2 + 3) * 2 * 2
    assert {key.method for key in keys if key.task == "gender"} == {"patch", "majority"}
    assert {key.method for key in keys if key.task == "food"} == {"patch", "popularity", "conet"}


def test_a_patch_is_told_by_its_strategy() -> None:
    methods = {"plain": {"adapt": {}}, "wide": {"adapt": {"strategy": "patch", "patch": {"bottleneck": 64}}}}
    config = grid_config([QUESTION], methods=METHODS | methods)
    patches = [name for name in config.methods if comparing.is_patch(config, name)]
    assert patches == ["patch", "plain", "wide"]
