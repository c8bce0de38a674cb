"""Maps names, layouts and ids of the authors' TensorFlow network onto our modules. Only tests need it.

Their ids start at 0, which is [TCL], [MASK] and the unknown item at once; here their id i is the item with index
4 + i, and the rows of [TCL] and [MASK] are copies of their row 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from peterrec.config import BackboneConfig, PatchConfig
from peterrec.nn.backbone import Backbone
from peterrec.nn.patch import Patch
from peterrec.nn.tokens import MASK, SPECIAL, TCL

DILATIONS = (1, 4, 1, 4, 1, 4, 1, 4)
CHANNELS = 64
TOLERANCE = 2e-5

Arrays = Mapping[str, Any]
Layout = Callable[[np.ndarray], np.ndarray]


def load(shared: Path, name: str) -> Arrays:
    """Open a file of golden outputs, or skip."""
    path = shared / "golden" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the authors' outputs are not at {path}")
    return np.load(path)


def assert_close(actual: Tensor, expected: np.ndarray, description: str = "") -> None:
    """Within the tolerance of the largest value."""
    values = actual.detach().double().numpy()
    assert values.shape == expected.shape, description
    gap = np.abs(values - expected).max()
    assert gap <= TOLERANCE * np.abs(expected).max(), (
        f"{description}: off by {gap / np.abs(expected).max():.2e} of the largest"
    )


def indices(ids: np.ndarray, task_token: tuple[int, ...] = (), mask: bool = False) -> Tensor:
    """Their ids as our indices; columns of [TCL] are named, and with `mask` every id 0 is [MASK]."""
    ours = ids.astype(np.int64) + SPECIAL
    if mask:
        ours[ids == 0] = MASK
    for column in task_token:
        assert (ids[:, column] == 0).all()
        ours[:, column] = TCL
    return torch.from_numpy(ours)


# ---------------------------------------------------------------- one table of names, read both ways


@dataclass(frozen=True)
class Entry:
    """One of their variables, the parameter of ours that holds it, and how ours looks in their layout."""

    name: str
    parameter: nn.Parameter
    theirs: Layout
    ours: Layout


def _conv(name: str, parameter: nn.Parameter) -> Entry:
    return Entry(name, parameter, lambda w: w.transpose(2, 1, 0)[None], lambda w: w[0].transpose(2, 1, 0))


def _linear(name: str, parameter: nn.Parameter) -> Entry:
    return Entry(name, parameter, lambda w: w.T[None, None], lambda w: w[0, 0].T)


def _as_is(name: str, parameter: nn.Parameter) -> Entry:
    return Entry(name, parameter, lambda w: w, lambda w: w)


def scope(block: int) -> str:
    """Their name of a block."""
    return f"nextitnet_residual_blockdecoder_layer_{block}_{DILATIONS[block]}"


def backbone_entries(backbone: Backbone) -> list[Entry]:
    """Blocks; the table of embeddings is apart, because special tokens share a row there."""
    entries = []
    for i, block in enumerate(backbone.blocks):
        for number, sublayer in ((1, block.first), (2, block.second)):
            entries += [
                _conv(f"{scope(i)}/dilated_conv{number}/weight", sublayer.conv.weight),
                _as_is(f"{scope(i)}/dilated_conv{number}/bias", sublayer.conv.bias),
                _as_is(f"{scope(i)}/layer_norm{number}/gamma", sublayer.norm.weight),
                _as_is(f"{scope(i)}/layer_norm{number}/beta", sublayer.norm.bias),
            ]
    return entries


def patch_entries(patch: Patch, per_block: int) -> list[Entry]:
    """The adapter_layers; the task's own norms are apart, because ours are differences."""
    entries = []
    for i in range(len(DILATIONS)):
        for number in (1, 2) if per_block == 2 else (2,):
            adapter: Any = patch.layer_at(2 * i + number - 1)
            folder = f"{scope(i)}/mp_{number}" if per_block == 2 else f"{scope(i)}/mp"
            for part in ("down", "up"):
                layer = getattr(adapter.net, part)
                entries.append(_linear(f"{folder}/mp_conv1_{part}_0/weight", layer.weight))
                entries.append(_as_is(f"{folder}/mp_conv1_{part}_0/bias", layer.bias))
    return entries


def fill(entries: list[Entry], arrays: Arrays, prefix: str = "w/") -> None:
    """Copy their values into our parameters."""
    with torch.no_grad():
        for entry in entries:
            entry.parameter.copy_(torch.from_numpy(np.ascontiguousarray(entry.ours(arrays[prefix + entry.name]))))


def same_gradients(entries: list[Entry], arrays: Arrays, prefix: str) -> None:
    """Each gradient within the tolerance of its largest value."""
    for entry in entries:
        assert entry.parameter.grad is not None, entry.name
        actual = np.ascontiguousarray(entry.theirs(entry.parameter.grad.numpy()))
        assert_close(torch.from_numpy(actual), arrays[prefix + entry.name], entry.name)


# ---------------------------------------------------------------- whole networks


def backbone_of(arrays: Arrays, kind: str = "causal", **settings: Any) -> Backbone:
    """Our backbone with their weights."""
    table = arrays["w/allitem_embeddings"]
    config = BackboneConfig(kind=kind, channels=CHANNELS, dilations=DILATIONS, norm_eps=1e-8, **settings)
    backbone = Backbone(config, len(table))
    fill(backbone_entries(backbone), arrays)
    with torch.no_grad():
        backbone.embedding.weight[SPECIAL:] = torch.from_numpy(table)
        backbone.embedding.weight[[TCL, MASK]] = torch.from_numpy(table[0])
    return backbone


def patch_of(arrays: Arrays, backbone: Backbone, **settings: Any) -> Patch:
    """Our patch with their weights: a quarter of the channels, GELU by its tanh form."""
    config = PatchConfig(bottleneck=0.25, activation="gelu-tanh", **settings)
    patch = Patch(config, backbone.config)
    fill(patch_entries(patch, config.per_block), arrays)
    return patch


def embedding_gradient(backbone: Backbone) -> Tensor:
    """Our gradient of the table in their rows: what their row 0 does, three of our rows do together."""
    grad = backbone.embedding.weight.grad
    assert grad is not None
    theirs = grad[SPECIAL:].clone()
    theirs[0] += grad[TCL] + grad[MASK]
    return theirs
