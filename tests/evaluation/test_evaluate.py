"""Whole evaluations of small tasks: the table, the comparisons, the sentence and the JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from peterrec.config import EvaluateConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.sequences import Sequences
from peterrec.errors import ArtifactError, DataError, TaskError
from peterrec.evaluation.evaluate import evaluate_task
from peterrec.evaluation.results import TaskEvaluation

CONFIG = EvaluateConfig(bootstrap=200)
MakeTask = Callable[..., Task]


def right_classes(task: Task, sure: float = 0.9) -> np.ndarray:
    labels, classes = task.part("test").labels, len(task.class_names)
    probabilities = np.full((len(labels), classes), (1 - sure) / (classes - 1))
    probabilities[np.arange(len(labels)), labels] = sure
    return probabilities


def right_scores(task: Task) -> np.ndarray:
    part = task.part("test")
    scores = np.random.default_rng(0).random((len(part), len(task.targets)))
    scores[part.targets.repeat(), part.targets.items] += 1
    return scores


def verdicts(evaluation: TaskEvaluation, method: str, metric: str) -> dict[str, str]:
    return {v.reference: v.verdict for v in evaluation.comparisons if (v.method, v.metric) == (method, metric)}


def test_classification_table(class_task: MakeTask, fixed: Callable, logged: list[str]) -> None:
    task = class_task()
    uniform = np.full((200, 3), 1 / 3)
    scorers = {"patch": fixed(right_classes(task)), "head": fixed(uniform, trainable=3, trainable_fraction=0.1)}
    result = evaluate_task(task, scorers, CONFIG)
    assert (result.task, result.kind, result.users, result.rows) == ("age", "classification", 200, 200)
    assert result.candidates is None
    assert result.metrics == ["accuracy", "macro_f1", "log_loss", "ece"]
    assert (result.primary, result.lower_is_better) == ("accuracy", ["log_loss", "ece"])
    regressions = [f"{features} + logistic regression" for features in ("tf-idf", "64 factors", "256 factors")]
    names = ["patch", "head", "majority", "history length", *regressions]
    assert [method.name for method in result.methods] == names
    assert [method.family for method in result.methods] == ["model"] * 2 + ["baseline"] * 5
    assert (result.methods[1].trainable, result.methods[1].trainable_fraction) == (3, 0.1)
    assert result.methods[4].trainable is None
    assert result.methods[0].settings == {"strategy": "patch"}
    perfect = result.methods[0].values
    assert (perfect["accuracy"].low, perfect["accuracy"].value, perfect["accuracy"].high) == (1.0, 1.0, 1.0)
    assert perfect["log_loss"].value == pytest.approx(-np.log(0.9))
    for method in result.methods:
        for value in method.values.values():
            assert value.low - 1e-12 <= value.value <= value.high + 1e-12
    assert set(verdicts(result, "patch", "accuracy").values()) == {"better"}
    assert verdicts(result, "head", "accuracy")["patch"] == "worse"
    assert list(verdicts(result, "head", "accuracy")) == [name for name in names if name != "head"]
    assert logged[0] == "age: fitting baseline: majority"
    assert "age: scoring 200 test users: patch" in logged


@pytest.mark.slow
def test_the_sentence_says_plainly_what_is_not_beaten(class_task: MakeTask, fixed: Callable) -> None:
    task = class_task()
    result = evaluate_task(task, {"patch": fixed(np.full((200, 3), 1 / 3))}, CONFIG)
    assert "worse than" in result.sentence
    assert "So patch does not beat" in result.sentence
    assert "256 factors + logistic regression on accuracy." in result.sentence
    perfect = evaluate_task(task, {"patch": fixed(right_classes(task))}, CONFIG)
    assert perfect.sentence.startswith("On accuracy, patch (1.000) is better than majority (")
    assert "does not beat" not in perfect.sentence


def test_binary_tasks_are_compared_by_auc_too(class_task: MakeTask, fixed: Callable) -> None:
    task = class_task(classes=2)
    result = evaluate_task(task, {"patch": fixed(right_classes(task))}, CONFIG)
    assert result.metrics[-2:] == ["auc", "ece"]
    assert {v.metric for v in result.comparisons} == {"accuracy", "auc"}
    assert set(verdicts(result, "patch", "auc").values()) == {"better"}
    assert "On auc, patch (1.000)" in result.sentence


def test_ranking_table(rank_task: MakeTask, fixed: Callable) -> None:
    task = rank_task()
    scores = right_scores(task)
    result = evaluate_task(task, {"patch": fixed(scores), "constant": fixed(np.zeros_like(scores))}, CONFIG)
    assert (result.kind, result.users, result.candidates, result.primary) == ("ranking", 300, 30, "mrr@5")
    assert result.rows == len(task.part("test").targets.items) > 300
    full = ["hr@5", "mrr@5", "ndcg@5"]
    assert result.metrics == full + [f"{name} sampled-99" for name in full]
    assert {value.value for value in result.methods[0].values.values()} == {1.0}
    constant = result.methods[1].values["hr@5"]
    assert 5 / 30 <= constant.value <= 5 / 29, "5 of 29 or 30 candidates: chance"
    assert set(verdicts(result, "patch", "mrr@5").values()) == {"better"}
    assert set(verdicts(result, "constant", "mrr@5").values()) == {"worse"}


@pytest.mark.slow
def test_test_labels_change_no_baseline(class_task: MakeTask, make_class_part: Callable[..., TaskPart]) -> None:
    """Flip every test label: what the baselines answer, hence how sure they are, must stay the same."""
    part = make_class_part(200, 2)
    flipped = TaskPart(part.user_ids, part.sequences, labels=2 - part.labels)
    first = evaluate_task(class_task(test=part), {}, CONFIG)
    second = evaluate_task(class_task(test=flipped), {}, CONFIG)
    assert [m.settings for m in first.methods] == [m.settings for m in second.methods]
    assert first.methods[2].values["accuracy"].value > 0.5 > second.methods[2].values["accuracy"].value


def test_batch_size_and_method_order_change_nothing(rank_task: MakeTask, fixed: Callable) -> None:
    task = rank_task()
    scorers = {"a": fixed(right_scores(task)), "b": fixed(np.random.default_rng(1).random((300, 30)))}
    config = CONFIG.model_copy(update={"sampled_negatives": 7, "baselines": False})
    result = evaluate_task(task, scorers, config)
    swapped = dict(reversed(scorers.items()))
    two = evaluate_task(task, swapped, config.model_copy(update={"batch_size": 11}))
    assert result.methods[1] == two.methods[0]
    assert result.methods[0] == two.methods[1]
    assert result.metrics[-1] == "ndcg@5 sampled-7"


def test_two_methods_with_the_same_scores_get_the_same_numbers(rank_task: MakeTask, fixed: Callable) -> None:
    """Also in the sampled ranking: both must have met the same negatives."""
    task = rank_task()
    scores = np.random.default_rng(1).random((300, 30))
    config = CONFIG.model_copy(update={"sampled_negatives": 7, "baselines": False})
    result = evaluate_task(task, {"a": fixed(scores), "b": fixed(scores.copy())}, config)
    assert result.methods[0].values == result.methods[1].values
    assert {v.difference for v in result.comparisons} == {0.0}


def test_without_baselines_and_alone(class_task: MakeTask, fixed: Callable) -> None:
    task, config = class_task(), CONFIG.model_copy(update={"baselines": False})
    result = evaluate_task(task, {"patch": fixed(right_classes(task))}, config)
    assert result.comparisons == []
    assert result.sentence == "On accuracy, patch is 1.000; there is nothing to compare it with."
    with pytest.raises(TaskError, match="nothing to evaluate"):
        evaluate_task(task, {}, config)


def test_a_skipped_baseline_is_named(rank_task: MakeTask, fixed: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peterrec.evaluation.baselines.ridge.MAX_SIDE", 3)
    task = rank_task()
    result = evaluate_task(task, {"patch": fixed(right_scores(task))}, CONFIG)
    assert "Ridge across domains was skipped" in result.sentence
    assert "ridge across domains" not in [method.name for method in result.methods]


def test_json_round_trip(class_task: MakeTask, fixed: Callable) -> None:
    task = class_task(classes=2)
    result = evaluate_task(task, {"patch": fixed(right_classes(task))}, CONFIG)
    tree = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert TaskEvaluation.from_json(tree) == result
    assert tree["protocol"] == {"k": 5, "sampled_negatives": 99, "bootstrap": 200, "confidence": 0.95, "seed": 0}
    assert set(tree["methods"][0]["values"]["accuracy"]) == {"value", "low", "high"}
    assert set(tree["verdicts"][0]) == {"method", "reference", "metric", "difference", "low", "high", "verdict"}
    del tree["methods"][0]["values"]
    with pytest.raises(ArtifactError, match=r"methods\.0\.values"):
        TaskEvaluation.from_json(tree)


def test_mistakes_are_named(
    class_task: MakeTask, rank_task: MakeTask, fixed: Callable, make_class_part: Callable[..., TaskPart]
) -> None:
    task = class_task()
    config = CONFIG.model_copy(update={"baselines": False})
    with pytest.raises(DataError, match=r"method 'bad': .*not finite"):
        evaluate_task(task, {"bad": fixed(np.full((200, 3), np.nan))}, config)
    with pytest.raises(DataError, match="gives 4 classes where the task has 3"):
        evaluate_task(task, {"bad": fixed(np.full((200, 4), 0.25))}, config)
    with pytest.raises(TaskError, match="name of a baseline"):
        evaluate_task(task, {"majority": fixed(right_classes(task))}, CONFIG)
    with pytest.raises(TaskError, match="cannot score a classification task"):
        evaluate_task(task, {"bad": object()}, config)
    with pytest.raises(TaskError, match="no test users"):
        evaluate_task(class_task(test=make_class_part(0, 0)), {"bad": fixed(np.empty((0, 3)))}, config)
    ranking = rank_task()
    with pytest.raises(DataError, match=r"method 'bad': gives scores of shape \(256, 31\) for 30 targets"):
        evaluate_task(ranking, {"bad": fixed(np.zeros((300, 31)))}, config)


@pytest.mark.slow
def test_histories_may_be_empty(class_task: MakeTask, make_class_part: Callable[..., TaskPart]) -> None:
    part = make_class_part(60, 2)
    nobody = TaskPart(part.user_ids, Sequences.from_rows([[]] * 60), labels=part.labels)
    result = evaluate_task(class_task(test=nobody), {}, CONFIG)
    assert len(result.methods) == 5
