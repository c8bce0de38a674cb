"""New targets of a bundle whose readouts were erased: their rows read what the eraser leaves, too."""

from __future__ import annotations

import torch

from peterrec.nn.eraser import Eraser
from peterrec.nn.heads import ItemHead
from peterrec.training.grow_targets import _erase_new_rows


def test_only_new_rows_get_the_eraser() -> None:
    generator = torch.Generator().manual_seed(0)
    head, vectors = ItemHead(4, 5, generator), torch.randn(6, 4, generator=generator)
    eraser = Eraser.from_tensors(*(torch.randn(shape, generator=generator) for shape in ((4, 1), (1, 4), (4,))))
    plain, erased = head(vectors).detach(), head(eraser(vectors)).detach()
    _erase_new_rows(head, 3, eraser)
    assert torch.equal(head.weight[:3], ItemHead(4, 5, torch.Generator().manual_seed(0)).weight[:3])
    torch.testing.assert_close(head(vectors)[:, :3], plain[:, :3])
    torch.testing.assert_close(head(vectors)[:, 3:], erased[:, 3:], atol=1e-5, rtol=1e-5)
