"""The size of a patch beside the convolutions that it adapts: the paper's has less than a tenth (section 3.3)."""

from __future__ import annotations

import torch

from peterrec.config import BackboneConfig, BottleneckConfig, LoraConfig, PatchConfig
from peterrec.nn.adapter_layer import build_adapter_layer
from peterrec.nn.conv import DilatedConv
from peterrec.nn.insertion import ConvShape
from peterrec.nn.patch import sublayer_shape
from peterrec.training.strategies import count_parameters

LARGEST_SHARE = 0.10


def patch_share(config: PatchConfig, backbone: BackboneConfig) -> float | None:
    """Return the weights of a patch at a sublayer, as a share of the weights of the sublayer's convolution.

    Biases count, LayerNorms of the task's own do not. None where there is no convolution, or no width of the patch to
    set: kinds other than bottlenecks and LoRA.

    Raises:
        ConfigError: the patch is not narrower than the backbone.
    """
    shape = sublayer_shape(1, backbone)
    if not isinstance(shape, ConvShape) or not isinstance(config, BottleneckConfig | LoraConfig):
        return None
    with torch.device("meta"):  # numbers of weights, but no weights, and no draws for them
        layer = build_adapter_layer(config, shape)
        convolution = DilatedConv(shape.channels, shape.kernel_size, shape.dilation, causal=shape.causal)
    return count_parameters(layer) / count_parameters(convolution)


def wide_patch_line(config: PatchConfig, backbone: BackboneConfig) -> str | None:
    """Return a line about a patch above a tenth of its convolution, with what to set; None if it is not above.

    Raises:
        ConfigError: as `patch_share`.
    """
    share = patch_share(config, backbone)
    if share is None or share <= LARGEST_SHARE:
        return None
    setting = "rank" if isinstance(config, LoraConfig) else "bottleneck"
    line = f"at a sublayer, the patch has {share:.1%} of the weights of the convolution (the paper: less than 10 %): "
    for width in range(backbone.channels - 1, 0, -1):
        narrower = patch_share(config.model_copy(update={setting: width}), backbone)
        if narrower is not None and narrower <= LARGEST_SHARE:
            return f"{line}set patch.{setting} to {width} for {narrower:.1%}"
    return f"{line}with {backbone.channels} channels no patch.{setting} is below that"
