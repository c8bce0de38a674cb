"""Ridge probes against scikit-learn's Ridge, and heads of items that start at one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.linear_model import Ridge

from peterrec.config import OptimConfig, Strategy
from peterrec.data.corpus import Corpus
from peterrec.data.hashing import id_hash
from peterrec.data.sequences import Sequences
from peterrec.data.splits import assign_folds
from peterrec.model import UserModel
from peterrec.nn.readout import represent
from peterrec.training.adapt import adapt
from peterrec.training.linear_probe import FOLDS
from peterrec.training.ridge_probe import PENALTIES, SCALES, RidgeProbe, _matrix
from training.small import adapt_config

USERS, ITEMS = 90, 12
HASHES = id_hash([f"user-{i}" for i in range(USERS)])
STANDING_STILL = OptimConfig(lr=1e-12, weight_decay=0.0)


def users_of(seed: int, noise: float = 1.0) -> tuple[np.ndarray, Sequences]:
    """Users with five numbers each, and one to three items that these say something of; one item twice."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(USERS, 5)) + 3.0
    scores = (vectors - 3.0) @ rng.normal(size=(5, ITEMS)) + noise * rng.gumbel(size=(USERS, ITEMS))
    counts = rng.integers(1, 4, size=USERS)
    items = [list(np.argsort(-row)[:count]) for row, count in zip(scores, counts, strict=True)]
    items[0] = [*items[0], items[0][0]]
    return vectors, Sequences.from_rows(items)


def ridge(vectors: np.ndarray, targets: Sequences, penalty: float) -> Ridge:
    dense = _matrix(targets, ITEMS).toarray()
    assert dense.max() == 1.0, "an item twice counts once"
    return Ridge(alpha=penalty * len(vectors)).fit(vectors, dense)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_it_is_a_ridge_regression_with_an_intercept(penalty: float) -> None:
    vectors, targets = users_of(seed=0)
    probe = RidgeProbe.fit(vectors, _matrix(targets, ITEMS), penalty)
    np.testing.assert_allclose(probe.scores(vectors), ridge(vectors, targets, penalty).predict(vectors), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_penalty_and_scale_are_the_best_for_users_who_are_held_out(seed: int) -> None:
    vectors, targets = users_of(seed, noise=3.0 * seed)
    fold_of_user = assign_folds(HASHES, FOLDS, "probe")
    held_out = {}
    for penalty in PENALTIES:
        scores = np.empty((USERS, ITEMS))
        for fold in range(FOLDS):
            rows, fitted = np.flatnonzero(fold_of_user == fold), np.flatnonzero(fold_of_user != fold)
            scores[rows] = ridge(vectors[fitted], targets.take(fitted), penalty).predict(vectors[rows])
        held_out[penalty] = scores
    users, has_item = targets.repeat(), _matrix(targets, ITEMS).toarray() > 0
    ranks = {}
    for penalty, scores in held_out.items():
        ahead = (scores[users] > scores[users, targets.items][:, None]) & ~has_item[users]
        ranks[penalty] = np.mean(1.0 / (1 + ahead.sum(axis=1)))
    probe = RidgeProbe.fit_by_cross_validation(vectors, targets, ITEMS, HASHES)
    assert probe.penalty == max(ranks, key=ranks.__getitem__)
    logits = held_out[probe.penalty][users]
    losses = {scale: -log_softmax(scale * logits, axis=1)[np.arange(len(users)), targets.items] for scale in SCALES}
    assert probe.scale == min(losses, key=lambda scale: losses[scale].mean())
    expected = probe.scale * ridge(vectors, targets, probe.penalty).predict(vectors)
    np.testing.assert_allclose(probe.scores(vectors), expected, atol=1e-8)


def test_what_says_nothing_gives_popularity() -> None:
    _, targets = users_of(seed=0)
    probe = RidgeProbe.fit_by_cross_validation(np.zeros((USERS, 5)), targets, ITEMS, HASHES)
    shares = _matrix(targets, ITEMS).sum(axis=0) / USERS
    np.testing.assert_allclose(probe.scores(np.ones((2, 5))), probe.scale * np.tile(shares, (2, 1)))


@pytest.mark.parametrize("users", [2, 3])
def test_few_users_are_no_obstacle(users: int) -> None:
    vectors, targets = users_of(seed=0)
    rows = np.arange(users)
    probe = RidgeProbe.fit_by_cross_validation(vectors[rows], targets.take(rows), ITEMS, HASHES[:users])
    assert np.isfinite(probe.weight).all()


def ridge_scores(model: UserModel, corpus: Corpus, readout: str) -> np.ndarray:
    """Scores of the valid users by scikit-learn, from the pre-trained states of the train users."""

    def vectors(part: str) -> np.ndarray:
        sequences = corpus.task("shop").part(part).sequences
        rows = [torch.from_numpy(sequences[i].astype(np.int64))[None] for i in range(len(sequences))]
        with torch.no_grad():
            states = torch.cat([represent(model.network.backbone, row, readout=readout) for row in rows])
        return states.double().numpy()

    task = corpus.task("shop")
    assert task.targets is not None
    train, items = task.part("train"), len(task.targets)
    assert train.targets is not None
    mean, deviation = vectors("train").mean(axis=0), vectors("train").std(axis=0)
    standardised = (vectors("train") - mean) / deviation
    probe = RidgeProbe.fit_by_cross_validation(standardised, train.targets, items, id_hash(train.user_ids.to_pylist()))
    return probe.scores((vectors("valid") - mean) / deviation)


@pytest.mark.parametrize("strategy", ["head", "patch", "all"])
def test_a_head_of_items_starts_at_what_is_read_of_the_pretrained_backbone(
    model: UserModel, corpus: Corpus, tmp_path: Path, strategy: Strategy
) -> None:
    settings = {"strategy": strategy, "readout": "both", "epochs": 1, "optim": STANDING_STILL}
    bundle = adapt(model, corpus, "shop", tmp_path / "out", adapt_config(head_init="linear-probe", **settings))
    model.add_bundle(bundle)
    valid = corpus.task("shop").part("valid").sequences
    scores = np.concatenate(list(model.score_batches(valid, "shop")))
    np.testing.assert_allclose(scores, ridge_scores(model, corpus, "both"), atol=2e-3)
