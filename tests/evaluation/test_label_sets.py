"""Metrics of several labels by other means (scikit-learn), baselines by hand, and bundles beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from peterrec.artifacts.inspection import inspect
from peterrec.config import EvaluateConfig
from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import Sequences, indicators
from peterrec.errors import DataError
from peterrec.evaluation.baselines import fit_baselines
from peterrec.evaluation.bundles import evaluate
from peterrec.evaluation.label_statistics import multilabel_statistics
from peterrec.evaluation.protocols import multilabel_outcome
from peterrec.evaluation.results import TaskEvaluation
from peterrec.model import UserModel
from peterrec.storage import read_json
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from training.label_sets import label_corpus
from training.small import CHANNELS, LEARNS, adapt_config, pretrain_config

ONES = np.ones((1, 6))
TRUE = np.array([[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 1, 1], [0, 0, 1, 0]])
SHARES = np.array(
    [
        [0.9, 0.1, 0.9, 0.5],
        [0.4, 0.1, 0.9, 0.5],
        [0.4, 0.2, 0.8, 0.2],
        [0.6, 0.3, 0.7, 0.8],
        [0.7, 0, 1, 0.1],
        [0.1] * 4,
    ]
)


def test_metrics_are_those_of_scikit_learn_over_labels_with_both_answers() -> None:
    outcome = multilabel_outcome(SHARES, TRUE)
    values = {name: float(statistic(ONES)[0]) for name, statistic in multilabel_statistics(outcome).items()}
    judged = [0, 3]  # nobody has the second label, everybody the third
    assert values["macro_auc"] == pytest.approx(roc_auc_score(TRUE[:, judged], SHARES[:, judged], average="macro"))
    assert values["macro_ap"] == pytest.approx(average_precision_score(TRUE[:, judged], SHARES[:, judged]))
    losses = [log_loss(TRUE[:, k], np.clip(SHARES[:, k], 1e-7, 1 - 1e-7), labels=[0, 1]) for k in range(4)]
    assert values["log_loss"] == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("seed", range(5))
def test_a_weight_is_as_if_the_user_came_so_often(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, shares = rng.integers(0, 2, (40, 3)), rng.integers(0, 8, (40, 3)) / 8
    weights = rng.integers(0, 4, (3, 40)).astype(float)
    statistics = multilabel_statistics(multilabel_outcome(shares, true))
    for name, reference in (("macro_auc", roc_auc_score), ("macro_ap", average_precision_score)):
        drawn = [np.repeat(np.arange(40), row.astype(int)) for row in weights]
        expected = [reference(true[rows], shares[rows], average="macro") for rows in drawn]
        np.testing.assert_allclose(statistics[name](weights), expected, rtol=1e-9)


def test_a_resample_without_either_answer_leaves_the_label_out() -> None:
    statistics = multilabel_statistics(multilabel_outcome(SHARES, TRUE))
    only_owners = np.array(
        [[1.0, 0, 1, 0, 1, 0], [1.0, 0, 1, 0, 0, 0]]
    )  # of the first label; then also without the last
    expected = roc_auc_score(TRUE[[0, 2, 4], 3], SHARES[[0, 2, 4], 3])
    np.testing.assert_allclose(statistics["macro_auc"](only_owners), [expected, np.nan])
    np.testing.assert_array_equal(np.isnan(statistics["macro_ap"](only_owners)), [False, True])


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (np.zeros((6, 3)), "do not fit 6 users and 4 labels"),
        (np.full((6, 4), np.nan), "finite"),
        (SHARES * 2, "0 and 1"),
    ],
)
def test_probabilities_that_do_not_fit_are_refused(shares: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        multilabel_outcome(shares, TRUE)


def part_of(users: int, seed: int) -> TaskPart:
    """Users who have label 0 where they have item 4 and label 1 where they have item 5; nobody has label 2."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(4, 12, rng.integers(1, 8)).tolist() for _ in range(users)]
    sets = Sequences.from_rows([[label for label in (0, 1) if 4 + label in row] for row in rows])
    ids = pa.array([f"{seed}-{n}" for n in range(users)])
    return TaskPart(ids, Sequences.from_rows(rows), label_sets=sets)


def test_baselines() -> None:
    train, valid, test = part_of(300, 0), part_of(60, 1), part_of(100, 2)
    by_name = {baseline.name: baseline for baseline in fit_baselines(train, valid, classes=3).baselines}
    assert list(by_name) == ["label shares", "tf-idf + logistic regressions"]
    assert train.label_sets is not None
    assert test.label_sets is not None
    shares = by_name["label shares"].label_probabilities(test.sequences)
    np.testing.assert_allclose(shares[0], (indicators(train.label_sets, 3).sum(axis=0) + 1) / 302)
    learned = by_name["tf-idf + logistic regressions"].label_probabilities(test.sequences)
    np.testing.assert_allclose(learned[:, 2], 1 / 302)
    wanted = indicators(test.label_sets, 3)[:, :2]
    assert roc_auc_score(wanted, learned[:, :2]) > 0.95
    assert by_name["tf-idf + logistic regressions"].label_probabilities(Sequences.from_rows([[], [4]])).shape == (2, 3)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("job")
    corpus = label_corpus(folder)
    pretrain(corpus, folder / "backbone", pretrain_config(backbone=CHANNELS, epochs=2, **LEARNS))
    model = UserModel.from_pretrained(folder / "backbone", "cpu")
    adapt(model, corpus, "interests", folder / "patch", adapt_config(head_init="linear-probe", epochs=2))
    return model, corpus, folder


def test_a_bundle_is_judged_beside_baselines(job: Any, tmp_path: Path) -> None:
    model, corpus, folder = job
    evaluation = evaluate(model, corpus, {"patch": folder / "patch"}, tmp_path / "e.json", EvaluateConfig(bootstrap=50))
    assert evaluation.kind == "multilabel"
    assert evaluation.metrics == ["macro_auc", "macro_ap", "log_loss", "ece"]
    assert (evaluation.primary, evaluation.lower_is_better) == ("macro_auc", ["log_loss", "ece"])
    assert TaskEvaluation.from_json(read_json(tmp_path / "e.json")) == evaluation
    test = corpus.task("interests").part("test")
    model.load_bundle(folder / "patch")
    shares, wanted = model.label_probabilities(test.sequences, "interests"), indicators(test.label_sets, 3)
    by_name = {method.name: method.values for method in evaluation.methods}
    assert by_name["patch"]["macro_auc"].value == pytest.approx(roc_auc_score(wanted, shares))
    assert by_name["label shares"]["macro_auc"].value == 0.5
    compared = {(c.reference, c.metric): c.verdict for c in evaluation.comparisons}
    assert compared["label shares", "macro_auc"] == "better"
    assert ("label shares", "macro_ap") in compared


def test_inspection_knows_the_kind(job: Any) -> None:
    meta = inspect(job[2] / "patch")
    assert (meta["kind_of_task"], meta["outputs"]) == ("multilabel", 3)
