"""What `evaluate` prints: 80 columns and two lines of verdict, all else with --details."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from peterrec.cli.evaluate import print_evaluation, verdict
from peterrec.evaluation.results import TaskEvaluation
from report.run_records import evaluation as make_evaluation

LONG = "256 factors + logistic regression"
CLASSES = {
    "patch": {"log_loss": (0.62, 0.01), "accuracy": (0.66, 0.01), "macro_f1": (0.64, 0.01), "auc": (0.7, 0.01)},
    "head": {"log_loss": (0.70, 0.01), "accuracy": (0.65, 0.01), "macro_f1": (0.63, 0.01), "auc": (0.69, 0.01)},
    "majority": {"log_loss": (0.69, 0.01), "accuracy": (0.5, 0.01), "macro_f1": (0.3, 0.01), "auc": (0.5, 0.01)},
    LONG: {"log_loss": (0.621, 0.01), "accuracy": (0.66, 0.01), "macro_f1": (0.64, 0.01), "auc": (0.7, 0.01)},
    "trees": {"log_loss": (0.5, 0.01), "accuracy": (0.66, 0.01), "macro_f1": (0.64, 0.01), "auc": (0.7, 0.01)},
}
RANKS = ["hr@5", "mrr@5", "ndcg@5", "hr@5 sampled-99", "mrr@5 sampled-99", "ndcg@5 sampled-99"]
RANKING = {
    "patch": {metric: (0.04, 0.001) for metric in RANKS},
    "popularity": {metric: (0.01, 0.001) for metric in RANKS},
    "item-to-item cosine": {metric: (0.03, 0.001) for metric in RANKS},
}


def classification() -> TaskEvaluation:
    evaluation = make_evaluation("age", "classification", "log_loss", CLASSES, users=1234, outputs=10)
    turned = {"better": "worse", "worse": "better"}  # lower is better here, which the builder does not know
    comparisons = [c.model_copy(update={"verdict": turned.get(c.verdict, c.verdict)}) for c in evaluation.comparisons]
    return evaluation.model_copy(update={"comparisons": comparisons})


def ranking() -> TaskEvaluation:
    return make_evaluation("shop", "ranking", "mrr@5", RANKING, users=99, outputs=40, models=["patch"])


def printed(evaluation: TaskEvaluation, width: int = 200, *, details: bool = False) -> str:
    out = io.StringIO()
    print_evaluation(evaluation, Console(file=out, width=width, highlight=False), details=details)
    return out.getvalue()


@pytest.mark.parametrize("evaluation", [classification(), ranking()], ids=["classification", "ranking"])
@pytest.mark.parametrize("width", [80, 200])
def test_what_is_printed_fits_eighty_columns_with_every_method_on_a_line(
    evaluation: TaskEvaluation, width: int
) -> None:
    lines = printed(evaluation, width).splitlines()
    assert max(map(len, lines)) <= 80
    for method in evaluation.methods:
        (row,) = [line for line in lines if line.strip().startswith(method.name) and "0." in line]
        assert f"{method.values[evaluation.primary].value:.4f}" in row


def test_the_verdict_is_two_lines_about_the_best_model() -> None:
    assert verdict(classification()) == [
        f"On log_loss patch (0.6200) is clearly better than 1 of 3 baselines, level with {LONG}, worse than trees.",
        "Of the bundles it is the best, clearly better than 1 of 1 other model. "
        "Intervals and all comparisons: --details.",
    ]
    assert verdict(ranking()) == [
        "On mrr@5 patch (0.0400) is clearly better than 2 of 2 baselines.",
        "Intervals and all comparisons: --details.",
    ]


def test_notes_are_shown_without_being_asked_for() -> None:
    evaluation = ranking().model_copy(update={"notes": ["these data were prepared otherwise"]})
    assert "Note: these data were prepared otherwise." in printed(evaluation)


def test_details_have_intervals_sampled_metrics_and_all_comparisons() -> None:
    short, full = printed(ranking()), printed(ranking(), details=True)
    for text in ("0.039 - 0.041", "sampled-99", "2.00 %", ranking().sentence.split(".")[0]):
        assert text in full
        assert text not in short


def test_baselines_alone_have_no_verdict() -> None:
    evaluation = make_evaluation("shop", "ranking", "mrr@5", RANKING, users=9, outputs=4, models=[])
    assert "No model was evaluated" in printed(evaluation)
