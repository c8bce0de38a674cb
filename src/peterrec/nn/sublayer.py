"""The two sublayers of a transformer's block, with the insertion points of patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from peterrec.nn.insertion import AdapterHooks


@dataclass(frozen=True)
class TransformerShape:
    """SublayerShape of a sublayer of a transformer."""

    channels: int

    def low_rank(self, rank: int, generator: torch.Generator | None) -> nn.Module:
        """Return a linear map beside the last one of the sublayer."""
        layer = nn.Linear(self.channels, rank, bias=False)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        return layer


@dataclass(frozen=True)
class TransformerInput:
    """Input of a sublayer of a transformer.

    Attributes:
        x: (B, T, C) the input of the sublayer, to which its output will be added.
        inner: (B, T, C) what its last linear map gets: the heads' outputs, or the activations of the feed-forward one.
    """

    x: Tensor
    inner: Tensor

    @property
    def current(self) -> Float[Tensor, "B T C"]:
        """The input at the positions that are computed: all."""
        return self.x

    def through(self, layer: nn.Module) -> Float[Tensor, "B T D"]:
        """Return the output of the sublayer's last linear map, or of another one in its place."""
        out: Tensor = layer(self.inner)
        return out

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all that differs from row to row, rows first."""
        return (self.x, self.inner)

    def with_tensors(self, *tensors: Tensor) -> Self:
        """Return the same with other rows."""
        return type(self)(*tensors)


class Attention(nn.Module):
    """Scaled dot-product attention of several heads, up to where their outputs stand side by side.

    Source: Vaswani et al., NeurIPS 2017, section 3.2; queries, keys and values without biases as in SASRec (Kang and
    McAuley, ICDM 2018), section III-B.

    Args:
        channels: C, a multiple of `heads`.
        heads: how many.
        causal: whether a position sees no later one.
        generator: draws the initial weights.
    """

    def __init__(self, channels: int, heads: int, *, causal: bool, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.query, self.key, self.value = (linear(channels, generator, bias=False) for _ in range(3))

    def forward(self, x: Float[Tensor, "B T C"], keep: Bool[Tensor, "B T 1"] | None) -> Float[Tensor, "B T C"]:
        """Attend to all positions; those where `keep` is false are seen by none but themselves."""
        rows, steps, channels = x.shape
        query, key, value = (
            layer(x).view(rows, steps, self.heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # (B, heads, T, C / heads)
        if keep is None:
            out = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        else:
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=self._visible(keep))
        return out.transpose(1, 2).reshape(rows, steps, channels)

    def _visible(self, keep: Bool[Tensor, "B T 1"]) -> Bool[Tensor, "B 1 T T"]:
        steps = keep.shape[1]
        square = torch.ones(steps, steps, dtype=torch.bool, device=keep.device)
        visible = keep.transpose(1, 2) & square.tril() if self.causal else keep.transpose(1, 2).expand(-1, steps, -1)
        # Itself always, or else a position of padding with nothing before it would be the mean of nothing: NaN.
        return (visible | torch.eye(steps, dtype=torch.bool, device=keep.device)).unsqueeze(1)


class Widen(nn.Module):
    """First half of the feed-forward sublayer: ReLU of a linear map, as wide as its input (SASRec, section III-C)."""

    def __init__(self, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.map = linear(channels, generator)

    def forward(self, x: Float[Tensor, "B T C"], keep: Bool[Tensor, "B T 1"] | None) -> Float[Tensor, "B T C"]:
        """Apply it; every position by itself, so that padding does no harm."""
        return torch.relu(self.map(x))


class TransformerSublayer(nn.Module):
    """Sublayer of a transformer: x -> LayerNorm(x + out(inside(x))), with the insertion points of a patch P.

    ```
    h = out(inside(x));   serial/pre_norm: h = P(h)     parallel/pre_norm: h = h + P(x)
    h = norm(x + h);      serial/pre_act : h = P(h)     parallel/pre_act = parallel/post_act: h = h + P(x)
    ```

    `pre_norm` is before the residual sum and the norm, where adapters have their place in series (Houlsby et al., ICML
    2019) and in parallel (He et al., ICLR 2022). No activation follows the norm, so `pre_act` and `post_act` are one
    place. LoRA adds to the weights of `out`; scale-shift acts on what the norm returns.

    Args:
        inside: from (x, keep) to what `out` is given, both (B, T, C).
        channels: C.
        norm_eps: of LayerNorm.
        generator: draws the initial weights of `out`.
    """

    def __init__(self, inside: nn.Module, channels: int, norm_eps: float, generator: torch.Generator | None) -> None:
        super().__init__()
        self.inside = inside
        self.out = linear(channels, generator)
        self.norm = nn.LayerNorm(channels, eps=norm_eps)

    def forward(
        self, x: Float[Tensor, "B T C"], keep: Bool[Tensor, "B T 1"] | None, patch: AdapterHooks | None
    ) -> Float[Tensor, "B T C"]:
        """Apply the sublayer."""
        layer_input = TransformerInput(x, self.inside(x, keep))
        h = layer_input.through(self.out)
        if patch is None:
            plain: Tensor = self.norm(x + h)
            return plain
        h = patch.normalise(self.norm, x + patch.pre_norm(layer_input, h))
        return patch.post_act(layer_input, patch.pre_act(layer_input, h))


def linear(channels: int, generator: torch.Generator | None, *, bias: bool = True) -> nn.Linear:
    """Return a linear map from C to C channels (Glorot and Bengio, AISTATS 2010), its bias zero."""
    layer = nn.Linear(channels, channels, bias=bias)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
