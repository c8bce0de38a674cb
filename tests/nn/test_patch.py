"""What a patch is made of: its sublayers, widths and numbers of parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import shaken
from contracts import PATCHES
from oracles import oracle_activation, oracle_patch_names
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.errors import ConfigError
from peterrec.nn.conv import DilatedConv
from peterrec.nn.insertion import ConvInput, ConvShape
from peterrec.nn.patch import Patch, patched_sublayers
from peterrec.nn.patch_kinds import ACTIVATIONS, Bottleneck, LoraLayer, ScaleShiftLayer, narrower_width
from strategies import patched_backbones

ITEMS = 12
CONFIG = BackboneConfig(channels=16, dilations=(1, 2, 1))
WIDTHS = {"bottleneck": "bottleneck", "lora": "rank"}


@given(configs=patched_backbones())
def test_any_patch_has_the_weights_of_its_settings_and_no_others(configs):
    patch = Patch(configs[1], configs[0], items=ITEMS)
    assert set(patch.state_dict()) == oracle_patch_names(configs[1], len(configs[0].dilations))
    assert all(torch.isfinite(tensor).all() for tensor in patch.state_dict().values())


@pytest.mark.parametrize(
    ("per_block", "blocks", "sublayers"),
    [
        (2, None, [0, 1, 2, 3, 4, 5]),
        (1, None, [1, 3, 5]),
        (2, 3, [0, 1, 2, 3, 4, 5]),
        (2, 1, [4, 5]),
        (1, 2, [3, 5]),
    ],
)
def test_only_the_last_blocks_and_of_each_the_second_site_first_are_patched(per_block, blocks, sublayers):
    config = PatchConfig(per_block=per_block, blocks=blocks)
    assert patched_sublayers(config, CONFIG) == sublayers
    patch = Patch(config, CONFIG)
    assert [sublayer for sublayer in range(8) if patch.layer_at(sublayer) is not None] == sublayers


@pytest.mark.parametrize("insertion", ["serial", "parallel"])
def test_one_patch_a_block_of_twice_the_channels_weighs_what_two_do(insertion):
    """But for the biases of one map back up a block: as docs/paper.md says of the defaults."""
    settings = [{"bottleneck": 8}, {"bottleneck": 16, "per_block": 1}]
    patches = [Patch(PatchConfig(insertion=insertion, **changes), BackboneConfig()) for changes in settings]
    assert [sum(p.numel() for p in patch.parameters()) for patch in patches] == [8_768, 8_512]


@pytest.mark.parametrize("per_block", [1, 2])
def test_only_second_norms_can_be_the_tasks_own(per_block):
    patch = Patch(PatchConfig(train_norms=True, per_block=per_block, blocks=2), CONFIG)
    with_norms = [
        sublayer
        for sublayer in range(6)
        if patch.layer_at(sublayer) is not None and patch.layer_at(sublayer).norm is not None
    ]
    assert with_norms == [3, 5]


@pytest.mark.parametrize(("width_setting", "width"), [(8, 8), (0.125, 8), (0.001, 1), (1, 1), (0.5, 32), (0.99, 63)])
@pytest.mark.parametrize("kind", ["bottleneck", "lora"])
def test_the_bottleneck_is_a_number_or_a_share_of_the_channels(kind, width_setting, width):
    assert narrower_width(width_setting, 64, WIDTHS[kind]) == width
    down = Patch(PatchConfig(kind=kind, **{WIDTHS[kind]: width_setting}), BackboneConfig()).state_dict()
    name = "adapter_layers.0.net.down.weight" if kind == "bottleneck" else "adapter_layers.0.down.weight"
    assert down[name].shape == ((width, 64) if kind == "bottleneck" else (width, 64, 3))


@pytest.mark.parametrize("kind", ["bottleneck", "lora"])
@pytest.mark.parametrize("width", [16, 17])
def test_a_bottleneck_as_wide_as_the_backbone_is_refused(kind, width):
    with pytest.raises(ConfigError, match="not narrower than the backbone's 16") as caught:
        Patch(PatchConfig(kind=kind, **{WIDTHS[kind]: width}), CONFIG)
    assert f"smaller patch.{WIDTHS[kind]}" in caught.value.remedy
    assert Patch(PatchConfig(kind=kind, **{WIDTHS[kind]: 15}), CONFIG)


@pytest.mark.parametrize("kind", ["bottleneck", "lora", "scale-shift"])
def test_more_blocks_than_there_are_cannot_be_patched(kind):
    with pytest.raises(ConfigError, match=r"patch.blocks is 4, but the backbone has 3 blocks") as caught:
        Patch(PatchConfig(kind=kind, blocks=4), CONFIG)
    assert caught.value.remedy == "patch at most 3"


def test_the_sizes_of_all_kinds_by_hand():
    sizes = {kind: sum(p.numel() for p in Patch(PatchConfig(kind=kind), CONFIG).parameters()) for kind in
             ("bottleneck", "lora", "scale-shift")}  # fmt: skip
    assert sizes == {
        "bottleneck": 6 * (2 * 16 + 2 + 16 * 2 + 16),
        "lora": 6 * (4 * 16 * 3 + 16 * 4),
        "scale-shift": 6 * (16 + 16),
    }
    larger = Patch(PatchConfig(train_norms=True, train_task_token=True), CONFIG)
    assert sum(p.numel() for p in larger.parameters()) == sizes["bottleneck"] + 3 * (16 + 16) + 16


@pytest.mark.parametrize("name", PATCHES)
def test_at_the_start_only_what_lies_before_the_last_map_is_drawn(name):
    """Else nothing could ever learn: zeros on both sides have no gradient."""
    wide = BackboneConfig(channels=64, dilations=(1, 2))
    config = PATCHES[name].model_copy(update=dict.fromkeys(PATCHES[name].shape_fields, 32))
    identity = Patch(config, wide, torch.Generator().manual_seed(0), ITEMS).state_dict()
    drawn = {name for name, tensor in identity.items() if tensor.abs().sum() > 0}
    assert drawn == {name for name in identity if name.endswith(("down.weight", "task_items.up"))}
    random = config.model_copy(update={"init": "random"})
    state = Patch(random, wide, torch.Generator().manual_seed(0), ITEMS).state_dict()
    last = ("up.weight", "gain", "shift")
    assert {name for name, tensor in state.items() if tensor.abs().sum() > 0} == drawn | {
        name for name in state if name.endswith(last)
    }
    spread = torch.cat([tensor.flatten() for name, tensor in state.items() if name.endswith(last)]).std()
    assert float(spread) == pytest.approx(0.02, rel=0.2), "near the identity"


# ---------------------------------------------------------------- maps


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_their_formulas(name):
    x = torch.linspace(-6, 6, 241, dtype=torch.float64).reshape(1, -1)
    np.testing.assert_allclose(ACTIVATIONS[name](x).numpy(), oracle_activation(name, x.numpy()), atol=1e-12)


def test_activations_by_hand():
    first = torch.ones(1, 1, dtype=torch.float64)
    assert float(ACTIVATIONS["gelu"](first)) == pytest.approx(0.5 * (1 + math.erf(1 / math.sqrt(2))))
    assert float(ACTIVATIONS["gelu"](first)) != pytest.approx(float(ACTIVATIONS["gelu-tanh"](first)), abs=1e-5)
    assert float(ACTIVATIONS["relu"](-first)) == 0.0


@given(residual=st.booleans(), name=st.sampled_from(["relu", "gelu", "gelu-tanh"]), width=st.integers(1, 4))
def test_a_bottleneck_is_two_maps_and_its_residual(residual, name, width):
    net = shaken(Bottleneck(5, width, name, residual=residual).double()).requires_grad_(False)
    x = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    down, up = (net.down.weight.numpy(), net.down.bias.numpy()), (net.up.weight.numpy(), net.up.bias.numpy())
    for row, actual in zip(x.reshape(-1, 5).numpy(), net(x).reshape(-1, 5).numpy(), strict=True):
        inner = oracle_activation(name, (down[0] @ row + down[1])[None])[0]
        np.testing.assert_allclose(actual, up[0] @ inner + up[1] + (row if residual else 0), atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_a_low_rank_convolution_could_be_added_to_the_weights_of_the_sites_own(causal):
    shape = ConvShape(channels=6, kernel_size=3, dilation=2, causal=causal)
    adapter = shaken(LoraLayer(shape, 2, "identity", None).double()).requires_grad_(False)
    conv = shaken(DilatedConv(6, 3, 2, causal=causal).double(), 1).requires_grad_(False)
    x = torch.randn(2, 9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = adapter.pre_norm(ConvInput(x, conv.step(9)), conv(x))
    conv.weight += torch.einsum("or,rik->oik", adapter.up.weight, adapter.down.weight)
    torch.testing.assert_close(conv(x), wanted, rtol=0, atol=1e-12)


def test_a_scale_and_a_shift_by_hand():
    adapter = shaken(
        ScaleShiftLayer(ConvShape(channels=3, kernel_size=3, dilation=1, causal=True), "identity", None).double()
    )
    with torch.no_grad():
        adapter.gain.copy_(torch.tensor([0.0, 0.5, -1.0]))
        adapter.shift.copy_(torch.tensor([10.0, 0.0, 1.0]))
    h = torch.tensor([[[1.0, 2.0, 3.0], [-4.0, 5.0, 6.0]]], dtype=torch.float64)
    x = ConvInput(torch.zeros(1, 2, 3, dtype=torch.float64), DilatedConv(3, 3, 1).step(2))
    assert adapter.pre_act(x, h).tolist() == [[[11.0, 3.0, 1.0], [6.0, 7.5, 1.0]]]
