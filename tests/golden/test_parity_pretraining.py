"""Pre-training against the authors' own network: causal with both softmaxes, and noncausal on masked items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from golden.converter import (
    Arrays,
    assert_close,
    backbone_entries,
    backbone_of,
    embedding_gradient,
    indices,
    load,
    same_gradients,
    scope,
)
from oracles.softmax_losses import full_softmax_loss, sampled_softmax_loss
from peterrec.config import PretrainConfig
from peterrec.nn.backbone import Backbone
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.readout import represent_next
from peterrec.training.objectives import MaskedItems

pytestmark = pytest.mark.shared


def block_outputs(backbone: Backbone, tokens: Tensor) -> Tensor:
    """(blocks, B, T, C): what every block gives back."""
    outputs: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, out: outputs.append(out)) for block in backbone.blocks]
    backbone(tokens)
    for hook in hooks:
        hook.remove()
    return torch.stack(outputs)


def flat(hidden: Tensor) -> Tensor:
    return hidden.reshape(-1, hidden.shape[-1])


def output_table(arrays: Arrays) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(arrays["w/logits/weight"][0, 0].T.copy()), torch.from_numpy(arrays["w/logits/bias"])


def output_of(backbone: Backbone, weight: Tensor, bias: Tensor) -> NextItemModel:
    network = NextItemModel(backbone)
    assert network.head is not None
    with torch.no_grad():
        network.head.weight.copy_(weight)
        network.head.bias.copy_(bias)
    return network


@pytest.mark.parametrize("case", ["demo", "long", "short3"])
def test_causal_hidden_states_logits_and_full_softmax(shared: Path, case: str) -> None:
    arrays = load(shared, "a_nextitnet_causal")
    backbone = backbone_of(arrays, tie_weights=False, output_relu=True)
    ids = arrays[f"{case}/itemseq_input"]
    tokens = indices(ids[:, :-1])
    assert_close(backbone.embedding(tokens), arrays[f"{case}/emb"], "embedding")
    blocks = block_outputs(backbone, tokens)
    for number, (ours, theirs) in enumerate(zip(blocks, arrays[f"{case}/blocks"], strict=True)):
        assert_close(ours, theirs, f"block {number}")
    weight, bias = output_table(arrays)
    hidden = backbone(tokens)
    assert_close(hidden, arrays[f"{case}/hidden"], "hidden")
    network = output_of(backbone, weight, bias)
    table, biases = network.output_table()
    assert_close(network.outgoing(hidden) @ table.T + biases, arrays[f"{case}/logits"], "logits")
    positives = torch.from_numpy(ids[:, 1:].astype(np.int64)).reshape(-1)
    loss = full_softmax_loss(network.outgoing(flat(hidden)), positives, table, biases)
    assert_close(loss, arrays[f"{case}/loss_full_softmax"], "loss")
    last = network.represent(tokens) @ table.T + biases
    assert_close(last, arrays[f"{case}/last_logits"], "logits of the next item")
    np.testing.assert_array_equal(last.topk(5).indices.numpy(), arrays[f"{case}/top5_ids"])


def test_inside_the_first_blocks(shared: Path) -> None:
    arrays = load(shared, "a_nextitnet_causal")
    backbone = backbone_of(arrays)
    x = backbone.embedding(indices(arrays["demo/itemseq_input"][:, :-1]))
    for number in (0, 1):
        block = backbone.blocks[number]
        inner = f"demo/inner/{scope(number)}"
        first = block.first.conv(x)
        assert_close(first, arrays[f"{inner}/dilated_conv1"])
        assert_close(block.first.norm(first), arrays[f"{inner}/layer_norm1"])
        second = block.second.conv(torch.relu(block.first.norm(first)))
        assert_close(second, arrays[f"{inner}/dilated_conv2"])
        assert_close(block.second.norm(second), arrays[f"{inner}/layer_norm2"])
        x = block(x, None, None, number)


def test_gradients_of_the_full_softmax(shared: Path) -> None:
    arrays = load(shared, "a_nextitnet_causal")
    backbone = backbone_of(arrays, tie_weights=False, output_relu=True)
    ids = arrays["demo/itemseq_input"]
    network = output_of(backbone, *output_table(arrays))
    weight, bias = network.output_table()
    positives = torch.from_numpy(ids[:, 1:].astype(np.int64)).reshape(-1)
    hidden = network.outgoing(flat(backbone(indices(ids[:, :-1]))))
    full_softmax_loss(hidden, positives, weight, bias).backward()
    same_gradients(backbone_entries(backbone), arrays, "demo/grad/")
    assert_close(embedding_gradient(backbone), arrays["demo/grad/allitem_embeddings"], "embedding")
    assert weight.grad is not None
    assert bias.grad is not None
    assert_close(weight.grad.T[None, None], arrays["demo/grad/logits/weight"], "output table")
    assert_close(bias.grad, arrays["demo/grad/logits/bias"], "output bias")


def sampled(arrays: Arrays, hidden: Tensor, positives: Tensor, prefix: str) -> tuple[Tensor, Tensor, Tensor]:
    """Their sampled softmax with the very negatives that they drew: without replacement, positives corrected too."""
    weight = torch.from_numpy(arrays["w/softmax_w"]).requires_grad_()
    bias = torch.from_numpy(arrays["w/softmax_b"]).requires_grad_()
    loss = sampled_softmax_loss(
        hidden, positives, weight, bias,
        torch.from_numpy(arrays[f"{prefix}sampled_ids"]),
        torch.from_numpy(arrays[f"{prefix}sampled_expected_count"]).log(),
        torch.from_numpy(arrays[f"{prefix}true_expected_count"][:, 0]).log(),
    )  # fmt: skip
    return loss, weight, bias


def same_tables(arrays: Arrays, prefix: str, weight: Tensor, bias: Tensor) -> None:
    assert weight.grad is not None
    assert bias.grad is not None
    assert_close(weight.grad, arrays[f"{prefix}softmax_w"], "output table")
    assert_close(bias.grad, arrays[f"{prefix}softmax_b"], "output bias")


def test_sampled_softmax_and_its_gradients(shared: Path) -> None:
    arrays = load(shared, "a2_nextitnet_sampled_softmax")
    backbone = backbone_of(arrays)
    ids = arrays["itemseq_input"]
    hidden = backbone(indices(ids[:, :-1]))
    assert_close(hidden, arrays["hidden"], "hidden")
    positives = torch.from_numpy(ids[:, 1:].astype(np.int64)).reshape(-1)
    loss, weight, bias = sampled(arrays, flat(hidden), positives, "")
    assert_close(loss, arrays["loss"], "loss")
    loss.backward()
    same_gradients(backbone_entries(backbone), arrays, "grad/")
    assert_close(embedding_gradient(backbone), arrays["grad/allitem_embeddings"], "embedding")
    same_tables(arrays, "grad/", weight, bias)


@pytest.mark.parametrize("case", ["demo", "long"])
def test_noncausal_on_masked_items(shared: Path, case: str) -> None:
    arrays = load(shared, "b_grec_noncausal")
    backbone = backbone_of(arrays, "noncausal")
    tokens = indices(arrays[f"{case}/itemseq_input"], mask=True)
    blocks = block_outputs(backbone, tokens)
    for number, (ours, theirs) in enumerate(zip(blocks, arrays[f"{case}/blocks"], strict=True)):
        assert_close(ours, theirs, f"block {number}")
    hidden = backbone(tokens)
    assert_close(hidden, arrays[f"{case}/hidden"], "hidden")
    masked_positions = torch.from_numpy(arrays[f"{case}/masked_position"].astype(np.int64))
    gathered = torch.stack([row[places] for row, places in zip(hidden, masked_positions, strict=True)]).flatten(0, 1)
    assert_close(gathered, arrays[f"{case}/gathered"], "masked positions")
    positives = torch.from_numpy(arrays[f"{case}/masked_items"].astype(np.int64)).reshape(-1)
    loss, weight, bias = sampled(arrays, gathered, positives, f"{case}/")
    assert_close(loss, arrays[f"{case}/loss_sampled_softmax"], "loss")
    if case == "demo":
        loss.backward()
        same_gradients(backbone_entries(backbone), arrays, "demo/grad/")
        assert_close(embedding_gradient(backbone), arrays["demo/grad/allitem_embeddings"], "embedding")
        same_tables(arrays, "demo/grad/", weight, bias)


@pytest.mark.parametrize("case", ["demo", "long"])
def test_the_next_item_of_a_noncausal_backbone_is_asked_with_a_mask_at_the_end(shared: Path, case: str) -> None:
    arrays = load(shared, "b_grec_noncausal")
    backbone = backbone_of(arrays, "noncausal")
    ids = arrays[f"{case}/eval_endmask_input"]
    assert (ids[:, -1] == 0).all()
    hidden = represent_next(backbone, indices(ids[:, :-1]))
    scores = hidden @ torch.from_numpy(arrays["w/softmax_w"]).T + torch.from_numpy(arrays["w/softmax_b"])
    assert_close(scores.softmax(dim=1), arrays[f"{case}/eval_last_probs"], "probabilities")
    np.testing.assert_array_equal(scores.topk(5).indices.numpy(), arrays[f"{case}/eval_top5_ids"])


@pytest.mark.parametrize("case", ["demo", "long"])
def test_as_many_items_are_masked_as_theirs(shared: Path, case: str) -> None:
    arrays = load(shared, "b_grec_noncausal")
    ids = arrays[f"{case}/original_items"]
    objective = MaskedItems(PretrainConfig(backbone={"kind": "noncausal"}), 175)
    examples = objective.examples(indices(ids).numpy(), np.random.default_rng(0))
    assert {int(row.sum()) for row in examples.targets != 0} == {arrays[f"{case}/masked_position"].shape[1]}
