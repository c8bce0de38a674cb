"""The transformer against the loops of the oracle and torch's own layer, and what it promises beside the contracts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from builders import shaken
from contracts import ITEMS, every_patch, lively_backbone, lively_patch, padded, some_items, touched
from oracles import oracle_attention, oracle_backbone, weights_of
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.nn.backbone import Backbone, UnsharedModules
from peterrec.nn.build import build_backbone
from peterrec.nn.patch import Patch
from peterrec.nn.readout import represent, represent_next
from peterrec.nn.sublayer import Attention
from peterrec.nn.tokens import MASK, PAD, SPECIAL, TCL
from peterrec.nn.transformer import TransformerBackbone
from strategies import patch_configs, rows_of_tokens, users

CAUSAL = BackboneConfig(architecture="transformer", channels=8, layers=2, heads=2, positions=4)
NONCAUSAL = CAUSAL.model_copy(update={"kind": "noncausal"})
every_kind = pytest.mark.parametrize("config", [CAUSAL, NONCAUSAL], ids=["causal", "noncausal"])


@st.composite
def transformers(draw: st.DrawFn, *, kind: str | None = None) -> tuple[BackboneConfig, PatchConfig]:
    """Any small transformer, and any patch that is possible on it."""
    heads = draw(st.integers(1, 3))
    config = BackboneConfig(
        architecture="transformer",
        kind=kind or draw(st.sampled_from(["causal", "noncausal"])),
        channels=heads * draw(st.integers(2, 3)),
        layers=draw(st.integers(1, 3)),
        heads=heads,
        positions=draw(st.integers(1, 20)),
        norm_eps=draw(st.sampled_from([1e-5, 0.1])),
    )
    blocks = config.model_copy(update={"dilations": (1,) * config.depth})  # what the strategy of patches looks at
    return config, draw(patch_configs(blocks))


# ---------------------------------------------------------------- against loops, and torch's own layer


@given(configs=transformers(), row=rows_of_tokens(ITEMS), seed=st.integers(0, 99))
@example(configs=(NONCAUSAL, None), row=[PAD, 5, 6, PAD, PAD, TCL, 7, MASK, PAD], seed=0)
@example(configs=(CAUSAL, None), row=[PAD, PAD], seed=0)
@example(configs=(CAUSAL, None), row=[PAD, 4, 5, PAD, 6, 7, 8, 9], seed=0)
def test_any_transformer_equals_the_loops_with_padding_anywhere(configs, row, seed):
    backbone = shaken(build_backbone(configs[0], ITEMS).double(), seed, scale=0.5).requires_grad_(False)
    patch = shaken(Patch(configs[1], configs[0], items=ITEMS).double(), seed + 1) if configs[1] is not None else None
    real = np.array(row) != PAD
    for adapter, config in ((None, None), (patch, configs[1])):
        hidden = backbone(torch.tensor([row]), adapter)[0].detach().numpy()
        np.testing.assert_allclose(hidden[real], oracle_backbone(backbone, row, adapter, config)[real], atol=1e-8)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padding", [True, False])
def test_the_attention_is_torchs_own(causal, padding):
    channels, heads = 12, 3
    x = torch.randn(2, 7, channels, generator=torch.Generator().manual_seed(0))
    attention = shaken(Attention(channels, heads, causal=causal), 1)
    unshared = nn.MultiheadAttention(channels, heads, bias=False, batch_first=True)
    with torch.no_grad():
        unshared.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key.weight, attention.value.weight]))
        unshared.out_proj.weight.copy_(torch.eye(channels))
        keep = torch.tensor([[1, 1, 1, 0, 1, 1, 0], [1] * 7], dtype=torch.bool).unsqueeze(2) if padding else None
        later = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
        missing = ~keep.squeeze(2) if keep is not None else None
        wanted, _ = unshared(x, x, x, key_padding_mask=missing, attn_mask=later, need_weights=False)
        actual = attention(x, keep)
    real = keep.squeeze(2) if keep is not None else torch.ones(2, 7, dtype=torch.bool)
    torch.testing.assert_close(actual[real], wanted[real], atol=1e-6, rtol=1e-5)
    for row in range(2):
        by_loops = oracle_attention(x[row].double().numpy(), real[row].numpy(), weights_of(attention), heads, causal)
        np.testing.assert_allclose(actual[row].numpy(), by_loops, atol=1e-5)


# ---------------------------------------------------------------- promises 1 and 2


@given(configs=transformers(kind="causal"), length=st.integers(1, 20), data=st.data(), patched=st.booleans())
def test_a_changed_item_never_changes_a_causal_output_before_it(configs, length, data, patched):
    backbone = lively_backbone(configs[0])
    patch = lively_patch(configs[1], configs[0]) if patched else None
    position = data.draw(st.integers(0, length - 1))
    reached = touched(backbone, patch, some_items(1, length, seed=length), position)
    assert all(place >= position for place in reached)


@given(configs=transformers(), rows=users(ITEMS), leading=st.integers(0, 6), trailing=st.integers(0, 6), data=st.data())
def test_any_padding_batch_mates_and_order_give_the_same_user_the_same(configs, rows, leading, trailing, data):
    backbone = build_backbone(configs[0], ITEMS, seed=2)
    patch = shaken(Patch(configs[1], configs[0], items=ITEMS), 1, scale=0.1)
    shaken(backbone.positions, 3, scale=0.1)
    order = data.draw(st.permutations(range(len(rows))))
    with torch.no_grad():
        together = represent(backbone, padded([rows[i] for i in order], leading, trailing), patch)
        alone = [represent(backbone, torch.tensor([rows[i]], dtype=torch.long), patch)[0] for i in order]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-5)


@given(configs=transformers(), row=rows_of_tokens(ITEMS))
def test_what_stands_at_padding_is_never_seen(configs, row):
    backbone, tokens = lively_backbone(configs[0]).double(), torch.tensor([row])
    before = backbone(tokens)
    backbone.embedding.weight[PAD] = 1e6
    real = tokens[0] != PAD
    assert torch.equal(backbone(tokens)[0, real], before[0, real])


@every_kind
def test_rows_without_a_real_token_are_finite_and_so_are_all_gradients(config):
    backbone = lively_backbone(config).requires_grad_(True)
    tokens = torch.tensor([[PAD] * 5, [PAD, PAD, 5, 6, PAD], [7, 8, 9, 10, 11]])
    hidden = backbone(tokens)
    assert torch.isfinite(hidden).all()
    (hidden.square().mean() + represent(backbone, tokens).square().mean()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in backbone.parameters())
    assert backbone.embedding.weight.grad[PAD].abs().sum() == 0
    assert represent(backbone, torch.zeros(2, 0, dtype=torch.long)).shape == (2, 8)


# ---------------------------------------------------------------- positions


def test_positions_count_the_real_tokens_that_follow_and_end_with_the_oldest():
    backbone = lively_backbone(CAUSAL)
    tokens = torch.tensor([[PAD, 4, 5, PAD, 6, 7, 8, 9, PAD]])
    with torch.no_grad():
        placed = backbone.embed_positions(torch.zeros(1, 9, 8), tokens)[0]
    real = (tokens[0] != PAD).nonzero().flatten().tolist()
    wanted = [3, 3, 3, 2, 1, 0]  # of six tokens; the table has four
    for place, position in zip(real, wanted, strict=True):
        assert torch.equal(placed[place], backbone.positions.weight[position])
    assert backbone.receptive_field == 4


def test_the_order_of_those_beyond_the_table_is_not_told_apart_but_that_of_the_latest_is():
    backbone = lively_backbone(NONCAUSAL)

    def representation(items: list[int]) -> torch.Tensor:
        return represent(backbone, torch.tensor([items]))

    base = representation([4, 5, 6, 7, 8, 9, 10])
    torch.testing.assert_close(representation([6, 4, 5, 7, 8, 9, 10]), base, atol=1e-5, rtol=0)
    assert (representation([4, 5, 6, 7, 8, 10, 9]) - base).abs().max() > 1e-3
    assert (representation([8, 4, 5, 6, 7, 9, 11]) - base).abs().max() > 1e-3


def test_fresh_positions_say_nothing_and_only_those_that_stand_in_a_row_learn():
    backbone = build_backbone(CAUSAL, ITEMS)
    assert isinstance(backbone, TransformerBackbone)
    assert backbone.positions.weight.abs().sum() == 0
    backbone(torch.tensor([[PAD, 5, 6]])).square().sum().backward()
    assert (backbone.positions.weight.grad.abs().sum(1) > 0).tolist() == [True, True, False, False]


# ---------------------------------------------------------------- patches


def test_without_an_activation_the_places_around_it_are_one():
    backbone, tokens = lively_backbone(CAUSAL), some_items(2, 6)
    before, after = (PatchConfig(bottleneck=3, insertion="parallel", position=p) for p in ("pre_act", "post_act"))
    patch = lively_patch(before, CAUSAL)
    second = Patch(after, CAUSAL, items=ITEMS)
    second.load_state_dict(patch.state_dict())
    assert torch.equal(represent(backbone, tokens, patch), represent(backbone, tokens, second))


def test_lora_could_be_added_to_the_last_map_of_each_sub_layer():
    backbone, tokens = lively_backbone(CAUSAL).double(), some_items(2, 6)
    patch = lively_patch(PatchConfig(kind="lora", rank=2), CAUSAL).double().requires_grad_(False)
    wanted = represent(backbone, tokens, patch)
    assert (represent(backbone, tokens) - wanted).abs().max() > 1e-3
    for index, block in enumerate(backbone.blocks):
        for second, sublayer in enumerate((block.attention, block.feed_forward)):
            adapter = patch.layer_at(2 * index + second)
            sublayer.out.weight += adapter.up.weight @ adapter.down.weight
    torch.testing.assert_close(represent(backbone, tokens), wanted, atol=1e-10, rtol=0)


@every_patch
def test_patches_of_the_last_block_leave_what_is_below_the_same(config):
    config = config.model_copy(update={"blocks": 1, "train_task_token": False, "item_rank": None})
    backbone, patch, recorded = lively_backbone(CAUSAL), lively_patch(config, CAUSAL), []
    hooks = [block.register_forward_hook(lambda _m, _i, out: recorded.append(out)) for block in backbone.blocks]
    for applied_patch in (None, patch):
        backbone(some_items(2, 6), applied_patch)
    for hook in hooks:
        hook.remove()
    assert torch.equal(recorded[0], recorded[2])
    assert not torch.equal(recorded[1], recorded[3])


# ---------------------------------------------------------------- forks and forms


@pytest.mark.parametrize(
    "unshared", [UnsharedModules(embedding, blocks) for embedding in (False, True) for blocks in range(3)], ids=str
)
def test_positions_go_with_the_embedding_in_forks_and_grafts(unshared):
    backbone = lively_backbone(CAUSAL)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    fork = backbone.fork(unshared)
    prefixes = tuple(
        ["embedding.", "positions."] * unshared.embedding + [f"blocks.{i}." for i in range(2 - unshared.blocks, 2)]
    )
    owned = {name for name in before if name.startswith(prefixes)} if prefixes else set()
    assert set(fork.modules_of(unshared).state_dict()) == owned
    for name, parameter in fork.named_parameters():
        assert (parameter is backbone.get_parameter(name)) == (name not in owned), name
    with torch.no_grad():
        for parameter in fork.modules_of(unshared).parameters():
            parameter.mul_(1.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    tokens = some_items(2, 5)
    repeated = backbone.graft(unshared, fork.modules_of(unshared))
    assert torch.equal(represent(repeated, tokens), represent(fork, tokens))
    assert torch.equal(represent(fork, tokens), represent(backbone, tokens)) == (not owned)


@every_kind
def test_recomputing_changes_neither_states_nor_gradients(config):
    backbone, tokens = lively_backbone(config).requires_grad_(True), padded([[4, 5, 6, 7], [8], []], 1, 1)
    patch, actual = lively_patch(PatchConfig(bottleneck=3), config), []
    for network in (backbone, backbone.recomputing()):
        states = [network(tokens, patch), represent(network, tokens, patch)]
        loss = sum(state.square().sum() for state in states)
        actual.append([*states, *torch.autograd.grad(loss, [*backbone.parameters(), *patch.parameters()])])
    assert all(torch.equal(first, second) for first, second in zip(*actual, strict=True))


def test_only_full_batches_of_the_lengths_asked_for_are_compiled():
    assert lively_backbone(CAUSAL).compiled(3, [5, 6]).compiled_shapes == {(3, 5), (3, 6)}


@pytest.mark.parametrize("position", [0, 3, 6])
def test_the_state_of_one_position_is_that_of_all(position):
    backbone, tokens = lively_backbone(CAUSAL), some_items(3, 7)
    hidden = backbone(tokens)
    assert torch.equal(backbone.forward_last(tokens, torch.full((3,), position)), hidden[:, position])
    assert torch.equal(represent_next(backbone, tokens), hidden[:, -1])


def test_there_is_no_cone_to_cut():
    with pytest.raises(TypeError, match="no receptive field"):
        lively_backbone(CAUSAL).receptive_field_of_last(5)


# ---------------------------------------------------------------- what a fresh one is


@every_kind
def test_the_same_seed_gives_the_same_weights_whatever_the_global_generator(config):
    first = build_backbone(config, ITEMS, seed=5)
    torch.manual_seed(99)
    second, different = build_backbone(config, ITEMS, seed=5), build_backbone(config, ITEMS, seed=6)
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), different.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c) == (a.dim() == 1 or name == "positions.weight"), name


def test_the_factory_makes_what_the_configuration_asks_for_and_a_block_of_each_is_about_as_large():
    dilated, attentive = (
        build_backbone(BackboneConfig(architecture=architecture), 50) for architecture in ("dilated", "transformer")
    )
    assert type(dilated) is Backbone
    assert type(attentive) is TransformerBackbone
    sizes = [sum(p.numel() for p in net.blocks[0].parameters()) for net in (dilated, attentive)]
    channels = 64
    assert sizes[1] == 6 * channels**2 + 3 * channels + 4 * channels  # six maps, three biases, two norms
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
    assert attentive.embedding.weight.shape == (50 + SPECIAL, channels)
    assert set(dict(attentive.named_children())) == {"embedding", "blocks", "positions"}


def test_half_precision_is_near_the_full():
    backbone, tokens = build_backbone(CAUSAL, ITEMS), padded([[4, 5, 6, 7], [8, 9]], 1, 0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        near = backbone(tokens)
    with torch.no_grad():
        torch.testing.assert_close(near.float(), backbone(tokens), atol=0.05, rtol=0.05)
