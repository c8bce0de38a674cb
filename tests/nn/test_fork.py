"""Forks of a backbone: what a task owns is copied, all else is the very same."""

from __future__ import annotations

from dataclasses import astuple
from itertools import product

import pytest
import torch

from contracts import BACKBONES, every_backbone, lively_backbone, some_items
from peterrec.config import BackboneConfig
from peterrec.nn.backbone import Backbone, UnsharedModules
from peterrec.nn.readout import represent

CONFIG = BackboneConfig(channels=6, dilations=(1, 2, 1))
every_choice = pytest.mark.parametrize(
    "unshared",
    [UnsharedModules(*choice) for choice in product((False, True), range(4), (1, 2))],
    ids=lambda unshared: "-".join(map(str, astuple(unshared))),
)


def unshared_names(backbone: Backbone, unshared: UnsharedModules) -> set[str]:
    """Names of the parameters that a task owns, from the settings alone."""
    last = [i for i in range(len(backbone.blocks)) if i >= len(backbone.blocks) - unshared.blocks]
    part = "second." if unshared.per_block == 1 else ""
    prefixes = [f"blocks.{i}.{part}" for i in last] + (["embedding."] if unshared.embedding else [])
    return {name for name, _ in backbone.named_parameters() if name.startswith(tuple(prefixes))}


@every_choice
def test_what_is_owned_is_copied_and_the_rest_is_the_same_tensor(unshared):
    backbone = Backbone(CONFIG, 9)
    fork, names = backbone.fork(unshared), unshared_names(backbone, unshared)
    original = dict(backbone.named_parameters())
    assert list(original) == [name for name, _ in fork.named_parameters()]
    for name, parameter in fork.named_parameters():
        assert torch.equal(parameter, original[name]), name
        shared = parameter.data_ptr() == original[name].data_ptr()
        assert (parameter is original[name]) == shared == (name not in names), name
    assert (fork.config, fork.items, fork.receptive_field) == (backbone.config, 9, backbone.receptive_field)


@every_choice
def test_the_chosen_modules_are_named_as_in_the_state_and_are_no_copies(unshared):
    backbone = Backbone(CONFIG, 9)
    chosen = dict(backbone.modules_of(unshared).named_parameters())
    assert set(chosen) == unshared_names(backbone, unshared)
    assert all(parameter is backbone.get_parameter(name) for name, parameter in chosen.items())


@every_choice
@pytest.mark.parametrize("kind", ["causal", "noncausal"])
def test_training_a_fork_never_changes_the_original(unshared, kind):
    backbone = lively_backbone(BACKBONES[kind])
    tokens, before = some_items(4, 7), {name: t.clone() for name, t in backbone.state_dict().items()}
    fork = backbone.fork(unshared)
    fork.modules_of(unshared).requires_grad_(True)
    trained = list(fork.modules_of(unshared).parameters())
    assert torch.equal(represent(fork, tokens), represent(backbone, tokens))
    if trained:
        optimizer = torch.optim.SGD(trained, lr=0.5)
        represent(fork, tokens).square().mean().backward()
        optimizer.step()
        assert not torch.equal(represent(fork, tokens), represent(backbone, tokens))
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@every_backbone
def test_two_forks_know_nothing_of_each_other(backbone_config):
    backbone = lively_backbone(backbone_config)
    first, second = (
        backbone.fork(UnsharedModules(embedding=True, blocks=1)),
        backbone.fork(UnsharedModules(embedding=True, blocks=1)),
    )
    with torch.no_grad():
        for parameter in first.modules_of(UnsharedModules(embedding=True, blocks=1)).parameters():
            parameter.zero_()
    tokens = some_items(2, 5)
    assert torch.equal(represent(second, tokens), represent(backbone, tokens))
    assert not torch.equal(represent(first, tokens), represent(backbone, tokens))


def test_a_fork_of_a_fork_copies_from_the_fork():
    backbone = lively_backbone(CONFIG)
    first = backbone.fork(UnsharedModules(embedding=False, blocks=2))
    with torch.no_grad():
        for parameter in first.modules_of(UnsharedModules(embedding=False, blocks=2)).parameters():
            parameter.add_(0.1)
    second = first.fork(UnsharedModules(embedding=False, blocks=1))
    assert second.blocks[0] is backbone.blocks[0]
    assert second.blocks[1] is first.blocks[1]
    assert second.blocks[2] is not first.blocks[2]
    assert torch.equal(represent(second, some_items(2, 5)), represent(first, some_items(2, 5)))


def test_replacing_a_module_of_a_fork_leaves_the_original_its_own():
    backbone = lively_backbone(CONFIG)
    embedding, fork = backbone.embedding, backbone.fork(UnsharedModules(embedding=False, blocks=0))
    fork.embedding = torch.nn.Embedding(13, 6)
    fork.blocks[0] = fork.blocks[1]
    assert backbone.embedding is embedding
    assert backbone.blocks[0] is not backbone.blocks[1]


def test_the_second_sublayer_of_a_transformer_is_the_feed_forward_one():
    backbone = lively_backbone(BACKBONES["transformer"])
    fork = backbone.fork(UnsharedModules(embedding=False, blocks=1, per_block=1))
    assert fork.blocks[1].attention is backbone.blocks[1].attention
    assert fork.blocks[1].feed_forward is not backbone.blocks[1].feed_forward
    assert fork.blocks[0] is backbone.blocks[0]


def test_what_names_whole_blocks_reads_as_before_there_was_a_choice():
    """The service makes versions of bundles from it: another text would be another version of the same bundle."""
    assert str(UnsharedModules(embedding=False, blocks=1)) == "UnsharedModules(embedding=False, blocks=1)"
