"""Histories cut to their first events in adapting: prefixes of what the task has, drawn anew; nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from peterrec.artifacts.tensors import fingerprint
from peterrec.config import Strategy
from peterrec.data.batching import EpochStream, last_events, leave_out
from peterrec.data.corpus import Corpus
from peterrec.data.sequences import PAD
from peterrec.model import UserModel
from peterrec.training.activation_cache import TrunkCache
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.strategies import build
from peterrec.training.task_source import TaskSource
from training.small import adapt_config, plain

pytestmark = pytest.mark.usefixtures("last_epoch_kept")

SINGLE = [strategy for strategy in get_args(Strategy) if strategy != "joint"]


def source_of(corpus: Corpus, task: str, **settings: Any) -> TaskSource:
    return TaskSource(corpus.task(task), corpus.task(task).part("train"), adapt_config(**settings))


@pytest.mark.parametrize("task", ["cluster", "shop"])
def test_a_batch_reads_the_last_events_of_the_first_ones(corpus: Corpus, task: str) -> None:
    source = source_of(corpus, task, prefix_fraction=1.0, max_length=3)
    histories, lengths = source.part.sequences, []
    for batch in range(20):
        rows = np.arange(len(histories))
        tokens = source.batch(rows, np.random.default_rng(batch))["tokens"].numpy()
        for row in rows:
            events, history = tokens[row][tokens[row] != PAD].tolist(), histories[row].tolist()
            prefixes = [n for n in range(len(history) + 1) if history[:n][-3:] == events]
            assert prefixes
            lengths.append(max(prefixes) / max(1, len(history)))
    assert 0.3 < np.mean(np.array(lengths) < 1) < 1.0, "cut, in most of the draws, but not always"


def test_every_epoch_cuts_otherwise_and_the_labels_stay(corpus: Corpus) -> None:
    source = source_of(corpus, "cluster", prefix_fraction=1.0)
    stream = EpochStream(source, 500, seed=0)  # a single batch
    epochs = [next(iter(stream)) for _ in range(3)]
    totals = [int((batch["tokens"] != PAD).sum()) for batch in epochs]
    assert len(set(totals)) == 3
    for batch in epochs:
        assert sorted(batch["labels"].tolist()) == sorted(source.part.labels.tolist())


@pytest.mark.parametrize(("task", "dropout"), [("cluster", 0.0), ("shop", 0.4)])
def test_where_none_are_cut_not_a_draw_is_made(corpus: Corpus, task: str, dropout: float) -> None:
    source, rows = source_of(corpus, task, event_dropout=dropout), np.arange(20)
    rng = np.random.default_rng(0)
    expected = last_events(source.part.sequences, rows, 100)
    if dropout:
        expected = leave_out(expected, dropout, rng)
    batch = source.batch(rows, np.random.default_rng(0))
    assert np.array_equal(batch["tokens"].numpy(), expected)
    if task == "shop":
        users = rows[batch["user"].numpy()]
        assert np.array_equal(batch["negatives"].numpy(), source.sampler.sample(users, 50, rng))


def test_nothing_is_kept_of_users_whose_history_changes(model: UserModel, corpus: Corpus) -> None:
    task, backbone = corpus.task("cluster"), model.network.backbone
    train = task.part("train")
    for fraction, is_kept in ((0.0, True), (0.1, False)):
        config = adapt_config(strategy="head", prefix_fraction=fraction)
        cache = TrunkCache.from_config(config, build(config, backbone, task, train), train.sequences, train.sequences)
        assert (cache is not None) == is_kept


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("task", ["cluster", "shop"])
@pytest.mark.parametrize("strategy", SINGLE)
def test_every_strategy_learns_from_prefixes_and_the_same_each_time(
    model: UserModel, corpus: Corpus, tmp_path: Path, strategy: Strategy, task: str
) -> None:
    results = []
    for number, fraction in enumerate((0.8, 0.8, 0.0)):
        config = adapt_config(strategy=strategy, prefix_fraction=fraction, epochs=1)
        bundle = adapt(model, corpus, task, tmp_path / str(number), config)
        results.append((fingerprint(bundle.tensors()), plain(bundle.metrics["curve"])))
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_joint_training_and_folds_learn_from_prefixes_too(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    joint, folds = [], []
    for fraction in (0.0, 0.8):
        config = adapt_config(strategy="joint", prefix_fraction=fraction, epochs=1)
        bundles = adapt_jointly(model, corpus, ["cluster", "shop"], tmp_path / f"joint {fraction}", config)
        joint.append(fingerprint(bundles["shop"].tensors()))
        config = adapt_config(
            strategy="head", selection="cross-validation", folds=2, prefix_fraction=fraction, epochs=1
        )
        bundle = adapt(model, corpus, "cluster", tmp_path / f"folds {fraction}", config)
        folds.append(plain(bundle.metrics["cross_validation"]["curve"]))
    assert joint[0] != joint[1]
    assert folds[0] != folds[1]
