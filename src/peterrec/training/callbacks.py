"""What happens beside the steps: curve, progress bar, resume points."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from peterrec.errors import TrainingError
from peterrec.storage import replace_file


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints are written to a temporary name and renamed, so that a kill never leaves half of one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save atomically."""
        with replace_file(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


class ResumePoint(Callback):
    """Saves everything needed to go on: after every n-th step inside an epoch, and after every epoch.

    Not after the last step of an epoch: its validation belongs to it, and the point after the epoch has both.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path = path
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save inside an epoch."""
        if trainer.global_step % self.every == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after an epoch and its validation."""
        trainer.save_checkpoint(self.path)


class Curve(Callback):
    """Collects one row per epoch: mean training loss, validation metrics, seconds. Survives a resume."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._loss: torch.Tensor | float = 0.0
        self._steps = 0
        self._seconds = 0.0
        self._clock = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far and the running sums of the epoch under way."""
        return {"rows": self.rows, "loss": float(self._loss), "steps": self._steps, "seconds": self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a curve."""
        self.rows = list(state_dict["rows"])
        self._loss, self._steps, self._seconds = state_dict["loss"], state_dict["steps"], state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a step's loss, on its device: reading it out would make a GPU wait."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        self._loss = self._loss + loss.detach().double()
        self._steps += 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch's row.

        Raises:
            TrainingError: the loss is not finite.
        """
        loss = float(self._loss) / max(1, self._steps)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the training loss became {loss} in epoch {trainer.current_epoch}",
                remedy="lower optim.lr, keep optim.clip_norm set, or use precision 32-true",
            )
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"epoch": trainer.current_epoch, "train_loss": loss, **metrics, "seconds": self._elapsed()}
        self.rows.append(row)
        self._loss, self._steps, self._seconds, self._clock = 0.0, 0, 0.0, time.perf_counter()

    def _elapsed(self) -> float:
        return self._seconds + time.perf_counter() - self._clock


class ProgressBar(Callback):
    """One bar for the whole training, saying what is trained, where it is and the last validation."""

    def __init__(self, label: str, curve: Curve, shown: tuple[str, ...]) -> None:
        self.label = label
        self.curve = curve
        self.shown = shown
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            transient=True,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        total = int(trainer.estimated_stepping_batches)
        self.task = self.progress.add_task(self.label, total=total, completed=trainer.global_step, metrics="")
        self.progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on."""
        label = f"{self.label}, epoch {trainer.current_epoch + 1} of at most {trainer.max_epochs}"
        last = self.curve.rows[-1] if self.curve.rows else {}
        metrics = "  ".join(f"{name} {last[name]:.4f}" for name in self.shown if name in last)
        self.progress.update(self.task, completed=trainer.global_step, description=label, metrics=metrics)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar."""
        self.progress.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self.progress.stop()
