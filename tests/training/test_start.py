"""The weights before the first step: a candidate beside every epoch, and heads that learn slowly from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peterrec.artifacts.bundle_io import Bundle
from peterrec.config import OptimConfig
from peterrec.data.corpus import Corpus
from peterrec.model import UserModel
from peterrec.report.run.record import Curve as CurveOfReport
from peterrec.training.adapt import adapt
from peterrec.training.learners import new_learner
from peterrec.training.strategies import build
from peterrec.training.task_kinds import ranking
from training.small import adapt_config

STANDING_STILL = OptimConfig(lr=1e-12, weight_decay=0.0)
DESTRUCTIVE = OptimConfig(lr=3.0, weight_decay=0.0)
PROBED: dict[str, Any] = {"head_init": "linear-probe", "readout": "both", "patience": 2, "probed_head_rate": 1.0}


def answers(model: UserModel, bundle: Bundle, corpus: Corpus) -> np.ndarray:
    model.add_bundle(bundle, "asked")
    probabilities = model.probabilities(corpus.task("cluster").part("test").sequences, "asked")
    model.delete_bundle("asked")
    return probabilities


@pytest.mark.parametrize("task", ["cluster", "shop"])
def test_where_no_epoch_is_better_the_start_is_what_is_kept(
    model: UserModel, corpus: Corpus, tmp_path: Path, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "peterrec")
    bundle = adapt(model, corpus, task, tmp_path / "out", adapt_config(optim=DESTRUCTIVE, **PROBED))
    metrics = bundle.metrics
    assert (metrics["best_epoch"], len(metrics["curve"])) == (-1, 2), "patience counts from the start"
    assert metrics["valid"] == metrics["start"]
    assert "no epoch was better than the start" in caplog.text
    if task == "cluster":
        still = adapt(model, corpus, task, tmp_path / "still", adapt_config(optim=STANDING_STILL, **PROBED))
        np.testing.assert_allclose(answers(model, bundle, corpus), answers(model, still, corpus), atol=1e-6)


def test_a_better_epoch_is_kept(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    config = adapt_config(optim=OptimConfig(lr=0.02))  # from a head at random
    metrics = adapt(model, corpus, "shop", tmp_path / "out", config).metrics
    assert metrics["best_epoch"] >= 0
    assert metrics["valid"]["mrr"] > metrics["start"]["mrr"]


@pytest.mark.slow
def test_a_cross_validation_may_choose_the_start(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    settings = PROBED | {"selection": "cross-validation", "folds": 3}
    bundle = adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(optim=DESTRUCTIVE, **settings))
    assert bundle.metrics["cross_validation"]["best_epoch"] == bundle.metrics["best_epoch"] == -1
    assert bundle.metrics["curve"] == []
    still = adapt(model, corpus, "cluster", tmp_path / "still", adapt_config(optim=STANDING_STILL, **settings))
    np.testing.assert_allclose(answers(model, bundle, corpus), answers(model, still, corpus), atol=1e-6)


def test_a_report_draws_the_start_as_epoch_zero() -> None:
    rows = [{"epoch": 0, "log_loss": 0.7}, {"epoch": 1, "log_loss": 0.8}]
    curve = CurveOfReport.model_validate(
        {"monitor": "log_loss", "best_epoch": -1, "start": {"log_loss": 0.6}, "rows": rows}
    )
    assert curve.best == {"epoch": -1, "log_loss": 0.6}
    assert [row["epoch"] for row in curve.points] == [-1, 0, 1]
    assert CurveOfReport.model_validate({"monitor": "log_loss", "best_epoch": 0, "rows": rows}).points == rows


@pytest.mark.usefixtures("last_epoch_kept")
@pytest.mark.parametrize(("init", "moves"), [("linear-probe", False), ("random", True)])
def test_only_a_head_that_starts_at_a_probe_learns_at_its_own_rate(
    model: UserModel, corpus: Corpus, tmp_path: Path, init: str, moves: bool
) -> None:
    settings: dict[str, Any] = {"head_init": init, "readout": "both", "epochs": 1, "probed_head_rate": 0.0}
    still, trained = (
        adapt(model, corpus, "cluster", tmp_path / name, adapt_config(optim=optim, **settings))
        for name, optim in (("still", STANDING_STILL), ("trained", OptimConfig(lr=0.01, weight_decay=0.1)))
    )
    assert torch.allclose(still.head.weight, trained.head.weight, atol=1e-7) != moves
    assert still.patch is not None
    assert trained.patch is not None
    assert not all(map(torch.equal, still.patch.parameters(), trained.patch.parameters()))


def test_the_valid_users_choose_the_penalty_too(model: UserModel, corpus: Corpus) -> None:
    task, config = corpus.task("cluster"), adapt_config(**PROBED)
    train, valid = task.part("train").take(np.arange(8)), task.part("valid")
    biases = []
    for valid_chooses in (False, True):
        parts = build(config, model.network.backbone, task, train)
        device = torch.device("cpu")
        new_learner(config, task, train, valid, parts, device, states=None, valid_chooses=valid_chooses)
        biases.append(parts.head.weight.detach().clone())
    assert not torch.equal(*biases)


def test_a_head_too_large_for_a_probe_starts_at_random_and_learns_as_fast(
    model: UserModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "peterrec")
    task, config = corpus.task("shop"), adapt_config(**PROBED)
    probed = []
    for limit in (ranking.MAX_RIDGE_WEIGHTS, 10):
        monkeypatch.setattr(ranking, "MAX_RIDGE_WEIGHTS", limit)
        parts = build(config, model.network.backbone, task, task.part("train"))
        learner = new_learner(
            config, task, task.part("train"), task.part("valid"), parts, torch.device("cpu"), None, valid_chooses=True
        )
        probed.append(learner.starts_at_probe)
    assert probed == [True, False]
    assert "the head of 8 items starts at random: it is too large" in caplog.text
