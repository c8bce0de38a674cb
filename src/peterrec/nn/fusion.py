"""Attention over the frozen patches of other tasks: AdapterFusion (Pfeiffer et al., EACL 2021)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from peterrec.config import BackboneConfig, FusionConfig, PatchConfig
from peterrec.errors import ConfigError
from peterrec.nn.adapter_layer import COMPOSED_KINDS, AdapterLayer, build_adapter_layer
from peterrec.nn.insertion import LayerInput, SublayerShape
from peterrec.nn.patch import Patch
from peterrec.nn.patch_kinds import narrower_width

Hook = Literal["pre_norm", "pre_act", "post_act"]


class FusionLayer(AdapterLayer):
    """Sum of what the layers of frozen patches would add, each weighted by attention from what comes to the place.

    Of M patches that add d_m = P_m(h) - h: h becomes h + sum_m a_m g_m d_m, a = softmax_m((Q h) (K d_m) / sqrt(w)).
    Queries start at zero, so that a fresh layer adds the plain mean. In the paper keys and values are read of P_m(h),
    and values are a full matrix that starts at the identity, of as many weights as a convolution; here they are read of
    what is added alone, and the matrix is diagonal, g_m.

    Args:
        members: layers of the patches.
        channels: C.
        width: w.
        generator: draws the keys.
    """

    settings = FusionConfig

    def __init__(
        self, members: Sequence[AdapterLayer], channels: int, width: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members).requires_grad_(False)
        self.query = nn.Parameter(torch.zeros(width, channels))
        self.key = nn.Parameter(torch.empty(width, channels))
        self.gain = nn.Parameter(torch.ones(len(members), channels))
        nn.init.normal_(self.key, std=1.0 / math.sqrt(channels), generator=generator)

    @classmethod
    def build(cls, config: PatchConfig, shape: SublayerShape, generator: torch.Generator | None) -> AdapterLayer:
        """Return a fresh layer, its members too; `config` is a `FusionConfig`."""
        assert isinstance(config, FusionConfig)
        members = [build_adapter_layer(member, shape, generator) for member in config.members]
        return cls(members, shape.channels, narrower_width(config.width, shape.channels, "width"), generator)

    def frozen_modules(self) -> Iterable[nn.Module]:
        """Return the layers of the patches."""
        return (self.members,)

    def _act(self, hook: Hook, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        outputs = [getattr(member, hook)(layer_input, h) for member in self.members]
        acting = [place for place, output in enumerate(outputs) if output is not h]  # a layer acts at one place
        if not acting:
            return h
        added = torch.stack([outputs[place] - h for place in acting], dim=-2)  # (B, n, M, C)
        query, keys = h @ self.query.T, added @ self.key.T
        scores = (keys * query.unsqueeze(-2)).sum(dim=-1) / math.sqrt(len(self.query))
        weights = scores.softmax(dim=-1).unsqueeze(-1)
        return h + (weights * added * self.gain[acting]).sum(dim=-2)

    def pre_norm(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act for the patches whose place this is."""
        return self._act("pre_norm", layer_input, h)

    def pre_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act for the patches whose place this is."""
        return self._act("pre_act", layer_input, h)

    def post_act(self, layer_input: LayerInput, h: Float[Tensor, "B n C"]) -> Float[Tensor, "B n C"]:
        """Act for the patches whose place this is."""
        return self._act("post_act", layer_input, h)


COMPOSED_KINDS["fusion"] = FusionLayer


def fused_patch(
    patches: Sequence[Patch], width: int | float, backbone: BackboneConfig, generator: torch.Generator | None
) -> Patch:
    """Return a fresh patch of attention over copies of other patches.

    Args:
        patches: M patches of one place in the network, which only have layers.
        width: channels of queries and keys, or their share.
        backbone: that all are for.
        generator: draws the keys.

    Raises:
        ConfigError: they act in different blocks, are fused themselves, or have parts outside of layers.
    """
    configs = [patch.config for patch in patches]
    if len({(config.blocks, config.per_block) for config in configs}) > 1:
        raise ConfigError("the patches to fuse act in different blocks", remedy="fuse patches of the same patch.blocks")
    for config in configs:
        if config.kind == "fusion" or config.train_norms or config.train_task_token or config.item_rank is not None:
            raise ConfigError(
                "a patch to fuse is fused itself, or has LayerNorms, items or a [TCL] of its own",
                remedy="fuse patches that consist of layers alone",
            )
    settings = FusionConfig(
        members=tuple(configs), width=width, blocks=configs[0].blocks, per_block=configs[0].per_block
    )
    fused = Patch(settings, backbone, generator)
    for name, layer in fused.adapter_layers.items():
        assert isinstance(layer, FusionLayer)
        for member, patch in zip(layer.members, patches, strict=True):
            member.load_state_dict(copy.deepcopy(patch.adapter_layers[name].state_dict()))
    return fused
