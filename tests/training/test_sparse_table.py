"""Training on the rows that a batch touches: the gradients of the whole tables, and an optimiser checked by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from peterrec.config import BackboneConfig, OptimConfig, PretrainConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.nn.backbone import Backbone
from peterrec.nn.losses import LogUniformSampler
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.sparse_table import TouchedRows
from peterrec.nn.tokens import ITEM_BITS, PAD, SPECIAL, UNK
from peterrec.training.optim import clip_gradients, make_optimizer
from peterrec.training.pretrain import pretrain
from peterrec.training.pretrain_module import PretrainModule
from training.small import pretrain_config

ITEMS = 30
LR, EPS, BETA = 0.1, 1e-8, 0.999


def sparse(rows: list[int], values: list[list[float]], size: tuple[int, int]) -> torch.Tensor:
    return torch.sparse_coo_tensor(
        torch.tensor([rows]), torch.tensor(values), size, is_coalesced=True, check_invariants=True
    )


def module(updates: str, tie: bool, kind: str, sizes: tuple[int, ...] = ()) -> PretrainModule:
    backbone = BackboneConfig(kind=kind, channels=6, dilations=(1, 2), tie_weights=tie)
    paper = {"item_init": "random", "contrastive": {"weight": 0.0}, "dropout": 0.0}
    config = PretrainConfig(loss="sampled", table_updates=updates, backbone=backbone, **paper)
    bias = torch.randn(ITEMS, generator=torch.Generator().manual_seed(0))
    network = NextItemModel(Backbone(backbone, ITEMS, feature_sizes=sizes), bias).double()
    return PretrainModule(network, config, LogUniformSampler(ITEMS))


def gradients(pretrain_module: PretrainModule, batch: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    loss = pretrain_module.training_step(batch, 0)
    loss.backward()
    pretrain_module.on_after_backward()
    return loss.item(), {
        name: p.grad.to_dense() if p.grad.is_sparse else p.grad
        for name, p in pretrain_module.trained.named_parameters()
    }


@given(
    tie=st.booleans(),
    kind=st.sampled_from(["causal", "noncausal"]),
    seed=st.integers(0, 999),
    rows=st.integers(1, 4),
    padded=st.booleans(),
    sizes=st.sampled_from([(), (3, 2)]),
)
def test_loss_and_gradients_are_those_of_the_whole_tables(tie, kind, seed, rows, padded, sizes):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(1, SPECIAL + ITEMS, (rows, 7), generator=generator)
    targets = torch.randint(SPECIAL, SPECIAL + ITEMS, (rows, 7), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < 0.4] = PAD
    if padded:
        inputs[0, 4:], targets[0, 4:] = PAD, PAD
    targets[-1, 0] = SPECIAL
    if sizes:
        inputs |= (inputs > UNK) * torch.randint(0, 6, inputs.shape, generator=generator) << ITEM_BITS
    negatives = torch.randint(0, ITEMS, (9,), generator=generator)
    batch = {"inputs": inputs, "targets": targets, "negatives": negatives}
    (dense_loss, dense), (rows_loss, touched) = (
        gradients(module(updates, tie, kind, sizes), batch) for updates in ("dense", "rows")
    )
    assert rows_loss == pytest.approx(dense_loss, abs=1e-12)
    assert list(touched) == list(dense)
    for name, gradient in dense.items():
        torch.testing.assert_close(touched[name], gradient, rtol=1e-9, atol=1e-12)


def test_only_rows_that_were_touched_have_a_gradient() -> None:
    pretrain_module = module("rows", True, "causal")
    batch = {"inputs": torch.tensor([[5, 6, 7]]), "targets": torch.tensor([[6, 7, 8]]), "negatives": torch.tensor([9])}
    pretrain_module.training_step(batch, 0).backward()
    assert pretrain_module.trained.backbone.embedding.weight.grad is None, "nothing as large as the table"
    pretrain_module.on_after_backward()
    gradient = pretrain_module.trained.backbone.embedding.weight.grad
    assert gradient.is_sparse
    assert gradient._indices().tolist() == [[5, 6, 7, 8, 9 + SPECIAL]]


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("kind", ["causal", "noncausal"])
def test_a_batch_with_nothing_to_say_leaves_the_tables_alone(tie: bool, kind: str) -> None:
    """A dense gradient of zeros would give the table a state that the next sparse one does not fit."""
    pretrain_module = module("rows", tie, kind)
    optimizer = make_optimizer(pretrain_module.trained.parameters(), OptimConfig(lr=LR))
    inputs, nothing = torch.tensor([[5, 3, 7]]), torch.zeros(1, 3, dtype=torch.long)
    before = pretrain_module.trained.backbone.embedding.weight.detach().clone()
    for targets in (nothing, torch.tensor([[6, 8, 9]]), nothing):
        batch = {"inputs": inputs, "targets": targets, "negatives": torch.tensor([2])}
        optimizer.zero_grad()
        loss = pretrain_module.training_step(batch, 0)
        loss.backward()
        pretrain_module.on_after_backward()
        optimizer.step()
        assert torch.equal(pretrain_module.trained.backbone.embedding.weight, before) == (targets is nothing)
        before = pretrain_module.trained.backbone.embedding.weight.detach().clone()


def test_touched_rows_are_found_each_once() -> None:
    table = nn.Parameter(torch.arange(20.0).reshape(10, 2))
    indices = torch.tensor([[7, 2], [2, 9]]), torch.tensor([0])
    rows = TouchedRows.from_indices(table, *indices)
    assert rows.rows.tolist() == [0, 2, 7, 9]
    assert torch.equal(rows.values, table[[0, 2, 7, 9]])
    assert [places.tolist() for places in rows.places] == [[[2, 1], [1, 3]], [0]]
    assert all(torch.equal(rows.values[p], table[i]) for p, i in zip(rows.places, indices, strict=True))


def test_touched_rows_hold_nothing_as_long_as_the_table() -> None:
    table = nn.Parameter(torch.zeros(10_000, 2))
    rows = TouchedRows.from_indices(table, torch.tensor([[7, 2]]), torch.tensor([9_999]))
    assert max(len(value) for value in (rows.rows, rows.values, *rows.places)) == 3


# ---------------------------------------------------------------- the optimiser


def test_touched_rows_move_as_the_formula_says_and_others_stay() -> None:
    """By hand, over steps that touch different rows; the second moment of a row knows only its own steps."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=(5, 3)).astype(np.float32)
    table = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = make_optimizer([table], OptimConfig(lr=LR, weight_decay=0.5))
    expected, moment, steps = start.astype(np.float64), np.zeros(5), np.zeros(5)
    for rows in ([0, 2], [2, 4], [0, 1, 2]):
        values = rng.normal(size=(len(rows), 3)).astype(np.float32)
        table.grad = sparse(rows, values.tolist(), (5, 3))
        optimizer.step()
        for row, gradient in zip(rows, values.astype(np.float64), strict=True):
            steps[row] += 1
            moment[row] = BETA * moment[row] + (1 - BETA) * np.mean(gradient**2)
            size = math.sqrt(moment[row] / (1 - BETA ** steps[row])) + EPS
            expected[row] = expected[row] * (1 - LR * 0.5) - LR * gradient / size
    np.testing.assert_allclose(table.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(table.detach().numpy()[3], start[3])
    assert sum(state.numel() for state in optimizer.state[table].values()) == 10, "two numbers a row"


def test_dense_parameters_are_updated_by_adamw_itself() -> None:
    ours, theirs = (nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    table = nn.Parameter(torch.ones(4, 2))
    optimizer, reference = make_optimizer([ours, table], OptimConfig(lr=LR)), torch.optim.AdamW([theirs], lr=LR)
    reference.param_groups[0]["weight_decay"] = 0.0
    for step in range(3):
        gradient = torch.full((3, 2), 1.0 + step)
        ours.grad, theirs.grad, table.grad = gradient.clone(), gradient.clone(), sparse([1], [[1.0, 1.0]], (4, 2))
        optimizer.step()
        reference.step()
    assert torch.equal(ours, theirs)
    assert table.grad is not None
    assert table[1, 0] < 1.0


def test_the_state_of_rows_goes_round() -> None:
    def stepped(optimizer: torch.optim.Optimizer, table: nn.Parameter, steps: range) -> None:
        for step in steps:
            table.grad = sparse([step % 3, 3], [[1.0 + step, 2.0], [0.5, step]], (4, 2))
            optimizer.step()

    through, stopped = (nn.Parameter(torch.ones(4, 2)) for _ in range(2))
    optimizer, first = (make_optimizer([p], OptimConfig(lr=LR)) for p in (through, stopped))
    stepped(optimizer, through, range(6))
    stepped(first, stopped, range(3))
    second = make_optimizer([stopped], OptimConfig(lr=LR))
    second.load_state_dict(first.state_dict())
    stepped(second, stopped, range(3, 6))
    assert torch.equal(through, stopped)


@pytest.mark.parametrize("longest", [0.5, 100.0])
def test_the_norm_of_all_gradients_together_is_clipped(longest: float) -> None:
    dense, table, frozen = (nn.Parameter(torch.zeros(3, 2)) for _ in range(3))
    dense.grad, table.grad = torch.full((3, 2), 2.0), sparse([0, 2], [[3.0, 0.0], [0.0, 1.0]], (3, 2))
    norm = math.sqrt(6 * 4 + 9 + 1)
    clip_gradients([dense, table, frozen], longest)
    factor = min(1.0, longest / norm)
    torch.testing.assert_close(dense.grad, torch.full((3, 2), 2.0 * factor))
    torch.testing.assert_close(table.grad.to_dense()[0, 0], torch.tensor(3.0 * factor))
    clip_gradients([frozen], 1.0)


# ---------------------------------------------------------------- settings, and a whole training


def test_rows_are_for_large_catalogues_whose_softmax_is_sampled() -> None:
    config = PretrainConfig()
    assert [config.by_rows(n) for n in (5_000, 200_000, 200_001)] == [False, False, True]
    assert PretrainConfig(table_updates="rows").by_rows(6_000)
    assert not PretrainConfig(table_updates="rows").by_rows(5_000), "its softmax is not sampled"
    assert not PretrainConfig(table_updates="dense").by_rows(10**6)
    assert not PretrainConfig(loss="full").by_rows(10**6)
    with pytest.raises(ConfigError, match="needs loss sampled"):
        PretrainConfig(table_updates="rows", loss="full")


def test_rows_of_a_small_catalogue_are_refused_before_anything_is_written(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the sampled softmax, but"):
        pretrain(corpus, tmp_path / "out", pretrain_config(table_updates="rows"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_training_on_rows_learns(corpus: Corpus, tmp_path: Any) -> None:
    actual = {}
    for updates in ("dense", "rows"):
        config = pretrain_config(
            loss="sampled", negatives=20, table_updates=updates, epochs=6, optim=OptimConfig(lr=0.02), batch_size=8
        )
        curve = pretrain(corpus, tmp_path / updates, config).pretrained.training["curve"]
        actual[updates] = [row["valid_loss"] for row in curve]
    assert actual["rows"][0] != actual["dense"][0]
    assert min(actual["rows"]) < actual["rows"][0]
    assert min(actual["rows"]) == pytest.approx(min(actual["dense"]), abs=0.25)
