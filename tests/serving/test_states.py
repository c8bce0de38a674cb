"""The pool of states: whatever was evicted, outdated, erased or interrupted, answers are those of whole histories."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from torch import Tensor

from contracts import ITEMS, PATCHES, lively_backbone, lively_patch, padded
from pairwise import FULL
from peterrec.config import BackboneConfig
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError
from peterrec.nn.backbone import Backbone
from peterrec.nn.bank import PatchBank
from peterrec.nn.patch import TaskPatch
from peterrec.nn.readout import represent
from peterrec.nn.stream import Stream
from peterrec.nn.tokens import SPECIAL
from peterrec.serving.states import FEW_EVENTS, StatePool

CONFIG = BackboneConfig(channels=6, kernel_size=3, dilations=(1, 2))
BACKBONE = lively_backbone(CONFIG)
PATCH_OF_VERSION = [None, *(lively_patch(PATCHES["own-norms-one-a-block"], CONFIG, seed) for seed in (1, 2))]
VERSIONS = ("", "v1", "v2")
BANK = PatchBank(PATCH_OF_VERSION)
ITEM = st.integers(SPECIAL, SPECIAL + ITEMS - 1)
USER = st.sampled_from("abcde")

Key = tuple[str, str]


@dataclass(frozen=True)
class Stored:
    """A user's history as the store has it."""

    revision: str = ""
    tokens: IntArray = field(default_factory=lambda: np.empty(0, np.int64))

    def plus(self, *items: int) -> Stored:
        return Stored(self.revision or "r0", np.concatenate([self.tokens, np.array(items, np.int64)]))


def patches_of(keys: Sequence[Key]) -> Callable[[list[int]], TaskPatch]:
    """The patch of each row, as the engine gives it."""
    return lambda indices: BANK.rows(torch.tensor([VERSIONS.index(keys[index][1]) for index in indices]))


def from_whole_histories(keys: Sequence[Key], histories: Sequence[Stored], backbone: Backbone = BACKBONE) -> Tensor:
    tokens = padded([history.tokens.tolist() for history in histories], 0, 0)
    with torch.no_grad():
        return represent(backbone, tokens, patches_of(keys)(list(range(len(keys)))))


def check(pool: StatePool, keys: Sequence[Key], histories: Sequence[Stored], batch_size: int = 256) -> None:
    states = pool.vectors(keys, histories, patches_of(keys), batch_size)
    torch.testing.assert_close(states, from_whole_histories(keys, histories), rtol=1e-5, atol=1e-5)


def random_history(length: int, seed: int = 0) -> Stored:
    return Stored().plus(*np.random.default_rng(seed).integers(SPECIAL, SPECIAL + ITEMS, length).tolist())


def counts(pool: StatePool) -> tuple[int, int, int]:
    return pool.hits, pool.rebuilds, pool.evictions


# ---------------------------------------------------------------- any order of events and questions


class Pool(RuleBasedStateMachine):
    """A pool of three states, five users, three versions of a patch."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = StatePool(Stream(BACKBONE), 3)
        self.users = {user: Stored() for user in "abcde"}
        self.revisions = 0

    @rule(user=USER, items=st.lists(ITEM, min_size=1, max_size=2 * FEW_EVENTS))
    def events_come(self, user, items):
        self.users[user] = self.users[user].plus(*items)

    @rule(user=USER, items=st.lists(ITEM, max_size=30))
    def the_store_puts_them_in_another_order(self, user, items):
        self.revisions += 1
        self.users[user] = Stored(f"r{self.revisions}", np.array(items, np.int64))

    @rule(keys=st.lists(st.tuples(USER, st.sampled_from(VERSIONS)), max_size=7), batch_size=st.integers(1, 8))
    def questions(self, keys, batch_size):
        before = len(self.pool), counts(self.pool)
        histories = [self.users[user] for user, _ in keys]
        if keys:
            check(self.pool, keys, histories, batch_size)
        distinct_keys = len(set(keys))
        hits, rebuilds, evictions = np.subtract(counts(self.pool), before[1])
        assert hits + rebuilds == distinct_keys
        assert len(self.pool) <= before[0] + rebuilds
        assert evictions <= rebuilds

    @rule(
        keys=st.lists(st.tuples(USER, st.sampled_from(VERSIONS)), min_size=1, max_size=3, unique=True),
        call=st.integers(0, 2),
    )
    def something_fails_on_the_way(self, keys, call):
        calls: list[int] = []
        patch_of = patches_of(keys)

        def fails(indices: list[int]) -> TaskPatch:
            calls.append(1)
            if len(calls) > call:
                raise MemoryError
            return patch_of(indices)

        try:
            self.pool.vectors(keys, [self.users[user] for user, _ in keys], fails)
        except MemoryError:
            assert len(calls) > call

    @rule(user=USER)
    def a_user_is_erased(self, user):
        before = len(self.pool)
        assert self.pool.forget_user(user) == before - len(self.pool)
        self.users[user] = Stored()

    @invariant()
    def each_state_has_a_place_of_its_own(self):
        rows = [entry.row for entry in self.pool._entries.values()] + self.pool._free
        assert sorted(rows) == list(range(3))
        assert len(self.pool) == 3 - len(self.pool._free)


Pool.TestCase.settings = settings(max_examples=60 if FULL else 10, stateful_step_count=20, deadline=None)
TestPool = Pool.TestCase


# ---------------------------------------------------------------- what it costs


class Counting(Stream):
    """Counts the rows that it computes."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.pushed: list[int] = []
        self.filled: list[int] = []

    def push(self, states: Any, rows: Tensor, tokens: Tensor, patch: TaskPatch | None = None) -> Tensor:
        self.pushed.append(len(rows))
        return super().push(states, rows, tokens, patch)

    def fill(
        self, states: Any, rows: Tensor, tokens: Tensor, patch: Any = None, token_counts: Tensor | None = None
    ) -> None:
        self.filled.append(len(rows))
        assert tokens.shape[1] <= self.positions, "no more is read than matters"
        super().fill(states, rows, tokens, patch, token_counts)


def test_a_new_event_costs_one_push_and_no_event_nothing():
    pool = StatePool(stream := Counting(BACKBONE), 4)
    keys: list[Key] = [("a", "v1"), ("b", "v1"), ("c", "v2")]
    histories = [random_history(40, 1), random_history(30, 2), random_history(2, 3)]
    check(pool, keys, histories)
    assert (stream.filled, stream.pushed) == ([2], [1, 1])
    check(pool, keys, histories)
    assert (stream.filled, stream.pushed) == ([2], [1, 1])
    histories = [histories[0].plus(5), histories[1], histories[2].plus(6, 7, 8)]
    check(pool, keys, histories)
    assert (stream.filled, stream.pushed) == ([2], [1, 1, 2, 1, 1])
    assert counts(pool) == (6, 3, 0)
    assert pool.stats() == {
        "states": 3.0, "states_capacity": 4.0, "state_hits": 6.0, "state_rebuilds": 3.0, "evictions": 0.0
    }  # fmt: skip


def test_a_state_that_is_far_behind_is_made_anew_in_one_pass():
    pool = StatePool(stream := Counting(BACKBONE), 1)
    history = random_history(3)
    check(pool, [("a", "")], [history])
    stream.pushed.clear()
    check(pool, [("a", "")], [history := history.plus(*[9] * FEW_EVENTS)])
    assert (stream.filled, stream.pushed) == ([], [1] * FEW_EVENTS)
    check(pool, [("a", "")], [history.plus(*[9] * (FEW_EVENTS + 1))])
    assert stream.filled == [1]


def test_the_longest_unused_goes_first():
    pool = StatePool(Stream(BACKBONE), 2)
    a, b, c = (("a", ""), ("b", ""), ("c", ""))
    for key in (a, b, a, c):
        check(pool, [key], [random_history(5)])
    assert list(pool._entries) == [a, c]
    assert counts(pool) == (1, 3, 1)
    check(pool, [b, c], [random_history(5), random_history(5)])  # c is about to be used: it is a that goes
    assert counts(pool) == (2, 4, 2)
    assert set(pool._entries) == {b, c}


def test_more_keys_than_states_and_keys_that_occur_again():
    pool = StatePool(Stream(BACKBONE), 2)
    keys: list[Key] = [("a", ""), ("b", "v1"), ("a", ""), ("c", "v2"), ("a", "v1"), ("b", "v1")]
    stored = {"a": random_history(4, 1), "b": random_history(30, 2), "c": random_history(0, 3)}
    check(pool, keys, [stored[user] for user, _ in keys])
    assert len(pool) == 2


def test_of_two_histories_of_one_user_the_last_one_counts():
    pool, keys = StatePool(Stream(BACKBONE), 2), [("a", ""), ("b", ""), ("a", "")]
    before, other_history = random_history(4, 1), random_history(3, 2)
    states = pool.vectors(keys, [before, other_history, before.plus(8)], patches_of(keys))
    wanted = from_whole_histories(keys, [before.plus(8), other_history, before.plus(8)])
    torch.testing.assert_close(states, wanted, rtol=1e-5, atol=1e-5)


def test_a_history_that_was_read_before_the_state_was_made():
    pool, history = StatePool(Stream(BACKBONE), 2), random_history(12)
    check(pool, [("a", "")], [history.plus(4, 5)])
    check(pool, [("a", "")], [history])
    assert counts(pool) == (0, 2, 0)
    check(pool, [("a", "")], [history.plus(4, 5)])
    assert counts(pool) == (1, 2, 0)


def test_what_fails_on_the_way_leaves_no_state_between_two_events():
    pool, keys = StatePool(Stream(BACKBONE), 2), [("a", ""), ("b", "v1")]
    histories, calls = [random_history(10, 1), random_history(10, 2)], 0
    check(pool, keys, histories)
    longer_histories = [histories[0].plus(4, 5, 6), histories[1].plus(7)]

    def fails(indices: list[int]) -> TaskPatch:
        nonlocal calls
        calls += 1
        if calls == 2:  # an event of each is pushed, two of one are not
            raise MemoryError
        return patches_of(keys)(indices)

    with pytest.raises(MemoryError):
        pool.vectors(keys, longer_histories, fails)
    check(pool, keys, longer_histories)


def test_no_keys():
    assert StatePool(Stream(BACKBONE), 2).vectors([], [], patches_of([])).shape == (0, 6)


# ---------------------------------------------------------------- erasure, limits


def test_nothing_is_left_of_who_is_erased():
    pool = StatePool(Stream(BACKBONE), 4)
    keys: list[Key] = [("a", ""), ("a", "v1"), ("b", "")]
    histories = [random_history(20, 1), random_history(20, 1), random_history(20, 2)]
    check(pool, keys, histories)
    state_of_b = pool.states.pool[pool._entries["b", ""].row].clone()
    assert pool.forget_user("a") == 2
    assert pool.forget_user("a") == 0
    nonzero_rows = pool.states.pool.flatten(1).any(1)
    assert nonzero_rows.sum() == 1, "the rows of the other user only"
    assert torch.equal(pool.states.pool[nonzero_rows][0], state_of_b)
    assert pool.states.token_counts.sum() == 20
    check(pool, keys, histories)


def test_forgetting_by_key():
    pool = StatePool(Stream(BACKBONE), 4)
    keys: list[Key] = [("a", ""), ("a", "v1"), ("b", "v1")]
    check(pool, keys, [random_history(3)] * 3)

    def has_version(key: Hashable) -> bool:
        return isinstance(key, tuple) and key[1] == "v1"

    assert pool.forget(has_version) == 2
    assert list(pool._entries) == [("a", "")]


def test_more_states_than_memory_are_refused():
    with pytest.raises(ConfigError, match=r"GB, more than there is"):
        StatePool(Stream(BACKBONE), 10**13)
