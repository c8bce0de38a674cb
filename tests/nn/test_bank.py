"""Promise 5: a row of a mixed batch is what it would be alone with its own patch, for every backbone and patch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from contracts import BACKBONES, every_backbone, every_patch, lively_backbone, lively_patch, padded
from peterrec.config import PatchConfig
from peterrec.errors import ConfigError
from peterrec.nn.backbone import Backbone
from peterrec.nn.bank import PatchBank
from peterrec.nn.tokens import represent

USERS = [[4, 5, 6, 7, 8], [9], [], [10, 11, 12], [5, 5, 4], [20, 19, 18, 17, 16, 15]]
WHICH = torch.tensor([2, 0, 1, 2, 2, 1])


@every_backbone
@every_patch
def test_a_row_of_a_mixed_batch_equals_the_row_alone_with_its_patch(backbone_config, config):
    backbone = lively_backbone(backbone_config)
    patches = [lively_patch(config, backbone_config, seed) for seed in (1, 2, 3)]
    bank = PatchBank(patches)
    assert len(bank) == 3
    with torch.no_grad():
        mixed = represent(backbone, padded(USERS, 1, 2), bank.rows(WHICH))
        alone = [represent(backbone, padded([user], 0, 0), patches[i]) for user, i in zip(USERS, WHICH, strict=True)]
    torch.testing.assert_close(mixed, torch.cat(alone), atol=1e-5, rtol=1e-5)
    apart = represent(backbone, padded(USERS, 1, 2), bank.rows(WHICH.roll(1)))
    assert not torch.allclose(mixed, apart, atol=1e-3)


def test_the_bank_keeps_what_it_was_given():
    backbone, config = lively_backbone(BACKBONES["causal"]), PatchConfig(bottleneck=3)
    patch = lively_patch(config, backbone.config)
    bank = PatchBank([patch])

    def answer(of: Backbone) -> Tensor:
        with torch.no_grad():
            return represent(of, padded(USERS, 0, 0), bank.rows(torch.zeros(len(USERS), dtype=torch.long)))

    before = answer(backbone)
    with torch.no_grad():
        for parameter in patch.parameters():
            parameter.zero_()
    torch.testing.assert_close(answer(backbone), before)


def test_patches_of_different_shapes_and_none_at_all_are_refused():
    config = BACKBONES["causal"]
    narrow, wide = (lively_patch(PatchConfig(bottleneck=width), config) for width in (2, 3))
    with pytest.raises(ConfigError, match="one configuration"):
        PatchBank([narrow, wide])
    with pytest.raises(ConfigError, match="one configuration"):
        PatchBank([])
