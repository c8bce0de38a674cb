"""A readout whose module is trained: with the head, by every way of training, and kept in the bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from builders import tiny_bundle, tiny_pretrained
from peterrec import config
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.artifacts.inspection import inspect
from peterrec.config import AdaptConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.model import UserModel
from peterrec.nn import readout
from peterrec.nn.readout import FullPass, TrainedReadout, register_readout
from peterrec.serving.engine import Engine
from peterrec.serving.requests import Request
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.pretrain import pretrain
from training.small import adapt_config, pretrain_config

CHANNELS, QUERIES = 8, 4
FAST = {"lr": 0.05}


def attention(**settings: Any) -> AdaptConfig:
    return adapt_config(**({"readout": "attention", "strategy": "head", "epochs": 2, "optim": FAST} | settings))


def log_loss(model: UserModel, corpus: Corpus, name: str) -> float:
    valid = corpus.task("cluster").part("valid")
    probabilities = model.probabilities(valid.sequences, name)
    return float(-np.log(probabilities[np.arange(len(valid)), valid.labels]).mean())


def test_queries_are_trained_counted_and_stored(
    model: UserModel, corpus: Corpus, tmp_path: Path, logged: list[str]
) -> None:
    bundle = adapt(model, corpus, "cluster", tmp_path / "out", attention())
    head = 4 * (2 * QUERIES * CHANNELS + 1)
    assert bundle.trained == {"readout": QUERIES * CHANNELS, "head": head}
    assert bundle.readout_params == QUERIES * CHANNELS
    total = sum(parameter.numel() for parameter in model.network.backbone.parameters())
    assert bundle.all_params == total + bundle.trainable_params
    assert any(line.endswith(f"(readout {QUERIES * CHANNELS}, head {head})") for line in logged)
    queries = bundle.tensors()["readout.queries"]
    assert bool((queries != 0).any(dim=1).all())
    assert not torch.allclose(queries[0], queries[1], atol=1e-3), "each learns something else"
    meta = inspect(tmp_path / "out")
    assert (meta["readout"], meta["readout_params"]) == ("attention", QUERIES * CHANNELS)
    model.load_bundle(tmp_path / "out", "loaded")
    assert log_loss(model, corpus, "loaded") == pytest.approx(bundle.metrics["valid"]["log_loss"], abs=1e-5)


def test_a_card_says_that_there_is_something_to_read_by(tmp_path: Path) -> None:
    for name in ("attention", "both"):
        save_bundle(tmp_path / name, tiny_bundle(tiny_pretrained(), readout=name))
    cards = [(tmp_path / name / "README.md").read_text() for name in ("attention", "both")]
    line = "- Its head reads `attention`, by 32 numbers of the task's own.\n"
    assert [line in card for card in cards] == [True, False]
    assert "readout_params" not in json.loads((tmp_path / "both" / "adapter_config.json").read_text())


def test_states_that_are_kept_train_the_same(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    tensors = [
        adapt(model, corpus, "cluster", tmp_path / cache, attention(cache=cache)).tensors()
        for cache in ("memory", "off")
    ]
    for name, tensor in tensors[1].items():
        torch.testing.assert_close(tensors[0][name], tensor, atol=1e-4, rtol=0)


def test_each_task_of_a_joint_training_has_queries_of_its_own(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    bundles = adapt_jointly(model, corpus, ["cluster", "shop"], tmp_path / "out", attention(strategy="joint"))
    queries = [bundle.tensors()["readout.queries"] for bundle in bundles.values()]
    assert bool(queries[0].any())
    assert bool(queries[1].any())
    assert not torch.equal(*queries)
    model.load_bundle(tmp_path / "out" / "cluster", "loaded")
    assert log_loss(model, corpus, "loaded") == pytest.approx(bundles["cluster"].metrics["valid"]["log_loss"], abs=1e-5)


@pytest.mark.slow
def test_of_folds_each_trains_its_own(model: UserModel, corpus: Corpus, tmp_path: Path) -> None:
    folds = {"selection": "cross-validation", "folds": 2, "epochs": 1}
    metrics = [
        adapt(model, corpus, "shop", tmp_path / cache, attention(cache=cache, **folds)).metrics["cross_validation"]
        for cache in ("memory", "off")
    ]
    assert metrics[0]["metrics"] == pytest.approx(metrics[1]["metrics"], abs=1e-5)


# ---------------------------------------------------------------- one from outside the package


class Gate(nn.Module):
    """Sums over the events of hidden states, each through a gate that starts at what was drawn."""

    def __init__(self, channels: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, generator=generator))
        self.register_buffer("offset", torch.tensor(0.25))

    def forward(self, states: FullPass) -> torch.Tensor:
        gates = torch.sigmoid(states.hidden @ self.weight + self.offset) * states.events
        return torch.einsum("bt,btc->bc", gates, states.hidden)


class GatedReadout(TrainedReadout):
    description = "sums over the events, each through a gate"

    def width(self, channels: int) -> int:
        return channels

    def build(self, channels: int, generator: torch.Generator | None) -> Gate:
        return Gate(channels, generator)


@pytest.fixture
def gated() -> Iterator[str]:
    register_readout("gated", GatedReadout())
    yield "gated"
    del readout._READOUTS["gated"], config.READOUTS["gated"]


def test_one_from_outside_is_trained_saved_loaded_and_served(
    model: UserModel, corpus: Corpus, tmp_path: Path, gated: str
) -> None:
    histories = corpus.task("cluster").part("test").sequences
    for name, strategy in (("a", "head"), ("b", "patch"), ("c", "head")):
        settings = adapt_config(readout=gated, strategy=strategy, epochs=1, seed=ord(name), optim=FAST)
        model.add_bundle(adapt(model, corpus, "cluster", tmp_path / name, settings), f"{name} made")
        model.load_bundle(tmp_path / name, name)
        assert model.bundle(name).tensors()["readout.offset"] == 0.25
        in_memory, loaded = (model.probabilities(histories, key) for key in (f"{name} made", name))
        np.testing.assert_array_equal(in_memory, loaded)
    tensors = [model.bundle(name).tensors()["readout.weight"] for name in "abc"]
    assert not torch.allclose(tensors[0], tensors[2]), "seeds draw it"
    requests = [Request(history) for history in (["s0001", "s0002"], ["s0005"], ["s0003"] * 9)]
    answers = Engine(model).predict(requests)
    for name in "abc":
        expected = model.predict([request.items for request in requests], name).probabilities
        for answer, row in zip(answers, expected, strict=True):
            np.testing.assert_allclose(list(answer.tasks[name].probabilities.values()), row, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"contrastive": {"weight": 1.0, "readout": "attention"}},
        {"probe": {"tasks": ["cluster"], "readout": "attention"}},
    ],
)
def test_pre_training_has_no_task_whose_queries_it_could_train(corpus: Corpus, tmp_path: Path, settings: Any) -> None:
    with pytest.raises(ConfigError, match="which pre-training does not have"):
        pretrain(corpus, tmp_path / "out", pretrain_config(**settings))
    assert list(tmp_path.iterdir()) == []
