"""Convolution, norm, sublayer, patch, backbone and representation of one user."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from peterrec.config import BackboneConfig, PatchConfig

PAD, TCL = 0, 1
Weights = dict[str, np.ndarray]


def weights_of(module: torch.nn.Module) -> Weights:
    """The named tensors of a module in float64."""
    return {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}


def below(weights: Weights, prefix: str) -> Weights:
    """The weights whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}


class ConvSublayerAt(NamedTuple):
    """What a sublayer is beside its weights."""

    dilation: int
    causal: bool = True
    eps: float = 1e-5


# ---------------------------------------------------------------- one sublayer


def oracle_conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dilation: int, causal: bool = True) -> np.ndarray:
    """Dilated convolution; x (T, C), weight (out, in, taps). The last tap sees the present, or the middle one."""
    steps, taps = len(x), weight.shape[2]
    present = taps - 1 if causal else (taps - 1) // 2
    out = np.tile(bias, (steps, 1))
    for t in range(steps):
        for k in range(taps):
            source = t + (k - present) * dilation
            if 0 <= source < steps:
                out[t] += weight[:, :, k] @ x[source]
    return out


def oracle_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """LayerNorm over channels, epsilon inside the root."""
    mean = x.mean(axis=1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def oracle_activation(name: str | None, x: np.ndarray) -> np.ndarray:
    """max(0, x); x times the normal distribution function; or its approximation by tanh."""
    if name == "relu":
        return np.where(x > 0, x, 0.0)
    if name == "gelu":
        return np.array([[v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in row] for row in x]).reshape(x.shape)
    assert name == "gelu-tanh"
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _patched(
    place: str,
    x: np.ndarray,
    h: np.ndarray,
    at: ConvSublayerAt | np.ndarray,
    adapter: Weights | None,
    config: PatchConfig,
) -> np.ndarray:
    """What comes out of one place of a sublayer: h itself, or what the patch makes of it.

    `at` is what the sublayer is, or, of a transformer, what its last linear map is given.
    """
    if adapter is None or config.position != place:
        return h
    if config.kind == "scale-shift":
        return h + adapter["gain"] * h + adapter["shift"]
    if config.kind == "lora" and isinstance(at, np.ndarray):
        return h + at @ adapter["down.weight"].T @ adapter["up.weight"].T
    if config.kind == "lora":
        rank = adapter["down.weight"].shape[0]
        return (
            h + oracle_conv(x, adapter["down.weight"], np.zeros(rank), at.dilation, at.causal) @ adapter["up.weight"].T
        )
    read = h if config.insertion == "serial" else x
    inner = oracle_activation(config.activation, read @ adapter["net.down.weight"].T + adapter["net.down.bias"])
    out = h + inner @ adapter["net.up.weight"].T + adapter["net.up.bias"]
    return out + x if config.inner_skip else out


def oracle_conv_sublayer(
    x: np.ndarray,
    keep: np.ndarray,
    sublayer: Weights,
    at: ConvSublayerAt,
    adapter: Weights | None = None,
    config: PatchConfig | None = None,
) -> np.ndarray:
    """conv -> LayerNorm -> ReLU, with a patch at one of the three places; `keep` (T, 1) zeroes padding."""
    config = config or PatchConfig()
    x = x * keep
    h = oracle_conv(x, sublayer["conv.weight"], sublayer["conv.bias"], at.dilation, at.causal)
    h = _patched("pre_norm", x, h, at, adapter, config)
    h = oracle_norm(h, *_norm_of(sublayer, adapter), at.eps)
    h = _patched("pre_act", x, h, at, adapter, config)
    return _patched("post_act", x, oracle_activation("relu", h), at, adapter, config)


def _norm_of(sublayer: Weights, adapter: Weights | None) -> tuple[np.ndarray, np.ndarray]:
    """Gain and shift of a sublayer's norm, with what the task adds."""
    weight, bias = sublayer["norm.weight"], sublayer["norm.bias"]
    if adapter is not None and "norm.weight" in adapter:
        weight, bias = weight + adapter["norm.weight"], bias + adapter["norm.bias"]
    return weight, bias


# ---------------------------------------------------------------- a transformer


def oracle_attention(x: np.ndarray, real: np.ndarray, weights: Weights, heads: int, causal: bool) -> np.ndarray:
    """Softmax of scaled inner products over what a position sees: itself, and the real ones (causal: before it)."""
    steps, channels = x.shape
    width = channels // heads
    query, key, value = (x @ weights[f"{name}.weight"].T for name in ("query", "key", "value"))
    out = np.zeros_like(x)
    for head in range(heads):
        head_columns = slice(head * width, (head + 1) * width)
        for t in range(steps):
            visible = [s for s in range(steps) if s == t or (real[s] and (s < t or not causal))]
            scores = np.array([query[t, head_columns] @ key[s, head_columns] / math.sqrt(width) for s in visible])
            shares = np.exp(scores - scores.max())
            for s, share in zip(visible, shares / shares.sum(), strict=True):
                out[t, head_columns] += share * value[s, head_columns]
    return out


def oracle_positions(real: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The row of a table for each position: how many real ones come after it, the last row for those beyond."""
    return np.array([table[min(int(real[t + 1 :].sum()), len(table) - 1)] for t in range(len(real))])


def oracle_transformer_sublayer(
    x: np.ndarray, inner: np.ndarray, sublayer: Weights, eps: float, adapter: Weights | None, config: PatchConfig
) -> np.ndarray:
    """LayerNorm(x + map of `inner`), with a patch before the sum or after the norm."""
    h = inner @ sublayer["out.weight"].T + sublayer["out.bias"]
    h = _patched("pre_norm", x, h, inner, adapter, config)
    h = oracle_norm(x + h, *_norm_of(sublayer, adapter), eps)
    for place in ("pre_act", "post_act"):  # one and the same: no activation follows
        h = _patched(place, x, h, inner, adapter, config)
    return h


def _oracle_transformer(
    x: np.ndarray,
    real: np.ndarray,
    settings: BackboneConfig,
    weights: Weights,
    patch_weights: Weights,
    config: PatchConfig,
) -> np.ndarray:
    x = x * math.sqrt(x.shape[1]) + oracle_positions(real, weights["positions.weight"])
    for block in range(settings.layers):
        first, second = (below(patch_weights, f"adapter_layers.{2 * block + i}.") or None for i in range(2))
        sublayer = below(weights, f"blocks.{block}.attention.")
        inner = oracle_attention(x, real, below(sublayer, "inside."), settings.heads, settings.kind == "causal")
        x = oracle_transformer_sublayer(x, inner, sublayer, settings.norm_eps, first, config)
        sublayer = below(weights, f"blocks.{block}.feed_forward.")
        inner = oracle_activation("relu", x @ sublayer["inside.map.weight"].T + sublayer["inside.map.bias"])
        x = oracle_transformer_sublayer(x, inner, sublayer, settings.norm_eps, second, config)
    return x


# ---------------------------------------------------------------- the whole network


def oracle_patch_names(config: PatchConfig, blocks: int) -> set[str]:
    """The names of all weights that a patch of these settings has."""
    patch_weights = {
        "bottleneck": ("net.down.weight", "net.down.bias", "net.up.weight", "net.up.bias"),
        "lora": ("down.weight", "up.weight"),
        "scale-shift": ("gain", "shift"),
    }[config.kind]
    names = {"task_token"} if config.train_task_token else set()
    if config.item_rank is not None:
        names |= {"task_items.table", "task_items.up"}
    for block in range(blocks):
        if config.blocks is not None and block < blocks - config.blocks:
            continue
        for second in (False, True):
            sublayer = 2 * block + second
            if second or config.per_block == 2:
                names |= {f"adapter_layers.{sublayer}.{name}" for name in patch_weights}
            if second and config.train_norms:
                names |= {f"adapter_layers.{sublayer}.norm.weight", f"adapter_layers.{sublayer}.norm.bias"}
    return names


def oracle_backbone(
    backbone: torch.nn.Module,
    tokens: Sequence[int] | np.ndarray,
    patch: torch.nn.Module | None = None,
    config: PatchConfig | None = None,
) -> np.ndarray:
    """Hidden states (T, C) of one row of tokens; `config` of the patch, the default one if not given."""
    settings, config = backbone.config, config or PatchConfig()
    tokens = np.asarray(tokens, dtype=np.int64)
    weights, patch_weights = weights_of(backbone), weights_of(patch) if patch is not None else {}
    if patch is not None:
        assert set(patch_weights) == oracle_patch_names(config, len(settings.dilations or ()) or settings.layers)
    x = weights["embedding.weight"][tokens]
    for t, token in enumerate(tokens):
        if "task_items.table" in patch_weights and token != PAD:
            for rank, number in enumerate(patch_weights["task_items.table"][token]):
                x[t] = x[t] + number * patch_weights["task_items.up"][rank]
        if token == TCL and "task_token" in patch_weights:
            x[t] = x[t] + patch_weights["task_token"]
    if settings.architecture == "transformer":
        return _oracle_transformer(x, tokens != PAD, settings, weights, patch_weights, config)
    keep = (tokens != PAD).astype(float)[:, None]
    for block, dilation in enumerate(settings.dilations):
        h = x
        for second, name in enumerate(("first", "second")):
            at = ConvSublayerAt(dilation * (1 + second), settings.kind == "causal", settings.norm_eps)
            adapter = below(patch_weights, f"adapter_layers.{2 * block + second}.") or None
            h = oracle_conv_sublayer(h, keep, below(weights, f"blocks.{block}.{name}."), at, adapter, config)
        x = x + h
    return x


def oracle_represent(
    backbone: torch.nn.Module,
    items: Sequence[int],
    patch: torch.nn.Module | None = None,
    config: PatchConfig | None = None,
) -> np.ndarray:
    """Representation (C,) of a user without padding: at a last [TCL], or the sum at a first and a last one."""
    if backbone.config.kind == "causal" or backbone.config.task_tokens == "last-end":
        return oracle_backbone(backbone, [*items, TCL], patch, config)[-1]
    hidden = oracle_backbone(backbone, [TCL, *items, TCL], patch, config)
    return hidden[0] + hidden[-1]
