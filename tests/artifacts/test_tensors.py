"""Tensors on disk come back bit for bit, and a fingerprint covers every bit of them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from builders import shaken
from peterrec.artifacts.tensors import fingerprint, load_into, names_fingerprint, read_tensors, write_tensors
from peterrec.errors import ArtifactError

TENSORS = {
    "float": torch.tensor([[1.5, 1e-45], [-0.0, 3.4e38]]),
    "half": torch.arange(5, dtype=torch.bfloat16),
    "long": torch.tensor([2**62, -1]),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(3.0),
    "empty": torch.empty(0, 4),
}


def bits(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.dtype, tuple(tensor.shape), bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist())


def test_tensors_come_back_bit_for_bit(tmp_path):
    write_tensors(tmp_path / "a.safetensors", TENSORS)
    read = read_tensors(tmp_path / "a.safetensors")
    assert {name: bits(tensor) for name, tensor in read.items()} == {name: bits(t) for name, t in TENSORS.items()}
    assert fingerprint(read) == fingerprint(TENSORS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_that_are_no_numbers_are_neither_written_nor_read(tmp_path, value, dtype):
    bad = {"a": torch.ones(3), "layer.weight": torch.tensor([0.0, value], dtype=dtype)}
    with pytest.raises(ArtifactError, match=r"1 of the 2 values of layer\.weight are NaN or infinite"):
        write_tensors(tmp_path / "a.safetensors", bad)
    assert not (tmp_path / "a.safetensors").exists()
    save_file(bad, tmp_path / "a.safetensors")
    with pytest.raises(ArtifactError, match=r"1 of the 2 values of layer\.weight are NaN or infinite"):
        read_tensors(tmp_path / "a.safetensors")


def test_views_and_gradients_are_written_as_their_values(tmp_path):
    table = torch.arange(6.0).reshape(2, 3).requires_grad_()
    write_tensors(tmp_path / "a.safetensors", {"x": table.T, "y": table[:, 1]})
    read = read_tensors(tmp_path / "a.safetensors")
    assert read["x"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert read["y"].tolist() == [1, 4]
    assert fingerprint(read) == fingerprint({"x": table.T, "y": table[:, 1]})


def test_the_fingerprint_does_not_depend_on_the_order_of_names():
    assert fingerprint(dict(reversed(TENSORS.items()))) == fingerprint(TENSORS)


@pytest.mark.parametrize(
    "tensors",
    [
        {"y": torch.zeros(2, 3)},
        {"x": torch.zeros(3, 2)},
        {"x": torch.zeros(6)},
        {"x": torch.zeros(2, 3, dtype=torch.float64)},
        {"x": torch.zeros(2, 3, dtype=torch.int32)},
        {"x": -torch.zeros(2, 3)},
        {"x": torch.zeros(2, 3), "y": torch.empty(0)},
        {},
    ],
    ids=range(8),
)
def test_the_fingerprint_tells_names_shapes_types_and_values_apart(tensors):
    assert fingerprint(tensors) != fingerprint({"x": torch.zeros(2, 3)})


@given(st.integers(0, 3), st.integers(0, 31))
def test_any_single_bit_changes_the_fingerprint(position, bit):
    values = torch.arange(4, dtype=torch.int32)
    changed = values.clone()
    changed[position] ^= torch.tensor(1 << bit if bit < 31 else -(2**31), dtype=torch.int32)
    assert fingerprint({"x": values}) != fingerprint({"x": changed})


@pytest.mark.parametrize("names", [["b", "a"], ["a"], ["ab"], ["a", "b", ""], ['a", "b'], ["a", "ü"]], ids=repr)
def test_names_and_their_order_have_a_fingerprint(names):
    assert names_fingerprint(["a", "b"]) == names_fingerprint(("a", "b"))
    assert names_fingerprint(names) != names_fingerprint(["a", "b"])


@pytest.mark.parametrize("size", [0, 4, 30, 200, -1])
def test_a_truncated_file_is_damaged(tmp_path, size):
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtifactError, match="is damaged") as caught:
        read_tensors(path)
    assert caught.value.path == path


def test_a_missing_or_foreign_file(tmp_path):
    with pytest.raises(ArtifactError, match="is missing"):
        read_tensors(tmp_path / "a.safetensors")
    torch.save({"x": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ArtifactError, match="is damaged"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_refusal_of_the_system_keeps_its_number(tmp_path):
    with pytest.raises(OSError, match="directory") as caught:
        write_tensors(tmp_path, TENSORS)
    assert caught.value.errno == errno.EISDIR


def test_loading_needs_exactly_the_names_and_shapes(tmp_path):
    module = nn.Linear(2, 3)
    state = shaken(nn.Linear(2, 3)).state_dict()
    load_into(module, state, tmp_path)
    assert fingerprint(module.state_dict()) == fingerprint(state)
    for wrong in (
        {"weight": state["weight"]},
        state | {"more": torch.zeros(1)},
        state | {"weight": torch.zeros(3, 3)},
        {"weights": state["weight"], "bias": state["bias"]},
    ):
        with pytest.raises(ArtifactError, match="do not fit its configuration") as caught:
            load_into(module, wrong, tmp_path)
        assert caught.value.path == tmp_path


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    write_tensors(tmp_path / "model.safetensors", TENSORS)
    (tmp_path / "plain").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
