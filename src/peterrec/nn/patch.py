"""Model patches: the small networks of one task, one piece per site of the backbone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from peterrec.config import BackboneConfig, PatchConfig
from peterrec.errors import ConfigError


class Bottleneck(nn.Module):
    """P(x) = x + up(act(down(x))): two 1x1 convolutions, i.e. linear maps over channels (paper, section 3.3, fig. 3).

    `up` starts at zero, so that a fresh patch is the identity.

    Args:
        channels: C of the backbone.
        bottleneck: channels between the two maps.
        activation: `relu` or `gelu`.
    """

    def __init__(self, channels: int, bottleneck: int, activation: str) -> None:
        super().__init__()
        self.down = nn.Linear(channels, bottleneck)
        self.up = nn.Linear(bottleneck, channels)
        self.activation = F.relu if activation == "relu" else F.gelu
        nn.init.kaiming_normal_(self.down.weight, nonlinearity="relu")
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Return x plus its correction."""
        correction: Tensor = self.up(self.activation(self.down(x)))
        return x + correction


class SitePatch(nn.Module):
    """What a patch may do at one site, and where. A kind of patch overrides the hook of its place."""

    def pre_norm(self, x: Float[Tensor, "B T C"], h: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Act between convolution and LayerNorm; `x` is the site's input, `h` what comes in."""
        return h

    def pre_act(self, x: Float[Tensor, "B T C"], h: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Act between LayerNorm and the nonlinearity."""
        return h

    def post_act(self, x: Float[Tensor, "B T C"], h: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Act after the nonlinearity."""
        return h


class SerialPreNorm(SitePatch):
    """Serial insertion before LayerNorm (the paper's default)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def pre_norm(self, x: Float[Tensor, "B T C"], h: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Pass the convolution's output through the patch."""
        out: Tensor = self.net(h)
        return out


class SerialPreAct(SitePatch):
    """Serial insertion between LayerNorm and the nonlinearity."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def pre_act(self, x: Float[Tensor, "B T C"], h: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Pass the normalised output through the patch."""
        out: Tensor = self.net(h)
        return out


INSERTIONS: dict[tuple[str, str], type[SerialPreNorm] | type[SerialPreAct]] = {
    ("serial", "pre_norm"): SerialPreNorm,
    ("serial", "pre_act"): SerialPreAct,
}


class Patch(nn.Module):
    """All pieces of one task's patch. Never part of the backbone: it is handed in, `backbone(tokens, patch)`.

    Args:
        config: kind, insertion and width.
        backbone: the configuration of the backbone it is for.
        generator: draws the initial weights.

    Raises:
        ConfigError: the bottleneck is not narrower than the backbone.
    """

    def __init__(self, config: PatchConfig, backbone: BackboneConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        channels = backbone.channels
        width = bottleneck_width(config, channels)
        insertion = INSERTIONS[config.insertion, config.position]
        sites = [2 * block + site for block in range(len(backbone.dilations)) for site in _sites(config)]
        self.pieces = nn.ModuleDict(
            {str(site): insertion(Bottleneck(channels, width, config.activation)) for site in sites}
        )
        if generator is not None:
            for piece in self.pieces.values():
                net = piece.net
                assert isinstance(net, Bottleneck)
                nn.init.kaiming_normal_(net.down.weight, nonlinearity="relu", generator=generator)

    def at(self, site: int) -> SitePatch | None:
        """Return the piece for a site (block i has sites 2i and 2i + 1), or None."""
        key = str(site)
        if key not in self.pieces:
            return None
        piece = self.pieces[key]
        assert isinstance(piece, SitePatch)
        return piece


def bottleneck_width(config: PatchConfig, channels: int) -> int:
    """Return the channels of the bottleneck, given as a number or as a share of `channels`.

    Raises:
        ConfigError: it is not narrower than the backbone.
    """
    asked = config.bottleneck
    width = asked if isinstance(asked, int) else max(1, round(asked * channels))
    if width >= channels:
        raise ConfigError(
            f"a bottleneck of {width} channels is not narrower than the backbone's {channels}",
            remedy="choose a smaller patch.bottleneck, e.g. 0.125",
        )
    return width


def _sites(config: PatchConfig) -> tuple[int, ...]:
    # With one patch per block it follows the second convolution, next to where the block's output is formed.
    return (0, 1) if config.per_block == 2 else (1,)
