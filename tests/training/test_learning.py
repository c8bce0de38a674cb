"""It learns: on made-up users with a taste, what is trained beats what needs no training by a clear margin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peterrec.data.corpus import Corpus, TaskPart
from peterrec.data.sequences import FIRST_ITEM
from peterrec.data.splits import uniform
from peterrec.evaluation.validation import mean_reciprocal_rank
from peterrec.model import UserModel
from peterrec.training.adapt import adapt
from peterrec.training.pretrain import pretrain
from training.small import CHANNELS, LEARNS, adapt_config, pretrain_config


def popularity_of_held_out(corpus: Corpus, share: float) -> tuple[float, float]:
    """The loss over all positions of held-out users, and MRR@10 of their last items, of a guess by popularity."""
    counts = corpus.catalogue.counts + 1.0
    loss = -np.log(counts / counts.sum())
    rank = 1 + (counts[None, :] > counts[:, None]).sum(1)  # no worse than a tie deserves
    draw = uniform(corpus.user_hashes, "pretrain-0")
    rows = [corpus.sequences[i] - FIRST_ITEM for i in np.flatnonzero(draw < share)]
    last = rank[[row[-1] for row in rows]]
    return float(loss[np.concatenate([row[1:] for row in rows])].mean()), float(np.where(last > 10, 0, 1 / last).mean())


def test_pretraining_beats_popularity_on_users_it_never_saw(structured: Corpus, trained: UserModel) -> None:
    loss, mrr = popularity_of_held_out(structured, 0.2)
    metrics = trained.pretrained.training["metrics"]
    assert 3.5 < loss < np.log(61)  # the guess itself is not bad
    assert metrics["valid_loss"] < loss - 0.8
    assert metrics["mrr@10"] > 4 * mrr
    curve = trained.pretrained.training["curve"]
    assert curve[-1]["train_loss"] < curve[0]["train_loss"] - 0.5


@pytest.mark.slow
def test_the_sampled_loss_learns_the_same(structured: Corpus, trained: UserModel, tmp_path: Path) -> None:
    config = pretrain_config(backbone=CHANNELS, epochs=6, valid_fraction=0.2, loss="sampled", negatives=1000, **LEARNS)
    sampled = pretrain(structured, tmp_path / "out", config).pretrained.training["metrics"]
    full = trained.pretrained.training["metrics"]
    assert sampled["valid_loss"] < full["valid_loss"] + 0.3
    assert sampled["mrr@10"] > 0.7 * full["mrr@10"]


def test_the_first_guess_is_popularity(structured: Corpus, tmp_path: Path) -> None:
    config = pretrain_config(epochs=1, valid_fraction=0.2, optim={"lr": 1e-9, "schedule": "constant"})
    untrained = pretrain(structured, tmp_path / "out", config).pretrained.training["metrics"]
    assert untrained["valid_loss"] == pytest.approx(popularity_of_held_out(structured, 0.2)[0], abs=0.1)


def accuracy(model: UserModel, name: str, part: TaskPart) -> float:
    assert part.labels is not None
    return float((model.probabilities(part.sequences, name).argmax(1) == part.labels).mean())


@pytest.mark.slow
def test_adapting_beats_the_majority_on_users_it_never_saw(
    structured: Corpus, trained: UserModel, tmp_path: Path
) -> None:
    test = structured.task("cluster").part("test")
    assert test.labels is not None
    assert np.bincount(test.labels).max() / len(test) < 0.4
    for strategy in ("patch", "head"):
        config = adapt_config(strategy=strategy, epochs=4, **LEARNS)
        name = trained.add_bundle(adapt(trained, structured, "cluster", tmp_path / strategy, config), strategy)
        assert accuracy(trained, name, test) > 0.85  # 0.95 at most: a twentieth of the labels are wrong


@pytest.mark.slow
def test_a_patch_reaches_what_a_head_alone_cannot(structured: Corpus, tmp_path: Path) -> None:
    """On a backbone that has hardly learned anything yet."""
    config = pretrain_config(backbone=CHANNELS, epochs=1, batch_size=32, valid_fraction=0.2, optim={"lr": 0.005})
    model = pretrain(structured, tmp_path / "backbone", config)
    test, reached = structured.task("cluster").part("test"), {}
    for strategy in ("patch", "head"):
        config = adapt_config(strategy=strategy, epochs=8, **LEARNS)
        model.add_bundle(adapt(model, structured, "cluster", tmp_path / strategy, config), strategy)
        reached[strategy] = accuracy(model, strategy, test)
    assert reached["patch"] > reached["head"] + 0.05
    assert reached["head"] > 0.5


@pytest.mark.slow
def test_ranking_beats_popularity_on_users_it_never_saw(structured: Corpus, trained: UserModel, tmp_path: Path) -> None:
    task = structured.task("shop")
    test = task.part("test")
    assert task.targets is not None
    assert test.targets is not None
    popular = np.tile(task.targets.counts.astype(float), (len(test), 1))
    for strategy in ("patch", "head"):
        config = adapt_config(strategy=strategy, epochs=3, **LEARNS)
        name = trained.add_bundle(adapt(trained, structured, "shop", tmp_path / strategy, config), strategy)
        actual = mean_reciprocal_rank(trained.score_batches(test.sequences, name), test.targets)
        assert actual > 2 * mean_reciprocal_rank([popular], test.targets)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "settings",
    [
        {"ranking_loss": "bce"},
        {"ranking_loss": "sampled-softmax"},
        {"ranking_loss": "sampled-softmax", "negatives": {"sampling": "popularity"}},
        {"negatives": {"sampling": "popularity", "power": 0.5}},
        {"ranking_loss": "bpr", "negatives": {"sampling": "hard", "count": 2, "candidates": 8}},
        {"ranking_loss": "bce", "negatives": {"sampling": "hard", "count": 1, "candidates": 4}},
    ],
    ids=str,
)
def test_every_ranking_loss_beats_popularity(
    structured: Corpus, trained: UserModel, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Where the head starts from; and it is not the default loss that was trained."""
    task = structured.task("shop")
    valid = task.part("valid")
    assert task.targets is not None
    assert valid.targets is not None
    start = mean_reciprocal_rank([np.tile(task.targets.counts.astype(float), (len(valid), 1))], valid.targets)
    bundle = adapt(trained, structured, "shop", tmp_path / "out", adapt_config(epochs=3, **LEARNS, **settings))
    assert bundle.metrics["valid"]["mrr"] > 1.8 * start
    default = adapt(trained, structured, "shop", tmp_path / "default", adapt_config(epochs=1, **LEARNS))
    assert bundle.metrics["curve"][0]["train_loss"] != default.metrics["curve"][0]["train_loss"]


@pytest.mark.slow
def test_training_more_reaches_more_than_a_head(structured: Corpus, tmp_path: Path) -> None:
    """On a backbone that has hardly learned anything yet; from scratch with the same data, too."""
    config = pretrain_config(backbone=CHANNELS, epochs=1, batch_size=32, valid_fraction=0.2, optim={"lr": 0.005})
    model = pretrain(structured, tmp_path / "backbone", config)
    test, reached = structured.task("cluster").part("test"), {}
    for strategy in ("head", "last1", "all", "scratch"):
        config = adapt_config(strategy=strategy, epochs=8, **LEARNS)
        model.add_bundle(adapt(model, structured, "cluster", tmp_path / strategy, config), strategy)
        reached[strategy] = accuracy(model, strategy, test)
    assert all(reached[strategy] > reached["head"] + 0.03 for strategy in ("last1", "all", "scratch")), reached
