"""The losses in chunks, differentiated more than once."""

from __future__ import annotations

import pytest
import torch

from nn.test_chunked_losses import PAIRS, make


@pytest.mark.parametrize("name", PAIRS)
def test_backward_may_run_twice_and_adds_up(name: str) -> None:
    """What is kept from the forward pass is handed out as a gradient, but must not be added to."""
    once, twice = make(name, 12, 9, 3, 7, 0), make(name, 12, 9, 3, 7, 0)
    for some, times in ((once, 1), (twice, 2)):
        for key in ("hidden", "weight", "bias"):
            some[key].requires_grad_(True)
        loss = PAIRS[name].chunked(**some)
        for _ in range(times):
            loss.backward(retain_graph=True)
    for key in ("hidden", "weight", "bias"):
        torch.testing.assert_close(twice[key].grad, 2 * once[key].grad, rtol=1e-12, atol=1e-12)
