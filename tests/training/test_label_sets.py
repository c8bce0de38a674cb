"""Several labels at once: the loss by hand, every strategy, and probabilities of each label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import roc_auc_score

from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.sequences import Sequences, indicators
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.heads import MultilabelHead
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.pretrain import pretrain
from peterrec.training.task_kinds import TaskObjective, mean_metrics, task_objective
from training.label_sets import label_corpus
from training.small import CHANNELS, LEARNS, adapt_config, pretrain_config

SETS = [[0], [], [0, 2], [1, 0], [0]]


@pytest.fixture(scope="module")
def interests(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return label_corpus(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def learned(interests: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trunk") / "backbone"
    pretrain(interests, path, pretrain_config(backbone=CHANNELS, epochs=2, **LEARNS))
    return path


@pytest.fixture
def trunk(learned: Path) -> UserModel:
    return UserModel.from_pretrained(learned, "cpu")


def part_of(sets: list[list[int]]) -> TaskPart:
    ids = pa.array([str(n) for n in range(len(sets))])
    return TaskPart(ids, Sequences.from_rows([[4]] * len(sets)), label_sets=Sequences.from_rows(sets))


def objective(sets: list[list[int]]) -> TaskObjective:
    return task_objective(adapt_config(), Task("i", "multilabel", Path(), ("a", "b", "c")), part_of(sets))


def cross_entropy(logits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-logits))
    return -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p))


def test_the_loss_by_hand() -> None:
    head = MultilabelHead(4, 3, torch.Generator().manual_seed(0))
    vectors = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)) * 40
    wanted = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 1], [1, 1, 0], [1, 0, 0]])
    by_kind, logits = objective(SETS), head(vectors).detach()
    np.testing.assert_array_equal(indicators(Sequences.from_rows(SETS), 3), wanted)
    actual = by_kind(head, vectors, {"indicators": torch.from_numpy(wanted).float()}).item()
    assert actual == pytest.approx(cross_entropy(logits.double().numpy(), wanted).mean(), rel=1e-5)
    sums = by_kind.metric_sums(logits[1:3], part_of(SETS), np.array([1, 2]))
    expected = cross_entropy(logits[1:3].double().numpy(), wanted[1:3]).mean()
    assert mean_metrics([sums])["log_loss"] == pytest.approx(expected, rel=1e-6)


def test_a_head_starts_without_the_user_at_the_shares_and_so_does_the_constant_answer() -> None:
    by_kind = objective(SETS)
    bias = by_kind.new_head(4, torch.Generator()).bias.detach().sigmoid().numpy()
    np.testing.assert_allclose(bias, [5 / 7, 2 / 7, 2 / 7], rtol=1e-6)  # each of both answers counted once more
    metrics = mean_metrics(by_kind.constant_sums(part_of(SETS)))
    wanted = indicators(Sequences.from_rows(SETS), 3)
    assert metrics["log_loss"] == pytest.approx(cross_entropy(np.log(bias / (1 - bias)), wanted).mean(), rel=1e-5)


def test_a_head_starts_at_logistic_regressions(interests: Corpus, trunk: UserModel, tmp_path: Path) -> None:
    bundle = adapt(
        trunk, interests, "interests", tmp_path / "b", adapt_config(strategy="head", head_init="linear-probe")
    )
    start, constant = bundle.metrics["start"], bundle.metrics["constant"]
    assert start["log_loss"] < 0.9 * constant["log_loss"]
    random = adapt(trunk, interests, "interests", tmp_path / "r", adapt_config(strategy="head"))
    assert random.metrics["start"].get("log_loss", 9.0) > start["log_loss"]


def test_too_many_labels_for_a_probe_start_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peterrec.training.task_kinds.multilabel.MAX_PROBED_LABELS", 2)
    head = MultilabelHead(4, 3, torch.Generator().manual_seed(0))
    assert not objective(SETS).start_at_probe(head, torch.zeros(5, 4), part_of(SETS), None)


def test_planted_labels_are_learned_and_answers_are_those_of_validation(
    interests: Corpus, trunk: UserModel, tmp_path: Path
) -> None:
    config = adapt_config(epochs=8, head_init="linear-probe", optim={"lr": 0.01})
    bundle = adapt(trunk, interests, "interests", tmp_path / "b", config)
    trunk.load_bundle(tmp_path / "b", "saved")
    valid, test = interests.task("interests").part("valid"), interests.task("interests").part("test")
    assert valid.label_sets is not None
    assert test.label_sets is not None
    probabilities = trunk.label_probabilities(valid.sequences, "saved").astype(np.float64)
    wanted = indicators(valid.label_sets, 3)
    losses = -np.log(np.where(wanted == 1, probabilities, 1 - probabilities))
    assert losses.mean() == pytest.approx(bundle.metrics["valid"]["log_loss"], rel=1e-4)
    planted = [bundle.class_names.index(name) for name in ("low", "first")]
    shares, truth = trunk.label_probabilities(test.sequences, "saved"), indicators(test.label_sets, 3)
    assert roc_auc_score(truth[:, planted], shares[:, planted], average="macro") > 0.75


def test_answers_of_histories(interests: Corpus, trunk: UserModel, tmp_path: Path) -> None:
    adapt(trunk, interests, "interests", tmp_path / "b", adapt_config(epochs=1))
    trunk.load_bundle(tmp_path / "b")
    items = trunk.catalogue.ids.to_pylist()
    answers = trunk.predict([[items[0], items[3]], []], "interests")
    names = interests.task("interests").class_names
    table = answers.to_arrow()
    assert table.column_names == ["user", "labels", "known_events", *(f"p({name})" for name in names)]
    train = interests.task("interests").part("train").label_sets
    assert train is not None
    shares = indicators(train, 3).mean(axis=0)
    np.testing.assert_allclose([table[f"p({name})"][1].as_py() for name in names], shares, rtol=1e-6)
    for row in table.to_pylist():
        assert row["labels"] == "|".join(name for name in names if row[f"p({name})"] >= 0.5)
    assert repr(answers) == f"LabelPredictions(2 users, labels {', '.join(names)})"


@pytest.mark.parametrize("strategy", ["head", "last1", "all", "scratch", "patch-random"])
@pytest.mark.quick_cases(2)
def test_every_strategy_learns_labels(interests: Corpus, trunk: UserModel, tmp_path: Path, strategy: Any) -> None:
    bundle = adapt(trunk, interests, "interests", tmp_path / "b", adapt_config(strategy=strategy, epochs=1))
    trunk.load_bundle(tmp_path / "b")
    assert bundle.kind == "multilabel"
    shares = trunk.label_probabilities(interests.task("interests").part("test").sequences, "interests")
    assert ((shares > 0) & (shares < 1)).all()


def test_labels_and_classes_are_learned_together(interests: Corpus, trunk: UserModel, tmp_path: Path) -> None:
    config = adapt_config(strategy="joint", epochs=2)
    bundles = adapt_jointly(trunk, interests, ["interests", "cluster"], tmp_path / "j", config)
    assert set(bundles["interests"].metrics["valid"]) == {"log_loss"}
    trunk.load_bundle(tmp_path / "j" / "interests")
    assert np.isfinite(trunk.label_probabilities(interests.task("interests").part("test").sequences, "interests")).all()


def test_cross_validation_chooses_the_epoch(interests: Corpus, trunk: UserModel, tmp_path: Path) -> None:
    config = adapt_config(selection="cross-validation", folds=2, epochs=2, strategy="head")
    bundle = adapt(trunk, interests, "interests", tmp_path / "b", config)
    assert set(bundle.metrics["cross_validation"]["metrics"]) == {"log_loss"}


def test_a_bundle_of_another_kind_has_no_label_probabilities(
    interests: Corpus, trunk: UserModel, tmp_path: Path
) -> None:
    adapt(trunk, interests, "cluster", tmp_path / "c", adapt_config(epochs=1))
    adapt(trunk, interests, "interests", tmp_path / "b", adapt_config(epochs=1))
    trunk.load_bundle(tmp_path / "c")
    trunk.load_bundle(tmp_path / "b")
    sequences = interests.task("interests").part("test").sequences
    with pytest.raises(ConfigError, match="is of a classification task"):
        trunk.label_probabilities(sequences, "cluster")
    for method in (trunk.probabilities, trunk.numbers):
        with pytest.raises(ConfigError, match="is of a multilabel task"):
            method(sequences, "interests")
