"""Optimiser, schedule, clipping, precision, loggers: that settings arrive where they act."""

from __future__ import annotations

import csv
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback
from torch import nn

from peterrec.config import BackboneConfig, OptimConfig, RunnerConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.evaluation.validation import last_item_ranks, mean_reciprocal_rank
from peterrec.nn.backbone import Backbone
from peterrec.nn.next_item import NextItemModel
from peterrec.training.adapt import adapt
from peterrec.training.optim import make_optimizer, make_schedule
from peterrec.training.pretrain import pretrain
from training.small import adapt_config, pretrain_config


def rates(config: OptimConfig, steps: int) -> list[float]:
    optimizer = make_optimizer([nn.Parameter(torch.zeros(2, 2))], config)
    schedule, out = make_schedule(optimizer, config, steps), []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return out


def test_only_matrices_decay() -> None:
    network = NextItemModel(Backbone(BackboneConfig(channels=4, dilations=(1, 2)), 7))
    decayed, undecayed = make_optimizer(network.parameters(), OptimConfig(weight_decay=0.3, lr=0.1)).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.3, 0.0)
    assert {names[id(p)].rsplit(".", 1)[1] for p in decayed["params"]} == {"weight"}
    assert all(p.dim() > 1 for p in decayed["params"])
    assert sum("norm" in names[id(p)] for p in decayed["params"]) == 0
    assert sum("norm" in names[id(p)] for p in undecayed["params"]) == 8
    assert sum("bias" in names[id(p)] for p in undecayed["params"]) == 9
    assert len(decayed["params"]) + len(undecayed["params"]) == len(names)


def test_decay_is_decoupled_from_the_gradient() -> None:
    """AdamW: without a gradient a matrix shrinks by lr * decay, and a vector stays."""
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    optimizer = make_optimizer([matrix, vector], OptimConfig(weight_decay=0.5, lr=0.1))
    for parameter in (matrix, vector):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(matrix.data, torch.full((2, 2), 0.95))
    torch.testing.assert_close(vector.data, torch.ones(2))


def test_what_is_frozen_is_not_optimised() -> None:
    frozen, trained = nn.Parameter(torch.ones(2, 2), requires_grad=False), nn.Parameter(torch.ones(2, 2))
    (group,) = make_optimizer([frozen, trained], OptimConfig()).param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(trained)]


def test_the_schedule_by_hand() -> None:
    cosine = rates(OptimConfig(lr=2.0, warmup_fraction=0.4), 10)
    assert cosine[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert cosine[4:] == pytest.approx([1 + math.cos(math.pi * k / 6) for k in range(6)])
    constant = rates(OptimConfig(lr=2.0, warmup_fraction=0.4, schedule="constant"), 10)
    assert constant == pytest.approx([0.5, 1.0, 1.5, *[2.0] * 7])


@given(st.integers(1, 60), st.floats(0, 1), st.sampled_from(["cosine", "constant"]))
def test_any_schedule_rises_to_its_peak_and_never_again(steps: int, warmup: float, schedule: Any) -> None:
    all_rates = rates(OptimConfig(lr=3.0, warmup_fraction=warmup, schedule=schedule), steps)
    top = all_rates.index(max(all_rates))
    assert max(all_rates) == 3.0
    assert all_rates[: top + 1] == sorted(all_rates[: top + 1])
    assert all_rates[top:] == sorted(all_rates[top:], reverse=True)
    assert min(all_rates) > 0


class Steps(Callback):
    """The rate and the norm of the gradient of each step, as the optimiser sees them."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))


def test_the_schedule_goes_over_all_steps_of_all_epochs(
    corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    watched(steps := Steps())
    optim = OptimConfig(lr=0.01, warmup_fraction=0.25)
    pretrain(corpus, tmp_path / "out", pretrain_config(optim=optim))
    assert steps.rates == pytest.approx(rates(optim, 12))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("clip_norm", [1e-3, None])
def test_the_gradient_is_clipped(
    corpus: Corpus, backbone: Path, watched: Callable[..., None], tmp_path: Path, clip_norm: float | None
) -> None:
    class After(Steps):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            super().on_before_optimizer_step(trainer, module, trainer.optimizers[0])

    for verb in ("pretrain", "adapt"):
        watched(steps := After())
        steps.on_before_optimizer_step = lambda *_: None  # type: ignore[method-assign] - it comes before the clipping
        optim = OptimConfig(clip_norm=clip_norm)
        if verb == "pretrain":
            pretrain(corpus, tmp_path / verb, pretrain_config(optim=optim))
        else:
            adapt(backbone, corpus, "shop", tmp_path / verb, adapt_config(optim=optim))
        if clip_norm is None:
            assert min(steps.norms) > 1e-2
        else:
            assert steps.norms == pytest.approx([clip_norm] * len(steps.norms), rel=1e-2)


# ---------------------------------------------------------------- the machine


def runner(**settings: Any) -> RunnerConfig:
    return RunnerConfig(**({"accelerator": "cpu", "progress": False} | settings))


@pytest.mark.slow
def test_mixed_precision_runs_on_a_cpu_and_stays_finite(corpus: Corpus, tmp_path: Path) -> None:
    model = pretrain(corpus, tmp_path / "backbone", pretrain_config(runner=runner(precision="bf16-mixed")))
    exact = pretrain(corpus, tmp_path / "exact", pretrain_config())
    assert model.fingerprint != exact.fingerprint  # it did something
    assert {tensor.dtype for tensor in model.network.state_dict().values()} == {torch.float32}
    metrics = [m.pretrained.training["metrics"]["valid_loss"] for m in (model, exact)]
    assert metrics[0] == pytest.approx(metrics[1], abs=0.05)
    for task in ("cluster", "shop"):
        bundle = adapt(model, corpus, task, tmp_path / task, adapt_config(runner=runner(precision="bf16-mixed")))
        assert all(math.isfinite(value) for row in bundle.metrics["curve"] for value in row.values())
        assert {tensor.dtype for tensor in bundle.tensors().values()} == {torch.float32}


def test_mixed_precision_makes_no_ties(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What held-out users are scored with has all its digits."""
    score_batches: list[torch.Tensor] = []

    def ranks(scores: Any, positives: Any) -> Any:
        score_batches.append(torch.from_numpy(scores))
        return last_item_ranks(scores, positives)

    monkeypatch.setattr("peterrec.training.pretrain_module.last_item_ranks", ranks)
    model = pretrain(corpus, tmp_path / "b", pretrain_config(epochs=1, runner=runner(precision="bf16-mixed")))

    def rate(batches: Any, targets: Any) -> float:
        score_batches.extend(torch.from_numpy(scores) for scores in batches)
        return mean_reciprocal_rank(batches, targets)

    monkeypatch.setattr("peterrec.training.task_kinds.ranking.mean_reciprocal_rank", rate)
    adapt(model, corpus, "shop", tmp_path / "c", adapt_config(epochs=1, runner=runner(precision="bf16-mixed")))
    assert len(score_batches) == 6  # of adapting: the start, the epoch, and the same answer for everybody
    assert all((scores.bfloat16().float() != scores).double().mean() > 0.9 for scores in score_batches)


def test_a_csv_logger_writes_losses_rates_and_metrics(corpus: Corpus, tmp_path: Path) -> None:
    config = pretrain_config(epochs=6, patience=6, runner=runner(logger="csv"))
    pretrain(corpus, tmp_path / "out", config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.log"]
    with (tmp_path / "out.log" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"epoch", "step", "train_loss", "lr", "valid_loss", "hr@10", "mrr@10"} <= set(rows[0])
    assert sum(row["valid_loss"] != "" for row in rows) == 6
    assert [int(row["step"]) for row in rows if row["train_loss"]] == [10, 20]
    assert all(0 < float(row["lr"]) < 2e-3 for row in rows if row["lr"])


def test_a_missing_logger_is_named(corpus: Corpus, tmp_path: Path) -> None:
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ConfigError, match=r"tensorboard is not installed\n.*pip install tensorboard"):
            pretrain(corpus, tmp_path / "out", pretrain_config(runner=runner(logger="tensorboard")))
        assert not list(tmp_path.iterdir())
    else:
        pytest.skip("it is installed")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accelerator": "abacus"}, "runner's settings do not work here"),
        ({"accelerator": "tpu"}, "runner's settings do not work here"),
        ({"devices": 0}, "runner's settings do not work here"),
    ],
)
def test_what_the_machine_does_not_have(corpus: Corpus, tmp_path: Path, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        pretrain(corpus, tmp_path / "out", pretrain_config(runner=runner(**settings)))
    assert "set runner." in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_the_variables_of_a_cluster_change_nothing(
    corpus: Corpus, watched: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a job of Slurm, Lightning would requeue it upon a signal, with resume points of its own."""

    class Handlers(Callback):
        def on_train_start(self, *_: Any) -> None:
            handlers.append(signal.getsignal(signal.SIGUSR1))

    handlers: list[Any] = []
    watched(Handlers())
    variables = {"NTASKS": "1", "JOB_ID": "7", "JOB_NAME": "x", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    pretrain(corpus, tmp_path / "out", pretrain_config(epochs=1))
    assert handlers == [signal.getsignal(signal.SIGUSR1)]
