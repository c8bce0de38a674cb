"""The contracts of patches on the network itself, and that none is forgotten."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contracts import (
    BACKBONES,
    ITEMS,
    PATCHES,
    GradientContract,
    ModuleContract,
    PaddingContract,
    ReachContract,
    StartContract,
    has_inner_skip,
    lively_backbone,
    lively_patch,
    padded,
    some_items,
    touched,
)
from peterrec import nn as nn_package
from peterrec.config import PATCH_SETTINGS, BackboneConfig, PatchConfig
from peterrec.errors import ConfigError
from peterrec.nn.adapter_layer import PATCH_KINDS
from peterrec.nn.backbone import Backbone
from peterrec.nn.patch import Patch
from peterrec.nn.readout import represent
from peterrec.nn.tokens import SPECIAL
from strategies import POSSIBLE, patched_backbones, users


class TestReach(ReachContract):
    pass


class TestPadding(PaddingContract):
    pass


class TestStart(StartContract):
    pass


class TestGradient(GradientContract):
    pass


class TestModule(ModuleContract):
    pass


# ---------------------------------------------------------------- the same for any network


@given(configs=patched_backbones(kind="causal"), length=st.integers(1, 20), data=st.data(), patched=st.booleans())
def test_a_changed_item_never_changes_a_causal_output_before_it(configs, length, data, patched):
    backbone = lively_backbone(configs[0])
    patch = lively_patch(configs[1], configs[0]) if patched else None
    position = data.draw(st.integers(0, length - 1))
    reached = touched(backbone, patch, some_items(1, length, seed=length), position)
    assert reached
    assert reached[0] == position, "it does change its own"


@given(configs=patched_backbones(), length=st.integers(1, 40), data=st.data())
def test_a_changed_item_changes_nothing_beyond_the_taps(configs, length, data):
    backbone, patch = lively_backbone(configs[0]), lively_patch(configs[1], configs[0])
    position = data.draw(st.integers(0, length - 1))
    reached = touched(backbone, patch, some_items(1, length, seed=length), position)
    side = (backbone.receptive_field - 1) // (1 if configs[0].kind == "causal" else 2)
    assert reached[0] >= (position if configs[0].kind == "causal" else position - side)
    assert reached[-1] <= position + side


@given(
    configs=patched_backbones(),
    rows=users(ITEMS),
    leading=st.integers(0, 6),
    trailing=st.integers(0, 6),
    data=st.data(),
)
def test_any_padding_batch_mates_and_order_give_the_same_user_the_same(configs, rows, leading, trailing, data):
    """The fresh weights of a backbone, so that float32 has numbers of the usual size."""
    backbone, patch = Backbone(configs[0], ITEMS, seed=2), lively_patch(configs[1], configs[0])
    order = data.draw(st.permutations(range(len(rows))))
    with torch.no_grad():
        together = represent(backbone, padded([rows[i] for i in order], leading, trailing), patch)
        alone = [represent(backbone, torch.tensor([rows[i]], dtype=torch.long), patch)[0] for i in order]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-5)


@given(configs=patched_backbones(), length=st.integers(1, 12))
def test_any_fresh_patch_that_starts_so_is_the_identity(configs, length):
    no_skip = {"inner_skip": False} if has_inner_skip(configs[1]) else {}
    identity = configs[1].model_copy(update={"init": "identity"} | no_skip)
    backbone, tokens = lively_backbone(configs[0]), some_items(2, length)
    with torch.no_grad():
        assert torch.equal(
            represent(backbone, tokens, Patch(identity, configs[0], items=ITEMS)), represent(backbone, tokens)
        )


# ---------------------------------------------------------------- beside the registry


@pytest.mark.parametrize("kind", PATCH_KINDS)
def test_a_default_patch_is_below_ten_percent_of_its_convolutions(kind):
    config = BackboneConfig()
    backbone = Backbone(config, 10)
    convolutions = sum(s.conv.weight.numel() for block in backbone.blocks for s in (block.first, block.second))
    assert convolutions == 2 * 4 * 3 * 64 * 64
    assert sum(p.numel() for p in Patch(PatchConfig(kind=kind), config).parameters()) / convolutions < 0.10


@pytest.mark.parametrize("config", PATCHES.values(), ids=PATCHES.keys())
def test_what_is_below_the_patched_blocks_is_the_same_for_all_tasks(config):
    backbone_config = BackboneConfig(channels=12, dilations=(1, 2, 1))
    backbone, patch = lively_backbone(backbone_config), lively_patch(config, backbone_config)
    states: dict[bool, list[torch.Tensor]] = {}
    for patched in (False, True):
        recorded = states.setdefault(patched, [])
        hooks = [
            b.register_forward_hook(lambda _m, _i, out, recorded=recorded: recorded.append(out))
            for b in backbone.blocks
        ]
        represent(backbone, some_items(2, 9), patch if patched else None)
        for hook in hooks:
            hook.remove()
    identical = [torch.equal(plain, second) for plain, second in zip(states[False], states[True], strict=True)]
    untouched = 0 if config.train_task_token else 3 - (config.blocks or 3)
    assert identical == [True] * untouched + [False] * (3 - untouched)


@pytest.mark.parametrize("name", [name for name in PATCHES if "own-task-token" in name or "all-own" in name])
def test_its_own_task_token_stands_at_that_token_alone(name):
    config = BackboneConfig(channels=12, dilations=(1,))
    backbone, patch = lively_backbone(config), lively_patch(PATCHES[name].model_copy(update={"blocks": 1}), config)
    items, token = some_items(2, 9), torch.tensor([[SPECIAL, 1, SPECIAL]])
    without = Patch(PATCHES[name].model_copy(update={"blocks": 1}), config, items=ITEMS)
    without.load_state_dict(patch.state_dict())
    with torch.no_grad():
        without.task_token.zero_()
        assert torch.equal(backbone(items, patch), backbone(items, without))
        assert not torch.equal(backbone(token, patch)[:, 1], backbone(token, without)[:, 1])
        assert torch.equal(backbone(token, patch)[:, 0], backbone(token, without)[:, 0])


def allowed_places() -> set[tuple[str, str, str]]:
    """(kind, insertion, position) that `PatchConfig` takes, whatever may have been added to it."""
    literal = {name: get_args(PatchConfig.model_fields[name].annotation) for name in ("insertion", "position")}
    actual = set()
    for kind, insertion, position in product(PATCH_KINDS, literal["insertion"], literal["position"]):
        settings: dict[str, Any] = {"kind": kind, "insertion": insertion, "position": position}
        try:
            actual.add((kind, insertion, position) if PatchConfig(**settings) else ("", "", ""))
        except ConfigError:
            continue
    return actual


def test_no_kind_and_no_place_is_forgotten_in_the_registry():
    assert set(PATCH_KINDS) == set(PATCH_SETTINGS) == set(POSSIBLE)
    tested = {(config.kind, config.insertion, config.position) for config in PATCHES.values()}
    assert tested == allowed_places()
    for kind in PATCH_KINDS:
        patches_of_kind = [config for config in PATCHES.values() if config.kind == kind]
        assert {config.per_block for config in patches_of_kind} == {1, 2}
        assert {config.train_norms for config in patches_of_kind} == {
            config.train_task_token for config in patches_of_kind
        }
        assert {config.train_norms for config in patches_of_kind} == {False, True}
        assert any(config.blocks is not None for config in patches_of_kind)
    skips = {config.position for config in PATCHES.values() if has_inner_skip(config)}
    assert skips == {position for kind, insertion, position in allowed_places() if insertion == "parallel"}
    activations = {config.activation for config in PATCHES.values() if config.kind == "bottleneck"}
    assert activations == {"relu", "gelu", "gelu-tanh"}


def test_every_backbone_kind_is_in_the_registry():
    kinds = get_args(BackboneConfig.model_fields["kind"].annotation)
    architectures = get_args(BackboneConfig.model_fields["architecture"].annotation)
    tested = {(config.architecture, config.kind) for config in BACKBONES.values()}
    assert tested == set(product(architectures, kinds))


def test_no_import_of_the_networks_is_hidden_from_the_contract_of_layers():
    modules = Path(nn_package.__file__).parent.glob("*.py")
    assert [path.name for path in modules if "TYPE_CHECKING" in path.read_text()] == []
