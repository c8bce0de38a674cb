"""Who multiplies matrices: oneDNN where that is as exact, and only for as long as it is asked to."""

from __future__ import annotations

import platform

import pytest
import torch

from peterrec.nn.matmul import onednn_matmul

SETTING = getattr(torch.backends.mkldnn, "matmul", None)
needs_setting = pytest.mark.skipif(
    not hasattr(SETTING, "fp32_precision"), reason="this torch has no setting for oneDNN's products"
)


class Setting:
    """Stands in for torch's, so that any machine can be played."""

    def __init__(self, value: str = "none") -> None:
        self.fp32_precision = value


@pytest.fixture
def setting(monkeypatch) -> Setting:
    """A machine on which to switch: oneDNN at hand, x86, no AMX."""
    setting = Setting("ieee")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", setting, raising=False)
    return setting


def test_it_switches_and_restores(setting):
    with onednn_matmul():
        assert setting.fp32_precision == "bf16"
    assert setting.fp32_precision == "ieee"


def test_it_restores_after_an_exception(setting):
    with pytest.raises(KeyError), onednn_matmul():
        raise KeyError
    assert setting.fp32_precision == "ieee"


def test_nested_use_stays_switched_until_the_outer_end(setting):
    with onednn_matmul():
        with onednn_matmul():
            assert setting.fp32_precision == "bf16"
        assert setting.fp32_precision == "bf16"
    assert setting.fp32_precision == "ieee"


def test_it_can_be_used_again_and_sees_a_changed_setting(setting):
    for value in ("none", "bf16"):
        setting.fp32_precision = value
        with onednn_matmul():
            assert setting.fp32_precision == "bf16"
        assert setting.fp32_precision == value


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (torch.cpu, "_is_amx_tile_supported", lambda: True),
        (torch.cpu, "_is_amx_tile_supported", None),
        (torch.backends.mkldnn, "is_available", lambda: False),
        (platform, "machine", lambda: "aarch64"),
    ],
    ids=["amx", "torch that cannot tell", "no oneDNN", "arm"],
)
def test_it_leaves_other_machines_alone(setting, monkeypatch, owner, name, value):
    monkeypatch.setattr(owner, name, value)
    with onednn_matmul():
        assert setting.fp32_precision == "ieee"


def test_it_does_without_the_setting_of_newer_torch(setting, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", object())
    with onednn_matmul():
        assert not hasattr(torch.backends.mkldnn.matmul, "fp32_precision")


@needs_setting
def test_the_true_setting_is_as_before_afterwards():
    before = SETTING.fp32_precision
    with onednn_matmul():
        pass
    assert SETTING.fp32_precision == before


@pytest.mark.parametrize("left_transposed", [False, True], ids=["left as is", "left transposed"])
@pytest.mark.parametrize("right", [False, True], ids=["right as is", "right transposed"])
@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [(512, 64, 2048), (512, 2048, 64), (2048, 512, 64), (32, 64, 20_000), (12_800, 64, 64), (37, 101, 53), (1, 64, 9)],
)
def test_products_within_it_are_of_full_precision(rows, inner, columns, left_transposed, right):
    # A chip for which "without AMX" is no promise of fp32 is found here: bf16 would be off by 2e-3.
    generator = torch.Generator().manual_seed(rows + inner)
    a = (
        torch.randn(inner, rows, generator=generator).T
        if left_transposed
        else torch.randn(rows, inner, generator=generator)
    )
    b = (
        torch.randn(columns, inner, generator=generator).T
        if right
        else torch.randn(inner, columns, generator=generator)
    )
    bias = torch.randn(columns, generator=generator)
    wanted = a.double() @ b.double()
    with onednn_matmul():
        products = {"mm": torch.mm(a, b), "addmm": torch.addmm(bias, a, b) - bias}
    for name, actual in products.items():
        error = (actual.double() - wanted).norm() / wanted.norm()
        assert float(error) < 5e-6, f"{name}: not in fp32 on this chip; see nn/matmul.py"


def test_overlapping_threads_leave_the_setting_as_the_first_found_it(setting):
    first, second = onednn_matmul(), onednn_matmul()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert setting.fp32_precision == "bf16", "the other one is still at work"
    second.__exit__(None, None, None)
    assert setting.fp32_precision == "ieee"


def test_products_on_a_gpu_change_nothing(setting):
    """While it is switched torch cannot say its precision, which Lightning asks for before it trains on a GPU."""
    with onednn_matmul(torch.device("cuda", 0)):
        assert setting.fp32_precision == "ieee"
