"""From the items of users to a loss and its gradients, against the loops of the oracles: nothing is taken for granted.

What the tests in `golden/` do with outputs of the authors' network, without them: small networks, all in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from builders import shaken
from contracts import ITEMS, lively_backbone, lively_patch
from oracles import (
    oracle_backbone,
    oracle_bce,
    oracle_bpr,
    oracle_candidate_softmax,
    oracle_full_softmax,
    oracle_log_expected,
    oracle_represent,
    oracle_sampled_softmax,
)
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.data.corpus import Task, TaskPart
from peterrec.data.sequences import FIRST_ITEM, MASK, PAD, UNK, Sequences
from peterrec.nn.heads import ClassificationHead, ItemHead
from peterrec.nn.losses import LogUniformSampler
from peterrec.nn.next_item import NextItemModel
from peterrec.training.learners import AdaptModule, Learner
from peterrec.training.objectives import ExampleSource, objective_of
from peterrec.training.pretrain_module import PretrainModule
from peterrec.training.strategies import Trainable
from peterrec.training.task_kinds import task_objective
from training.small import adapt_config, pretrain_config

HISTORIES = [[5, 6, 7, 8, 6, 23], [9, 4], [10, UNK, 5, 4]]
BACKBONES = {
    kind: BackboneConfig(kind=kind, channels=6, kernel_size=3, dilations=(1, 2)) for kind in ("causal", "noncausal")
}
PATCHES = {
    "serial": PatchConfig(bottleneck=2),
    "serial, one a block": PatchConfig(bottleneck=2, per_block=1, position="pre_act"),
    "parallel": PatchConfig(bottleneck=2, insertion="parallel", position="post_act"),
}
STEP = 1e-6
every_kind = pytest.mark.parametrize("kind", BACKBONES)


def same_slope(loss: Callable[[], float], parameters: Iterable[nn.Parameter]) -> None:
    """Compare the gradients that `backward` left with the change of the oracle's loss along a random direction."""
    parameters = list(parameters)
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    assert all(parameter.grad is not None for parameter in parameters)
    slope = sum(float((p.grad * along).sum()) for p, along in zip(parameters, direction, strict=True))
    values = []
    with torch.no_grad():
        for step in (STEP, -2 * STEP, STEP):
            for parameter, along in zip(parameters, direction, strict=True):
                parameter.add_(step * along)
            values.append(loss())
    assert slope == pytest.approx((values[0] - values[1]) / (2 * STEP), rel=1e-4)
    assert abs(slope) > 1e-3, "a direction that says something"


# ---------------------------------------------------------------- pre-training


def network_of(kind: str, **settings: Any) -> NextItemModel:
    """A network whose padding is as in training: zero, and without a gradient."""
    network = NextItemModel(lively_backbone(BACKBONES[kind].model_copy(update=settings)))
    shaken(network, 2, scale=0.4).double()
    with torch.no_grad():
        network.backbone.embedding.weight[PAD].zero_()
    return network.requires_grad_(True)


def training_loss(network: NextItemModel, negatives: int | None) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a step over all users, as `pretrain` makes it, and the batch that it is of."""
    config = pretrain_config(backbone=network.backbone.config, max_length=7, negatives=negatives or 1)
    objective = objective_of(config, ITEMS)
    sequences = Sequences.from_rows(HISTORIES)
    windows = objective.windows(sequences, np.arange(len(HISTORIES)))
    sampler = None if negatives is None else LogUniformSampler(ITEMS)
    source = ExampleSource(objective, windows, sampler, sequences)
    batch = source.batch(np.arange(len(HISTORIES)), np.random.default_rng(4))
    return PretrainModule(network, config, sampler).training_step(batch, 0), batch


def loss_by_loops(network: NextItemModel, questions: list[tuple[list[int], list[int]]], negatives: list[int]) -> float:
    """The same of (inputs, targets) of each user; the full softmax where there are no negatives."""
    hidden, positives = [], []
    for inputs, targets in questions:
        states = oracle_backbone(network.backbone, inputs)
        for state, target in zip(states, targets, strict=True):
            if target != PAD:
                hidden.append(state)
                positives.append(target - FIRST_ITEM)
    weight, bias = (tensor.detach().numpy() for tensor in network.output_table())
    if not negatives:
        return oracle_full_softmax(np.array(hidden), np.array(positives), weight, bias)
    expected = oracle_log_expected(negatives, ITEMS, len(negatives))
    return oracle_sampled_softmax(np.array(hidden), np.array(positives), weight, bias, np.array(negatives), expected)


@pytest.mark.parametrize("tie_weights", [True, False])
@pytest.mark.parametrize("negatives", [None, 9])
def test_the_causal_objective_is_the_next_item_at_every_position(negatives: int | None, tie_weights: bool) -> None:
    network = network_of("causal", tie_weights=tie_weights)
    loss, batch = training_loss(network, negatives)
    drawn = batch["negatives"].tolist() if negatives else []
    questions = [(row[:-1], [t if t >= FIRST_ITEM else PAD for t in row[1:]]) for row in HISTORIES]
    assert loss.item() == pytest.approx(loss_by_loops(network, questions, drawn), rel=1e-6)
    loss.backward()
    same_slope(lambda: loss_by_loops(network, questions, drawn), network.parameters())


@pytest.mark.parametrize("negatives", [None, 9])
def test_the_noncausal_objective_is_the_masked_items_from_both_sides(negatives: int | None) -> None:
    network = network_of("noncausal")
    loss, batch = training_loss(network, negatives)
    drawn = batch["negatives"].tolist() if negatives else []
    questions = []
    for row, inputs, targets in zip(HISTORIES, batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
        places = [t for t, target in enumerate(targets) if target != PAD]
        assert len(places) == max(1, round(0.3 * sum(item >= FIRST_ITEM for item in row)))
        assert [row[t] for t in places] == [targets[t] for t in places]
        unmasked = [t for t in range(len(row)) if t not in places]
        assert [inputs[t] for t in unmasked] == [row[t] for t in unmasked]
        questions.append((inputs, targets))
    assert any(MASK in inputs for inputs, _ in questions)
    assert loss.item() == pytest.approx(loss_by_loops(network, questions, drawn), rel=1e-6)
    loss.backward()
    same_slope(lambda: loss_by_loops(network, questions, drawn), network.parameters())


# ---------------------------------------------------------------- transfer


def adapting(kind: str, patch: PatchConfig, head: ClassificationHead | ItemHead, **settings: Any) -> AdaptModule:
    """What `adapt` trains, on a backbone that is frozen."""
    backbone = lively_backbone(BACKBONES[kind]).double().requires_grad_(False)
    trainable = Trainable(backbone, None, False, lively_patch(patch, backbone.config).double(), head.double())
    config = adapt_config(patch=patch, **settings)
    nobody = TaskPart((), Sequences.from_rows([]), None, None)
    source: Any = None
    task = Task("job", "ranking" if isinstance(head, ItemHead) else "classification", Path())
    objective = task_objective(config, task, nobody)
    return AdaptModule([Learner(task, nobody, nobody, trainable, source, objective)], config)


def vectors_by_loops(module: AdaptModule) -> np.ndarray:
    parts = module.learners[0].parts
    assert parts.patch is not None
    return np.array([oracle_represent(parts.backbone, row, parts.patch, parts.patch.config) for row in HISTORIES])


def table_of(head: ClassificationHead | ItemHead) -> tuple[np.ndarray, np.ndarray]:
    return head.weight.detach().numpy(), head.bias.detach().numpy()


def tokens() -> Tensor:
    width = max(map(len, HISTORIES))
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in HISTORIES])


@every_kind
@pytest.mark.parametrize("name", PATCHES)
def test_classes_are_told_from_the_state_at_the_task_token(kind: str, name: str) -> None:
    head = shaken(ClassificationHead(6, 3), 4)
    assert isinstance(head, ClassificationHead)
    module = adapting(kind, PATCHES[name], head)
    labels = torch.tensor([1, 0, 2])

    def by_loops() -> float:
        return oracle_full_softmax(vectors_by_loops(module), labels.numpy(), *table_of(head))

    loss = module.training_step({"0": {"tokens": tokens(), "labels": labels}}, 0)
    assert loss.item() == pytest.approx(by_loops(), rel=1e-9)
    loss.backward()
    same_slope(by_loops, module.trained.parameters())
    assert all(parameter.grad is None for parameter in module.backbones.parameters())


ORACLES = {"bpr": oracle_bpr, "bce": oracle_bce, "sampled-softmax": oracle_candidate_softmax}


@every_kind
@pytest.mark.parametrize("targets", [6, 300])
@pytest.mark.parametrize("ranking_loss", ORACLES)
def test_targets_are_ranked_by_pairs_of_a_positive_and_negatives(kind: str, ranking_loss: str, targets: int) -> None:
    """Few targets are all scored, of many only those of the batch."""
    head = shaken(ItemHead(6, targets), 4)
    assert isinstance(head, ItemHead)
    module = adapting(kind, PATCHES["serial"], head, ranking_loss=ranking_loss)
    users, chosen = [0, 0, 1, 2], [[1, 4, 0], [2, 4, 0], [5, 0, 2], [3, 3, 1]]  # a positive and two negatives
    log_expected = torch.tensor([[0.5, -1.0], [0.5, -1.0], [0.0, 0.2], [-0.3, 0.1]], dtype=torch.float64)
    batch = {
        "tokens": tokens(), "user": torch.tensor(users), "positive": torch.tensor([row[0] for row in chosen]),
        "negatives": torch.tensor([row[1:] for row in chosen]), "log_expected": log_expected,
    }  # fmt: skip

    def by_loops() -> float:
        vectors, (weight, bias) = vectors_by_loops(module), table_of(head)
        scores = np.array([
            [vectors[user] @ weight[item] + bias[item] for item in items]
            for user, items in zip(users, chosen, strict=True)
        ])  # fmt: skip
        corrected = scores[:, 1:] - (log_expected.numpy() if ranking_loss == "sampled-softmax" else 0.0)
        return ORACLES[ranking_loss](scores[:, 0], corrected)

    loss = module.training_step({"0": batch}, 0)
    assert loss.item() == pytest.approx(by_loops(), rel=1e-9)
    loss.backward()
    same_slope(by_loops, module.trained.parameters())
