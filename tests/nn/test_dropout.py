"""Dropout by the indices of what is dropped does what torch's own does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from peterrec.nn.dropout import residual_dropout

FRACTION = 0.3


@pytest.mark.parametrize("has_residual", [False, True])
def test_what_is_added_is_zeroed_or_scaled_and_so_are_gradients(has_residual: bool) -> None:
    torch.manual_seed(0)
    shape = (20, 30, 40)
    residual = torch.randn(shape, dtype=torch.float64, requires_grad=True) if has_residual else None
    added = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    dropped = residual_dropout(added if residual is None else residual + added, residual, FRACTION)
    scaled = dropped if residual is None else dropped - residual
    is_dropped = scaled.abs() < 1e-12
    assert is_dropped.double().mean() == pytest.approx(FRACTION, abs=0.01)
    torch.testing.assert_close(scaled, torch.where(is_dropped, 0.0, added / (1 - FRACTION)))
    gradient = torch.randn(shape, dtype=torch.float64)
    dropped.backward(gradient)
    torch.testing.assert_close(added.grad, torch.where(is_dropped, 0.0, gradient / (1 - FRACTION)))
    if residual is not None:
        torch.testing.assert_close(residual.grad, gradient)


def test_draws_are_those_of_the_seed_and_do_not_depend_on_one_another() -> None:
    ones = torch.ones(200, 500)
    torch.manual_seed(3)
    first, second = (residual_dropout(ones, None, FRACTION) == 0 for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(residual_dropout(ones, None, FRACTION) == 0, first)
    assert (first & second).double().mean() == pytest.approx(FRACTION**2, abs=0.005)
    assert (first[:, 1:] & first[:, :-1]).double().mean() == pytest.approx(FRACTION**2, abs=0.005)
    counts = first.double().sum(1)  # of a binomial: variance n p (1 - p)
    assert counts.var() == pytest.approx(500 * FRACTION * (1 - FRACTION), rel=0.3)


def test_memory_in_another_order_is_left_to_torch() -> None:
    x = torch.ones(30, 40, 50).transpose(0, 2)
    torch.manual_seed(0)
    expected = F.dropout(x, FRACTION)
    torch.manual_seed(0)
    assert torch.equal(residual_dropout(x, None, FRACTION), expected)
