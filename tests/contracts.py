"""Promises of every patch on every backbone. A new kind of patch is tested by one more line of `PATCHES`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, product

import pytest
import torch
from torch import Tensor

from builders import shaken
from oracles import oracle_patch_names, oracle_represent
from pairwise import FULL, pairwise
from peterrec.config import BackboneConfig, BottleneckConfig, PatchConfig
from peterrec.nn.backbone import Backbone
from peterrec.nn.build import build_backbone
from peterrec.nn.patch import Patch
from peterrec.nn.readout import represent
from peterrec.nn.tokens import PAD, SPECIAL, TCL, append_token

ITEMS = 20
BACKBONES = {
    "causal": BackboneConfig(channels=12, kernel_size=3, dilations=(1, 2, 1)),
    "causal-two-taps": BackboneConfig(channels=8, kernel_size=2, dilations=(3, 1)),
    "noncausal": BackboneConfig(kind="noncausal", channels=12, kernel_size=3, dilations=(1, 2, 1)),
    "noncausal-five-taps-last-end": BackboneConfig(
        kind="noncausal", task_tokens="last-end", channels=12, kernel_size=5, dilations=(1, 2)
    ),
    "transformer": BackboneConfig(architecture="transformer", channels=12, layers=2, heads=3, positions=5),
    "noncausal-transformer": BackboneConfig(
        architecture="transformer", kind="noncausal", channels=12, layers=2, heads=2, positions=50
    ),
}
PATCHES = {
    "serial-pre_norm": PatchConfig(bottleneck=3),
    "serial-pre_act": PatchConfig(bottleneck=3, position="pre_act"),
    "parallel-pre_norm": PatchConfig(bottleneck=3, insertion="parallel"),
    "parallel-pre_act": PatchConfig(bottleneck=3, insertion="parallel", position="pre_act"),
    "parallel-post_act": PatchConfig(bottleneck=3, insertion="parallel", position="post_act"),
    "serial-one-a-block": PatchConfig(bottleneck=3, per_block=1),
    "serial-pre_act-one-a-block": PatchConfig(bottleneck=3, position="pre_act", per_block=1),
    "parallel-one-a-block": PatchConfig(bottleneck=3, insertion="parallel", per_block=1),
    "parallel-post_act-one-a-block": PatchConfig(bottleneck=3, insertion="parallel", position="post_act", per_block=1),
    "gelu": PatchConfig(bottleneck=0.25, activation="gelu"),
    "gelu-tanh": PatchConfig(bottleneck=0.25, activation="gelu-tanh", insertion="parallel"),
    "skip-pre_norm": PatchConfig(bottleneck=3, insertion="parallel", inner_skip=True),
    "skip-pre_act": PatchConfig(bottleneck=3, insertion="parallel", position="pre_act", inner_skip=True),
    "skip-post_act": PatchConfig(bottleneck=3, insertion="parallel", position="post_act", inner_skip=True),
    "own-norms": PatchConfig(bottleneck=3, train_norms=True),
    "own-norms-one-a-block": PatchConfig(bottleneck=3, train_norms=True, per_block=1, position="pre_act"),
    "own-task-token": PatchConfig(bottleneck=3, train_task_token=True),
    "own-items": PatchConfig(bottleneck=3, item_rank=2),
    "own-items-and-token": PatchConfig(
        bottleneck=3, insertion="parallel", activation="gelu", item_rank=1, train_task_token=True
    ),
    "last-block": PatchConfig(bottleneck=3, blocks=1),
    "last-blocks-all-own": PatchConfig(bottleneck=3, blocks=2, train_norms=True, train_task_token=True, per_block=1),
    "as-the-authors": PatchConfig(bottleneck=0.25, activation="gelu-tanh", train_norms=True),
    "lora": PatchConfig(kind="lora"),
    "lora-one-a-block": PatchConfig(kind="lora", rank=1, per_block=1, blocks=1),
    "lora-all-own": PatchConfig(kind="lora", rank=2, train_norms=True, train_task_token=True),
    "scale-shift": PatchConfig(kind="scale-shift"),
    "scale-shift-one-a-block": PatchConfig(kind="scale-shift", per_block=1, blocks=1),
    "scale-shift-all-own": PatchConfig(kind="scale-shift", train_norms=True, train_task_token=True),
}

every_backbone = pytest.mark.parametrize("backbone_config", BACKBONES.values(), ids=BACKBONES.keys())
every_patch = pytest.mark.parametrize("config", PATCHES.values(), ids=PATCHES.keys())
PADDINGS = [(0, 0), (4, 0), (0, 3), (2, 5)]


def traits_of(backbone: str, patch: str) -> list[object]:
    """What must be met together: a backbone, and each setting of a patch; and the patch by name."""
    config = PATCHES[patch]
    settings = config.model_dump(exclude={"kind", "insertion", "position", *config.shape_fields})
    place = (config.kind, config.insertion, config.position)
    return [("backbone", backbone), ("place", place), *settings.items()]


def pairs_of_backbone_and_patch(backbones: Iterable[str] = BACKBONES, *, full: bool = FULL) -> list[tuple[str, str]]:
    """Names of backbones and patches: all pairs of their traits, or with `full` every patch on every backbone."""
    cases = list(product(backbones, PATCHES))
    chosen = pairwise(cases, lambda names: traits_of(*names), full=full)
    unmet = [name for name in PATCHES if name not in {patch for _, patch in chosen}]
    return chosen + list(zip(cycle(backbones), unmet, strict=False))


PAIRS = pairs_of_backbone_and_patch()
every_pair = pytest.mark.parametrize(
    ("backbone_config", "config"),
    [(BACKBONES[backbone], PATCHES[patch]) for backbone, patch in PAIRS],
    ids=["-".join(names) for names in PAIRS],
)
PADDED = list(product(PAIRS, PADDINGS)) if FULL else list(zip(PAIRS, cycle(PADDINGS), strict=False))
every_padded_pair = pytest.mark.parametrize(
    ("backbone_config", "config", "leading", "trailing"),
    [(BACKBONES[backbone], PATCHES[patch], *padding) for (backbone, patch), padding in PADDED],
    ids=[f"{backbone}-{patch}-{padding}" for (backbone, patch), padding in PADDED],
)


def has_inner_skip(config: PatchConfig) -> bool:
    """Whether a patch adds the sublayer's input even where it is zero: a setting of bottlenecks alone."""
    return isinstance(config, BottleneckConfig) and config.inner_skip


def lively_backbone(config: BackboneConfig, seed: int = 0) -> Backbone:
    """A backbone of random weights throughout, also where a fresh one has zeros: biases, and the row of [PAD]."""
    backbone = shaken(build_backbone(config, ITEMS), seed, scale=0.4)
    assert isinstance(backbone, Backbone)
    return backbone.requires_grad_(False)


def lively_patch(config: PatchConfig, backbone: BackboneConfig, seed: int = 1) -> Patch:
    """A patch that does something: a fresh one is the identity."""
    patch = shaken(Patch(config, backbone, items=ITEMS), seed, scale=0.3)
    assert isinstance(patch, Patch)
    return patch


def some_items(rows: int, length: int, seed: int = 0) -> Tensor:
    """Item indices, without padding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(SPECIAL, ITEMS + SPECIAL, (rows, length), generator=generator)


def padded(users: list[list[int]], leading: int, trailing: int) -> Tensor:
    """A batch of users of unlike lengths: `leading` columns of padding before each, the rest behind."""
    width = leading + max((len(user) for user in users), default=0) + trailing
    batch = torch.full((len(users), width), PAD)
    for row, user in enumerate(users):
        batch[row, leading : leading + len(user)] = torch.tensor(user, dtype=torch.long)
    return batch


def touched(backbone: Backbone, patch: Patch | None, tokens: Tensor, position: int) -> list[int]:
    """Where the output of a row changes at all when its item at one position is exchanged."""
    changed = tokens.clone()
    changed[0, position] = SPECIAL + (changed[0, position] - SPECIAL + 1) % ITEMS
    with torch.no_grad():
        differs = backbone(tokens, patch) != backbone(changed, patch)
    return differs.any(2)[0].nonzero().flatten().tolist()


class Represents:
    """How the users of a batch are read. Another way of doing so inherits the contracts and says how here."""

    def represent(self, backbone: Backbone, tokens: Tensor, patch: Patch | None) -> Tensor:
        with torch.no_grad():
            return represent(backbone, tokens, patch)


# ---------------------------------------------------------------- promises 1 and 2


class ReachContract:
    """An output sees exactly as far as the taps go: back only if causal, as far on both sides if not.

    That of a transformer sees everything there.
    """

    @every_pair
    def test_an_item_reaches_exactly_as_far_as_the_taps(self, backbone_config, config):
        backbone, patch = lively_backbone(backbone_config).double(), lively_patch(config, backbone_config).double()
        if backbone_config.architecture == "transformer":
            reached = touched(backbone, patch, some_items(1, 11), 4)
            assert reached == list(range(4 if backbone_config.kind == "causal" else 0, 11))
            return
        total = sum(3 * dilation * (backbone_config.kernel_size - 1) for dilation in backbone_config.dilations)
        before, after = (0, total) if backbone_config.kind == "causal" else (total // 2, total // 2)
        length, position = before + after + 7, before + 3
        reached = touched(backbone, patch, some_items(1, length), position)
        assert reached[0] == position - before
        assert reached[-1] == position + after
        assert backbone.receptive_field == total + 1


class PaddingContract(Represents):
    """The same user gets the same representation, whatever stands beside."""

    @every_padded_pair
    def test_padding_batch_mates_and_their_order_do_not_matter(self, backbone_config, config, leading, trailing):
        backbone, patch = lively_backbone(backbone_config), lively_patch(config, backbone_config)
        users = [some_items(1, length, seed=length)[0].tolist() for length in (7, 0, 1, 12, 3)]
        order = [3, 0, 4, 1, 2]
        together = self.represent(backbone, padded([users[i] for i in order], leading, trailing), patch)
        for place, i in enumerate(order):
            alone = self.represent(backbone, torch.tensor([users[i]], dtype=torch.long), patch)
            torch.testing.assert_close(together[place], alone[0], rtol=0, atol=1e-5)

    @every_pair
    def test_it_is_what_the_formulas_say(self, backbone_config, config):
        backbone, patch = lively_backbone(backbone_config), lively_patch(config, backbone_config)
        users = [some_items(1, length, seed=length)[0].tolist() for length in (6, 0, 1)]
        actual = self.represent(backbone, padded(users, 1, 1), patch)
        for row, user in zip(actual, users, strict=True):
            expected = torch.from_numpy(oracle_represent(backbone, user, patch, config)).float()
            torch.testing.assert_close(row, expected, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- promises 3, 4 and 8


class StartContract(Represents):
    """A fresh patch changes nothing, but for the authors' inner skip or where it is to start at random."""

    @every_pair
    def test_a_fresh_patch_is_the_identity_but_for_the_inner_skip(self, backbone_config, config):
        backbone, tokens = lively_backbone(backbone_config), padded(some_items(3, 9).tolist(), 1, 2)
        fresh = Patch(config, backbone_config, torch.Generator().manual_seed(1), ITEMS)
        identical = torch.equal(self.represent(backbone, tokens, fresh), self.represent(backbone, tokens, None))
        assert identical == (not has_inner_skip(config))

    @every_pair
    def test_a_random_start_is_not_the_identity(self, backbone_config, config):
        backbone, tokens = lively_backbone(backbone_config), some_items(3, 9)
        random = config.model_copy(update={"init": "random"})
        patch = Patch(random, backbone_config, torch.Generator().manual_seed(1), ITEMS)
        moved = self.represent(backbone, tokens, patch) - self.represent(backbone, tokens, None)
        assert moved.abs().max() > 1e-5
        assert has_inner_skip(config) or moved.abs().max() < 1.0, "small random numbers"

    @every_patch
    @pytest.mark.parametrize("start", ["identity", "random"])
    def test_the_generator_alone_decides(self, config, start):
        settings, states = config.model_copy(update={"init": start}), []
        for seed, elsewhere in ((5, 0), (5, 99), (6, 0)):
            torch.manual_seed(elsewhere)
            states.append(Patch(settings, BACKBONES["causal"], torch.Generator().manual_seed(seed), ITEMS).state_dict())
        first, repeated, second = states
        assert all(torch.equal(first[name], repeated[name]) for name in first)
        drawn = config.kind != "scale-shift" or start == "random"  # else it is zeros
        assert any(not torch.equal(first[name], second[name]) for name in first) == drawn


class GradientContract:
    """All of a patch learns, and what is frozen does not."""

    @every_pair
    def test_all_of_a_patch_and_nothing_of_the_frozen_backbone_gets_a_gradient(self, backbone_config, config):
        backbone, patch = lively_backbone(backbone_config), lively_patch(config, backbone_config)
        backbone(append_token(some_items(8, 9), TCL)[0], patch).square().mean().backward()
        silent = [name for name, p in patch.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == []
        assert [name for name, p in backbone.named_parameters() if p.grad is not None] == []

    @every_pair
    def test_a_backbone_that_is_not_frozen_learns_through_the_patch(self, backbone_config, config):
        backbone = lively_backbone(backbone_config).requires_grad_(True)
        patch, tokens = lively_patch(config, backbone_config), append_token(some_items(8, 9), TCL)[0]
        backbone(tokens, patch).square().mean().backward()
        assert [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


class ModuleContract(Represents):
    """A patch is a module of its own: saved and loaded alone, and no part of the backbone."""

    @every_pair
    def test_its_state_goes_round(self, backbone_config, config):
        backbone, tokens = lively_backbone(backbone_config), some_items(3, 9)
        saved = lively_patch(config, backbone_config)
        loaded = Patch(config, backbone_config, items=ITEMS)
        before = self.represent(backbone, tokens, loaded)
        loaded.load_state_dict(saved.state_dict())
        wanted = self.represent(backbone, tokens, saved)
        assert not torch.equal(before, wanted)
        assert torch.equal(self.represent(backbone, tokens, loaded), wanted)
        names = oracle_patch_names(config, len(backbone.blocks))
        assert set(saved.state_dict()) == {name for name, _ in saved.named_parameters()} == names

    @every_pair
    def test_it_is_no_part_of_the_backbone_and_changes_nothing_of_it(self, backbone_config, config):
        backbone, tokens = lively_backbone(backbone_config), some_items(3, 9)
        before, plain = {n: t.clone() for n, t in backbone.state_dict().items()}, backbone(tokens)
        self.represent(backbone, tokens, lively_patch(config, backbone_config))
        after = backbone.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert torch.equal(backbone(tokens), plain)
