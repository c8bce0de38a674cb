"""The pieces of a patch: what may act at one site, and where. A new kind of patch is one more entry of `KINDS`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from peterrec.config import PatchConfig
from peterrec.errors import ConfigError
from peterrec.nn.insertion import Given, Shape

RANDOM_STD = 0.02  # of what starts at zero otherwise
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu-tanh": partial(F.gelu, approximate="tanh"),
}


class SitePatch(nn.Module):
    """What a patch may do at one site. A kind overrides the hook of its place; the others change nothing.

    `given` is the site's input; `h` is what comes to the place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm: OwnNorm | None = None

    def pre_norm(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between convolution and LayerNorm."""
        return h

    def normalise(self, norm: nn.LayerNorm, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Apply the site's LayerNorm, or the task's own version of it."""
        out: Tensor = norm(h) if self.norm is None else self.norm(norm, h)
        return out

    def pre_act(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act between LayerNorm and the nonlinearity."""
        return h

    def post_act(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act after the nonlinearity."""
        return h


class OwnNorm(nn.Module):
    """A task's own LayerNorm, kept as its difference from the frozen one: zeros leave the network as it was."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, norm: nn.LayerNorm, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Normalise with the sum of the frozen parameters and its own."""
        return F.layer_norm(h, norm.normalized_shape, norm.weight + self.weight, norm.bias + self.bias, norm.eps)


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

    def initialise(self, start: str, generator: torch.Generator | None) -> None:
        """Draw `down`; `up` is zero, so that nothing is added at first, or small random numbers."""
        nn.init.kaiming_normal_(self.down.weight, nonlinearity="relu", generator=generator)
        _start(self.up.weight, start, generator)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Return the correction of x, with x itself where there is a residual."""
        correction: Tensor = self.up(self.activation(self.down(x)))
        return x + correction if self.residual else correction


class Inserted(SitePatch):
    """A network at one place of a site, in series (h becomes net(h)) or in parallel (net(input) is added to h)."""

    place: ClassVar[str]

    def __init__(self, net: nn.Module, *, parallel: bool) -> None:
        super().__init__()
        self.net = net
        self.parallel = parallel

    def _act(self, given: Given, h: Tensor) -> Tensor:
        out: Tensor = h + self.net(given.here) if self.parallel else self.net(h)
        return out


class PreNorm(Inserted):
    """Between convolution and LayerNorm (the paper's default)."""

    place = "pre_norm"

    def pre_norm(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Pass `h` through the network, or add that of the input."""
        return self._act(given, h)


class PreAct(Inserted):
    """Between LayerNorm and the nonlinearity."""

    place = "pre_act"

    def pre_act(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Pass `h` through the network, or add that of the input."""
        return self._act(given, h)


class PostAct(Inserted):
    """After the nonlinearity."""

    place = "post_act"

    def post_act(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Add the network's output for the input."""
        return self._act(given, h)


class LowRankConv(SitePatch):
    """LoRA (Hu et al., ICLR 2022) on the site's convolution: a rank-r convolution whose output is added to its own.

    `down` has the taps and the dilation of the site's convolution, `up` is 1x1, so that both together could be added
    to its weights; at an attention or a feed-forward sub-layer they could be added to its last linear map. The scale
    alpha / r is 1.
    """

    def __init__(self, shape: Shape, rank: int, start: str, generator: torch.Generator | None) -> None:
        super().__init__()
        self.down = shape.low_rank(rank, generator)
        self.up = nn.Linear(rank, shape.channels, bias=False)
        _start(self.up.weight, start, generator)

    def pre_norm(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Add the low-rank convolution of the input."""
        out: Tensor = h + self.up(given.through(self.down))
        return out


class ScaleShift(SitePatch):
    """SSF (Lian et al., NeurIPS 2022): a gain (kept as its difference from 1) and a shift per normalised channel."""

    def __init__(self, shape: Shape, start: str, generator: torch.Generator | None) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(shape.channels))
        self.shift = nn.Parameter(torch.zeros(shape.channels))
        _start(self.gain, start, generator)
        _start(self.shift, start, generator)

    def pre_act(self, given: Given, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Scale and shift."""
        return h * (1.0 + self.gain) + self.shift


def _start(weight: Tensor, start: str, generator: torch.Generator | None) -> None:
    if start == "identity":
        nn.init.zeros_(weight)
    else:
        nn.init.normal_(weight, std=RANDOM_STD, generator=generator)


# ---------------------------------------------------------------- from settings


def bottleneck_width(config: PatchConfig, channels: int) -> int:
    """Return the channels of the bottleneck (the rank of LoRA), given as a number or as a share of `channels`.

    Raises:
        ConfigError: it is not narrower than the backbone.
    """
    asked = config.bottleneck
    assert asked is not None
    width = asked if isinstance(asked, int) else max(1, round(asked * channels))
    if width >= channels:
        raise ConfigError(
            f"a bottleneck of {width} channels is not narrower than the backbone's {channels}",
            remedy="choose a smaller patch.bottleneck, e.g. 0.125",
        )
    return width


PLACES: dict[str, type[Inserted]] = {kind.place: kind for kind in (PreNorm, PreAct, PostAct)}


def _bottleneck(config: PatchConfig, shape: Shape, generator: torch.Generator | None) -> SitePatch:
    assert config.activation is not None
    parallel = config.insertion == "parallel"
    width = bottleneck_width(config, shape.channels)
    net = Bottleneck(shape.channels, width, config.activation, residual=config.inner_skip if parallel else True)
    net.initialise(config.start, generator)
    return PLACES[config.position](net, parallel=parallel)


def _lora(config: PatchConfig, shape: Shape, generator: torch.Generator | None) -> SitePatch:
    return LowRankConv(shape, bottleneck_width(config, shape.channels), config.start, generator)


def _scale_shift(config: PatchConfig, shape: Shape, generator: torch.Generator | None) -> SitePatch:
    return ScaleShift(shape, config.start, generator)


KINDS: dict[str, Callable[[PatchConfig, Shape, torch.Generator | None], SitePatch]] = {
    "bottleneck": _bottleneck,
    "lora": _lora,
    "scale-shift": _scale_shift,
}
