"""Compiled blocks: the same states and gradients, compiled for full batches only and never more often than asked."""

from __future__ import annotations

import pytest
import torch

from builders import needs_compiler, shaken
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.errors import ConfigError
from peterrec.nn import execution as run
from peterrec.nn.backbone import Backbone
from peterrec.nn.build import build_backbone
from peterrec.nn.patch import Patch
from peterrec.nn.readout import represent
from peterrec.nn.tokens import PAD

ITEMS = 12
CONFIG = BackboneConfig(channels=8, dilations=(1, 2))


def items(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, 4 + ITEMS, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def backbone() -> Backbone:
    return shaken(Backbone(CONFIG, ITEMS), 1, scale=0.5)


def test_it_is_compiled_for_full_batches_of_the_asked_lengths_only(backbone, monkeypatch):
    recorded = []

    def spy(*arguments):
        recorded.append(tuple(arguments[1].shape[:2]))
        return run.run_blocks(*arguments)

    monkeypatch.setattr("peterrec.nn.backbone.compiled_run", spy)
    compiled = backbone.compiled(4, [9, 21])
    for rows, length in ((4, 9), (4, 8), (3, 9), (4, 21), (4, 20)):
        tokens = items(rows, length)
        assert torch.equal(compiled(tokens), backbone(tokens))
    assert recorded == [(4, 9), (4, 21)]
    recorded.clear()
    represent(compiled, items(4, 20))
    represent(compiled, items(4, 19))
    assert recorded == [
        (4, compiled.receptive_field_of_last(21).count),
        (4, compiled.receptive_field_of_last(20).count),
    ]
    assert compiled.receptive_field_of_last(21).count == compiled.receptive_field_of_last(20).count == 19, (
        "long histories all have the same field"
    )
    recorded.clear()
    backbone(items(4, 9))
    assert recorded == [], "the backbone itself is as it was"


def test_what_is_compiled_shares_all_weights(backbone):
    compiled = backbone.compiled(4, [9])
    assert [id(p) for p in compiled.parameters()] == [id(p) for p in backbone.parameters()]
    assert list(compiled.state_dict()) == list(backbone.state_dict())


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
@pytest.mark.parametrize("shape", [{"dilations": (2,)}, {"architecture": "transformer", "layers": 1}], ids=str)
def test_compiled_states_and_gradients_are_those_of_the_plain_blocks(shape):
    config = BackboneConfig(channels=8, **shape)  # small: it is compiled forward and backward
    backbone, patch = shaken(build_backbone(config, ITEMS), 1, 0.5), shaken(Patch(PatchConfig(bottleneck=2), config), 2)
    compiled, tokens = backbone.compiled(6, [10]), items(6, 9)
    tokens[0, 5:] = PAD
    parameters, actual = [*backbone.parameters(), *patch.parameters()], []
    for network in (compiled, backbone):
        states = represent(network, tokens, patch)
        actual.append([states, *torch.autograd.grad(states.square().sum(), parameters)])
    for first, second in zip(*actual, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_each_shape_is_compiled_once_and_more_than_torchs_eight_do_not_fall_back(backbone, monkeypatch):
    """Counted where torch counts: past its own limit of 8 it would run plainly from then on, without a word."""
    run._compiled.cache_clear()
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()  # runs what it is given, uncompiled
    monkeypatch.setattr(torch, "compile", lambda function, **mode: torch._dynamo.optimize(counter, **mode)(function))
    lengths = list(range(5, 16))
    compiled = backbone.compiled(2, lengths)
    with torch.no_grad():
        for _ in range(3):
            for length in lengths:
                compiled(items(2, length))
    assert counter.frame_count == len(lengths)
    with torch.no_grad():
        compiled(items(1, 9))
    assert counter.frame_count == len(lengths)
    run._compiled.cache_clear()
    torch._dynamo.reset()


def test_recomputing_changes_neither_states_nor_gradients_and_keeps_less(backbone):
    patch, tokens = shaken(Patch(PatchConfig(bottleneck=2), CONFIG), 2), items(5, 30)
    tokens[0, 5:] = PAD
    parameters = [*backbone.parameters(), *patch.parameters()]
    actual, saved = [], []
    for network in (backbone.recomputing(), backbone):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: (sizes.append(x.numel()), x)[1], lambda x: x
        ):
            states = [network(tokens, patch), represent(network, tokens, patch)]
        loss = sum(state.square().sum() for state in states)
        actual.append([*states, *torch.autograd.grad(loss, parameters)])
        saved.append(sum(sizes))
    assert all(torch.equal(first, second) for first, second in zip(*actual, strict=True))
    assert saved[0] * 4 < saved[1]
    with torch.no_grad():
        assert torch.equal(backbone.recomputing()(tokens), backbone(tokens))


@pytest.mark.parametrize("form", ["plain", "recomputing"])
def test_dropout_zeroes_what_a_block_adds_and_scales_the_rest(backbone, form):
    """The same seed drops the same, everything dropped leaves nothing, and evaluation drops nothing."""
    tokens = items(4, 20)
    network = backbone if form == "plain" else backbone.recomputing()
    embedded = backbone.embed(tokens, None)
    dropped, copies = network.dropping_out(0.5).train(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        copies.append(dropped(tokens))
    assert torch.equal(copies[0], copies[1])
    assert not torch.equal(copies[0], copies[2])
    nearly_all = backbone.dropping_out(1 - 1e-9).train()
    assert torch.equal(nearly_all(tokens), torch.zeros_like(embedded))
    assert torch.equal(network.dropping_out(0.5).eval()(tokens), backbone(tokens))


def test_a_compiler_that_fails_is_the_users_to_know(backbone, monkeypatch):
    def broken():
        def fail(*arguments):
            raise torch._dynamo.exc.TorchDynamoException("no compiler found\nmany lines")

        return fail

    monkeypatch.setattr(run, "_compiled", broken)
    with pytest.raises(ConfigError, match=r"cannot be compiled here \(no compiler found\)\n.*g\+\+"):
        backbone.compiled(2, [5])(items(2, 5))
