"""Best values and verdict marks, against what the evaluation says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from peterrec.evaluation.results import Comparison, TaskEvaluation
from peterrec.report.run.record import RunRecord, TaskRecord
from peterrec.report.run.tables import (
    against_baselines,
    beats_all,
    best_baseline,
    best_of,
    compared,
    differences,
    headline,
    method_rows,
    strategies,
)

MakeEvaluation = Callable[..., TaskEvaluation]


@pytest.fixture
def tasks(record: RunRecord) -> list[TaskRecord]:
    return record.tasks


def test_best_is_the_highest_or_for_a_loss_the_lowest(tasks: list[TaskRecord]) -> None:
    returns = tasks[0].evaluation
    assert best_of(returns, "accuracy") == {"patch"}
    assert best_of(returns, "log_loss") == {"tf-idf + logistic regression"}


def test_equal_values_are_all_best_and_one_alone_is_not(make_evaluation: MakeEvaluation) -> None:
    row = {"accuracy": (0.5, 0.1)}
    two = make_evaluation("t", "classification", "accuracy", {"patch": row, "majority": row}, users=9, outputs=2)
    assert best_of(two, "accuracy") == {"patch", "majority"}
    one = make_evaluation("t", "classification", "accuracy", {"patch": row}, users=9, outputs=2)
    assert best_of(one, "accuracy") == set()


def test_the_best_baseline_is_never_a_model_and_knows_which_way_is_better(tasks: list[TaskRecord]) -> None:
    ranking, returns = tasks[2].evaluation, tasks[0].evaluation
    assert [best_baseline(ranking, "mrr@5"), best_baseline(returns, "log_loss")] == [
        ranking.methods[4],
        returns.methods[4],
    ]
    models = ranking.model_copy(update={"methods": ranking.methods[:2]})
    assert best_baseline(models, "mrr@5") is None


def test_verdicts_are_about_the_primary_metric_and_auc_of_two_classes(tasks: list[TaskRecord]) -> None:
    assert [compared(task.evaluation) for task in tasks] == [["accuracy", "auc"], ["accuracy"], ["mrr@5"]]


def test_a_model_is_marked_by_what_it_does_not_beat(tasks: list[TaskRecord]) -> None:
    returns, age, shop = (task.evaluation for task in tasks)
    strongest = "tf-idf + logistic regression"
    found = {
        "returns": against_baselines(returns, "patch", "accuracy"),
        "auc": against_baselines(returns, "patch", "auc"),
        "age": against_baselines(age, "patch", "accuracy"),
        "shop": against_baselines(shop, "head", "mrr@5"),
    }
    assert {name: [(mark.css, mark.words) for mark in marks] for name, marks in found.items()} == {
        "returns": [("same", f"no clear difference from {strongest}")],
        "auc": [("better", "better than all 3 baselines")],
        "age": [("worse", f"worse than {strongest}")],
        "shop": [("same", "no clear difference from ridge across domains")],
    }


def test_losses_and_ties_are_both_marked(tasks: list[TaskRecord]) -> None:
    evaluation = tasks[0].evaluation
    verdicts = [
        one.model_copy(update={"verdict": {"majority": "worse", "history length": "better"}.get(one.rival, "worse")})
        if one.method == "patch"
        else one
        for one in evaluation.verdicts
    ]
    verdicts[1] = verdicts[1].model_copy(update={"verdict": "no clear difference"})
    marks = against_baselines(evaluation.model_copy(update={"verdicts": verdicts}), "patch", "accuracy")
    assert [mark.symbol for mark in marks] == ["▼", "≈"]


def test_beating_a_rival_model_is_not_beating_a_baseline(tasks: list[TaskRecord]) -> None:
    assert [beats_all(task.evaluation, "patch") for task in tasks] == [False, False, True]
    shop = tasks[2].evaluation
    against_head = [one for one in shop.verdicts if one.rival == "head"]
    only_models = shop.model_copy(update={"methods": shop.methods[:2], "verdicts": against_head})
    assert against_head[0].verdict == "better"
    assert beats_all(only_models, "patch") is None


def test_the_headline_has_a_row_for_each_task_and_compared_metric(tasks: list[TaskRecord]) -> None:
    rows = headline(tasks)
    assert [(row.task, row.metric, row.first, row.rows_of_task) for row in rows] == [
        ("returns", "accuracy", True, 2),
        ("returns", "AUC", False, 2),
        ("age", "accuracy", True, 1),
        ("new-department", "MRR@5", True, 1),
    ]
    age = rows[2]
    assert age.cells[0] is not None
    assert age.baseline is not None
    assert (age.cells[0].value, age.cells[0].limits, age.cells[0].best) == ("0.287", "0.281 to 0.293", False)
    assert (age.baseline.value, age.baseline.name, age.baseline.best) == ("0.298", "tf-idf + logistic regression", True)


def test_a_strategy_that_was_not_tried_on_a_task_has_no_cell(tasks: list[TaskRecord]) -> None:
    shop = tasks[2].evaluation
    alone = shop.model_copy(update={"methods": [shop.methods[0], *shop.methods[2:]]})
    changed = [tasks[0], tasks[2].model_copy(update={"evaluation": alone})]
    assert strategies(changed) == ["patch", "head"]
    assert headline(changed)[2].cells[1] is None


def test_the_full_table_marks_every_rival(tasks: list[TaskRecord]) -> None:
    rows = {row.name: row for row in method_rows(tasks[1])}
    assert [(mark.symbol, mark.words) for mark in rows["head"].cells["accuracy"].marks] == [
        ("▼", "patch"),
        ("▲", "majority"),
        ("▲", "history length"),
        ("▼", "tf-idf + logistic regression"),
    ]
    assert rows["head"].cells["macro_f1"].marks == []
    assert rows["majority"].cells["accuracy"].marks == []


def test_settings_of_a_baseline_are_told_and_trouble_is_not_hidden(tasks: list[TaskRecord]) -> None:
    evaluation = tasks[0].evaluation
    chosen = {"C": 3.0, "chosen by": "log-loss of the valid users", "converged": True}
    settings = [chosen, {"C": 0.1, "converged": False}]
    changed = [
        method.model_copy(update={"settings": one})
        for method, one in zip(evaluation.methods[2:4], settings, strict=True)
    ]
    task = tasks[0].model_copy(update={"evaluation": evaluation.model_copy(update={"methods": changed})})
    assert [row.settings for row in method_rows(task)] == [
        "C 3, chosen by log-loss of the valid users",
        "C 0.1, not converged",
    ]


def test_shares_are_those_of_the_bundle(tasks: list[TaskRecord]) -> None:
    rows = {row.name: row for row in method_rows(tasks[2])}
    assert rows["patch"].trained == ["patch 1.61\u00a0%", "with head 7.00\u00a0%"]
    assert rows["head"].trained == ["head 5.48\u00a0%"]
    assert rows["popularity"].trained == []
    bundle = tasks[2].bundles[0]
    assert bundle.patch_share + bundle.head_share == pytest.approx(bundle.trainable_fraction)
    assert bundle.patch_share == 19_584 / (1_134_592 + 19_584 + 65_780)


def test_a_strategy_that_trains_the_backbone_tells_its_share(tasks: list[TaskRecord]) -> None:
    """All of it but the next-item biases, which no task trains."""
    table, everything = 1_134_592 - 14_630, 1_134_592 + 65_780
    full = tasks[2].bundles[1].model_copy(update={"strategy": "patch", "backbone_params": table})
    rows = method_rows(tasks[2].model_copy(update={"bundles": [full]}))
    (row,) = (row for row in rows if row.name == "patch")
    assert row.trained == ["backbone 93.3\u00a0%", "with head 98.8\u00a0%"]
    assert (full.backbone_share, full.trained_params) == (table / everything, table + 65_780)


def test_differences_keep_their_sign(tasks: list[TaskRecord]) -> None:
    evaluation = tasks[0].evaluation
    one = Comparison(
        method="head", rival="patch", metric="auc", difference=-0.018, low=None, high=None, verdict="worse"
    )
    (row,) = differences(evaluation.model_copy(update={"verdicts": [one]}))
    assert (row.difference, row.limits, row.mark.symbol) == ("\u22120.018", "no interval", "▼")
    assert differences(evaluation)[0].difference == "+0.012"
