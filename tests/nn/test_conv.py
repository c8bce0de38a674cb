"""The dilated convolution against loops in float64, and promise 1 for it alone."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import shaken
from oracles import oracle_conv
from peterrec.nn.conv import DilatedConv

kernels, dilations, lengths = st.integers(1, 5), st.integers(1, 9), st.integers(1, 24)


def make(kernel: int, dilation: int, channels: int = 3, seed: int = 0) -> DilatedConv:
    conv = shaken(DilatedConv(channels, kernel, dilation).double(), seed)
    assert isinstance(conv, DilatedConv)
    return conv.requires_grad_(False)


def inputs(rows: int, length: int, channels: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, length, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(kernels, dilations, lengths, st.integers(1, 5), st.integers(0, 9))
def test_it_equals_the_loops(kernel, dilation, length, channels, seed):
    conv, x = make(kernel, dilation, channels, seed), inputs(2, length, channels, seed)
    expected = [oracle_conv(row.numpy(), conv.weight.numpy(), conv.bias.numpy(), dilation) for row in x]
    np.testing.assert_allclose(conv(x).numpy(), expected, atol=1e-12)


@given(kernels, dilations, lengths, st.data())
def test_an_input_reaches_exactly_the_taps_that_look_back_at_it(kernel, dilation, length, data):
    conv, x = make(kernel, dilation), inputs(1, length)
    position = data.draw(st.integers(0, length - 1))
    changed = x.clone()
    changed[0, position] += 1.0
    touched = (conv(changed) != conv(x)).any(2)[0].nonzero().flatten().tolist()
    expected = [position + tap * dilation for tap in range(kernel)]
    assert touched == [t for t in expected if t < length], "never before it, and later only at the taps"
    assert conv.reach == (kernel - 1) * dilation


@given(kernels, dilations, lengths, st.integers(2, 4))
def test_rows_do_not_see_each_other(kernel, dilation, length, rows):
    conv, x = make(kernel, dilation), inputs(rows, length)
    alone = torch.cat([conv(row.unsqueeze(0)) for row in x])
    torch.testing.assert_close(conv(x), alone, rtol=0, atol=1e-12)


def test_memory_layout_does_not_matter():
    conv, x = make(3, 2), inputs(2, 7)
    transposed = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not transposed.is_contiguous()
    torch.testing.assert_close(conv(transposed), conv(x), rtol=0, atol=1e-12)


def test_a_fresh_one_has_no_bias():
    conv = DilatedConv(4, 3, 2)
    assert conv(torch.zeros(1, 9, 4)).abs().sum() == 0
    assert conv.weight.shape == (4, 4, 3)
