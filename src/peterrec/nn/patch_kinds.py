"""The kinds of patches of this package. Another one is one more class and `register_patch_kind`, anywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from peterrec.config import BottleneckConfig, LoraConfig, PatchConfig, ScaleShiftConfig
from peterrec.errors import ConfigError
from peterrec.nn.adapter_layer import AdapterLayer, register_patch_kind
from peterrec.nn.batched_patches import BatchedBottlenecks, RowsByPatch, Stack
from peterrec.nn.insertion import AdapterHooks, LayerInput, SublayerShape

RANDOM_STD = 0.02  # of what starts at zero otherwise
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu-tanh": partial(F.gelu, approximate="tanh"),
}


class Bottleneck(nn.Module):
    """P(x) = [x +] up(act(down(x))): two 1x1 convolutions, i.e. linear maps over channels (paper, section 3.3, fig. 3).

    Args:
        channels: C of the backbone.
        width: channels between the two maps.
        activation: of `ACTIVATIONS`.
        residual: whether x itself is added.
    """

    def __init__(self, channels: int, width: int, activation: str, *, residual: bool = True) -> None:
        super().__init__()
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        self.activation = ACTIVATIONS[activation]
        self.residual = residual
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)

    def initialise(self, init: str, generator: torch.Generator | None) -> None:
        """Draw `down`; `up` is zero, so that nothing is added at first, or small random numbers."""
        nn.init.kaiming_normal_(self.down.weight, nonlinearity="relu", generator=generator)
        _initialise(self.up.weight, init, generator)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Return the correction of x, with x itself where there is a residual."""
        correction: Tensor = self.up(self.activation(self.down(x)))
        return x + correction if self.residual else correction


class BottleneckLayer(AdapterLayer):
    """A bottleneck at one place of a sublayer, in series (h becomes net(h)) or parallel (net(input) is added to h)."""

    settings = BottleneckConfig

    def __init__(self, net: Bottleneck, position: str, *, parallel: bool) -> None:
        super().__init__()
        self.net = net
        self.position = position
        self.parallel = parallel

    @classmethod
    def build(cls, config: PatchConfig, shape: SublayerShape, generator: torch.Generator | None) -> AdapterLayer:
        """Return a fresh layer; `config` is a `BottleneckConfig`."""
        assert isinstance(config, BottleneckConfig)
        parallel = config.insertion == "parallel"
        width = narrower_width(config.bottleneck, shape.channels, "bottleneck")
        net = Bottleneck(shape.channels, width, config.activation, residual=config.inner_skip if parallel else True)
        net.initialise(config.init, generator)
        return cls(net, config.position, parallel=parallel)

    @property
    def zeros_are_identity(self) -> bool:
        """True without the inner skip, which adds the input even where all weights are zero."""
        return not (self.parallel and self.net.residual)

    def _act(self, layer_input: LayerInput, h: Tensor) -> Tensor:
        out: Tensor = h + self.net(layer_input.current) if self.parallel else self.net(h)
        return out

    def pre_norm(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between convolution and LayerNorm (the paper's default), if that is its place."""
        return self._act(layer_input, h) if self.position == "pre_norm" else h

    def pre_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between LayerNorm and the nonlinearity, if that is its place."""
        return self._act(layer_input, h) if self.position == "pre_act" else h

    def post_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act after the nonlinearity, if that is its place."""
        return self._act(layer_input, h) if self.position == "post_act" else h

    def stack(self, weights: Stack) -> Stack:
        """Return the weights with `up` as it is multiplied, (K, r, C)."""
        return weights | {"net.up.weight": weights["net.up.weight"].transpose(1, 2).contiguous()}

    def batched(
        self, stack: Stack, which: Tensor | None, rows_by_patch: Callable[[], RowsByPatch | None]
    ) -> AdapterHooks:
        """Return a faster form: two products for all rows."""
        place = (self.position, self.parallel, self.net.residual)
        return BatchedBottlenecks(place, self.net.activation, stack, which, rows_by_patch)


class LoraLayer(AdapterLayer):
    """LoRA (Hu et al., ICLR 2022) on the sublayer's convolution: the output of a rank-r convolution is added to its.

    `down` has the taps and the dilation of the sublayer's convolution, `up` is 1x1, so that both together could be
    added to its weights; at an attention or a feed-forward sublayer they could be added to its last linear map. The
    scale alpha / r is 1.
    """

    settings = LoraConfig

    def __init__(self, shape: SublayerShape, rank: int, init: str, generator: torch.Generator | None) -> None:
        super().__init__()
        self.down = shape.low_rank(rank, generator)
        self.up = nn.Linear(rank, shape.channels, bias=False)
        _initialise(self.up.weight, init, generator)

    @classmethod
    def build(cls, config: PatchConfig, shape: SublayerShape, generator: torch.Generator | None) -> AdapterLayer:
        """Return a fresh layer; `config` is a `LoraConfig`."""
        assert isinstance(config, LoraConfig)
        return cls(shape, narrower_width(config.rank, shape.channels, "rank"), config.init, generator)

    def pre_norm(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Add the low-rank convolution of the input."""
        out: Tensor = h + self.up(layer_input.through(self.down))
        return out


class ScaleShiftLayer(AdapterLayer):
    """SSF (Lian et al., NeurIPS 2022): a gain (kept as its difference from 1) and a shift per normalised channel."""

    settings = ScaleShiftConfig

    def __init__(self, shape: SublayerShape, init: str, generator: torch.Generator | None) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(shape.channels))
        self.shift = nn.Parameter(torch.zeros(shape.channels))
        _initialise(self.gain, init, generator)
        _initialise(self.shift, init, generator)

    @classmethod
    def build(cls, config: PatchConfig, shape: SublayerShape, generator: torch.Generator | None) -> AdapterLayer:
        """Return a fresh layer; `config` is a `ScaleShiftConfig`."""
        return cls(shape, config.init, generator)

    def pre_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Scale and shift."""
        return h * (1.0 + self.gain) + self.shift


def _initialise(weight: Tensor, init: str, generator: torch.Generator | None) -> None:
    if init == "identity":
        nn.init.zeros_(weight)
    else:
        nn.init.normal_(weight, std=RANDOM_STD, generator=generator)


def narrower_width(setting: int | float, channels: int, name: str) -> int:
    """Return a width that is given as a number or as a fraction of `channels`.

    Args:
        setting: a number of channels, or a fraction.
        channels: of the backbone.
        name: of the setting in `patch`, for the message.

    Raises:
        ConfigError: it is not narrower than the backbone.
    """
    width = setting if isinstance(setting, int) else max(1, round(setting * channels))
    if width >= channels:
        raise ConfigError(
            f"a {name} of {width} channels is not narrower than the backbone's {channels}",
            remedy=f"choose a smaller patch.{name}, e.g. 0.125",
        )
    return width


for _layer in (BottleneckLayer, LoraLayer, ScaleShiftLayer):
    register_patch_kind(_layer)
