"""Promise 4: adapting leaves every byte of the backbone unchanged, and the model that was passed in as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from peterrec.config import Strategy
from peterrec.data.corpus import Corpus
from peterrec.errors import PeterRecError
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone
from peterrec.nn.patch import Patch
from peterrec.training.adapt import adapt
from peterrec.training.strategies import build
from training.small import BACKBONE, StopAt, Stopped, adapt_config

pytestmark = pytest.mark.usefixtures("last_epoch_kept")

CASES = [(strategy, task) for strategy in ("patch", "head") for task in ("cluster", "shop")]


def copies(model: UserModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def unchanged(model: UserModel, before: dict[str, torch.Tensor]) -> bool:
    now = model.network.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in before)


class Gradients(Callback):
    """Looks for gradients of the backbone where they would be: after the backward pass."""

    def __init__(self) -> None:
        self.looked = 0

    def on_after_backward(self, trainer: Any, module: Any) -> None:
        self.looked += 1
        assert all(parameter.grad is None for parameter in module.backbones.parameters())
        assert all(not parameter.requires_grad for parameter in module.backbones.parameters())
        assert all(parameter.grad is not None for parameter in module.trained.parameters())
        optimised = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
        assert optimised == {id(parameter) for parameter in module.trained.parameters()}


@pytest.mark.parametrize(("strategy", "task"), CASES)
def test_no_byte_of_the_backbone_changes_and_no_gradient_is_made(
    model: UserModel, corpus: Corpus, watched: Callable[..., None], tmp_path: Path, strategy: str, task: str
) -> None:
    gradients = Gradients()
    watched(gradients)
    before, fingerprint = copies(model), model.pretrained.fingerprint
    bundle = adapt(model, corpus, task, tmp_path / "out", adapt_config(strategy=strategy))
    assert gradients.looked == 15
    assert unchanged(model, before)
    assert model.pretrained.fingerprint == fingerprint == bundle.backbone_fingerprint
    assert all(parameter.grad is None for parameter in model.network.parameters())
    assert not any(module.training for module in model.network.modules())


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_a_backbone_that_could_be_trained_is_frozen_before_anything_is(corpus: Corpus, strategy: str) -> None:
    """Whatever its owner did with it: only copies of its modules are ever trained."""
    backbone, spec = Backbone(BACKBONE, len(corpus.catalogue)).requires_grad_(True), corpus.task("cluster")
    parts = build(adapt_config(strategy=strategy), backbone, spec, spec.part("train"))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    backbone_pointers = {parameter.data_ptr() for parameter in backbone.parameters()}
    assert not any(parameter.data_ptr() in backbone_pointers for parameter in parts.modules().parameters())


@pytest.mark.parametrize("task", ["cluster", "shop"])
def test_what_is_trained_changed(model: UserModel, corpus: Corpus, tmp_path: Path, task: str) -> None:
    bundle = adapt(model, corpus, task, tmp_path / "out", adapt_config(optim={"lr": 0.05}))
    assert isinstance(bundle.patch, Patch)
    assert all(bool(piece.net.up.weight.any()) for piece in bundle.patch.adapter_layers.values())  # they start at zero
    for module in (bundle.patch, bundle.head):
        assert not module.training
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("strategy", ["patch", "head"])
def test_a_model_goes_on_working_and_the_bundle_works_on_it(
    model: UserModel, corpus: Corpus, tmp_path: Path, strategy: str
) -> None:
    histories = [["s0001", "s0002"], ["s0005"], []]
    before = model.represent(histories)
    bundle = adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(strategy=strategy, optim={"lr": 0.05}))
    np.testing.assert_array_equal(model.represent(histories), before)
    model.add_bundle(bundle, "memory")
    model.load_bundle(tmp_path / "out", "disk")
    memory, disk = (model.predict(histories, bundle=name).probabilities for name in ("memory", "disk"))
    np.testing.assert_array_equal(memory, disk)
    assert (model.represent(histories, bundle="disk") == before).all() == (strategy == "head")


def test_tasks_adapted_one_after_another_do_not_meet(
    model: UserModel, backbone: Path, corpus: Corpus, tmp_path: Path
) -> None:
    adapt(model, corpus, "shop", tmp_path / "first", adapt_config(epochs=1))
    second = adapt(model, corpus, "cluster", tmp_path / "second", adapt_config(epochs=1))
    alone = adapt(backbone, corpus, "cluster", tmp_path / "alone", adapt_config(epochs=1))
    assert all(torch.equal(second.tensors()[name], tensor) for name, tensor in alone.tensors().items())


def test_a_backbone_that_does_change_is_noticed(
    model: UserModel, corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    class Meddles(Callback):
        def on_train_end(self, trainer: Any, module: Any) -> None:
            module.backbones[0].embedding.weight.data[7, 3] += 1e-6

    watched(Meddles())
    with pytest.raises(PeterRecError, match="the pre-trained backbone changed while adapting"):
        adapt(model, corpus, "cluster", tmp_path / "out", adapt_config(epochs=1))
    assert not (tmp_path / "out").exists()


def test_a_model_is_as_before_when_adapting_fails(
    model: UserModel, corpus: Corpus, watched: Callable[..., None], tmp_path: Path
) -> None:
    before = copies(model)
    watched(StopAt("batch start", 3))
    with pytest.raises(Stopped):
        adapt(model, corpus, "cluster", tmp_path / "out", adapt_config())
    assert unchanged(model, before)
    assert {parameter.device for parameter in model.network.parameters()} == {model.device}
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
