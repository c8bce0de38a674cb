"""Metrics of numbers by other means (SciPy), baselines by hand, and bundles that are judged beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr

from peterrec.artifacts.cards import bundle_card
from peterrec.artifacts.inspection import inspect
from peterrec.config import EvaluateConfig
from peterrec.data.corpus import TaskPart
from peterrec.data.sequences import Sequences
from peterrec.errors import DataError, TaskError
from peterrec.evaluation.baselines import fit_baselines
from peterrec.evaluation.bundles import evaluate
from peterrec.evaluation.number_statistics import regression_statistics, regression_sums
from peterrec.evaluation.protocols import RegressionOutcome, regression_outcome
from peterrec.evaluation.results import TaskEvaluation
from peterrec.model import UserModel
from peterrec.storage import read_json
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from training.numbers import number_corpus
from training.small import CHANNELS, LEARNS, adapt_config, pretrain_config

ONES = np.ones((1, 6))
TRUE = np.array([1.0, 2.0, 2.0, 5.0, 9.0, -3.0])
PREDICTED = np.array([1.5, 1.5, 3.0, 4.0, 4.0, 4.0])


def test_metrics_by_hand() -> None:
    outcome = regression_outcome(PREDICTED[:, None], TRUE)
    values = {name: float(statistic(ONES)[0]) for name, statistic in regression_statistics(outcome).items()}
    errors = PREDICTED - TRUE
    expected = {"mae": np.abs(errors).mean(), "rmse": np.sqrt((errors**2).mean())}
    expected["spearman"] = spearmanr(PREDICTED, TRUE).statistic
    assert values == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_a_weight_is_as_if_the_user_came_so_often(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, 8, 40).astype(float), rng.integers(0, 8, 40).astype(float)
    weights = rng.integers(0, 4, (3, 40)).astype(float)
    statistics = regression_statistics(RegressionOutcome(predicted, true))
    for name, reference in (
        ("spearman", lambda a, b: spearmanr(a, b).statistic),
        ("rmse", lambda a, b: np.sqrt(((a - b) ** 2).mean())),
        ("mae", lambda a, b: np.abs(a - b).mean()),
    ):
        drawn = [np.repeat(np.arange(40), row.astype(int)) for row in weights]
        expected = [reference(predicted[rows], true[rows]) for rows in drawn]
        np.testing.assert_allclose(statistics[name](weights), expected, rtol=1e-9)


def test_predictions_that_are_all_the_same_say_nothing_of_the_order() -> None:
    outcome = regression_outcome(np.full((6, 1), 7.0), TRUE)
    assert regression_statistics(outcome)["spearman"](ONES)[0] == 0.0


def test_quantiles_by_hand() -> None:
    columns = np.stack([PREDICTED, PREDICTED - 2, PREDICTED, PREDICTED + 1], axis=1)
    sums = regression_sums(regression_outcome(columns, TRUE, (0.1, 0.5, 0.9)))
    inside = (PREDICTED - 2 <= TRUE) & (TRUE <= PREDICTED + 1)
    np.testing.assert_array_equal(sums["coverage@0.8"], inside)
    above = TRUE[:, None] - columns[:, 1:]
    q = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(sums["pinball"], np.where(above > 0, q * above, (q - 1) * above).mean(axis=1))


@pytest.mark.parametrize(
    ("columns", "message"),
    [(np.zeros((5, 1)), "do not fit 6 users"), (np.zeros((6, 2)), "0 quantiles"), (np.full((6, 1), np.nan), "finite")],
)
def test_predictions_that_do_not_fit_are_refused(columns: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        regression_outcome(columns, TRUE)


def part_of(users: int, seed: int) -> TaskPart:
    """Users whose number is 10 for each item 4 and 1 for each item 5."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(4, 9, rng.integers(3, 12)).tolist() for _ in range(users)]
    numbers = np.array([10.0 * row.count(4) + row.count(5) for row in rows])
    ids = pa.array([f"{seed}-{n}" for n in range(users)])
    return TaskPart(ids, Sequences.from_rows(rows), numbers=numbers)


def test_baselines() -> None:
    train, valid, test = part_of(300, 0), part_of(60, 1), part_of(100, 2)
    fitted = fit_baselines(train, valid, quantiles=(0.1, 0.5, 0.9))
    by_name = {baseline.name: baseline for baseline in fitted.baselines}
    assert list(by_name)[:3] == ["mean", "median", "tf-idf + ridge"]
    assert train.numbers is not None
    assert test.numbers is not None
    mean, median = by_name["mean"].numbers(test.sequences), by_name["median"].numbers(test.sequences)
    assert mean[:, 0] == pytest.approx(train.numbers.mean())
    np.testing.assert_allclose(median[0, 1:], np.quantile(train.numbers, [0.1, 0.5, 0.9]))
    errors = {name: np.abs(b.numbers(test.sequences)[:, 0] - test.numbers).mean() for name, b in by_name.items()}
    assert errors["tf-idf + ridge"] < 0.6 * errors["median"]
    assert errors.get("gradient-boosted trees", 0.0) < 0.6 * errors["median"]
    assert by_name["tf-idf + ridge"].numbers(Sequences.from_rows([[], [4]])).shape == (2, 4)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("job")
    corpus = number_corpus(folder)
    pretrain(corpus, folder / "backbone", pretrain_config(backbone=CHANNELS, epochs=2, **LEARNS))
    model = UserModel.from_pretrained(folder / "backbone", "cpu")
    settings: dict[str, Any] = {"head_init": "linear-probe", "epochs": 2}
    adapt(model, corpus, "spend", folder / "point", adapt_config(**settings))
    adapt(model, corpus, "spend", folder / "quantiles", adapt_config(quantiles=(0.1, 0.5, 0.9), **settings))
    adapt(model, corpus, "spend", folder / "others", adapt_config(quantiles=(0.5,), strategy="head", **settings))
    return model, corpus, folder


CONFIG = EvaluateConfig(bootstrap=50)


def test_a_bundle_is_judged_beside_baselines(job: Any, tmp_path: Path) -> None:
    model, corpus, folder = job
    evaluation = evaluate(model, corpus, {"patch": folder / "point"}, tmp_path / "e.json", CONFIG)
    assert evaluation.kind == "regression"
    assert evaluation.metrics == ["mae", "rmse", "spearman"]
    assert evaluation.primary == "mae"
    assert set(evaluation.lower_is_better) == {"mae", "rmse"}
    assert TaskEvaluation.from_json(read_json(tmp_path / "e.json")) == evaluation
    test = corpus.task("spend").part("test")
    model.load_bundle(folder / "point")
    predictions = model.numbers(test.sequences, "spend")[:, 0]
    by_name = {method.name: method.values for method in evaluation.methods}
    assert by_name["patch"]["mae"].value == pytest.approx(np.abs(predictions - test.numbers).mean())
    assert by_name["patch"]["spearman"].value == pytest.approx(spearmanr(predictions, test.numbers).statistic)
    (comparison,) = [c for c in evaluation.comparisons if (c.reference, c.metric) == ("median", "mae")]
    assert comparison.verdict == "better"


def test_quantiles_are_judged_where_all_models_have_them(job: Any) -> None:
    model, corpus, folder = job
    evaluation = evaluate(model, corpus, {"patch": folder / "quantiles"}, None, CONFIG)
    assert evaluation.metrics == ["mae", "rmse", "spearman", "pinball", "coverage@0.8"]
    assert all(set(evaluation.metrics) <= set(method.values) for method in evaluation.methods)
    mixed = evaluate(model, corpus, {"a": folder / "quantiles", "b": folder / "point"}, None, CONFIG)
    assert mixed.metrics == ["mae", "rmse", "spearman"]
    assert any("quantiles are not judged: b predicts none" in note for note in mixed.notes)
    with pytest.raises(TaskError, match="predict other quantiles"):
        evaluate(model, corpus, {"a": folder / "quantiles", "b": folder / "others"}, None, CONFIG)


def test_card_and_inspection_know_the_kind(job: Any) -> None:
    meta = inspect(job[2] / "quantiles")
    assert (meta["kind_of_task"], meta["outputs"]) == ("regression", 3)
    card = bundle_card(meta, meta["metrics"])
    assert "regression task `spend`" in card
    assert "model.predict(" in card
