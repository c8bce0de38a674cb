"""States event by event say what whole histories say: for any causal dilated backbone, any patch, any rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contracts import (
    BACKBONES,
    ITEMS,
    PATCHES,
    lively_backbone,
    lively_patch,
    padded,
    pairs_of_backbone_and_patch,
    some_items,
)
from pairwise import FULL
from peterrec.config import BackboneConfig
from peterrec.errors import ConfigError
from peterrec.nn.backbone import Backbone
from peterrec.nn.bank import PatchBank
from peterrec.nn.patch import Patch, TaskPatch
from peterrec.nn.readout import represent
from peterrec.nn.stream import States, Stream
from strategies import backbone_configs, patch_configs
from strategies import users as user_histories

CAUSAL = {name: config for name, config in BACKBONES.items() if name in ("causal", "causal-two-taps")}
CAUSAL_PAIRS = pairs_of_backbone_and_patch(CAUSAL)
every_causal_pair = pytest.mark.parametrize(
    ("backbone_config", "config"),
    [(CAUSAL[backbone], PATCHES[patch]) for backbone, patch in CAUSAL_PAIRS],
    ids=["-".join(names) for names in CAUSAL_PAIRS],
)
USERS = [some_items(1, length, seed=length)[0].tolist() for length in (3, 0, 40, 1, 17)]


def expected(backbone: Backbone, users: Sequence[Sequence[int]], patch: TaskPatch | None) -> Tensor:
    with torch.no_grad():
        return represent(backbone, padded([list(user) for user in users], 0, 0), patch)


def assert_same_states(actual: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5)


def push_all(
    stream: Stream, states: States, rows: Tensor, users: Sequence[Sequence[int]], patches: list[Patch]
) -> None:
    """Row by row of what is shorter drops out, so that each push is of other rows, in another order."""
    bank = PatchBank(patches)
    for turn in range(max(map(len, users))):
        rows_left = [i for i, user in enumerate(users) if len(user) > turn]
        rows_left = rows_left[turn % len(rows_left) :] + rows_left[: turn % len(rows_left)]
        which = torch.tensor([i % len(patches) for i in rows_left])
        stream.push(states, rows[rows_left], torch.tensor([users[i][turn] for i in rows_left]), bank.rows(which))


# ---------------------------------------------------------------- what it says


@pytest.mark.quick_cases(10)
@every_causal_pair
def test_pushed_and_filled_states_say_what_whole_histories_say(backbone_config, config):
    backbone = lively_backbone(backbone_config)
    stream, rows = Stream(backbone), torch.tensor([6, 0, 2, 5, 3])
    patches = [lively_patch(config, backbone_config, seed) for seed in (1, 2)]
    bank = PatchBank(patches).rows(torch.tensor([i % 2 for i in range(len(USERS))]))
    wanted = expected(backbone, USERS, bank)
    pushed, filled = stream.new(7), stream.new(7)
    push_all(stream, pushed, rows, USERS, patches)
    assert_same_states(stream.peek(pushed, rows, patch=bank), wanted)
    stream.fill(filled, rows, padded(USERS, 0, 2), bank)
    assert_same_states(stream.peek(filled, rows, patch=bank), wanted)
    assert_same_states(filled.pool, pushed.pool)
    assert torch.equal(filled.token_counts, pushed.token_counts)
    assert pushed.token_counts.tolist() == [0, 0, 40, 17, 0, 1, 3]


@every_causal_pair
def test_one_patch_for_all_rows(backbone_config, config):
    backbone, patch = lively_backbone(backbone_config), lively_patch(config, backbone_config)
    stream, rows = Stream(backbone), torch.arange(3)
    tokens = some_items(3, 25)
    states = stream.new(3)
    stream.fill(states, rows, tokens[:, :20], patch)
    with torch.no_grad():
        all_states = backbone(tokens, patch)
    for turn in range(20, 25):
        assert_same_states(stream.push(states, rows, tokens[:, turn], patch), all_states[:, turn])
    assert_same_states(stream.peek(states, rows, patch=patch), expected(backbone, tokens.tolist(), patch))


@settings(max_examples=60 if FULL else 15, deadline=None)
@given(st.data(), backbone_configs(kind="causal"), user_histories(ITEMS, longest=50))
def test_any_backbone_any_patch_any_way_to_get_there(data, config, users):
    backbone = lively_backbone(config)
    patch_config = data.draw(st.none() | patch_configs(config))
    patch = None if patch_config is None else lively_patch(patch_config, config)
    stream, rows = Stream(backbone), torch.randperm(len(users) + 1)[: len(users)]
    states = stream.new(len(users) + 1)
    filled = [data.draw(st.integers(0, len(user))) for user in users]
    stream.fill(states, rows, padded([user[:n] for user, n in zip(users, filled, strict=True)], 0, 0), patch)
    for row, user, n in zip(rows, users, filled, strict=True):
        for item in user[n:]:
            stream.push(states, row.view(1), torch.tensor([item]), patch)
    assert states.token_counts[rows].tolist() == [len(user) for user in users]
    assert_same_states(stream.peek(states, rows, patch=patch), expected(backbone, users, patch))


def test_only_the_last_positions_of_a_history_matter():
    backbone = lively_backbone(CAUSAL["causal"])
    stream, rows, tokens, consumed = Stream(backbone), torch.arange(8), some_items(8, 70), torch.full((8,), 70)
    filled, cut = stream.new(8), stream.new(8)
    stream.fill(filled, rows, tokens)
    stream.fill(cut, rows, tokens[:, -stream.positions :], token_counts=consumed)
    assert torch.equal(filled.pool, cut.pool)
    assert torch.equal(filled.token_counts, cut.token_counts)
    stream.fill(cut, rows, tokens[:, 1 - stream.positions :], token_counts=consumed)
    assert (filled.pool - cut.pool).abs().max() > 1e-4, "one fewer is too few"


def test_a_filled_state_forgets_what_it_was_before():
    stream, rows = Stream(lively_backbone(CAUSAL["causal"])), torch.arange(2)
    states, fresh = stream.new(2), stream.new(2)
    stream.fill(states, rows, some_items(2, 60, seed=5))
    for position_count in (states, fresh):
        stream.fill(position_count, rows, padded([[7, 8], []], 0, 0))
    assert torch.equal(states.pool, fresh.pool)
    assert torch.equal(states.token_counts, fresh.token_counts)
    stream.fill(states, rows, torch.empty(2, 0, dtype=torch.long))
    assert not states.pool.any()
    assert not states.token_counts.any()


# ---------------------------------------------------------------- what it leaves alone


def test_peeking_changes_nothing_bit_for_bit_and_sees_what_a_push_would():
    stream, rows = Stream(lively_backbone(CAUSAL["causal"])), torch.tensor([2, 0])
    states = stream.new(3)
    stream.fill(states, torch.arange(3), some_items(3, 13))
    pool, consumed = states.pool.clone(), states.token_counts.clone()
    peeked = stream.peek(states, rows, 9)
    assert torch.equal(stream.peek(states, rows, 9), peeked)
    assert torch.equal(states.pool, pool)
    assert torch.equal(states.token_counts, consumed)
    assert torch.equal(stream.push(states, rows, torch.tensor([9, 9])), peeked)


@pytest.mark.parametrize("name", ["none", "serial-pre_norm", "lora"])
def test_other_rows_never_change(name):
    backbone = lively_backbone(CAUSAL["causal"])
    patch = None if name == "none" else lively_patch(PATCHES[name], backbone.config)
    stream, rows, other_rows = Stream(backbone), torch.tensor([4, 1]), torch.tensor([0, 2, 3])
    states = stream.new(5)
    stream.fill(states, torch.arange(5), some_items(5, 30), patch)
    pool, consumed = states.pool[other_rows], states.token_counts[other_rows]
    stream.push(states, rows, torch.tensor([5, 6]), patch)
    stream.fill(states, rows, some_items(2, 8), patch)
    stream.push(states, rows, torch.tensor([7, 8]), patch)
    states.clear(rows)
    assert torch.equal(states.pool[other_rows], pool)
    assert torch.equal(states.token_counts[other_rows], consumed)
    assert not states.pool[rows].any()
    assert not states.token_counts[rows].any()


def test_the_order_of_a_batch_and_batch_mates_do_not_matter():
    stream, tokens = Stream(lively_backbone(CAUSAL["causal"])), some_items(4, 20)
    orders = (torch.arange(4), torch.tensor([2, 0, 3, 1]))
    actual = []
    for order in orders:
        states = stream.new(4)
        stream.fill(states, order, tokens[order])
        stream.push(states, order, tokens[order, 0])
        actual.append(stream.peek(states, torch.arange(4)))
    assert_same_states(actual[0], actual[1])
    alone = stream.new(1)
    stream.fill(alone, torch.tensor([0]), torch.cat([tokens[2], tokens[2, :1]]).unsqueeze(0))
    assert_same_states(stream.peek(alone, torch.tensor([0])), actual[0][2:3])


# ---------------------------------------------------------------- what it is


@given(backbone_configs(kind="causal"), st.integers(1, 9))
def test_a_state_has_the_size_that_is_documented(config, capacity):
    backbone = lively_backbone(config)
    stream = Stream(backbone)
    states = stream.new(capacity)
    assert stream.positions == backbone.receptive_field - 1
    assert states.pool.shape == (capacity, stream.positions, config.channels)
    assert states.pool.nbytes + states.token_counts.nbytes == capacity * stream.bytes_per_state


def test_that_of_the_default_backbone():
    stream = Stream(Backbone(BackboneConfig(), ITEMS))
    assert (stream.positions, stream.bytes_per_state) == (60, 60 * 64 * 4 + 8)


@pytest.mark.parametrize("name", ["noncausal", "transformer"])
def test_backbones_without_such_a_state_are_refused(name):
    with pytest.raises(ConfigError, match="no state") as caught:
        Stream(lively_backbone(BACKBONES[name]))
    assert "causal dilated" in caught.value.remedy
