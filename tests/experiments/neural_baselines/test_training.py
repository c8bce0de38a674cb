"""What holds for every neural baseline: settings, seeds, the best epoch, and that it learns what there is to learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from peterrec.config import OptimConfig
from peterrec.data.corpus import Corpus, TaskPart
from peterrec.data.sequences import Sequences
from peterrec.errors import ConfigError, TrainingError
from peterrec.evaluation.baselines import baseline_settings, fit_baseline
from peterrec.evaluation.baselines.settings import ConetConfig, DupnConfig, NeuralBaselineConfig
from peterrec.evaluation.validation import mean_reciprocal_rank
from peterrec.experiments.neural_baselines import TrainedBaseline, train_neural_baseline
from peterrec.experiments.neural_baselines.train import train_epochs
from peterrec.training.callbacks import Curve

QUICK = {"batch_size": 32, "epochs": 2, "device": "cpu"}  # on a GPU sums come in any order
SMALL: dict[str, dict[str, Any]] = {
    "dupn": QUICK | {"channels": 8, "hidden": 8, "attention": 4},
    "conet": QUICK | {"channels": 8, "layers": [12, 6]},
}
LEARNS: dict[str, dict[str, Any]] = {
    "dupn": {"batch_size": 32, "epochs": 8, "channels": 16, "hidden": 16, "optim": {"lr": 0.01}},
    "conet": {"batch_size": 16, "epochs": 20, "channels": 8, "layers": [16, 8], "optim": {"lr": 0.01}},
}


def mrr_of(trained: TrainedBaseline, part: TaskPart) -> float:
    return mean_reciprocal_rank(trained.scorer.score_batches(part.sequences, 50), part.targets)


def equal_curves(first: TrainedBaseline, second: TrainedBaseline) -> bool:
    def plain(trained: TrainedBaseline) -> list[dict[str, float | None]]:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in trained.curve.rows]

    return plain(first) == plain(second)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNS)
def test_it_finds_the_taste_of_users_it_has_no_targets_of(name: str, structured: Corpus) -> None:
    task = structured.task("shop")
    train, test = task.part("train"), task.part("test")
    (trained,) = train_neural_baseline(name, structured, ["shop"], LEARNS[name], 0).values()
    popular = fit_baseline("popularity", train, task.part("valid"), n_targets=len(task.targets))
    blind = mean_reciprocal_rank(popular.score_batches(test.sequences, 50), test.targets)
    assert mrr_of(trained, test) > blind + 0.15


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_everything(name: str, tiny: Corpus) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = train_neural_baseline(name, tiny, ["shop"], SMALL[name], 0)["shop"]
    assert torch.equal(torch.get_rng_state(), state), "draws of whoever called are not touched"
    torch.rand(7)
    second, cuda_row = (train_neural_baseline(name, tiny, ["shop"], SMALL[name], seed)["shop"] for seed in (0, 1))
    assert equal_curves(first, second)
    assert not equal_curves(first, cuda_row)
    part = tiny.task("shop").part("test")
    assert mrr_of(first, part) == mrr_of(second, part)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_told_of_it(name: str, tiny: Corpus) -> None:
    messages: list[str] = []
    trained = train_neural_baseline(name, tiny, ["shop"], SMALL[name], 0, messages.append)["shop"]
    assert list(trained.trained) == ["embedding", "network", "head"]
    assert min(trained.trained.values()) > 0
    assert sum(trained.trained.values()) == trained.all_params == trained.scorer.trainable
    assert [row["epoch"] for row in trained.curve.rows] == [0, 1]
    assert min(row["seconds"] for row in trained.curve.rows) > 0
    assert trained.curve.monitor == "mrr"
    assert trained.curve.best["epoch"] == np.argmax([row["mrr"] for row in trained.curve.rows])
    assert trained.settings["batch_size"] == 32
    assert trained.settings["patience"] == 4
    assert len(messages) == 2


@pytest.mark.parametrize("name", SMALL)
def test_nobody_looks_at_the_targets_of_valid_and_test_users(
    name: str, tiny: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other targets of the test users all is the same; of the valid users, all but their metric is."""
    before = train_neural_baseline(name, tiny, ["shop"], SMALL[name], 0)["shop"]
    task = tiny.task("shop")
    part = type(task).part

    def changed(self: Any, which: str) -> TaskPart:
        real = part(self, which)
        if which == "train" or real.targets is None:
            return real
        return replace(real, targets=Sequences((real.targets.items + 1) % len(task.targets), real.targets.offsets))

    monkeypatch.setattr(type(task), "part", changed)
    after = train_neural_baseline(name, tiny, ["shop"], SMALL[name], 0)["shop"]
    losses = [[row["train_loss"] for row in trained.curve.rows] for trained in (before, after)]
    assert losses[0] == losses[1]
    assert [row["mrr"] for row in before.curve.rows] != [row["mrr"] for row in after.curve.rows]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("sasrec", {}, r"no baseline 'sasrec'(.|\n)*dupn, conet"),
        ("dupn", {"layers": [8]}, r"'dupn'.*layers(.|\n)*cell, channels"),
        ("conet", {"layers": []}, "layers"),
        ("conet", {"optim": {"lr": 0}}, "optim.lr"),
        ("dupn", {"negatives": {"sampling": "hard"}}, "negatives"),
        ("dupn", {"cell": "transformer"}, "cell"),
    ],
)
def test_wrong_settings_are_named(name: str, settings: dict[str, Any], message: str, tiny: Corpus) -> None:
    with pytest.raises(ConfigError, match=message):
        baseline_settings(name, settings)
    with pytest.raises(ConfigError, match=message):
        train_neural_baseline(name, tiny, ["shop"], settings, 0)


def test_right_settings_are_taken() -> None:
    baseline_settings("dupn", {})
    baseline_settings("conet", {"layers": [8, 4], "optim": {"lr": 0.1}})
    for config in (DupnConfig(), ConetConfig()):
        assert (config.epochs, config.patience) == (20, 4), "as ours"


def test_a_device_that_is_not_there_is_named(tiny: Corpus) -> None:
    with pytest.raises(ConfigError, match="no such device: 'tpu9'"):
        train_neural_baseline("dupn", tiny, ["shop"], {"device": "tpu9"}, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")
@pytest.mark.parametrize("name", SMALL)
def test_a_gpu_comes_close_to_the_cpu(name: str, tiny: Corpus) -> None:
    on_cpu, on_cuda = (
        train_neural_baseline(name, tiny, ["shop"], SMALL[name] | {"device": device}, 0)["shop"]
        for device in ("cpu", "cuda")
    )
    for row, cuda_row in zip(on_cpu.curve.rows, on_cuda.curve.rows, strict=True):
        assert row["train_loss"] == pytest.approx(cuda_row["train_loss"], rel=0.02)
    assert mrr_of(on_cuda, tiny.task("shop").part("test")) == pytest.approx(
        mrr_of(on_cpu, tiny.task("shop").part("test")), abs=0.05
    )


@pytest.mark.parametrize("tasks", [[], ["shop", "shop"]])
def test_each_task_is_named_once(tasks: list[str], tiny: Corpus) -> None:
    with pytest.raises(ConfigError, match="name each task once"):
        train_neural_baseline("dupn", tiny, tasks, {}, 0)


def test_conet_is_not_for_classes(tiny: Corpus) -> None:
    with pytest.raises(ConfigError, match="'conet' is not for classification"):
        train_neural_baseline("conet", tiny, ["shop", "cluster"], SMALL["conet"], 0)


@pytest.mark.slow
def test_dupn_learns_several_tasks_at_once(structured: Corpus) -> None:
    baselines = train_neural_baseline("dupn", structured, ["cluster", "shop"], LEARNS["dupn"], 0)
    task, shop = structured.task("cluster"), structured.task("shop")
    test = task.part("test")
    probabilities = baselines["cluster"].scorer.probabilities(test.sequences)
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    assert accuracy_score(test.labels, probabilities.argmax(axis=1)) > 0.8
    assert mrr_of(baselines["shop"], shop.part("test")) > 0.35
    rows = {name: trained.curve.best for name, trained in baselines.items()}
    assert set(rows["cluster"]) == {"epoch", "train_loss", "relative", "log_loss", "accuracy", "seconds"}
    assert set(rows["shop"]) == {"epoch", "train_loss", "relative", "mrr", "seconds"}
    assert baselines["shop"].curve.monitor == baselines["cluster"].curve.monitor == "relative"
    relative = [row["relative"] for row in baselines["shop"].curve.rows]
    assert baselines["shop"].curve.best["epoch"] == baselines["cluster"].curve.best["epoch"] == np.argmin(relative)
    assert min(relative) < 0.8
    assert baselines["shop"].trained["embedding"] == baselines["cluster"].trained["embedding"]


# ---------------------------------------------------------------- epochs


class Steps:
    """A network whose metric is dictated, and whose weight counts the steps."""

    def __init__(self, values: list[float]) -> None:
        self.network = torch.nn.Linear(1, 1, bias=False)
        self.values, self.weights = values, []

    def losses(self) -> list[torch.Tensor]:
        return [self.network.weight.sum()]

    def validate(self) -> dict[str, float]:
        assert not self.network.training
        self.weights.append(float(self.network.weight.detach()))
        return {"score": self.values[len(self.weights) - 1]}

    def train(self, mode: Any, start: float | None = None, **settings: Any) -> Any:
        config = NeuralBaselineConfig(optim=OptimConfig(lr=0.1, schedule="constant"), **settings)
        curve = Curve("score", mode)
        curve.start = None if start is None else {"epoch": -1, "score": start}
        train_epochs(self.network, self.losses, 1, self.validate, config, curve, lambda _: None)
        return curve


@pytest.mark.parametrize(("mode", "sign"), [("max", 1.0), ("min", -1.0)])
def test_it_stops_when_patience_ends_and_goes_back_to_the_best_epoch(mode: str, sign: float) -> None:
    steps = Steps([sign * value for value in (0.1, 0.3, 0.3, 0.2, 0.9)])
    curve = steps.train(mode, patience=2, epochs=9)
    assert len(curve.rows) == 4
    assert curve.best["epoch"] == 1, "the first of equals"
    assert float(steps.network.weight.detach()) == steps.weights[1] != steps.weights[3]


def test_it_goes_back_to_where_it_began_if_no_epoch_is_better() -> None:
    steps = Steps([0.1, 0.2])
    first = float(steps.network.weight.detach())
    steps.train("max", start=0.3, epochs=2)
    assert float(steps.network.weight.detach()) == first != steps.weights[1]


def test_it_stops_at_the_last_epoch() -> None:
    assert len(Steps([1.0, 2.0, 3.0]).train("max", epochs=3).rows) == 3


def test_a_training_that_diverges_is_stopped() -> None:
    with pytest.raises(TrainingError, match="score of epoch 2 is not finite"):
        Steps([1.0, float("nan")]).train("max", epochs=3)
