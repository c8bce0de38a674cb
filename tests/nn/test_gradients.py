"""Gradients of network and objective together, against finite differences of the NumPy oracle.

A parameter that the loss depends on in a way that the gradient does not know (a wrong `detach`, a copy where the very
tensor is meant) shows here, whatever the forward pass says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from builders import shaken
from contracts import BACKBONES, ITEMS, PATCHES, lively_backbone, lively_patch, padded, pairs_of_backbone_and_patch
from oracles import (
    oracle_activation,
    oracle_backbone,
    oracle_bce,
    oracle_bpr,
    oracle_candidate_softmax,
    oracle_full_softmax,
    oracle_log_expected,
    oracle_represent,
    oracle_sampled_softmax,
)
from oracles.softmax_losses import full_softmax_loss, sampled_softmax_loss
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.nn.backbone import Backbone
from peterrec.nn.heads import ClassificationHead, ItemHead
from peterrec.nn.losses import bce_loss, bpr_loss, candidate_softmax_loss
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.patch import Patch
from peterrec.nn.readout import represent
from peterrec.nn.tokens import PAD, SPECIAL

STEP = 1e-6
USERS = [[5, 6, 7, 8, 6], [9, 4], [10, 5, 23]]
TOKENS = padded(USERS, 1, 1)
CHOSEN = torch.tensor([[1, 4, 0], [5, 0, 2], [3, 3, 1]])  # a positive and two negatives, of target items
NEGATIVES = [0, 2, 9, 2, 19]
LABELS = torch.tensor([1, 0, 2])


@dataclass
class Everything:
    """All that may have parameters."""

    network: NextItemModel
    patch: Patch
    config: PatchConfig
    classes: ClassificationHead
    targets: ItemHead

    @property
    def backbone(self) -> Backbone:
        return self.network.backbone


def everything(backbone_config: BackboneConfig, config: PatchConfig) -> Everything:
    generator = torch.Generator().manual_seed(0)
    backbone = lively_backbone(backbone_config).requires_grad_(True)
    parts = [
        shaken(NextItemModel(backbone), 2, scale=0.4),
        lively_patch(config, backbone_config),
        shaken(ClassificationHead(backbone_config.channels, 3, generator), 4),
        shaken(ItemHead(backbone_config.channels, 6, generator), 5),
    ]
    network, patch, classes, targets = (part.double() for part in parts)
    return Everything(network, patch, config, classes, targets)


def hidden_of(net: Everything) -> tuple[Tensor, Tensor]:
    """Hidden states at real positions, and an item to say at each."""
    real = TOKENS != PAD
    hidden = net.backbone(TOKENS, net.patch)[real]
    return net.network.outgoing(hidden), (TOKENS[real] - SPECIAL + 3) % ITEMS


def hidden_by_loops(net: Everything) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same, with the table that items are scored with."""
    hidden = np.concatenate([oracle_backbone(net.backbone, user, net.patch, net.config) for user in USERS])
    hidden = oracle_activation("relu", hidden) if net.backbone.config.output_relu else hidden
    positives = np.array([(item - SPECIAL + 3) % ITEMS for user in USERS for item in user])
    tied = net.backbone.config.tie_weights
    weight = net.backbone.embedding.weight[SPECIAL:] if tied else net.network.head.weight
    bias = net.network.bias if tied else net.network.head.bias
    return hidden, positives, weight.detach().numpy(), bias.detach().numpy()


def vectors_by_loops(net: Everything) -> np.ndarray:
    return np.array([oracle_represent(net.backbone, user, net.patch, net.config) for user in USERS])


def full(net: Everything) -> Tensor:
    return full_softmax_loss(*hidden_of(net), *net.network.output_table())


def full_by_loops(net: Everything) -> float:
    return oracle_full_softmax(*hidden_by_loops(net))


def sampled(net: Everything) -> Tensor:
    expected = torch.tensor(oracle_log_expected(NEGATIVES, ITEMS, 5), dtype=torch.float64)
    return sampled_softmax_loss(*hidden_of(net), *net.network.output_table(), torch.tensor(NEGATIVES), expected)


def sampled_by_loops(net: Everything) -> float:
    expected = oracle_log_expected(NEGATIVES, ITEMS, 5)
    return oracle_sampled_softmax(*hidden_by_loops(net), np.array(NEGATIVES), expected)


def classified(net: Everything) -> Tensor:
    return F.cross_entropy(net.classes(represent(net.backbone, TOKENS, net.patch)), LABELS)


def classified_by_loops(net: Everything) -> float:
    table = (net.classes.weight.detach().numpy(), net.classes.bias.detach().numpy())
    return oracle_full_softmax(vectors_by_loops(net), LABELS.numpy(), *table)


def target_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Everything], Tensor]:
    def value(net: Everything) -> Tensor:
        scores = net.targets.score(represent(net.backbone, TOKENS, net.patch), CHOSEN)
        return loss(scores[:, 0], scores[:, 1:])

    return value


def target_loss_by_loops(oracle: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Everything], float]:
    def value(net: Everything) -> float:
        weight, bias = net.targets.weight.detach().numpy(), net.targets.bias.detach().numpy()
        rows = zip(vectors_by_loops(net), CHOSEN.tolist(), strict=True)
        scores = np.array([[vector @ weight[item] + bias[item] for item in items] for vector, items in rows])
        return oracle(scores[:, 0], scores[:, 1:])

    return value


LOSSES = {
    "full": (full, full_by_loops),
    "sampled": (sampled, sampled_by_loops),
    "classes": (classified, classified_by_loops),
    "bpr": (target_loss(bpr_loss), target_loss_by_loops(oracle_bpr)),
    "bce": (target_loss(bce_loss), target_loss_by_loops(oracle_bce)),
    "candidates": (target_loss(candidate_softmax_loss), target_loss_by_loops(oracle_candidate_softmax)),
}


def difference(value: Callable[[], float], parameter: nn.Parameter, place: tuple[int, ...]) -> float:
    """The slope at one coordinate, from both sides."""
    values = []
    with torch.no_grad():
        before = float(parameter[place])
        for step in (STEP, -STEP):
            parameter[place] = before + step
            values.append(value())
        parameter[place] = before
    return (values[0] - values[1]) / (2 * STEP)


def check(net: Everything, loss: str, coordinates: int = 2) -> None:
    """Compare the value of a loss and its gradients at some coordinates of every parameter, the steepest one too."""
    by_torch, by_loops = LOSSES[loss]
    value = by_torch(net)
    assert float(value.detach()) == pytest.approx(by_loops(net), rel=1e-10)
    value.backward()
    rng = np.random.default_rng(0)
    for part in (net.network, net.patch, net.classes, net.targets):
        for name, parameter in part.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            flat = [int(gradient.abs().argmax()), *rng.integers(0, parameter.numel(), coordinates - 1)]
            for place in {tuple(int(i) for i in np.unravel_index(index, parameter.shape)) for index in flat}:
                actual = difference(lambda: by_loops(net), parameter, place)
                assert float(gradient[place]) == pytest.approx(actual, rel=1e-5, abs=1e-7), f"{name}{list(place)}"


SMALL = {
    "causal": BackboneConfig(channels=5, kernel_size=2, dilations=(1, 2)),
    "noncausal": BackboneConfig(kind="noncausal", channels=5, kernel_size=3, dilations=(1, 2)),
    "transformer": BackboneConfig(architecture="transformer", channels=6, layers=2, heads=2, positions=4),
    "noncausal-transformer": BackboneConfig(architecture="transformer", kind="noncausal", channels=4, layers=2),
}
RICH = PatchConfig(bottleneck=2, insertion="parallel", inner_skip=True, train_norms=True, train_task_token=True)


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(("backbone", "name"), pairs_of_backbone_and_patch(SMALL))
def test_gradients_through_every_patch_are_the_slopes(name, backbone):
    config = PATCHES[name]
    narrow = config.model_copy(update=dict.fromkeys(config.shape_fields, 2))
    check(everything(SMALL[backbone], narrow), "candidates")


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_every_loss_are_the_slopes(loss, backbone):
    check(everything(SMALL[backbone], RICH), loss, coordinates=3)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("loss", ["full", "sampled"])
@pytest.mark.parametrize(("tie_weights", "output_relu"), [(False, False), (True, True), (False, True)])
def test_gradients_of_every_way_to_score_items_are_the_slopes(loss, tie_weights, output_relu):
    config = SMALL["causal"].model_copy(update={"tie_weights": tie_weights, "output_relu": output_relu})
    check(everything(config, RICH), loss, coordinates=3)


def test_the_frozen_get_no_gradient_and_the_rest_the_slopes():
    """Part of the network frozen, as where a task owns the embedding and the last block."""
    net = everything(BACKBONES["noncausal"], PATCHES["last-block"])
    frozen = nn.ModuleList(list(net.backbone.blocks)[:2]).requires_grad_(False)
    by_torch, by_loops = LOSSES["classes"]
    by_torch(net).backward()
    assert all(parameter.grad is None for parameter in frozen.parameters())
    for parameter in (net.backbone.embedding.weight, net.backbone.blocks[2].first.conv.weight):
        index = int(parameter.grad.abs().argmax())
        place = tuple(int(i) for i in np.unravel_index(index, parameter.shape))
        actual = difference(lambda: by_loops(net), parameter, place)
        assert float(parameter.grad[place]) == pytest.approx(actual, rel=1e-5, abs=1e-7)
