"""Which dtype the blocks of a network hand on: half as wide where answers are made in bf16, never in training."""

from __future__ import annotations

import pytest
import torch

from peterrec.config import BackboneConfig
from peterrec.nn.build import build_backbone
from peterrec.nn.precision import arithmetic

CPU = torch.device("cpu")
NETWORKS = {
    "dilated": {"channels": 16, "dilations": (1, 2, 4)},
    "transformer": {"architecture": "transformer", "channels": 16, "dilations": None, "kernel_size": None, "layers": 2},
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("precision", "trains"), [("fp32", False), ("bf16", False), ("bf16", True)])
def test_only_answers_in_bf16_are_narrow_between_blocks(network: str, precision: str, trains: bool) -> None:
    backbone = build_backbone(BackboneConfig(**NETWORKS[network]), 30, seed=0)
    tokens = torch.randint(4, 30, (6, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = backbone(tokens)
    dtypes: list[torch.dtype] = []
    for block in backbone.blocks:
        block.register_forward_pre_hook(lambda _, inputs: dtypes.append(inputs[0].dtype))
    with torch.set_grad_enabled(trains), arithmetic(precision, CPU):  # type: ignore[arg-type]
        hidden = backbone(tokens)
    narrow = precision == "bf16" and not trains
    assert dtypes == [torch.bfloat16 if narrow else torch.float32] * len(backbone.blocks)
    assert hidden.dtype == torch.float32
    cosine = torch.cosine_similarity(hidden.flatten(1), expected.flatten(1))
    assert cosine.min() > (0.999 if precision == "bf16" else 1 - 1e-6)
