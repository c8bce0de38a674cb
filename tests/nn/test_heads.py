"""Heads against NumPy, and where they start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import shaken
from peterrec.nn.heads import ClassificationHead, ItemHead, grouped_topk, log_share

HEADS = [ClassificationHead, ItemHead]


def users(rows: int, channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("cls", HEADS)
@given(rows=st.integers(0, 4), channels=st.integers(1, 5), outputs=st.integers(1, 6))
def test_scores_are_inner_products_plus_biases(cls, rows, channels, outputs):
    head = shaken(cls(channels, outputs).double()).requires_grad_(False)
    x = users(rows, channels)
    expected = x.numpy() @ head.weight.numpy().T + head.bias.numpy()
    assert expected.shape == (rows, outputs)
    np.testing.assert_allclose(head(x).numpy(), expected, atol=1e-12)


@given(rows=st.integers(1, 4), items=st.integers(1, 6), chosen=st.integers(0, 5), data=st.data())
def test_chosen_items_are_scored_as_among_all(rows, items, chosen, data):
    head = shaken(ItemHead(3, items).double()).requires_grad_(False)
    row = st.lists(st.integers(0, items - 1), min_size=chosen, max_size=chosen)
    which = torch.tensor(data.draw(st.lists(row, min_size=rows, max_size=rows)), dtype=torch.long).reshape(rows, chosen)
    x = users(rows, 3)
    torch.testing.assert_close(head.score(x, which), head(x).gather(1, which), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", HEADS)
def test_the_generator_decides_alone_and_biases_are_copied(cls):
    bias = torch.arange(3.0)
    first = cls(4, 3, torch.Generator().manual_seed(5), bias)
    torch.manual_seed(99)
    second = cls(4, 3, torch.Generator().manual_seed(5), bias)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, cls(4, 3, torch.Generator().manual_seed(6)).weight)
    with torch.no_grad():
        first.bias.add_(1)
    assert bias.tolist() == second.bias.tolist() == [0, 1, 2]
    assert cls(4, 3).bias.tolist() == [0, 0, 0]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8))
def test_log_shares_are_finite_sum_to_one_and_keep_the_order(counts):
    shares = log_share(torch.tensor(counts))
    assert torch.isfinite(shares).all(), "an item or class that never occurs too"
    assert shares.dtype == torch.float32
    assert float(shares.exp().sum()) == pytest.approx(1, abs=1e-5)
    expected = np.log((np.array(counts) + 1) / (np.sum(counts) + len(counts)))
    np.testing.assert_allclose(shares.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cls", HEADS)
def test_a_standardised_head_reads_deviations_and_folding_changes_no_score(cls):
    head = shaken(cls(3, 4).double()).requires_grad_(False)
    plain = shaken(cls(3, 4).double()).requires_grad_(False)
    recorded = users(50, 3, seed=1) * torch.tensor([1e-3, 1.0, 1e3]) + torch.tensor([0.0, -5.0, 100.0])
    recorded[:, 1] = 7.0  # the same of everybody
    head.standardise(recorded)
    x = users(6, 3, seed=2) * torch.tensor([1e-3, 0.0, 1e3]) + torch.tensor([0.0, 7.0, 100.0])
    by_hand = (x.numpy() - recorded.numpy().mean(0)) / np.maximum(recorded.numpy().std(0), 1e-6)
    np.testing.assert_allclose(head(x).numpy(), by_hand @ plain.weight.numpy().T + plain.bias.numpy(), atol=1e-9)
    assert set(head.state_dict()) == {"weight", "bias"}, "nothing else is kept of it"
    if cls is ItemHead:
        chosen = torch.tensor([[0, 3]] * 6)
        torch.testing.assert_close(head.score(x, chosen), head(x).gather(1, chosen))
    before = head(x)
    head.fold()
    torch.testing.assert_close(head(x), before, atol=1e-8, rtol=1e-8)
    assert not torch.equal(head.weight, plain.weight)
    after = head(x)
    head.fold()
    assert torch.equal(head(x), after), "once folded there is nothing to fold"


@pytest.mark.parametrize("cls", HEADS)
def test_what_is_the_same_of_all_users_is_not_read_however_far_off_it_is_of_another(cls):
    head = shaken(cls(2, 3).double()).requires_grad_(False)
    recorded = users(50, 2, seed=1)
    recorded[:, 1] = 7.0
    head.standardise(recorded)
    near, far = torch.tensor([[0.5, 7.0]]).double(), torch.tensor([[0.5, 7.1]]).double()
    assert torch.equal(head(near), head(far))
    head.fold()
    assert torch.equal(head(near), head(far))


@pytest.mark.parametrize(("items", "k"), [(5, 5), (200, 1), (1_000, 3), (1_003, 7), (10_000, 50), (64 * 21, 10)])
def test_the_grouped_topk_are_those_of_a_complete_sort(items: int, k: int) -> None:
    generator = torch.Generator().manual_seed(items)
    scores = torch.randn(20, items, generator=generator)
    scores[1] = scores[1].round()  # ties
    scores[2, 3:] = -torch.inf
    scores[3] = torch.arange(items)  # the best ones behind the last full group
    values, positions = grouped_topk(scores, k)
    torch.testing.assert_close(values, scores.sort(dim=1, descending=True).values[:, :k])
    torch.testing.assert_close(scores.gather(1, positions), values)
    assert all(len(row.unique()) == k for row in positions)
