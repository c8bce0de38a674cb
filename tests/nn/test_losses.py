"""Objectives against their formulas, a row and an item at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import (
    oracle_bce,
    oracle_bpr,
    oracle_candidate_softmax,
    oracle_full_softmax,
    oracle_log_expected,
    oracle_sampled_softmax,
)
from oracles.softmax_losses import full_softmax_loss, sampled_softmax_loss
from peterrec.nn.losses import (
    LogUniformSampler,
    bce_loss,
    bpr_loss,
    candidate_softmax_loss,
)

PAIRWISE = {bpr_loss: oracle_bpr, bce_loss: oracle_bce, candidate_softmax_loss: oracle_candidate_softmax}
every_pairwise = pytest.mark.parametrize(
    ("loss", "oracle"), PAIRWISE.items(), ids=[function.__name__ for function in PAIRWISE]
)


def make(rows: int, items: int, channels: int, seed: int, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, channels, generator=generator, dtype=dtype)
    weight = torch.randn(items, channels, generator=generator, dtype=dtype)
    bias = torch.randn(items, generator=generator, dtype=dtype)
    positives = torch.randint(items, (rows,), generator=generator)
    return hidden, positives, weight, bias


def arrays(*tensors: torch.Tensor) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in tensors]


def scores(rows: int, negatives: int, seed: int, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores_pair = scale * torch.randn(rows, 1 + negatives, generator=generator, dtype=torch.float64)
    return scores_pair[:, 0], scores_pair[:, 1:]


# ---------------------------------------------------------------- over the catalogue


@given(st.integers(1, 6), st.integers(1, 20), st.integers(1, 5), st.integers(0, 50))
def test_the_full_softmax_equals_its_formula(rows, items, channels, seed):
    inputs = make(rows, items, channels, seed)
    assert float(full_softmax_loss(*inputs)) == pytest.approx(oracle_full_softmax(*arrays(*inputs)), abs=1e-12)


@given(st.integers(1, 6), st.integers(2, 20), st.integers(1, 30), st.integers(0, 50), st.booleans())
def test_the_sampled_softmax_equals_its_formula(rows, items, count, seed, lower_the_positive):
    inputs = make(rows, items, 3, seed)
    negatives = torch.randint(items, (count,), generator=torch.Generator().manual_seed(seed + 1))
    expected = oracle_log_expected(negatives.tolist(), items, count)
    per_row = oracle_log_expected(inputs[1].tolist(), items, count) if lower_the_positive else None
    actual = sampled_softmax_loss(
        *inputs,
        negatives,
        torch.tensor(expected, dtype=torch.float64),
        torch.tensor(per_row, dtype=torch.float64) if per_row is not None else None,
    )
    wanted = oracle_sampled_softmax(*arrays(*inputs), negatives.numpy(), expected, per_row)
    assert float(actual) == pytest.approx(wanted, abs=1e-10)


def test_an_accidental_hit_is_no_negative_and_spoils_no_gradient():
    hidden, positives, weight, bias = make(1, 10, 3, seed=0)
    negatives = positives.repeat(5)  # nothing but the positive itself
    hidden.requires_grad_()
    loss = sampled_softmax_loss(
        hidden, positives, weight, bias, negatives, LogUniformSampler(10).log_expected(negatives, len(negatives))
    )
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert hidden.grad.abs().sum() == 0


def test_only_the_row_of_the_positive_masks_a_hit():
    hidden, _, weight, bias = make(2, 10, 3, seed=0)
    positives, negatives = torch.tensor([4, 5]), torch.tensor([4])
    corrections = torch.zeros(1, dtype=torch.float64)
    scores_pair = sampled_softmax_loss(hidden, positives, weight, bias, negatives, corrections)
    second = sampled_softmax_loss(hidden[1:], positives[1:], weight, bias, negatives, corrections)
    assert float(scores_pair) == pytest.approx(float(second) / 2)
    assert float(second) > 0


def test_with_many_samples_the_sampled_loss_approaches_the_full_one():
    hidden, positives, weight, bias = make(8, 50, 4, seed=3)
    sampler = LogUniformSampler(50)
    negatives = sampler.sample(200_000, torch.Generator().manual_seed(0))
    corrections = sampler.log_expected(negatives, len(negatives))
    sampled = sampled_softmax_loss(0.3 * hidden, positives, weight, bias, negatives, corrections)
    full = full_softmax_loss(0.3 * hidden, positives, weight, bias)
    assert abs(float(sampled) - float(full)) < 0.02
    lowered = math.log(200_000) + sampler.log_probability(positives)
    off = sampled_softmax_loss(0.3 * hidden, positives, weight, bias, negatives, corrections, lowered)
    assert abs(float(off) - float(full)) > 1, "why the positive is left as it is"


# ---------------------------------------------------------------- the sampler


def test_the_sampler_draws_what_it_says():
    sampler = LogUniformSampler(1000)
    drawn = sampler.sample(400_000, torch.Generator().manual_seed(1))
    probability = sampler.log_probability(torch.arange(1000)).exp().numpy()
    assert math.isclose(probability.sum(), 1.0, rel_tol=1e-5)
    share = np.bincount(drawn.numpy(), minlength=1000) / len(drawn)
    np.testing.assert_allclose(share[:20], probability[:20], rtol=0.05)
    assert drawn.min() >= 0
    assert drawn.max() <= 999


@given(st.integers(1, 10**6), st.integers(1, 30), st.integers(0, 9))
def test_expected_counts_are_those_of_the_formula(items, count, seed):
    sampler = LogUniformSampler(items)
    drawn = sampler.sample(count, torch.Generator().manual_seed(seed))
    assert drawn.shape == (count,)
    assert int(drawn.max()) < items
    expected = oracle_log_expected(drawn.tolist(), items, count)
    np.testing.assert_allclose(sampler.log_expected(drawn, count).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_the_generator_of_the_sampler_alone_decides():
    sampler = LogUniformSampler(100)
    first = sampler.sample(50, torch.Generator().manual_seed(1))
    torch.manual_seed(99)
    assert torch.equal(sampler.sample(50, torch.Generator().manual_seed(1)), first)
    assert not torch.equal(sampler.sample(50, torch.Generator().manual_seed(2)), first)


# ---------------------------------------------------------------- a positive and its negatives


@every_pairwise
@given(rows=st.integers(1, 6), negatives=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_loss_of_pairs_equals_its_formula(loss, oracle, rows, negatives, seed):
    positive, negative = scores(rows, negatives, seed)
    assert float(loss(positive, negative)) == pytest.approx(oracle(*arrays(positive, negative)), abs=1e-12)


@every_pairwise
def test_a_loss_of_pairs_falls_as_the_positive_rises_and_stays_finite(loss, oracle):
    positive, negative = scores(4, 3, 0)
    values = [float(loss(positive + shift, negative)) for shift in (-1e4, -1.0, 0.0, 1.0, 1e4)]
    assert np.isfinite(values).all()
    assert values[0] > values[1] > values[2] > values[3] >= values[4]


def test_bpr_by_hand():
    loss = bpr_loss(torch.tensor([2.0]), torch.tensor([[2.0, 0.0]]))
    expected = (-math.log(1 / (1 + math.exp(0.0))) - math.log(1 / (1 + math.exp(-2.0)))) / 2
    assert float(loss) == pytest.approx(expected)


def test_bce_by_hand():
    loss = bce_loss(torch.tensor([1.0]), torch.tensor([[0.0, -1.0]]))
    sigmoid = 1 / (1 + math.exp(-1.0))  # of 1, and 1 - sigmoid(-1)
    assert float(loss) == pytest.approx(-math.log(sigmoid) + (math.log(2) - math.log(sigmoid)) / 2)


def test_a_candidate_softmax_by_hand():
    loss = candidate_softmax_loss(torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
    assert float(loss) == pytest.approx((-math.log(math.e / (math.e + 2)) + math.log(3)) / 2)
