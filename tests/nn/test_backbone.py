"""Promises 1 and 2: causality, and that padding and batch-mates never matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import oracle_backbone
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.nn.backbone import PAD, TCL, Backbone, append_task_token, represent
from peterrec.nn.patch import Patch

ITEMS = 30
configs = st.builds(
    BackboneConfig,
    channels=st.sampled_from([4, 8]),
    kernel_size=st.integers(2, 4),
    dilations=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
)


def shaken_patch(config: BackboneConfig, seed: int = 0, **settings: object) -> Patch:
    """A patch that does something: a fresh one is the identity."""
    patch = Patch(PatchConfig(bottleneck=2, **settings), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in patch.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return patch


def tokens_of(length: int, seed: int, rows: int = 1) -> torch.Tensor:
    return torch.randint(4, ITEMS + 4, (rows, length), generator=torch.Generator().manual_seed(seed))


@given(config=configs, length=st.integers(2, 20), data=st.data(), patched=st.booleans())
def test_a_changed_item_never_changes_the_output_before_it(config, length, data, patched):
    backbone = Backbone(config, ITEMS, seed=1)
    patch = shaken_patch(config) if patched else None
    tokens = tokens_of(length, seed=length)
    position = data.draw(st.integers(0, length - 1))
    changed = tokens.clone()
    changed[0, position] = 4 + (changed[0, position] - 4 + 1) % ITEMS
    with torch.no_grad():
        before, after = backbone(tokens, patch), backbone(changed, patch)
    torch.testing.assert_close(before[:, :position], after[:, :position], rtol=0, atol=0)
    assert not torch.equal(before[:, position], after[:, position])


def test_the_receptive_field_is_exactly_what_it_says():
    config = BackboneConfig(channels=8, dilations=(1, 2))
    backbone = Backbone(config, ITEMS).double()
    reach = backbone.receptive_field
    assert reach == 1 + 2 * (1 + 2 + 2 + 4)
    vectors = backbone.embedding(tokens_of(reach + 3, seed=0)).detach().requires_grad_()
    hidden = vectors
    for index, block in enumerate(backbone.blocks):
        hidden = block(hidden, None, None, index)
    hidden[0, -1].sum().backward()
    seen = vectors.grad[0].abs().sum(1) > 0
    assert not seen[: len(seen) - reach].any()
    assert seen[-1]


@given(
    config=configs,
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    left=st.integers(0, 6),
    right=st.integers(0, 6),
    patched=st.booleans(),
)
def test_padding_and_batch_mates_do_not_matter(config, lengths, left, right, patched):
    backbone = Backbone(config, ITEMS, seed=2)
    patch = shaken_patch(config) if patched else None
    rows = [tokens_of(length, seed=i)[0] for i, length in enumerate(lengths)]
    width = max(lengths) + left + right
    batch = torch.full((len(rows), width), PAD)
    for i, row in enumerate(rows):
        batch[i, left : left + len(row)] = row
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = represent(backbone, batch[order], patch)
        alone = torch.cat([represent(backbone, rows[i].unsqueeze(0), patch) for i in order])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_padding_between_items_feeds_zeros_to_every_convolution():
    config = BackboneConfig(channels=8, dilations=(1, 2))
    backbone = Backbone(config, ITEMS, seed=3)
    tokens = torch.tensor([[5, 6, PAD, PAD, 7, 8]])
    with torch.no_grad():
        for block in backbone.blocks:  # a bias that would leak from padded positions
            block.first.norm.bias.fill_(1.0)
        hidden = backbone(tokens)
        expected = oracle_backbone(backbone, tokens.numpy()[0])
    np.testing.assert_allclose(hidden[0].numpy(), expected, atol=1e-5)


@given(config=configs, length=st.integers(1, 12), seed=st.integers(0, 5))
def test_the_backbone_equals_the_loops_of_the_oracle(config, length, seed):
    backbone = Backbone(config, ITEMS, seed=seed)
    patch = shaken_patch(config, seed)
    tokens = tokens_of(length, seed)
    with torch.no_grad():
        plain, patched = backbone(tokens)[0].numpy(), backbone(tokens, patch)[0].numpy()
    np.testing.assert_allclose(plain, oracle_backbone(backbone, tokens.numpy()[0]), atol=2e-5)
    np.testing.assert_allclose(patched, oracle_backbone(backbone, tokens.numpy()[0], patch), atol=2e-5)
    assert not np.allclose(plain, patched, atol=1e-3)


@pytest.mark.parametrize(
    ("row", "expected", "position"),
    [
        ([5, 6, 7], [5, 6, 7, TCL], 3),
        ([5, 6, PAD], [5, 6, TCL, PAD], 2),
        ([PAD, 5, 6], [PAD, 5, 6, TCL], 3),
        ([PAD, 5, PAD], [PAD, 5, TCL, PAD], 2),
        ([PAD, PAD, PAD], [TCL, PAD, PAD, PAD], 0),
        ([], [TCL], 0),
    ],
)
def test_the_task_token_follows_the_last_real_one(row, expected, position):
    tokens, where = append_task_token(torch.tensor([row], dtype=torch.long))
    assert tokens.tolist() == [expected]
    assert where.tolist() == [position]


def test_the_same_seed_gives_the_same_weights_whatever_the_global_generator():
    first = Backbone(BackboneConfig(channels=8), ITEMS, seed=5)
    torch.manual_seed(99)
    second = Backbone(BackboneConfig(channels=8), ITEMS, seed=5)
    other = Backbone(BackboneConfig(channels=8), ITEMS, seed=6)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


@given(
    config=configs,
    row=st.lists(st.integers(0, ITEMS + 3), min_size=1, max_size=14),
    position=st.sampled_from(["pre_norm", "pre_act"]),
    per_block=st.sampled_from([1, 2]),
)
def test_padding_anywhere_equals_the_loops_in_double_precision(config, row, position, per_block):
    """Index 0 is [PAD], 1 to 3 the other special tokens: hypothesis puts them wherever it likes."""
    backbone = Backbone(config, ITEMS, seed=4).double()
    patch = shaken_patch(config, position=position, per_block=per_block).double()
    with torch.no_grad():
        hidden = backbone(torch.tensor([row]), patch)[0].numpy()
    expected = oracle_backbone(backbone, np.array(row), patch, position)
    real = np.array(row) != PAD
    np.testing.assert_allclose(hidden[real], expected[real], atol=1e-9)
