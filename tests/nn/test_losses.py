"""Objectives against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import oracle_sampled_softmax
from peterrec.nn.heads import ClassificationHead, ItemHead, log_share
from peterrec.nn.losses import LogUniformSampler, bpr_loss, full_softmax_loss, sampled_softmax_loss


def make(rows: int, items: int, channels: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, channels, generator=generator)
    weight = torch.randn(items, channels, generator=generator)
    bias = torch.randn(items, generator=generator)
    positives = torch.randint(items, (rows,), generator=generator)
    return hidden, positives, weight, bias


@given(st.integers(1, 6), st.integers(2, 20), st.integers(1, 30), st.integers(0, 50))
def test_sampled_softmax_equals_its_formula(rows, items, count, seed):
    hidden, positives, weight, bias = make(rows, items, 3, seed)
    negatives = torch.randint(items, (count,), generator=torch.Generator().manual_seed(seed + 1))
    loss = sampled_softmax_loss(hidden, positives, weight, bias, negatives, LogUniformSampler(items))
    expected = oracle_sampled_softmax(
        *(t.double().numpy() for t in (hidden,)),
        positives.numpy(),
        weight.double().numpy(),
        bias.double().numpy(),
        negatives.numpy(),
    )
    assert math.isclose(float(loss), expected, rel_tol=1e-4, abs_tol=1e-5)


def test_an_accidental_hit_is_no_negative():
    hidden, positives, weight, bias = make(1, 10, 3, seed=0)
    negatives = positives.repeat(5)  # nothing but the positive itself
    loss = sampled_softmax_loss(hidden, positives, weight, bias, negatives, LogUniformSampler(10))
    assert float(loss) == 0.0


def test_with_many_samples_the_sampled_loss_approaches_the_full_one():
    hidden, positives, weight, bias = make(8, 50, 4, seed=3)
    negatives = LogUniformSampler(50).sample(200_000, torch.Generator().manual_seed(0))
    sampler = LogUniformSampler(50)
    sampled = sampled_softmax_loss(0.3 * hidden, positives, weight, bias, negatives, sampler)
    full = full_softmax_loss(0.3 * hidden, positives, weight, bias)
    assert abs(float(sampled) - float(full)) < 0.02


def test_the_sampler_draws_what_it_says():
    sampler = LogUniformSampler(1000)
    drawn = sampler.sample(400_000, torch.Generator().manual_seed(1))
    probability = sampler.log_probability(torch.arange(1000)).exp().numpy()
    assert math.isclose(probability.sum(), 1.0, rel_tol=1e-5)
    share = np.bincount(drawn.numpy(), minlength=1000) / len(drawn)
    np.testing.assert_allclose(share[:20], probability[:20], rtol=0.05)
    assert drawn.min() >= 0
    assert drawn.max() <= 999


def test_bpr_by_hand():
    loss = bpr_loss(torch.tensor([2.0]), torch.tensor([[2.0, 0.0]]))
    expected = (-math.log(1 / (1 + math.exp(0.0))) - math.log(1 / (1 + math.exp(-2.0)))) / 2
    assert float(loss) == pytest.approx(expected)


def test_item_head_scores_chosen_items_as_it_scores_all():
    generator = torch.Generator().manual_seed(0)
    head = ItemHead(4, 9, generator, bias=torch.arange(9.0))
    users, items = torch.randn(3, 4, generator=generator), torch.tensor([[0, 8], [3, 3], [5, 1]])
    torch.testing.assert_close(head.score(users, items), head(users).gather(1, items))


def test_a_head_starts_at_what_is_known_without_the_user():
    head = ClassificationHead(4, 2, bias=log_share(torch.tensor([9, 0])))
    torch.testing.assert_close(head(torch.zeros(1, 4)).softmax(1), torch.tensor([[10 / 11, 1 / 11]]))
