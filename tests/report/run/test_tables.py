"""Best values and verdict marks, against what the evaluation says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from peterrec.evaluation.results import Comparison, TaskEvaluation
from peterrec.report.run.record import RunRecord, TaskRecord
from peterrec.report.run.tables import (
    against_baselines,
    beats_all,
    best_baseline,
    compared_metrics,
    difference_table,
    headline,
    method_table,
    strategies,
)
from peterrec.report.tables import Cell, Mark, Row

MakeEvaluation = Callable[..., TaskEvaluation]


def rows_of(task: TaskRecord) -> dict[str, Row]:
    return {row.head: row for _, rows in method_table(task).groups for row in rows}


def difference_row(evaluation: TaskEvaluation) -> Sequence[Cell | None]:
    """The cells of the first difference."""
    table = difference_table(evaluation)
    assert table is not None
    return table.groups[0][1][0].cells


def best_methods(task: TaskRecord, metric: str) -> set[str]:
    """The methods whose value of a metric stands out in the full table."""
    at = task.evaluation.metrics.index(metric)
    return {name for name, row in rows_of(task).items() if (cell := row.cells[at]) and cell.best}


@pytest.fixture
def tasks(record: RunRecord) -> list[TaskRecord]:
    return record.tasks


def test_best_is_the_highest_or_for_a_loss_the_lowest(tasks: list[TaskRecord]) -> None:
    returns = tasks[0]
    assert best_methods(returns, "accuracy") == {"patch"}
    assert best_methods(returns, "log_loss") == {"tf-idf + logistic regression"}


def test_equal_values_are_all_best_and_one_alone_is_not(
    tasks: list[TaskRecord], make_evaluation: MakeEvaluation
) -> None:
    row = {"accuracy": (0.5, 0.1)}
    two = make_evaluation("t", "classification", "accuracy", {"patch": row, "majority": row}, users=9, outputs=2)
    assert best_methods(tasks[0].model_copy(update={"evaluation": two}), "accuracy") == {"patch", "majority"}
    alone = make_evaluation("t", "classification", "accuracy", {"patch": row}, users=9, outputs=2)
    assert best_methods(tasks[0].model_copy(update={"evaluation": alone}), "accuracy") == set()


def test_the_best_baseline_is_never_a_model_and_knows_which_way_is_better(tasks: list[TaskRecord]) -> None:
    ranking, returns = tasks[2].evaluation, tasks[0].evaluation
    assert [best_baseline(ranking, "mrr@5"), best_baseline(returns, "log_loss")] == [
        ranking.methods[4],
        returns.methods[4],
    ]
    models = ranking.model_copy(update={"methods": ranking.methods[:2]})
    assert best_baseline(models, "mrr@5") is None


def test_verdicts_are_about_the_primary_metric_and_auc_of_two_classes(tasks: list[TaskRecord]) -> None:
    assert [compared_metrics(task.evaluation) for task in tasks] == [["accuracy", "auc"], ["accuracy"], ["mrr@5"]]


def test_a_model_is_marked_by_what_it_does_not_beat(tasks: list[TaskRecord]) -> None:
    returns, age, shop = (task.evaluation for task in tasks)
    strongest = "tf-idf + logistic regression"
    marks_by_task = {
        "returns": against_baselines(returns, "patch", "accuracy"),
        "auc": against_baselines(returns, "patch", "auc"),
        "age": against_baselines(age, "patch", "accuracy"),
        "shop": against_baselines(shop, "head", "mrr@5"),
    }
    assert {name: [(mark.css, mark.words) for mark in marks] for name, marks in marks_by_task.items()} == {
        "returns": [("same", f"no clear difference from {strongest}")],
        "auc": [("better", "better than all 3 baselines")],
        "age": [("worse", f"worse than {strongest}")],
        "shop": [("same", "no clear difference from ridge across domains")],
    }


def test_losses_and_ties_are_both_marked(tasks: list[TaskRecord]) -> None:
    evaluation = tasks[0].evaluation
    comparisons = [
        comparison.model_copy(
            update={"verdict": {"majority": "worse", "history length": "better"}.get(comparison.reference, "worse")}
        )
        if comparison.method == "patch"
        else comparison
        for comparison in evaluation.comparisons
    ]
    comparisons[1] = comparisons[1].model_copy(update={"verdict": "no clear difference"})
    marks = against_baselines(evaluation.model_copy(update={"comparisons": comparisons}), "patch", "accuracy")
    assert [mark.symbol for mark in marks] == ["▼", "≈"]


def test_beating_another_model_is_not_beating_a_baseline(tasks: list[TaskRecord]) -> None:
    assert [beats_all(task.evaluation, "patch") for task in tasks] == [False, False, True]
    shop = tasks[2].evaluation
    against_head = [comparison for comparison in shop.comparisons if comparison.reference == "head"]
    only_models = shop.model_copy(update={"methods": shop.methods[:2], "comparisons": against_head})
    assert against_head[0].verdict == "better"
    assert beats_all(only_models, "patch") is None


def test_the_headline_has_a_row_for_each_task_and_compared_metric(tasks: list[TaskRecord]) -> None:
    groups = headline(tasks).groups
    assert [(task, [row.head for row in rows]) for task, rows in groups] == [
        ("returns", ["accuracy", "AUC"]),
        ("age", ["accuracy"]),
        ("new-department", ["MRR@5"]),
    ]
    patch, *_, baseline = groups[1][1][0].cells
    assert patch is not None
    assert baseline is not None
    assert (patch.value, patch.limits, patch.best) == ("0.287", "0.281 to 0.293", False)
    assert (baseline.value, baseline.notes, baseline.best) == ("0.298", ["tf-idf + logistic regression"], True)


def test_a_strategy_that_was_not_tried_on_a_task_has_no_cell(tasks: list[TaskRecord]) -> None:
    shop = tasks[2].evaluation
    alone = shop.model_copy(update={"methods": [shop.methods[0], *shop.methods[2:]]})
    changed = [tasks[0], tasks[2].model_copy(update={"evaluation": alone})]
    assert strategies(changed) == ["patch", "head"]
    assert headline(changed).groups[1][1][0].cells[1] == Cell("not tried", absent=True)


def test_the_full_table_marks_every_rival(tasks: list[TaskRecord]) -> None:
    rows = rows_of(tasks[1])
    accuracy, macro_f1, _ = rows["head"].cells
    assert accuracy is not None
    assert [(mark.symbol, mark.words) for mark in accuracy.marks] == [
        ("▼", "patch"),
        ("▲", "majority"),
        ("▲", "history length"),
        ("▼", "tf-idf + logistic regression"),
    ]
    assert macro_f1 == Cell("0.118", "0.114 to 0.122")
    assert [cell.marks for cell in rows["majority"].cells if cell] == [[], [], []]


def test_settings_of_a_baseline_are_told_and_trouble_is_not_hidden(tasks: list[TaskRecord]) -> None:
    evaluation = tasks[0].evaluation
    chosen = {"C": 3.0, "chosen by": "log-loss of the valid users", "converged": True}
    settings = [chosen, {"C": 0.1, "converged": False}]
    changed = [
        method.model_copy(update={"settings": chosen_settings})
        for method, chosen_settings in zip(evaluation.methods[2:4], settings, strict=True)
    ]
    task = tasks[0].model_copy(update={"evaluation": evaluation.model_copy(update={"methods": changed})})
    assert [row.note for row in rows_of(task).values()] == [
        "baseline: C 3, chosen by log-loss of the valid users",
        "baseline: C 0.1, not converged",
    ]


def test_shares_are_those_of_the_bundle(tasks: list[TaskRecord]) -> None:
    rows = rows_of(tasks[2])
    assert rows["patch"].note == "patch 1.61\u00a0% · with head 7.00\u00a0%"
    assert rows["head"].note == "head 5.48\u00a0%"
    assert rows["popularity"].note == "baseline"
    bundle = tasks[2].bundles[0]
    assert bundle.share(bundle.patch_params) == 19_584 / (1_134_592 + 19_584 + 65_780)


def test_the_share_of_a_trained_readout_is_told(tasks: list[TaskRecord]) -> None:
    head = tasks[2].bundles[1].model_copy(update={"strategy": "patch", "readout_params": 65_780})
    task = tasks[2].model_copy(update={"bundles": [head]})
    assert rows_of(task)["patch"].note == "readout 5.48\u00a0% · with head 11.0\u00a0%"


def test_a_strategy_that_trains_the_backbone_tells_its_share(tasks: list[TaskRecord]) -> None:
    """All of it but the next-item biases, which no task trains."""
    table, everything = 1_134_592 - 14_630, 1_134_592 + 65_780
    full = tasks[2].bundles[1].model_copy(update={"strategy": "patch", "backbone_params": table})
    row = rows_of(tasks[2].model_copy(update={"bundles": [full]}))["patch"]
    assert row.note == "backbone 93.3\u00a0% · with head 98.8\u00a0%"
    assert (full.share(full.backbone_params), full.trained_params) == (table / everything, table + 65_780)


def test_differences_keep_their_sign(tasks: list[TaskRecord]) -> None:
    evaluation = tasks[0].evaluation
    comparison = Comparison(
        method="head", reference="patch", metric="auc", difference=-0.018, low=None, high=None, verdict="worse"
    )
    assert difference_row(evaluation.model_copy(update={"comparisons": [comparison]})) == [
        Cell("AUC"),
        Cell("\u22120.018", "no interval"),
        Cell("", marks=[Mark("▼", "worse", "worse")]),
    ]
    (_, difference, _) = difference_row(evaluation)
    assert difference is not None
    assert difference.value == "+0.012"
    assert difference_table(evaluation.model_copy(update={"comparisons": []})) is None
