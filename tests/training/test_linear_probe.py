"""Linear probes against scikit-learn's pipeline, and heads of classes that start at one."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from peterrec.config import OptimConfig, Strategy
from peterrec.data.corpus import Corpus
from peterrec.data.hashing import id_hash
from peterrec.data.splits import assign_folds
from peterrec.errors import TrainingError
from peterrec.evaluation.baselines.classification import fit_regression, new_regression
from peterrec.model import UserModel
from peterrec.nn.readout import represent
from peterrec.training.adapt import adapt
from peterrec.training.learners import new_learner
from peterrec.training.linear_probe import FOLDS, MAX_STEPS, STRENGTHS, LinearProbe
from peterrec.training.strategies import build
from training.small import adapt_config

HASHES = id_hash([f"user-{i}" for i in range(120)])
STANDING_STILL = OptimConfig(lr=1e-12, weight_decay=0.0)


def users_of(classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """120 users with six numbers each, of very unlike sizes, and a class that three of them say something of."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(120, 6))
    labels = (vectors[:, :3] @ rng.normal(size=(3, classes)) + 2 * rng.gumbel(size=(120, classes))).argmax(axis=1)
    return (vectors * [1, 1e3, 1e-3, 1, 5, 1] + [0, 7, 0, -9, 0, 0]).astype(np.float32), labels


def pipeline(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_STEPS))


def test_logistic_regressions_are_fitted_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here and in baselines: scikit-learn's take several times as long in two."""
    threads: list[int] = []
    fit = LogisticRegression.fit

    def counting(self: LogisticRegression, *arguments: Any, **options: Any) -> Any:
        threads.extend(pool["num_threads"] for pool in threadpool_info())
        return fit(self, *arguments, **options)

    monkeypatch.setattr(LogisticRegression, "fit", counting)
    vectors, labels = users_of(3, 0)
    with threadpool_limits(2):
        LinearProbe.fit(vectors, labels, 3, 0.1)
        fit_regression(new_regression(0.1), vectors, labels)
        assert max(pool["num_threads"] for pool in threadpool_info()) == 2
    assert set(threads) == {1}


@pytest.mark.parametrize("classes", [2, 4])
def test_it_is_a_logistic_regression_of_standardised_vectors(classes: int) -> None:
    vectors, labels = users_of(classes, seed=0)
    vectors, weights = vectors.astype(np.float64), np.linspace(0.5, 1.5, len(labels))
    probe = LinearProbe.fit(vectors, labels, classes + 1, 0.1, weights)
    expected = pipeline(0.1).fit(vectors, labels, logisticregression__sample_weight=weights).predict_proba(vectors)
    answers = probe.probabilities(vectors)
    np.testing.assert_allclose(answers[:, :-1], expected, atol=2e-4)
    assert not answers[:, -1].any(), "a class that nobody has"
    alone = LinearProbe.fit(vectors, np.full(len(labels), 1), classes, 0.1)
    np.testing.assert_array_equal(alone.probabilities(vectors), np.eye(classes)[np.full(len(labels), 1)])


@pytest.mark.parametrize(("seed", "valid"), [*product(range(4), [0]), (0, 40), (2, 40), (3, 20)])
def test_the_penalty_is_the_best_for_users_who_are_held_out(seed: int, valid: int) -> None:
    """By folds, and by valid users, of whom each counts as much as a user of the folds."""
    vectors, labels = users_of(3, seed)
    vectors = vectors.astype(np.float64)
    # Of the valid users the numbers say nothing: they ask for a stronger penalty.
    rng = np.random.default_rng(seed)
    valid_vectors, valid_labels = vectors[rng.permutation(120)[:valid]], labels[rng.permutation(120)[:valid]]
    fold_of_user = assign_folds(HASHES, FOLDS, "probe", labels)
    losses = {}
    for strength in STRENGTHS:
        answers = np.empty((len(labels), 3))
        for fold in range(FOLDS):
            held_out = fold_of_user == fold
            answers[held_out] = pipeline(strength).fit(vectors[~held_out], labels[~held_out]).predict_proba(
                vectors[held_out]
            )  # fmt: skip
        if valid:
            answers = np.concatenate([answers, pipeline(strength).fit(vectors, labels).predict_proba(valid_vectors)])
        losses[strength] = log_loss(np.concatenate([labels, valid_labels]), answers)
    judges = (valid_vectors, valid_labels, None) if valid else None
    probe = LinearProbe.fit_by_cross_validation(vectors, labels, 3, HASHES, None, judges)
    assert probe.strength == min(losses, key=losses.__getitem__)
    if valid:
        assert probe.strength != LinearProbe.fit_by_cross_validation(vectors, labels, 3, HASHES).strength
    np.testing.assert_allclose(probe.weight, LinearProbe.fit(vectors, labels, 3, probe.strength).weight)


def test_a_class_of_one_user_is_no_obstacle() -> None:
    vectors, labels = users_of(2, seed=0)
    labels[7] = 2
    probe = LinearProbe.fit_by_cross_validation(vectors, labels, 3, HASHES)
    assert np.isfinite(probe.bias).all()


def expected_start(
    model: UserModel, corpus: Corpus, readout: str, class_weights: np.ndarray | None = None
) -> np.ndarray:
    """Probabilities of the valid users by scikit-learn, from the pre-trained states of the train users.

    The penalty is the one that both parts choose together.
    """

    def vectors(part: str) -> np.ndarray:
        backbone, sequences = model.network.backbone, corpus.task("cluster").part(part).sequences
        rows = [torch.from_numpy(sequences[i].astype(np.int64))[None] for i in range(len(sequences))]
        with torch.no_grad():
            return torch.cat([represent(backbone, row, readout=readout) for row in rows]).double().numpy()

    def weights(labels: np.ndarray) -> np.ndarray | None:
        return None if class_weights is None else class_weights[labels] / class_weights[labels].mean()

    train, valid = corpus.task("cluster").part("train"), corpus.task("cluster").part("valid")
    judges, hashes = (vectors("valid"), valid.labels, weights(valid.labels)), id_hash(train.user_ids.to_pylist())
    strength = LinearProbe.fit_by_cross_validation(
        vectors("train"), train.labels, 4, hashes, weights(train.labels), judges
    ).strength
    fitted = pipeline(strength).fit(
        vectors("train"), train.labels, logisticregression__sample_weight=weights(train.labels)
    )
    return np.asarray(fitted.predict_proba(vectors("valid")))


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("strategy", "readout"), [("head", "token"), ("patch", "both"), ("last1", "pooled"), ("all", "both")]
)
def test_a_head_starts_at_what_is_read_of_the_pretrained_backbone(
    model: UserModel, corpus: Corpus, tmp_path: Path, strategy: Strategy, readout: str
) -> None:
    expected = expected_start(model, corpus, readout)
    settings = {"strategy": strategy, "readout": readout, "epochs": 1, "optim": STANDING_STILL}
    model.add_bundle(
        adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(head_init="linear-probe", **settings))
    )
    valid = corpus.task("cluster").part("valid").sequences
    np.testing.assert_allclose(model.probabilities(valid, "cluster"), expected, atol=1e-3)
    random = adapt(model, corpus, "cluster", tmp_path / "random", adapt_config(**settings))
    model.add_bundle(random)
    assert np.abs(model.probabilities(valid, "cluster") - expected).max() > 0.05


def test_classes_count_as_in_the_loss(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    labels = corpus.task("cluster").part("train").labels
    expected = expected_start(model, corpus, "token", len(labels) / (4 * np.bincount(labels)))
    settings = {"strategy": "head", "class_weights": "balanced", "epochs": 1, "optim": STANDING_STILL}
    settings["head_init"] = "linear-probe"
    model.add_bundle(adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(**settings)))
    valid = corpus.task("cluster").part("valid").sequences
    np.testing.assert_allclose(model.probabilities(valid, "cluster"), expected, atol=1e-3)


@pytest.mark.parametrize("settings", [{"strategy": "scratch"}, {"strategy": "patch-random"}, {"head_init": "random"}])
def test_over_a_random_backbone_a_head_starts_at_random(model: UserModel, corpus: Corpus, settings: dict) -> None:
    task = corpus.task("cluster")
    train, valid = task.part("train"), task.part("valid")
    config = adapt_config(**({"readout": "both", "head_init": "linear-probe"} | settings))
    parts = build(config, model.network.backbone, task, train)
    before = parts.head.weight.detach().clone()
    learner = new_learner(config, task, train, valid, parts, model.device, None, valid_chooses=True)
    assert (learner.parts.head.weight == before).all()
    assert learner.parts.head.shift is not None, "but it knows how large the sums are"


@pytest.mark.parametrize("present", [(0, 1, 2), (2,)])
def test_classes_without_a_train_user_start_at_their_share(
    model: UserModel, corpus: Corpus, present: tuple[int, ...]
) -> None:
    task, config = corpus.task("cluster"), adapt_config(strategy="head", head_init="linear-probe")
    train = task.part("train")
    train = train.take(np.flatnonzero(np.isin(train.labels, present)))
    parts = build(config, model.network.backbone, task, train)
    new_learner(config, task, train, task.part("valid"), parts, model.device, None, valid_chooses=True)
    share = 1 / (len(train) + 4)
    assert parts.head.bias.exp()[3].item() == pytest.approx(share, rel=1e-4)
    answers = parts.head(torch.zeros(1, 8)).softmax(dim=1)[0]
    assert torch.isfinite(parts.head.weight).all()
    assert answers[3] < 0.1


def test_a_backbone_that_is_broken_is_said_to_be(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    model.network.backbone.embedding.weight.data[5:].fill_(torch.nan)
    with pytest.raises(TrainingError, match="states of the backbone are not finite"):
        adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(strategy="head", head_init="linear-probe"))
