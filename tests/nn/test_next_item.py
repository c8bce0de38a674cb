"""The scores of next items: with the input embeddings, or with a table of their own."""

from __future__ import annotations

import pytest
import torch

from contracts import every_backbone, lively_backbone, padded
from peterrec.config import BackboneConfig
from peterrec.nn.backbone import Backbone
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.readout import represent_next
from peterrec.nn.tokens import SPECIAL

ITEMS = 9


def make(tie: bool, bias: torch.Tensor | None = None, seed: int = 0) -> NextItemModel:
    config = BackboneConfig(channels=4, dilations=(1,), tie_weights=tie)
    return NextItemModel(Backbone(config, ITEMS), bias, seed=seed)


@pytest.mark.parametrize("tie", [True, False])
def test_every_item_and_no_special_token_is_scored(tie):
    weight, bias = make(tie, torch.arange(float(ITEMS))).output_table()
    assert weight.shape == (ITEMS, 4)
    assert bias.tolist() == list(range(ITEMS))
    assert make(tie).output_table()[1].tolist() == [0] * ITEMS


def test_tied_weights_are_the_input_embeddings_themselves():
    network = make(tie=True)
    weight, bias = network.output_table()
    assert weight.data_ptr() == network.backbone.embedding.weight[SPECIAL:].data_ptr()
    weight.sum().backward()
    gradient = network.backbone.embedding.weight.grad
    assert gradient[:SPECIAL].abs().sum() == 0
    assert (gradient[SPECIAL:] == 1).all()
    assert bias is network.bias
    assert [name for name in network.state_dict() if not name.startswith("backbone.")] == ["bias"]


def test_a_table_of_its_own_comes_from_the_seed_and_not_from_the_embedding():
    network = make(tie=False, seed=3)
    weight, bias = network.output_table()
    assert weight is network.head.weight
    assert bias is network.head.bias
    torch.manual_seed(99)
    assert torch.equal(make(tie=False, seed=3).output_table()[0], weight)
    assert not torch.equal(make(tie=False, seed=4).output_table()[0], weight)
    assert not torch.equal(network.backbone.embedding.weight[SPECIAL:], weight)
    assert sorted(n for n in network.state_dict() if not n.startswith("backbone.")) == ["head.bias", "head.weight"]


@pytest.mark.parametrize("tie", [True, False])
def test_training_leaves_the_given_biases_alone(tie):
    popularity = torch.zeros(ITEMS)
    network = make(tie, popularity)
    with torch.no_grad():
        network.output_table()[1].add_(1)
    assert popularity.sum() == 0


@every_backbone
@pytest.mark.parametrize("output_relu", [False, True])
def test_hidden_states_are_rectified_on_the_way_out_only_where_that_is_asked_for(backbone_config, output_relu):
    backbone = lively_backbone(backbone_config.model_copy(update={"output_relu": output_relu}))
    network, tokens = NextItemModel(backbone), padded([[5, 6, 7], [], [8]], 1, 2)
    plain = represent_next(backbone, tokens)
    assert plain.min() < 0 < plain.max()
    expected = torch.where(plain > 0, plain, torch.zeros_like(plain)) if output_relu else plain
    assert torch.equal(network.outgoing(plain), expected)
    assert torch.equal(network.represent(tokens), expected)
