"""Erasing an attribute from what a head reads: nothing linear is left of it, wherever the bundle answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import peterrec
from peterrec.data.corpus import Corpus
from peterrec.data.synthetic import planted
from peterrec.errors import PeterRecError
from peterrec.model import UserModel
from peterrec.nn.eraser import Eraser
from peterrec.nn.heads import ClassificationHead
from peterrec.serving.engine import Engine
from peterrec.storage import read_json
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.erasure import fit_eraser
from training.small import QUIET, adapt_config, pretrain_config

pytest.importorskip("concept_erasure", reason="erasing needs concept-erasure (peterrec[audit])")

Labels = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Users with a cluster, and a group that follows from it but for a sixth of them."""
    data = planted(users=400, items=40, clusters=4, mean_events=8, seed=3)
    users = data.users.to_pandas()
    flipped = np.random.default_rng(0).random(len(users)) < 1 / 6
    users["group"] = np.where(users["cluster"].isin(["c0", "c1"]) ^ flipped, "left", "right")
    return peterrec.prepare(
        data.events, tmp_path_factory.mktemp("people") / "corpus", domain="domain", source={"domains": ["source"]},
        users=users, classify=["cluster", "group"], rank="target", split={"train": 0.6, "valid": 0.25, "test": 0.15},
    )  # fmt: skip


@pytest.fixture(scope="module")
def people_model(people: Corpus, tmp_path_factory: pytest.TempPathFactory) -> UserModel:
    return peterrec.pretrain(people, tmp_path_factory.mktemp("model") / "backbone", pretrain_config(epochs=1))


def covariances(vectors: npt.NDArray[np.floating[Any]], labels: Labels) -> float:
    """The largest correlation of a number with a class."""
    x, z = vectors - vectors.mean(0), np.eye(labels.max() + 1)[labels]
    z -= z.mean(0)
    return float(np.abs(x.T @ z / len(x) / np.outer(x.std(0) + 1e-9, z.std(0))).max())


def test_nothing_linear_is_left_of_classes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=500)
    vectors = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + np.eye(6)[labels] * 2
    eraser = fit_eraser(torch.from_numpy(vectors).float(), labels, 4)  # a class that nobody has
    erased = eraser(torch.from_numpy(vectors).float()).numpy()
    assert eraser.rank == 2
    assert covariances(vectors, labels) > 0.2
    assert covariances(erased, labels) < 1e-5
    model = LogisticRegression(C=1e6, max_iter=1000).fit(erased, labels)
    assert (model.predict(erased) == labels).mean() <= np.bincount(labels).max() / 500 + 0.01
    twice = eraser(torch.from_numpy(erased)).numpy()
    np.testing.assert_allclose(twice, erased, atol=1e-4)  # a projection


def test_a_head_with_the_eraser_in_it_reads_what_the_eraser_leaves() -> None:
    generator = torch.Generator().manual_seed(0)
    head = ClassificationHead(5, 3, generator)
    numbers = [torch.randn(shape, generator=generator) for shape in ((5, 2), (2, 5), (5,))]
    eraser = Eraser.from_tensors(*numbers)
    vectors = torch.randn(7, 5, generator=generator)
    expected = head(eraser(vectors))
    eraser.fold_into(head)
    torch.testing.assert_close(head(vectors), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("task", "readout"), [("group", "both"), pytest.param("target", "token", marks=pytest.mark.slow)]
)
def test_wherever_a_bundle_answers_the_attribute_is_gone(
    people: Corpus, people_model: UserModel, tmp_path: Path, task: str, readout: str
) -> None:
    config = adapt_config(erase="cluster", readout=readout, epochs=2)
    bundle = adapt(people_model, people, task, tmp_path / "bundle", config)
    model = UserModel(people_model.pretrained, "cpu")
    model.add_bundle(bundle, "made")
    model.load_bundle(tmp_path / "bundle", "loaded")
    users = people.task("cluster").part("train")
    vectors = model.representations(users.sequences, "made")
    np.testing.assert_array_equal(vectors, model.representations(users.sequences, "loaded"))
    assert covariances(vectors, np.asarray(users.labels)) < 1e-3
    raw = model._head_inputs(users.sequences, "made", 256)
    assert covariances(raw, np.asarray(users.labels)) > 0.1, "something was there to erase"
    with torch.inference_mode():
        scores = bundle.head(torch.from_numpy(raw))
        torch.testing.assert_close(bundle.head(torch.from_numpy(vectors)), scores, atol=1e-4, rtol=1e-4)
    assert covariances(scores.numpy(), np.asarray(users.labels)) < 1e-3
    assert read_json(tmp_path / "bundle" / "adapter_config.json")["erased"] == {"attribute": "cluster", "rank": 3}
    facts = bundle.metrics["erasure"]
    assert facts["after"] == bundle.metrics["valid"]
    assert facts["head"] in ("trained", "refitted")
    assert "`cluster` was erased" in (tmp_path / "bundle" / "README.md").read_text()


def test_the_engine_answers_a_mixed_batch_as_the_model_does(
    people: Corpus, people_model: UserModel, tmp_path: Path
) -> None:
    model = UserModel(people_model.pretrained, "cpu")
    for name, erased in (("plain", None), ("erased", "cluster")):
        model.add_bundle(adapt(model, people, "group", tmp_path / name, adapt_config(erase=erased, epochs=1)), name)
    part = people.task("group").part("test").take(np.arange(5))
    histories = [people.catalogue.decode(part.sequences.take(np.array([row])).items) for row in range(5)]
    question = peterrec.Question(("plain", "erased"))
    answers = Engine(model).predict([peterrec.Request(tuple(history), question) for history in histories])
    for name in ("plain", "erased"):
        alone = model.probabilities(part.sequences, name)
        mixed = [[value for _, value in sorted(answer.tasks[name].probabilities.items())] for answer in answers]
        np.testing.assert_allclose(mixed, alone, atol=1e-5)
        if name == "plain":
            unerased = alone
    assert np.abs(alone - unerased).max() > 1e-3, "the two differ"
    valid = people.task("group").part("valid")
    probabilities = model.probabilities(valid.sequences, "erased")
    loss = -np.log(probabilities[np.arange(len(valid)), np.asarray(valid.labels)]).mean()
    assert loss == pytest.approx(model.bundle("erased").metrics["valid"]["log_loss"], abs=1e-5)


@pytest.mark.slow
def test_heads_of_a_joint_training_read_without_it_too(people: Corpus, people_model: UserModel, tmp_path: Path) -> None:
    config = adapt_config(strategy="joint", erase="cluster", readout="both", epochs=1)
    bundles = adapt_jointly(people_model, people, ["group", "target"], tmp_path / "joint", config)
    users = people.task("cluster").part("train")
    for name, bundle in bundles.items():
        model = UserModel(people_model.pretrained, "cpu")
        model.load_bundle(tmp_path / "joint" / name, name)
        assert covariances(model.representations(users.sequences, name), np.asarray(users.labels)) < 1e-3
        assert bundle.metrics["erasure"]["after"] == bundle.metrics["valid"]


@pytest.mark.parametrize(
    ("erase", "message"), [("group", "to be learned"), ("target", "only classes"), ("cluter", "cluster")]
)
def test_what_cannot_be_erased_is_refused(
    people: Corpus, people_model: UserModel, tmp_path: Path, erase: str, message: str
) -> None:
    with pytest.raises(PeterRecError, match=message):
        adapt(people_model, people, "group", tmp_path / "out", adapt_config(erase=erase, runner=QUIET))
    assert not list(tmp_path.iterdir())


def test_without_the_package_it_says_what_to_install(
    people: Corpus, people_model: UserModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "concept_erasure", None)
    with pytest.raises(PeterRecError, match=r"peterrec\[audit\]"):
        adapt(people_model, people, "group", tmp_path / "out", adapt_config(erase="cluster"))
    assert not list(tmp_path.iterdir())
