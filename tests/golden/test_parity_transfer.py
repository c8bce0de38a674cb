"""Transfer against the authors' own network: patches in series and in parallel, BCE and BPR, three steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from golden.converter import (
    Arrays,
    Entry,
    assert_close,
    backbone_of,
    indices,
    load,
    patch_entries,
    patch_of,
    same_gradients,
    scope,
)
from golden.test_parity_pretraining import block_outputs
from peterrec.nn.backbone import Backbone
from peterrec.nn.heads import ItemHead
from peterrec.nn.insertion import ConvInput
from peterrec.nn.losses import bce_loss, bpr_loss
from peterrec.nn.patch import Patch
from peterrec.nn.readout import represent

pytestmark = pytest.mark.shared

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "c_causal_2mp_serial_big": ("causal", {}),
    "c_causal_mp_serial_big": ("causal", {"per_block": 1}),
    "c_causal_2mp_parallel_big": ("causal", {"insertion": "parallel", "inner_skip": True}),
    "c_noncausal_2mp_parallel_big": ("noncausal", {"insertion": "parallel", "inner_skip": True}),
}
L2 = 0.01  # of the sum of squares of the target table, in their loss


@pytest.mark.parametrize("case", ["demo", "long"])
@pytest.mark.parametrize("name", CASES)
def test_patched_hidden_states_and_the_representation(shared: Path, name: str, case: str) -> None:
    arrays, (kind, settings) = load(shared, name), CASES[name]
    backbone = backbone_of(arrays, kind)
    patch = patch_of(arrays, backbone, **settings)
    context = arrays[f"{case}/context"]
    ends = (-1,) if kind == "causal" else (0, -1)
    tokens = indices(context, ends)
    hooked = block_outputs_with(backbone, tokens, patch)
    for number, (ours, theirs) in enumerate(zip(hooked, arrays[f"{case}/blocks"], strict=True)):
        assert_close(ours, theirs, f"block {number}")
    assert_close(backbone(tokens, patch), arrays[f"{case}/hidden"], "hidden")
    # What the user has of items, without their [TCL]: ours is put there by us.
    items = indices(context[:, :-1] if kind == "causal" else context[:, 1:-1])
    assert_close(represent(backbone, items, patch), arrays[f"{case}/tcl"], "representation")


def block_outputs_with(backbone: Backbone, tokens: Tensor, patch: Patch) -> Tensor:
    forward = backbone.forward
    backbone.forward = lambda tokens: forward(tokens, patch)
    try:
        return block_outputs(backbone, tokens)
    finally:
        backbone.forward = forward


@pytest.mark.parametrize("name", CASES)
def test_the_first_pieces(shared: Path, name: str) -> None:
    arrays, (kind, settings) = load(shared, name), CASES[name]
    backbone = backbone_of(arrays, kind)
    patch = patch_of(arrays, backbone, **settings)
    x = backbone.embedding(indices(arrays["demo/context"], (-1,) if kind == "causal" else (0, -1)))
    for sublayer, number in ((0, 1), (1, 2)):
        sublayer_module = backbone.blocks[0].first if sublayer == 0 else backbone.blocks[0].second
        adapter = patch.layer_at(sublayer)
        inner = f"demo/inner/{scope(0)}"
        convolved = sublayer_module.conv(x)
        assert_close(convolved, arrays[f"{inner}/dilated_conv{number}"])
        if adapter is not None:
            net: Any = adapter.net
            # Theirs has its own residual, in series as in parallel.
            name_of = "mp" if settings.get("per_block") == 1 else f"mp_{number}"
            assert_close(net(x if settings.get("inner_skip") else convolved), arrays[f"{inner}/{name_of}"])
            convolved = adapter.pre_norm(ConvInput(x, sublayer_module.conv.step(x.shape[1])), convolved)
        assert_close(sublayer_module.norm(convolved), arrays[f"{inner}/layer_norm{number}"])
        x = torch.relu(sublayer_module.norm(convolved))


# ---------------------------------------------------------------- fine-tuning


class FineTuning:
    """Their set-up: patch, second LayerNorms and target table are trained, the rest is frozen."""

    def __init__(self, arrays: Arrays) -> None:
        self.backbone = backbone_of(arrays).requires_grad_(False)
        self.patch = patch_of(arrays, self.backbone, train_norms=True)
        table = arrays["w/target-item/allitem_embeddings_target"]
        self.head = ItemHead(table.shape[1], len(table))
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(table))
        self.head.bias.requires_grad_(False)

    def scores(self, arrays: Arrays, step: int) -> tuple[Tensor, Tensor]:
        """Of the positive and of the one negative of each row."""
        tokens = indices(arrays["steps/itemseq_input"][step][:, :-2])  # without their [TCL] and target
        pair = np.concatenate([arrays["steps/pos"][step], arrays["steps/neg"][step]], axis=1).astype(np.int64)
        scores = self.head.score(represent(self.backbone, tokens, self.patch), torch.from_numpy(pair))
        return scores[:, 0], scores[:, 1:]

    def penalty(self) -> Tensor:
        return L2 * self.head.weight.square().sum()

    def entries(self) -> list[Entry]:
        """All that is trained, without the norms: ours hold differences."""
        head = Entry("target-item/allitem_embeddings_target", self.head.weight, lambda w: w, lambda w: w)
        return [*patch_entries(self.patch, 2), head]

    def norm_entries(self) -> list[Entry]:
        """The gradient of a difference is that of the parameter."""
        entries = []
        for block in range(8):
            adapter = self.patch.layer_at(2 * block + 1)
            assert adapter is not None
            assert adapter.norm is not None
            for theirs, ours in (("gamma", adapter.norm.weight), ("beta", adapter.norm.bias)):
                entries.append(Entry(f"{scope(block)}/layer_norm2/{theirs}", ours, lambda w: w, lambda w: w))
        return entries

    def values(self) -> dict[str, np.ndarray]:
        """All that is trained as it would stand in their checkpoint."""
        actual = {e.name: e.theirs(e.parameter.detach().numpy()) for e in self.entries()}
        for block in range(8):
            frozen, adapter = self.backbone.blocks[block].second.norm, self.patch.layer_at(2 * block + 1)
            assert adapter is not None
            assert adapter.norm is not None
            actual[f"{scope(block)}/layer_norm2/gamma"] = (frozen.weight + adapter.norm.weight).detach().numpy()
            actual[f"{scope(block)}/layer_norm2/beta"] = (frozen.bias + adapter.norm.bias).detach().numpy()
        return actual


def test_bce_bpr_and_their_gradients(shared: Path) -> None:
    arrays = load(shared, "d_finetune_causal_2mp_serial")
    tuning = FineTuning(arrays)
    positive, negative = tuning.scores(arrays, 0)
    assert_close(positive, arrays["step0/pos_logits"], "positive scores")
    assert_close(negative[:, 0], arrays["step0/neg_logits"], "negative scores")
    loss = bce_loss(positive, negative)
    assert_close(loss, arrays["step0/bce"], "BCE")
    assert_close(tuning.penalty(), arrays["step0/reg"], "penalty")
    (loss + tuning.penalty()).backward()
    same_gradients(tuning.entries() + tuning.norm_entries(), arrays, "step0/grad/")
    assert all(parameter.grad is None for parameter in tuning.backbone.parameters())


def test_bpr_and_its_gradients(shared: Path) -> None:
    arrays = load(shared, "d_finetune_causal_2mp_serial")
    tuning = FineTuning(arrays)
    loss = bpr_loss(*tuning.scores(arrays, 0))
    assert_close(loss, arrays["step0/bpr"], "BPR")
    loss.backward()
    same_gradients(tuning.entries() + tuning.norm_entries(), arrays, "step0/bpr_grad/")


def test_exactly_what_they_train_is_trained(shared: Path) -> None:
    arrays = load(shared, "d_finetune_causal_2mp_serial")
    assert set(FineTuning(arrays).values()) == set(arrays["trained_variables"].tolist())


def test_three_steps_of_their_training(shared: Path) -> None:
    arrays = load(shared, "d_finetune_causal_2mp_serial")
    tuning = FineTuning(arrays)
    trained = [entry.parameter for entry in tuning.entries() + tuning.norm_entries()]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in trained]
    rate = float(arrays["learning_rate"])
    for step in range(3):
        loss = bce_loss(*tuning.scores(arrays, step)) + tuning.penalty()
        assert_close(loss, arrays["steps/loss_before_step"][step], f"loss before step {step}")
        gradients = torch.autograd.grad(loss, trained)
        with torch.no_grad():
            for parameter, gradient, (m, v) in zip(trained, gradients, moments, strict=True):
                m.mul_(0.9).add_(0.1 * gradient)
                v.mul_(0.999).add_(0.001 * gradient.square())
                # TensorFlow's epsilon stands outside the bias correction.
                scale = rate * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
                parameter.sub_(scale * m / (v.sqrt() + 1e-8))
        if step in (0, 2):
            for name, value in tuning.values().items():
                assert_close(torch.from_numpy(np.ascontiguousarray(value)), arrays[f"after{step + 1}/{name}"], name)
