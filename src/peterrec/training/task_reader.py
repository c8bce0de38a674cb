"""What the head of a task reads of a batch: representations, over a trunk that is kept or the whole network."""

from __future__ import annotations

from torch import Tensor, nn

from peterrec.config import AdaptConfig
from peterrec.nn.readout import represent
from peterrec.nn.trunk import Trunk
from peterrec.training.loop import as_asked
from peterrec.training.strategies import Trainable


class TaskReader(nn.Module):
    """Representations of the users of a batch.

    Args:
        parts: the network of the task.
        config: readout, and what the runner asks for.
        trunk: batches hold the states below it; None: they hold tokens.
    """

    def __init__(self, parts: Trainable, config: AdaptConfig, trunk: Trunk | None) -> None:
        super().__init__()
        lengths = (config.max_length + 1, config.max_length + 2)  # with [TCL] at the end, or at both
        self.backbone = as_asked(parts.backbone, config.runner, config.batch_size, lengths)
        self.patch = parts.patch
        self.readout = config.readout
        self.trunk = trunk

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return representations, (B, R)."""
        if self.trunk is not None:
            return self.trunk.represent(batch["states"], batch.get("keep"), self.patch)
        return represent(self.backbone, batch["tokens"], self.patch, self.readout)
