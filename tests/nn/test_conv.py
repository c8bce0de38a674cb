"""The dilated convolution against loops in float64, and how far it sees, for it alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from builders import shaken
from oracles import oracle_conv
from peterrec.nn.conv import DilatedConv
from peterrec.nn.receptive_field import ConvGeometry

kernels, dilations, lengths = st.integers(1, 5), st.integers(1, 9), st.integers(1, 24)


def make(kernel: int, dilation: int, channels: int = 3, seed: int = 0, *, causal: bool = True) -> DilatedConv:
    conv = shaken(DilatedConv(channels, kernel, dilation, causal=causal).double(), seed)
    assert isinstance(conv, DilatedConv)
    return conv.requires_grad_(False)


def inputs(rows: int, length: int, channels: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, length, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(kernels, dilations, lengths, st.integers(1, 5), st.integers(0, 9), st.booleans())
def test_it_equals_the_loops(kernel, dilation, length, channels, seed, causal):
    assume(causal or kernel % 2 == 1)
    conv, x = make(kernel, dilation, channels, seed, causal=causal), inputs(2, length, channels, seed)
    expected = [oracle_conv(row.numpy(), conv.weight.numpy(), conv.bias.numpy(), dilation, causal) for row in x]
    np.testing.assert_allclose(conv(x).numpy(), expected, atol=1e-12)


@given(kernels, dilations, lengths, st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_it_may_give_other_channels_and_no_bias(kernel, dilation, length, channels, out, causal):
    assume(causal or kernel % 2 == 1)
    conv = DilatedConv(channels, kernel, dilation, causal=causal, out_channels=out, bias=False).double()
    x = inputs(1, length, channels)
    assert conv.bias is None
    weight = conv.weight.detach().numpy()
    expected = oracle_conv(x[0].numpy(), weight, np.zeros(out), dilation, causal)
    assert expected.shape == (length, out)
    np.testing.assert_allclose(conv(x)[0].detach().numpy(), expected, atol=1e-12)


@given(kernels, dilations, lengths, st.data())
def test_an_input_reaches_exactly_the_taps_that_look_back_at_it(kernel, dilation, length, data):
    conv, x = make(kernel, dilation), inputs(1, length)
    position = data.draw(st.integers(0, length - 1))
    changed = x.clone()
    changed[0, position] += 1.0
    touched = (conv(changed) != conv(x)).any(2)[0].nonzero().flatten().tolist()
    expected = [position + tap * dilation for tap in range(kernel)]
    assert touched == [t for t in expected if t < length], "never before it, and later only at the taps"
    assert conv.reach == ((kernel - 1) * dilation, 0)


@given(st.sampled_from([1, 3, 5]), dilations, lengths, st.data())
def test_a_noncausal_input_reaches_the_taps_of_both_sides(kernel, dilation, length, data):
    conv, x = make(kernel, dilation, causal=False), inputs(1, length)
    position = data.draw(st.integers(0, length - 1))
    changed = x.clone()
    changed[0, position] += 1.0
    touched = (conv(changed) != conv(x)).any(2)[0].nonzero().flatten().tolist()
    half = (kernel - 1) // 2
    expected = [position + tap * dilation for tap in range(-half, half + 1)]
    assert touched == [t for t in expected if 0 <= t < length]
    assert conv.reach == (half * dilation, half * dilation)


@given(st.sampled_from([1, 3, 5]), dilations, lengths)
def test_a_noncausal_one_of_mirrored_taps_sees_the_mirrored_input(kernel, dilation, length):
    conv, x = make(kernel, dilation, causal=False), inputs(2, length)
    mirrored = make(kernel, dilation, causal=False)
    mirrored.weight.copy_(conv.weight.flip(2))
    torch.testing.assert_close(mirrored(x.flip(1)), conv(x).flip(1), rtol=0, atol=1e-12)


@given(kernels, dilations, lengths, st.integers(2, 4), st.booleans())
def test_rows_do_not_see_each_other(kernel, dilation, length, rows, causal):
    assume(causal or kernel % 2 == 1)
    conv, x = make(kernel, dilation, causal=causal), inputs(rows, length)
    alone = torch.cat([conv(row.unsqueeze(0)) for row in x])
    torch.testing.assert_close(conv(x), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_memory_layout_does_not_matter(causal):
    conv, x = make(3, 2, causal=causal), inputs(2, 7)
    transposed = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not transposed.is_contiguous()
    torch.testing.assert_close(conv(transposed), conv(x), rtol=0, atol=1e-12)


def test_a_fresh_one_has_no_bias_and_comes_from_its_generator():
    conv = DilatedConv(4, 3, 2, generator=torch.Generator().manual_seed(1))
    assert conv(torch.zeros(1, 9, 4)).abs().sum() == 0
    assert conv.weight.shape == (4, 4, 3)
    torch.manual_seed(99)
    assert torch.equal(DilatedConv(4, 3, 2, generator=torch.Generator().manual_seed(1)).weight, conv.weight)
    assert not torch.equal(DilatedConv(4, 3, 2, generator=torch.Generator().manual_seed(2)).weight, conv.weight)


@pytest.mark.parametrize(
    ("causal", "length", "taps", "pad"),
    [
        (True, 8, slice(2, 3), (0, 0)),  # the other two look back 8 and 16 positions
        (True, 9, slice(1, 3), (8, 0)),
        (True, 17, slice(0, 3), (16, 0)),
        (False, 8, slice(1, 2), (0, 0)),
        (False, 9, slice(0, 3), (8, 8)),
    ],
)
def test_taps_that_see_nothing_but_padding_are_left_out(causal, length, taps, pad):
    step = DilatedConv(2, 3, 8, causal=causal).step(length)
    assert step.taps_on_inputs(3, length) == (taps, pad)


def test_of_a_single_position_the_taps_before_its_row_are_left_out():
    """It is the last of 4; the taps look back 6, 3 and 0 positions: the first one sees padding only."""
    step = ConvGeometry(dilation=3, stride=1, pad=(3, 0), outputs=1)
    assert step.taps_on_inputs(3, 4) == (slice(1, 3), (0, 0))
