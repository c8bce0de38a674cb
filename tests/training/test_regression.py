"""Numbers as targets: losses by hand, every strategy, quantiles, and predictions in the unit of the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from peterrec.config import AdaptConfig
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.number_outputs import NumberOutputs
from peterrec.data.sequences import Sequences
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.heads import RegressionHead
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.pretrain import pretrain
from peterrec.training.task_kinds import TaskObjective, mean_metrics, task_objective
from training.numbers import number_corpus
from training.small import CHANNELS, LEARNS, adapt_config, pretrain_config

SPEND = np.array([0.0, 3.0, 8.0, 100.0, 4.0])


@pytest.fixture(scope="module")
def spend(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return number_corpus(tmp_path_factory.mktemp("numbers"))


@pytest.fixture(scope="module")
def learned(spend: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trunk") / "backbone"
    pretrain(spend, path, pretrain_config(backbone=CHANNELS, epochs=2, **LEARNS))
    return path


@pytest.fixture
def trunk(learned: Path) -> UserModel:
    return UserModel.from_pretrained(learned, "cpu")


def part_of(numbers: np.ndarray) -> TaskPart:
    ids = pa.array([str(n) for n in range(len(numbers))])
    return TaskPart(ids, Sequences.from_rows([[4]] * len(numbers)), numbers=numbers)


def objective(numbers: np.ndarray = SPEND, **settings: Any) -> TaskObjective:
    return task_objective(adapt_config(**settings), Task("spend", "regression", Path()), part_of(numbers))


# ---------------------------------------------------------------- losses and scales


@pytest.mark.parametrize("transform", ["none", "log1p"])
@pytest.mark.parametrize("loss", ["squared", "huber", "absolute"])
def test_the_loss_of_numbers_by_hand(loss: str, transform: str) -> None:
    head = RegressionHead(4, 1, torch.Generator().manual_seed(0))
    vectors = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)) * 40
    by_kind = objective(regression_loss=loss, target_transform=transform)
    actual = by_kind(head, vectors, {"numbers": torch.from_numpy(SPEND)}).item()
    inner = np.log(1 + SPEND) if transform == "log1p" else SPEND
    wanted = (inner - inner.mean()) / inner.std()
    errors = np.abs(head(vectors).detach().double().numpy()[:, 0] - wanted)
    expected = {
        "squared": errors**2,
        "absolute": errors,
        "huber": np.where(errors < 1, errors**2 / 2, errors - 0.5),
    }[loss]
    assert actual == pytest.approx(expected.mean(), rel=1e-5)


def test_the_pinball_loss_by_hand() -> None:
    head = RegressionHead(4, 3, torch.Generator().manual_seed(0))
    vectors = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)) * 40
    quantiles = (0.1, 0.5, 0.8)
    actual = objective(quantiles=quantiles)(head, vectors, {"numbers": torch.from_numpy(SPEND)}).item()
    wanted, outputs = (SPEND - SPEND.mean()) / SPEND.std(), head(vectors).detach().double().numpy()
    losses = [
        q * (y - out) if y >= out else (1 - q) * (out - y)
        for y, row in zip(wanted, outputs, strict=True)
        for q, out in zip(quantiles, row, strict=True)
    ]
    assert actual == pytest.approx(np.mean(losses), rel=1e-5)


def test_metrics_are_in_the_unit_of_the_numbers() -> None:
    by_kind = objective(target_transform="log1p")
    predicted = np.array([1.0, 3.0, 5.0, 50.0, 4.0])
    inner = np.log(1 + SPEND)
    outputs = torch.from_numpy((np.log(1 + predicted) - inner.mean()) / inner.std()).unsqueeze(1)
    sums = by_kind.metric_sums(outputs, part_of(SPEND), np.arange(5))
    assert mean_metrics([sums])["mae"] == pytest.approx(np.abs(predicted - SPEND).mean())


@pytest.mark.parametrize(
    ("settings", "constant"),
    [({}, SPEND.mean()), ({"regression_loss": "absolute"}, 4.0), ({"target_transform": "log1p"}, None)],
)
def test_the_constant_answer(settings: dict[str, Any], constant: float | None) -> None:
    expected = np.exp(np.log(1 + SPEND).mean()) - 1 if constant is None else constant
    metrics = mean_metrics(objective(**settings).constant_sums(part_of(SPEND)))
    assert metrics["mae"] == pytest.approx(np.abs(expected - SPEND).mean())


def test_outputs_and_numbers_are_inverse_and_quantiles_never_cross() -> None:
    numbers = np.array([[0.5, 2.0, 1e9]])
    for transform in ("none", "log1p"):
        scale = NumberOutputs(transform, 3.0, 2.0, (0.1, 0.5, 0.9), (1.0, 2.0, 3.0))
        np.testing.assert_allclose(scale.numbers(scale.outputs(numbers)), numbers, rtol=1e-12)
        crossed = scale.numbers(np.array([[2.0, -1.0, 0.0]]))
        assert (np.diff(crossed, axis=1) > 0).all()
        assert np.isfinite(scale.numbers(np.array([[1e30, 1e30, 1e30]]))).all()
        assert NumberOutputs.from_json(scale.to_json()) == scale
    assert scale.names == ("prediction", "q0.1", "q0.5", "q0.9")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantiles": (0.1, 0.9)}, "0.5, the prediction, must be among them"),
        ({"quantiles": (0.5, 0.1)}, "quantiles must rise"),
        ({"quantiles": (0.5, 1.0)}, "less than 1"),
        ({"quantiles": (0.5,), "regression_loss": "huber"}, "learned by the pinball loss"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdaptConfig(**settings)


def test_a_logarithm_of_what_has_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="log1p is of numbers above -1, and task 'spend' has -3"):
        objective(np.array([1.0, -3.0]), target_transform="log1p")
    with pytest.raises(ConfigError, match="all train users of task 'spend' have the same number"):
        objective(np.array([2.0, 2.0]))


# ---------------------------------------------------------------- training


def test_a_head_starts_at_a_ridge_regression(spend: Corpus, trunk: UserModel, tmp_path: Path) -> None:
    bundle = adapt(trunk, spend, "spend", tmp_path / "b", adapt_config(strategy="head", head_init="linear-probe"))
    start, constant = bundle.metrics["start"], bundle.metrics["constant"]
    assert start["loss"] < 0.8 * constant["loss"]
    assert start["mae"] < constant["mae"]
    assert bundle.metrics["valid"]["loss"] <= start["loss"]
    random = adapt(trunk, spend, "spend", tmp_path / "r", adapt_config(strategy="head"))
    assert random.metrics["start"].get("loss", 9.0) > start["loss"]


def test_predictions_are_those_of_validation(spend: Corpus, trunk: UserModel, tmp_path: Path) -> None:
    bundle = adapt(trunk, spend, "spend", tmp_path / "b", adapt_config(epochs=4, optim={"lr": 0.02}))
    trunk.load_bundle(tmp_path / "b", "saved")
    valid = spend.task("spend").part("valid")
    numbers = trunk.numbers(valid.sequences, "saved")
    assert numbers.shape == (len(valid), 1)
    assert np.abs(numbers[:, 0] - valid.numbers).mean() == pytest.approx(bundle.metrics["valid"]["mae"], rel=1e-4)
    assert bundle.metrics["valid"]["loss"] < bundle.metrics["constant"]["loss"]


def test_quantiles_are_learned_and_answered(spend: Corpus, trunk: UserModel, tmp_path: Path) -> None:
    config = adapt_config(quantiles=(0.1, 0.5, 0.9), epochs=4, head_init="linear-probe", optim={"lr": 0.01})
    adapt(trunk, spend, "spend", tmp_path / "b", config)
    trunk.load_bundle(tmp_path / "b")
    catalogue = trunk.catalogue.ids.to_pylist()
    histories = [[catalogue[0], catalogue[3]], [], [catalogue[5]]]
    table = trunk.predict(histories, "spend").to_arrow()
    assert table.column_names == ["user", "prediction", "known_events", "q0.1", "q0.5", "q0.9"]
    assert table["prediction"].to_pylist() == table["q0.5"].to_pylist()
    low, middle, high = (table[name].to_numpy() for name in ("q0.1", "q0.5", "q0.9"))
    assert (low <= middle).all()
    assert (middle <= high).all()
    train = spend.task("spend").part("train").numbers
    assert train is not None
    assert table["q0.9"][1].as_py() == pytest.approx(np.quantile(train, 0.9))  # nothing is known of this user


@pytest.mark.parametrize("strategy", ["head", "last1", "all", "scratch", "patch-random"])
@pytest.mark.quick_cases(2)
def test_every_strategy_learns_numbers(spend: Corpus, trunk: UserModel, tmp_path: Path, strategy: Any) -> None:
    bundle = adapt(trunk, spend, "spend", tmp_path / "b", adapt_config(strategy=strategy, epochs=1))
    trunk.load_bundle(tmp_path / "b")
    assert bundle.kind == "regression"
    assert np.isfinite(trunk.numbers(spend.task("spend").part("test").sequences, "spend")).all()


def test_numbers_and_classes_are_learned_together(spend: Corpus, trunk: UserModel, tmp_path: Path) -> None:
    config = adapt_config(strategy="joint", epochs=2)
    bundles = adapt_jointly(trunk, spend, ["spend", "cluster"], tmp_path / "j", config)
    assert set(bundles["spend"].metrics["valid"]) == {"loss", "mae"}
    trunk.load_bundle(tmp_path / "j" / "spend")
    assert np.isfinite(trunk.numbers(spend.task("spend").part("test").sequences, "spend")).all()


def test_cross_validation_chooses_the_epoch(spend: Corpus, trunk: UserModel, tmp_path: Path) -> None:
    config = adapt_config(selection="cross-validation", folds=2, epochs=2, strategy="head")
    bundle = adapt(trunk, spend, "spend", tmp_path / "b", config)
    assert set(bundle.metrics["cross_validation"]["metrics"]) == {"loss", "mae"}


def test_a_bundle_of_classes_has_no_numbers(spend: Corpus, trunk: UserModel, tmp_path: Path) -> None:
    adapt(trunk, spend, "cluster", tmp_path / "c", adapt_config(epochs=1))
    adapt(trunk, spend, "spend", tmp_path / "b", adapt_config(epochs=1))
    trunk.load_bundle(tmp_path / "c")
    trunk.load_bundle(tmp_path / "b")
    sequences = spend.task("spend").part("test").sequences
    with pytest.raises(ConfigError, match="is of a classification task"):
        trunk.numbers(sequences, "cluster")
    with pytest.raises(ConfigError, match="is of a regression task"):
        trunk.probabilities(sequences, "spend")
    with pytest.raises(ConfigError, match="is of a regression task") as caught:
        trunk.recommend([trunk.catalogue.ids.to_pylist()[:2]], "spend")
    assert caught.value.remedy == "use predict"
