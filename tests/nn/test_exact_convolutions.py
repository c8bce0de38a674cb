"""What fp32 and bf16 stand for, on devices that need not be there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from peterrec.nn.precision import arithmetic

GPU = torch.device("cuda", 0)
CUDNN = torch.backends.cudnn


@pytest.fixture(params=[True, False], ids=["TF32 allowed", "TF32 forbidden"])
def allowed(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = CUDNN.allow_tf32
    CUDNN.allow_tf32 = request.param
    yield request.param
    CUDNN.allow_tf32 = before


def test_fp32_on_a_gpu_is_fp32_in_convolutions(allowed: bool) -> None:
    with arithmetic("fp32", GPU):
        assert not CUDNN.allow_tf32
        with arithmetic("fp32", GPU):
            assert not CUDNN.allow_tf32
        assert not CUDNN.allow_tf32
    assert CUDNN.allow_tf32 == allowed


def test_it_is_put_back_after_an_error(allowed: bool) -> None:
    with pytest.raises(KeyError), arithmetic("fp32", GPU):
        raise KeyError
    assert CUDNN.allow_tf32 == allowed


def test_nothing_is_changed_for_a_cpu(allowed: bool) -> None:
    with arithmetic("fp32", torch.device("cpu")):
        assert CUDNN.allow_tf32 == allowed


@pytest.mark.skipif(not hasattr(CUDNN, "conv"), reason="this torch has one setting for all of cuDNN")
def test_a_setting_of_convolutions_alone_is_left_as_it_is() -> None:
    before = CUDNN.conv.fp32_precision
    CUDNN.conv.fp32_precision = "ieee"
    try:
        with arithmetic("fp32", GPU):
            assert CUDNN.conv.fp32_precision == "ieee"
    finally:
        CUDNN.conv.fp32_precision = before
    assert CUDNN.allow_tf32
