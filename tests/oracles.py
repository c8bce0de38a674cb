"""Independent float64 NumPy forms of what the project computes, with loops, written from the formulas alone."""

from __future__ import annotations

from typing import Any

import numpy as np

PAD = 0


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().double().numpy()


def oracle_conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dilation: int) -> np.ndarray:
    """Causal dilated convolution; x (T, C), weight (out, in, taps)."""
    steps, taps = len(x), weight.shape[2]
    out = np.tile(bias, (steps, 1))
    for t in range(steps):
        for k in range(taps):
            earlier = t - (taps - 1 - k) * dilation
            if earlier >= 0:
                out[t] += weight[:, :, k] @ x[earlier]
    return out


def oracle_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """LayerNorm over channels, epsilon inside the root."""
    mean = x.mean(axis=1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def oracle_bottleneck(x: np.ndarray, net: Any) -> np.ndarray:
    """x + up(relu(down(x)))."""
    inner = np.maximum(x @ _array(net.down.weight).T + _array(net.down.bias), 0.0)
    return x + inner @ _array(net.up.weight).T + _array(net.up.bias)


def oracle_site(x: np.ndarray, keep: np.ndarray, site: Any, piece: Any | None, position: str) -> np.ndarray:
    """conv -> LayerNorm -> ReLU with a serial patch before the norm or before the activation."""
    h = oracle_conv(x * keep, _array(site.conv.weight), _array(site.conv.bias), site.conv.dilation)
    if piece is not None and position == "pre_norm":
        h = oracle_bottleneck(h, piece.net)
    h = oracle_norm(h, _array(site.norm.weight), _array(site.norm.bias), site.norm.eps)
    if piece is not None and position == "pre_act":
        h = oracle_bottleneck(h, piece.net)
    return np.maximum(h, 0.0)


def oracle_backbone(backbone: Any, tokens: np.ndarray, patch: Any | None = None, position: str = "pre_norm"):
    """Hidden states (T, C) of one row of tokens."""
    x = _array(backbone.embedding.weight)[tokens]
    keep = (tokens != PAD).astype(float)[:, None]
    for index, (block, dilation) in enumerate(zip(backbone.blocks, backbone.config.dilations, strict=True)):
        assert (block.first.conv.dilation, block.second.conv.dilation) == (dilation, 2 * dilation)
        pieces = [patch.at(2 * index + site) if patch is not None else None for site in (0, 1)]
        h = oracle_site(x, keep, block.first, pieces[0], position)
        h = oracle_site(h, keep, block.second, pieces[1], position)
        x = x + h
    return x


def oracle_sampled_softmax(
    hidden: np.ndarray, positives: np.ndarray, weight: np.ndarray, bias: np.ndarray, negatives: np.ndarray
) -> float:
    """Mean over rows of log(1 + sum over negatives that are not the positive of exp(gap) / expected count)."""
    items = len(weight)
    probability = [np.log((r + 2) / (r + 1)) / np.log(items + 1) for r in range(items)]
    losses = []
    for h, positive in zip(hidden, positives, strict=True):
        own = h @ weight[positive] + bias[positive]
        others = [h @ weight[n] + bias[n] - np.log(len(negatives) * probability[n]) for n in negatives if n != positive]
        losses.append(np.log(np.sum(np.exp(np.array([own, *others]) - own))))
    return float(np.mean(losses))
