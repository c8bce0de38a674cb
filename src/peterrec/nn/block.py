"""Sublayers of convolutions and residual blocks of two."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from peterrec.config import BackboneConfig
from peterrec.nn.conv import DilatedConv
from peterrec.nn.insertion import AdapterHooks, ConvInput
from peterrec.nn.patch import TaskPatch
from peterrec.nn.receptive_field import BlockSteps, ConvGeometry


class ConvSublayer(nn.Module):
    """Sublayer of the dilated backbone: conv -> LayerNorm -> ReLU, with the three places where a patch may act."""

    def __init__(self, config: BackboneConfig, dilation: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        causal = config.kind == "causal"
        assert config.kernel_size is not None
        self.conv = DilatedConv(config.channels, config.kernel_size, dilation, causal=causal, generator=generator)
        self.norm = nn.LayerNorm(config.channels, eps=config.norm_eps)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        keep: Bool[Tensor, "B T 1"] | None,
        patch: AdapterHooks | None,
        step: ConvGeometry | None = None,
    ) -> Float[Tensor, "B n C"]:
        """Apply the sublayer; positions where `keep` is false feed zeros to the convolution and to the patch."""
        layer_input = ConvInput(x if keep is None else x * keep, step or self.conv.step(x.shape[1]))
        h = layer_input.through(self.conv)
        if patch is None:
            return torch.relu(self.norm(h))
        h = patch.normalise(self.norm, patch.pre_norm(layer_input, h))
        return patch.post_act(layer_input, torch.relu(patch.pre_act(layer_input, h)))


class Block(nn.Module):
    """Residual block x + sublayer2(sublayer1(x)), the second sublayer with twice the dilation (section 3.2, eq. 2)."""

    def __init__(self, config: BackboneConfig, dilation: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.first = ConvSublayer(config, dilation, generator)
        self.second = ConvSublayer(config, 2 * dilation, generator)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        keep: Bool[Tensor, "B T 1"] | None,
        patch: TaskPatch | None,
        index: int,
        steps: BlockSteps | None = None,
    ) -> Float[Tensor, "B n C"]:
        """Apply block number `index`, whose sublayers are 2 * index and 2 * index + 1 of the patch.

        Without `steps` every position is computed, n = T.
        """
        first = patch.layer_at(2 * index) if patch is not None else None
        second = patch.layer_at(2 * index + 1) if patch is not None else None
        if steps is None:
            out_all: Tensor = self.second(self.first(x, keep, first), keep, second)
            return x + out_all
        between = keep if keep is None else steps[0].at_outputs(keep)
        out: Tensor = self.second(self.first(x, keep, first, steps[0]), between, second, steps[1])
        return at_outputs(x, steps) + out


def at_outputs(x: Tensor, steps: BlockSteps) -> Tensor:
    """Return what a block is given at the positions that it computes; a view."""
    return steps[1].at_outputs(steps[0].at_outputs(x))
