"""The contrastive loss, against a loop over the pairs of views, and at values that are known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from peterrec.nn.contrastive import contrastive_loss


def loop_over_pairs(views: Tensor, temperature: float) -> float:
    """The loss as its docstring says it, a pair of views at a time."""
    users, count, _ = views.shape

    def similarity(u: int, i: int, v: int, j: int) -> float:
        return math.exp(torch.cosine_similarity(views[u, i], views[v, j], dim=0).item() / temperature)

    losses = []
    for u in range(users):
        for i in range(count):
            negatives = sum(similarity(u, i, v, j) for v in range(users) if v != u for j in range(count))
            for j in range(count):
                if j != i:
                    positive = similarity(u, i, u, j)
                    losses.append(-math.log(positive / (positive + negatives)))
    return sum(losses) / len(losses)


def random_views(users: int, count: int, channels: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(users, count, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    users=st.integers(2, 5),
    count=st.integers(2, 4),
    temperature=st.sampled_from([0.1, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_the_loss_is_that_of_a_loop_over_pairs(users, count, temperature, seed):
    views = random_views(users, count, seed=seed)
    assert float(contrastive_loss(views, temperature)) == pytest.approx(loop_over_pairs(views, temperature), rel=1e-4)


def test_views_that_are_alike_for_a_user_and_opposite_for_others_cost_nothing():
    views = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[-1.0, 0.0], [-3.0, 0.0]]])
    assert float(contrastive_loss(views, 0.1)) < 1e-6


def test_views_that_are_all_the_same_cost_the_log_of_the_choices():
    """The positive among itself and the two views of each of the two other users."""
    assert float(contrastive_loss(torch.ones(3, 2, 4), 0.1)) == pytest.approx(math.log(1 + 2 * 2), rel=1e-5)


def test_its_gradient_draws_views_of_a_user_together():
    views = random_views(4, 2).requires_grad_()
    before = contrastive_loss(views, 0.5)
    before.backward()
    assert contrastive_loss(views - 0.1 * views.grad, 0.5) < before


def test_a_user_without_others_has_nothing_to_be_told_from():
    views = random_views(1, 3).requires_grad_()
    loss = contrastive_loss(views, 0.1)
    loss.backward()
    assert loss.item() == 0
    assert bool((views.grad == 0).all())
