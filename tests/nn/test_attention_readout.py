"""Attention over a user's events: against loops, and modules of many tasks in one batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from builders import shaken
from contracts import BACKBONES, ITEMS, every_backbone, lively_backbone, lively_patch, padded
from peterrec.errors import ConfigError
from peterrec.nn.readout import (
    AttentionPooling,
    AttentionReadout,
    RowModules,
    build_readout_module,
    full_pass,
    readout_named,
    register_readout,
    represent,
)
from peterrec.nn.tokens import PAD, TCL, append_token, enclose_in_task_tokens, places_beside
from peterrec.nn.trunk import Trunk
from strategies import patched_backbones, users


def attended_by_hand(backbone, patch, module: AttentionPooling, row: list[int]) -> np.ndarray:
    """Weighted means of embeddings, then of hidden states, of one user without padding."""
    last_only = backbone.config.kind == "causal" or backbone.config.task_tokens == "last-end"
    tokens = torch.tensor([[*row, TCL] if last_only else [TCL, *row, TCL]])
    with torch.no_grad():
        embedded, hidden = backbone.embed(tokens, patch)[0].numpy(), backbone(tokens, patch)[0].numpy()
    first = 0 if last_only else 1
    embedded, hidden = embedded[first : first + len(row)], hidden[first : first + len(row)]
    keys = [(h - h.mean()) / np.sqrt(h.var() + 1e-5) for h in hidden]
    means: list[list[np.ndarray]] = [[], []]
    for query in module.queries.detach().numpy():
        exponentials = [np.exp(query @ key / np.sqrt(len(key))) for key in keys]
        for part, states in zip(means, (embedded, hidden), strict=True):
            part.append(sum((e / sum(exponentials) * x for e, x in zip(exponentials, states, strict=True)), 0 * query))
    return np.concatenate(means[0] + means[1])


@given(configs=patched_backbones(), rows=users(ITEMS), leading=st.integers(0, 4), trailing=st.integers(0, 4))
def test_any_user_is_attended_to_as_by_hand_whatever_stands_beside(configs, rows, leading, trailing):
    backbone = lively_backbone(configs[0]).double()
    patch = lively_patch(configs[1], configs[0]).double().requires_grad_(False)
    module = shaken(AttentionPooling(3, configs[0].channels).double(), scale=3.0)
    actual = represent(backbone, padded(rows, leading, trailing), patch, "attention", module).detach().numpy()
    expected = [attended_by_hand(backbone, patch, module, row) for row in rows]
    np.testing.assert_allclose(actual, expected, atol=1e-8)


@every_backbone
@pytest.mark.parametrize("columns", [0, 3])
def test_who_did_nothing_gets_zeros_and_no_gradient_that_is_no_number(backbone_config, columns):
    backbone = lively_backbone(backbone_config)
    module = shaken(AttentionPooling(2, backbone_config.channels))
    tokens = torch.full((2, columns), PAD)
    tokens[1:, :1] = 5
    vectors = represent(backbone, tokens, None, "attention", module)
    assert not vectors[0].any()
    assert bool(vectors[1].any()) == (columns > 0)
    vectors.square().sum().backward()
    assert module.queries.grad is not None
    assert module.queries.grad.isfinite().all()


@every_backbone
def test_a_fresh_module_is_the_mean(backbone_config):
    backbone = lively_backbone(backbone_config)
    tokens, channels = padded([[5, 6, 7, 8], [9], [10, 5]], 1, 2), backbone_config.channels
    module = build_readout_module("attention", channels)
    assert module is not None
    sums = represent(backbone, tokens, None, "pooled") / torch.tensor([[2.0], [1.0], [2**0.5]])
    means = torch.cat([part.repeat(1, 4) for part in sums.chunk(2, dim=1)], dim=1)
    torch.testing.assert_close(represent(backbone, tokens, None, "attention", module), means)
    assert means.shape[1] == readout_named("attention").width(channels)
    assert build_readout_module("both", channels) is None


@given(rows=users(ITEMS), seed=st.integers(0, 99), leading=st.integers(0, 2))
def test_each_row_is_read_by_its_own_module(rows, seed, leading):
    backbone = lively_backbone(BACKBONES["causal"])
    modules = [shaken(AttentionPooling(2, backbone.config.channels), n, scale=3.0) for n in range(3)]
    modules_of_rows = [modules[n] for n in np.random.default_rng(seed).integers(0, 3, len(rows))]
    tokens = padded(rows, leading, 1)
    actual = represent(backbone, tokens, None, "attention", RowModules(modules_of_rows))
    for row, (own_row, module) in enumerate(zip(rows, modules_of_rows, strict=True)):
        alone = represent(backbone, padded([own_row], 0, 0), None, "attention", module)
        torch.testing.assert_close(actual[row], alone[0], atol=1e-5, rtol=0)


@given(rows=users(ITEMS), leading=st.integers(0, 3), trailing=st.integers(0, 3))
def test_the_places_of_the_task_token_are_known_from_the_events(rows, leading, trailing):
    tokens = padded(rows, leading, trailing)
    for at_both_ends in (False, True):
        longer, positions = enclose_in_task_tokens(tokens) if at_both_ends else append_token(tokens, TCL)
        events = (longer != PAD) & (longer != TCL)
        assert torch.equal(places_beside(events, at_both_ends=at_both_ends), positions.view(len(rows), -1))


@every_backbone
def test_states_that_are_kept_are_read_as_those_of_a_whole_pass(backbone_config):
    backbone = lively_backbone(backbone_config)
    module = shaken(AttentionPooling(2, backbone_config.channels))
    tokens = padded([[5, 6, 7, 8], [], [10, 5]], 0, 1)
    trunk = Trunk(backbone, 0, 6, "attention")
    states, events = trunk.compute_states(tokens)
    assert states.shape[1:] == trunk.shape
    expected = full_pass(backbone, tokens)

    def read(kept_states):  # whatever a module may look at
        missing = kept_states.hidden.shape[1] - expected.hidden.shape[1]
        for name in ("embedded", "hidden"):
            computed = F.pad(getattr(expected, name), (0, 0, 0, missing))
            torch.testing.assert_close(getattr(kept_states, name), computed)
        assert torch.equal(kept_states.task_positions, expected.task_positions)
        return module(kept_states)

    torch.testing.assert_close(
        trunk.represent(states, events, None, read), represent(backbone, tokens, None, "attention", module)
    )


def test_without_the_module_of_a_task_nothing_is_read():
    with pytest.raises(ConfigError, match="reads by a module of the task's own"):
        represent(lively_backbone(BACKBONES["causal"]), padded([[5]], 0, 0), None, "attention")


def test_a_trained_readout_reads_more_than_the_task_token():
    class Impossible(AttentionReadout):
        token_only = True

    with pytest.raises(ConfigError, match="trained and token_only"):
        register_readout("impossible", Impossible())
    with pytest.raises(ConfigError, match="no readout"):
        readout_named("impossible")
