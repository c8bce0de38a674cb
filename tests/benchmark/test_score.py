"""Scores that anybody hands in: each fault is refused with its place, and metrics are those worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peterrec.benchmark.protocol import BenchmarkTask, history_file
from peterrec.benchmark.score import BenchmarkScores, score_benchmark
from peterrec.errors import ConfigError, DataError, PeterRecError, TaskError
from peterrec.evaluation.seed_bootstrap import holm

from .conftest import Built

CLASSES, RANKING = "half-labels-10-first-5", "next-item-first-5"
Rows = list[dict[str, Any]]


def users_of(built: Built, task: BenchmarkTask) -> list[str]:
    return list(dict.fromkeys(row["user_id"] for row in built.rows(history_file("test", task.first_events))))


def constant(built: Built, task: str = CLASSES) -> Rows:
    classes = built.opened.task(task).classes
    return [
        {"user_id": user} | dict.fromkeys(classes, 1 / len(classes))
        for user in users_of(built, built.opened.task(task))
    ]


def perfect(built: Built, task: str = CLASSES) -> Rows:
    question = built.opened.task(task)
    answers = built.opened.answers(question)
    users = users_of(built, question)
    if question.kind == "ranking":
        return [{"user_id": user, "items": [answers[user]] if user in answers else []} for user in users]
    first = question.classes[0]
    return [{"user_id": u} | {name: float(name == answers.get(u, first)) for name in question.classes} for u in users]


def popular(built: Built) -> Rows:
    catalogue = [row["item_id"] for row in built.rows("items.parquet")]
    histories = built.opened.histories("test", 5)
    return [
        {"user_id": user, "items": [item for item in catalogue if item not in history][:10]}
        for user, history in histories.items()
    ]


def write(path: Path, rows: Rows | pa.Table) -> Path:
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), path)
    return path


def score(built: Built, tmp_path: Path, task: str, **files: Rows | pa.Table) -> BenchmarkScores:
    return score_benchmark(
        built.folder, task, [write(tmp_path / f"{name}.parquet", rows) for name, rows in files.items()]
    )


def values(result: BenchmarkScores, place: int = 0) -> dict[str, float]:
    return {name: estimate.value for name, estimate in result.methods[place].values.items()}


# ---------------------------------------------------------------- by hand


def test_a_perfect_and_a_constant_answer(built: Built, tmp_path: Path) -> None:
    labels = [row["half"] for row in built.rows("test_answers.parquet") if row["half"]]
    result = score(built, tmp_path, CLASSES, perfect=perfect(built), constant=constant(built))
    assert 0 < len(labels) < len(built.rows("test_answers.parquet"))  # some test users have no label: not judged
    assert (result.users, result.metrics) == (len(labels), ["accuracy", "macro_f1", "log_loss", "auc"])
    assert values(result) == pytest.approx({"accuracy": 1, "macro_f1": 1, "log_loss": 0, "auc": 1})
    share = labels.count("a") / len(labels)  # equal probabilities: the first class
    f1 = 2 * share / (1 + share) / 2  # of the other class it is 0
    by_hand = {"accuracy": share, "macro_f1": f1, "log_loss": math.log(2), "auc": 0.5}
    assert values(result, 1) == pytest.approx(by_hand)
    low, high = result.methods[1].values["accuracy"].low, result.methods[1].values["accuracy"].high
    assert low is not None
    assert high is not None
    assert low < share < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / len(labels)), rel=0.2)
    difference = result.comparisons[0]
    assert (difference.method, difference.reference, difference.metric) == ("perfect", "constant", "accuracy")
    assert difference.difference == pytest.approx(1 - share)
    assert {row.metric: row.verdict for row in result.comparisons} == dict.fromkeys(result.metrics, "better")


def test_a_ranking_by_hand(built: Built, tmp_path: Path) -> None:
    answers = built.opened.answers(built.opened.task(RANKING))
    rows = popular(built)
    for row in rows:  # the target third, wherever it was
        target = answers.get(row["user_id"])
        row["items"] = [item for item in row["items"] if item != target][:9]
        row["items"].insert(2, target) if target else None
    result = score(built, tmp_path, RANKING, third=rows, perfect=perfect(built, RANKING), popular=popular(built))
    assert result.users == len(answers) < len(rows)
    assert values(result) == pytest.approx({"hr@10": 1, "mrr@10": 1 / 3, "ndcg@10": 0.5})
    assert values(result, 1) == pytest.approx({"hr@10": 1, "mrr@10": 1, "ndcg@10": 1})
    ranks = [r["items"].index(answers[r["user_id"]]) + 1 if answers.get(r["user_id"]) in r["items"] else 0
             for r in popular(built) if r["user_id"] in answers]  # fmt: skip
    reciprocal = [1 / rank if rank else 0 for rank in ranks]
    assert values(result, 2)["mrr@10"] == pytest.approx(np.mean(reciprocal))
    assert values(result, 2)["hr@10"] == pytest.approx(np.mean(np.array(ranks) > 0))
    pairs = [(row.method, row.reference) for row in result.comparisons if row.metric == "mrr@10"]
    assert pairs == [("third", "perfect"), ("third", "popular"), ("perfect", "popular")]
    equal = next(row for row in result.comparisons if (row.metric, row.reference) == ("hr@10", "perfect"))
    assert (equal.difference, equal.p, equal.p_adjusted, equal.verdict) == (0, 1, 1, "no clear difference")


def test_p_values_are_holms_over_the_pairs_of_a_metric(built: Built, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    files: dict[str, Rows] = {"perfect": perfect(built)}
    for number in range(3):
        a = rng.random(len(files["perfect"]))
        files[f"random-{number}"] = [
            row | {"a": float(p), "b": float(1 - p)} for row, p in zip(files["perfect"], a, strict=True)
        ]
    result = score(built, tmp_path, CLASSES, **files)
    for metric in result.metrics:
        rows = [row for row in result.comparisons if row.metric == metric]
        assert len(rows) == 6
        assert [row.p_adjusted for row in rows] == holm([row.p for row in rows])
        assert all(row.p_adjusted > row.p for row in rows if row.p < 0.1)
        for row in rows:
            clear = row.p_adjusted < 0.05 and not row.low <= 0 <= row.high  # type: ignore[operator]
            assert (row.verdict == "no clear difference") != clear
    assert {row.verdict for row in result.comparisons if "perfect" not in (row.method, row.reference)} == {
        "no clear difference"
    }


def test_a_verdict_needs_the_corrected_p_value_too(built: Built, tmp_path: Path) -> None:
    answers = built.opened.answers(built.opened.task(CLASSES))
    rows = constant(built)
    wrong = [place for place, row in enumerate(rows) if answers.get(row["user_id"]) == "b"]
    better = [row | {"a": 0.4, "b": 0.6} if place in wrong[:5] else row for place, row in enumerate(rows)]
    result = score(built, tmp_path, CLASSES, better=better, constant=rows)
    accuracy = next(row for row in result.comparisons if row.metric == "accuracy")
    assert accuracy.low is not None
    assert accuracy.low > 0
    assert accuracy.p_adjusted == 2**-4  # of a sign test of five users who differ
    assert accuracy.verdict == "no clear difference"


def test_the_result_is_the_same_in_json_and_again(built: Built, tmp_path: Path) -> None:
    paths = [write(tmp_path / "x.parquet", constant(built)), write(tmp_path / "y.parquet", perfect(built))]
    result = score_benchmark(built.folder, CLASSES, paths, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == result.to_json()
    assert score_benchmark(built.folder, CLASSES, paths) == result
    assert result.fingerprint == built.opened.description["fingerprint"]


@given(seed=st.integers(0, 1000))
def test_any_order_of_rows_and_columns_scores_alike(
    built: Built, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("order")
    rows = [row | {"a": float(p), "b": float(1 - p)} for row, p in zip(constant(built), rng.random(999), strict=False)]
    shuffled = [dict(reversed(rows[place].items())) for place in rng.permutation(len(rows))]
    result = score(built, folder, CLASSES, plain=rows, shuffled=shuffled)
    assert values(result) == values(result, 1)


# ---------------------------------------------------------------- refusals


def changed(place: int, **columns: Any) -> Callable[[Rows], Rows]:
    return lambda rows: [row | columns if at == place else row for at, row in enumerate(rows)]


def without(name: str) -> Callable[[Rows], Rows]:
    return lambda rows: [{key: value for key, value in row.items() if key != name} for row in rows]


FAULTS: list[tuple[str, Callable[[Rows], Rows | pa.Table], str]] = [
    (CLASSES, lambda rows: rows[1:], r"lacks 1 of \d+ test users, such as 'u\d+'"),
    (CLASSES, lambda rows: [*rows, rows[4]], r"user 'u\d+'\): the user stands in row 4 already"),
    (CLASSES, changed(3, user_id="nobody"), r"row 3 \(counted from 0; user 'nobody'\): no test user of the task"),
    (CLASSES, changed(3, user_id=None), r"row 3 .*the user_id is missing"),
    (CLASSES, changed(5, a=math.nan), r"row 5 .*missing, not a number or infinite \(a: nan, b: 0\.5\)"),
    (CLASSES, changed(5, b=None), r"row 5 .*missing, not a number or infinite"),
    (CLASSES, changed(5, b=math.inf), r"row 5 .*missing, not a number or infinite"),
    (CLASSES, changed(6, a=-0.25, b=1.25), r"row 6 .*a probability is negative \(a: -0\.25, b: 1\.25\)"),
    (CLASSES, changed(7, a=0.5011), r"row 7 .*do not sum to 1"),
    (CLASSES, changed(0, c=0.0), r"has columns that are no classes: c"),
    (CLASSES, without("b"), r"lacks the columns: b"),
    (CLASSES, without("user_id"), r"lacks the columns: user_id"),
    (CLASSES, lambda rows: [row | {"a": "much", "b": "little"} for row in rows], r"a probability is no number"),
    (RANKING, lambda rows: rows[1:], r"lacks 1 of \d+ test users"),
    (RANKING, changed(2, items=["t9999"]), r"row 2 .*the item 't9999' is unknown"),
    (RANKING, changed(2, items=None), r"row 2 .*the list, or an item of it, is missing"),
    (RANKING, changed(2, items=["s0001", None]), r"row 2 .*the list, or an item of it, is missing"),
    (RANKING, lambda rows: changed(2, items=rows[2]["items"][:3] * 2)(rows), r"row 2 .*stands in it 2 times"),
    (RANKING, changed(2, items=[str(n) for n in range(11)]), r"row 2 .*there are 11 items"),
    (RANKING, without("items"), r"lacks the columns: items"),
    (RANKING, lambda rows: [row | {"items": "s0001"} for row in rows], r"the column items is of type string"),
]


@pytest.mark.parametrize(("task", "fault", "message"), FAULTS, ids=[message for _, _, message in FAULTS])
def test_a_fault_is_refused_with_its_place(
    built: Built, tmp_path: Path, task: str, fault: Callable[[Rows], Rows | pa.Table], message: str
) -> None:
    rows = constant(built) if task == CLASSES else popular(built)
    score(built, tmp_path, task, sound=rows)
    with pytest.raises(DataError, match=message) as caught:
        score(built, tmp_path, task, sound=rows, faulty=fault(rows))
    assert caught.value.path == tmp_path / "faulty.parquet"
    assert caught.value.remedy


def test_an_item_of_the_history_is_refused(built: Built, tmp_path: Path) -> None:
    own_items = built.opened.histories("test", 5)
    rows = popular(built)
    rows[1]["items"] = [own_items[rows[1]["user_id"]][0]]
    with pytest.raises(DataError, match=r"row 1 .*is in the history"):
        score(built, tmp_path, RANKING, faulty=rows)


def test_what_can_be_rounded_is_not_refused(built: Built, tmp_path: Path) -> None:
    score(built, tmp_path, CLASSES, near=[row | {"a": 0.5009} for row in constant(built)])


def test_files_and_tasks_that_are_none(built: Built, tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", constant(built))
    (tmp_path / "text.parquet").write_text("user_id,a,b\n")
    refusals: list[tuple[Any, str, Any, type[PeterRecError], str]] = [
        (built.folder, "half", path, TaskError, "has no task 'half' .it has: cluster-labels-10-first-5, "),
        (built.folder, CLASSES, [], ConfigError, "name one or more files"),
        (built.folder, CLASSES, [path, path], ConfigError, "each with a name of its own"),
        (built.folder, CLASSES, tmp_path / "no.parquet", DataError, "there is no such file"),
        (built.folder, CLASSES, tmp_path / "text.parquet", DataError, "is not a readable Parquet file"),
        (built.data, CLASSES, path, PeterRecError, r"benchmark\.json: is missing"),
    ]
    for folder, task, scores, error, message in refusals:
        with pytest.raises(error, match=message):
            score_benchmark(folder, task, scores, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
