"""The losses of tasks by hand, and that their settings arrive where they act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peterrec.config import AdaptConfig, NegativesConfig, TaskKind
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.sequences import Sequences
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn.heads import ClassificationHead, ItemHead
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.task_kinds import TaskObjective, task_objective
from peterrec.training.task_kinds.classification import class_weights
from peterrec.training.task_source import TaskSource
from training.small import adapt_config, corpus_of

ROWS = [[4, 5], [5], [6, 4], [4]]


def objective(kind: TaskKind, config: AdaptConfig) -> TaskObjective:
    """Of a task about which only the kind is known."""
    return task_objective(config, Task("job", kind, Path()), TaskPart((), Sequences.from_rows([])))


def labelled(folder: Path, train: list[int]) -> Corpus:
    labels = {"train": train, "valid": [0, 1, 1, 0], "test": [0, 1, 1, 0]}
    return corpus_of(folder, ROWS, 3, labels=labels, parts={part: ROWS for part in labels})


def weights_of(corpus: Corpus, setting: Any) -> list[float] | None:
    task = corpus.task("job")
    weights = class_weights(adapt_config(class_weights=setting), task, task.part("train"))
    return weights.tolist() if weights is not None else None


# ---------------------------------------------------------------- class weights and label smoothing


def test_class_weights_by_hand(tmp_path: Path) -> None:
    corpus = labelled(tmp_path / "a", [0, 0, 1, 0])
    assert weights_of(corpus, "balanced") == pytest.approx([4 / (2 * 3), 4 / (2 * 1)])
    assert weights_of(corpus, {"yes": 3}) == [1, 3]
    assert weights_of(corpus, {"yes": 0.5, "no": 2}) == [2, 0.5]
    assert weights_of(corpus, None) is None
    assert weights_of(labelled(tmp_path / "b", [0, 0, 0, 0]), "balanced") == pytest.approx([4 / 8, 4 / 2])


@pytest.mark.parametrize("verb", ["adapt", "joint"])
def test_a_weight_of_a_class_that_is_not_there_is_refused(
    backbone: Path, corpus: Corpus, tmp_path: Path, verb: str
) -> None:
    settings = {"class_weights": {"c9": 2, "c1": 1, "c8": 3}}
    run = {
        "adapt": lambda: adapt(backbone, corpus, "cluster", tmp_path / "out", adapt_config(**settings)),
        "joint": lambda: adapt_jointly(
            backbone, corpus, ["shop", "cluster"], tmp_path / "out", adapt_config(strategy="joint", **settings)
        ),
    }[verb]
    with pytest.raises(ConfigError, match="class_weights names 'c9', 'c8', which task 'cluster' does not") as caught:
        run()
    assert caught.value.remedy == "its classes are c0, c1, c2, c3"
    assert list(tmp_path.iterdir()) == []


def test_class_weights_do_nothing_to_a_ranking_task(
    backbone: Path, corpus: Corpus, tmp_path: Path, logged: list[str]
) -> None:
    config = adapt_config(epochs=1, class_weights={"c9": 2})
    bundle = adapt(backbone, corpus, "shop", tmp_path / "o", config)
    assert bundle.kind == "ranking"
    assert "class_weights is not used: 'shop' is a ranking task" in logged
    logged.clear()
    adapt(backbone, corpus, "cluster", tmp_path / "c", adapt_config(epochs=1))
    assert not any("class_weights" in line for line in logged)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [None, [1.0, 5.0, 0.5]])
def test_the_loss_of_classes_by_hand(weights: list[float] | None, smoothing: float) -> None:
    """Each label is (1 - s) one-hot + s / K, each class's term has its weight; the mean is by the labels' weights."""
    head = ClassificationHead(4, 3, torch.Generator().manual_seed(0))
    vectors = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)) * 20
    labels = np.array([0, 2, 2, 1, 0])
    loss = objective("classification", adapt_config(label_smoothing=smoothing))
    loss.weights = None if weights is None else torch.tensor(weights)
    actual = loss(head, vectors, {"labels": torch.from_numpy(labels)}).item()
    scores = head(vectors).detach().double().numpy()
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    class_weight = np.array(weights or [1.0] * 3)
    wanted = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    assert actual == pytest.approx(-(wanted * class_weight * log_p).sum() / class_weight[labels].sum(), rel=1e-5)


@pytest.mark.parametrize("setting", ["balanced", {"c0": 20, "c1": 0.1}])
def test_class_weights_decide_the_log_loss_of_validation(
    model: UserModel, corpus: Corpus, tmp_path: Path, setting: Any
) -> None:
    config = adapt_config(epochs=2, class_weights=setting, optim={"lr": 0.05})
    task, bundle = corpus.task("cluster"), adapt(model, corpus, "cluster", tmp_path / "out", config)
    model.add_bundle(bundle)
    valid, train = task.part("valid"), task.part("train")
    assert valid.labels is not None
    assert train.labels is not None
    by_share = len(train) / (4 * np.bincount(train.labels))
    class_weight = by_share if setting == "balanced" else np.array([20, 0.1, 1, 1])
    log_p = np.log(model.probabilities(valid.sequences, "cluster"))[np.arange(len(valid)), valid.labels]
    expected = -(class_weight[valid.labels] * log_p).sum() / class_weight[valid.labels].sum()
    assert bundle.metrics["valid"]["log_loss"] == pytest.approx(expected, rel=1e-5)
    if setting != "balanced":
        assert bundle.metrics["valid"]["log_loss"] != pytest.approx(-log_p.mean(), rel=1e-3)


def test_a_heavy_class_is_said_more_often(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    mean_probability = {}
    for name, weights in (("plain", None), ("heavy", {"c2": 50.0})):
        config = adapt_config(epochs=2, strategy="head", class_weights=weights, optim={"lr": 0.05})
        model.add_bundle(adapt(model, corpus, "cluster", tmp_path / name, config), name)
        mean_probability[name] = model.probabilities(corpus.task("cluster").part("test").sequences, name)[:, 2].mean()
    assert mean_probability["heavy"] > mean_probability["plain"] + 0.2


# ---------------------------------------------------------------- ranking: by hand


def scores_and_batch(negatives: list[list[int]]) -> tuple[ItemHead, torch.Tensor, dict[str, torch.Tensor], np.ndarray]:
    """Two users with three positives; and the scores of all six items for each positive's user."""
    head = ItemHead(4, 6, torch.Generator().manual_seed(0), torch.linspace(-1, 1, 6))
    vectors = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)) * 20
    batch = {
        "user": torch.tensor([0, 0, 1]), "positive": torch.tensor([1, 2, 5]), "negatives": torch.tensor(negatives)
    }  # fmt: skip
    return head, vectors, batch, head(vectors).detach().double().numpy()[[0, 0, 1]]


def softplus(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(x))


NEGATIVES = [[0, 3, 4, 3], [5, 0, 4, 3], [1, 2, 0, 4]]


@pytest.mark.parametrize("loss", ["bpr", "bce", "sampled-softmax"])
def test_the_loss_of_pairs_by_hand(loss: str) -> None:
    head, vectors, batch, scores = scores_and_batch(NEGATIVES)
    batch["log_expected"] = torch.tensor([[0.5, -1.0, 0.2, -1.0]] * 3)
    actual = objective("ranking", adapt_config(ranking_loss=loss))(head, vectors, batch).item()
    positive = scores[np.arange(3), [1, 2, 5]]
    negative = np.take_along_axis(scores, np.array(NEGATIVES), 1)
    corrected = np.exp(negative - [0.5, -1.0, 0.2, -1.0]).sum(1)
    expected = {
        "bpr": softplus(negative - positive[:, None]).mean(),
        "bce": softplus(-positive).mean() + softplus(negative).mean(),
        "sampled-softmax": -np.log(np.exp(positive) / (np.exp(positive) + corrected)).mean(),
    }[loss]
    assert actual == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["bpr", "bce", "sampled-softmax"])
def test_few_or_many_targets_are_scored_in_two_ways_with_one_result(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_head, vectors, batch, _ = scores_and_batch(NEGATIVES)
    batch["log_expected"] = torch.zeros(3, 4)
    large_head = ItemHead(4, 300)
    with torch.no_grad():
        large_head.weight[:6], large_head.bias[:6] = small_head.weight, small_head.bias
    ranking = objective("ranking", adapt_config(ranking_loss=loss))
    ways: list[str] = []
    monkeypatch.setattr(
        ItemHead, "score", lambda *arguments, score=ItemHead.score: ways.append("chosen") or score(*arguments)
    )
    monkeypatch.setattr(
        ItemHead, "forward", lambda *arguments, all=ItemHead.forward: ways.append("all") or all(*arguments)
    )
    gradients = []
    for head in (small_head, large_head):
        actual = ranking(head, vectors.requires_grad_(), batch)
        gradients.append((actual.detach(), *torch.autograd.grad(actual, [vectors, head.weight])))
    assert ways == ["all", "chosen"]
    for few_gradient, many_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(
            few_gradient, many_gradient[: len(few_gradient)] if few_gradient.dim() else many_gradient
        )


@pytest.mark.parametrize("loss", ["bpr", "bce"])
@pytest.mark.parametrize("count", [1, 2])
def test_hard_negatives_are_the_highest_scoring_of_the_sample(loss: str, count: int) -> None:
    head, vectors, batch, scores = scores_and_batch(NEGATIVES)
    config = adapt_config(ranking_loss=loss, negatives={"sampling": "hard", "count": count, "candidates": 4})
    actual = objective("ranking", config)(head, vectors, batch).item()
    best = [sorted(row, key=lambda item: -scores[pair, item])[:count] for pair, row in enumerate(NEGATIVES)]
    head, vectors, batch, _ = scores_and_batch(best)
    plain = objective("ranking", adapt_config(ranking_loss=loss, negatives={"count": count}))
    assert actual == pytest.approx(plain(head, vectors, batch).item(), rel=1e-6)


def drawn(corpus: Corpus, loss: str = "bpr", **negatives: Any) -> dict[str, np.ndarray]:
    task = corpus.task("shop")
    config = adapt_config(ranking_loss=loss, negatives=NegativesConfig(**negatives))
    source = TaskSource(task, task.part("train"), config)
    rows = np.arange(len(source.lengths))
    return {name: tensor.numpy() for name, tensor in source.batch(rows, np.random.default_rng(0)).items()}


def test_as_many_negatives_are_drawn_as_the_settings_say(corpus: Corpus) -> None:
    pairs = len(drawn(corpus)["positive"])
    assert drawn(corpus)["negatives"].shape == (pairs, 50)
    assert drawn(corpus, count=7)["negatives"].shape == (pairs, 7)
    assert drawn(corpus, count=2, sampling="hard", candidates=9)["negatives"].shape == (pairs, 9)
    assert "log_expected" not in drawn(corpus)


def test_popularity_draws_popular_items_more_often_but_never_those_of_the_user(corpus: Corpus) -> None:
    targets = corpus.task("shop").targets
    assert targets is not None
    share = {}
    for sampling in ("uniform", "popularity"):
        batch = drawn(corpus, count=200, sampling=sampling, power=1.0)
        share[sampling] = np.bincount(batch["negatives"].ravel(), minlength=8) / batch["negatives"].size
        for user in np.unique(batch["user"]):
            positives = set(batch["positive"][batch["user"] == user])
            assert not positives & set(batch["negatives"][batch["user"] == user].ravel())
    assert np.corrcoef(share["popularity"] / share["uniform"], targets.counts + 1)[0, 1] > 0.99


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_the_correction_is_the_log_of_how_often_an_item_is_expected(corpus: Corpus, sampling: str) -> None:
    """M draws, each with the item's share of what the user does not have."""
    batch = drawn(corpus, "sampled-softmax", count=3, sampling=sampling, power=1.0)
    targets = corpus.task("shop").targets
    assert targets is not None
    weights = targets.counts + 1.0 if sampling == "popularity" else np.ones(8)
    for pair, user in enumerate(batch["user"]):
        free = np.setdiff1d(np.arange(8), batch["positive"][batch["user"] == user])
        for item, actual in zip(batch["negatives"][pair], batch["log_expected"][pair], strict=True):
            assert actual == pytest.approx(
                np.log(3 * weights[item] / weights[free].sum()), abs=0.06
            )  # weights are rounded


def test_label_smoothing_changes_what_is_trained(backbone: Path, corpus: Corpus, tmp_path: Path) -> None:
    heads = [
        adapt(backbone, corpus, "cluster", tmp_path / str(s), adapt_config(epochs=1, label_smoothing=s)).head.weight
        for s in (0.0, 0.5)
    ]
    assert not torch.equal(*heads)
