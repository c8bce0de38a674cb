"""Progress of a training for people: a bar on a terminal, a line for each epoch elsewhere."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from peterrec.training.callbacks import Curve

LABEL_WIDTH = 16  # a longer label would push the time left and the metric out of 80 columns


class ProgressBar(Callback):
    """Progress bar with the label, the step and the last metrics, on standard error: standard output is for answers.

    On a terminal one bar for the whole training, with the last value of what decides; it vanishes at the end. Where
    nobody can watch a bar (a file, a pipe), one line for each epoch with all metrics.

    Args:
        label: what is trained.
        curve: where the metrics are.
        shown: metrics, the one that decides first.
        console: where to write; standard error if not given.
    """

    def __init__(self, label: str, curve: Curve, shown: tuple[str, ...], console: Console | None = None) -> None:
        self.label = label
        self.curve = curve
        self.shown = shown
        self.console = console or Console(stderr=True, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[metric]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_interactive,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        total = int(trainer.estimated_stepping_batches)
        self.task = self.bar.add_task(self._description(trainer), total=total, completed=trainer.global_step, metric="")
        self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on."""
        self.bar.update(
            self.task, completed=trainer.global_step, description=self._description(trainer), metric=self._metric()
        )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the reason for which the bar stands still."""
        if trainer.sanity_checking:  # before there is a bar
            return
        self.bar.update(self.task, metric="validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the new metrics."""
        if trainer.sanity_checking:
            return
        self.bar.update(self.task, metric=self._metric())
        if self.console.is_interactive:
            return
        row = self.curve.rows[-1]
        metrics = ", ".join(f"{name} {row[name]:.4f}" for name in ("train_loss", *self.shown) if name in row)
        epoch = f"{self.label}, epoch {trainer.current_epoch + 1} of at most {trainer.max_epochs}"
        self.console.print(f"{epoch}: {metrics} ({row['seconds']:.1f} s)", markup=False, soft_wrap=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self._stop()

    def _stop(self) -> None:
        if self.console.is_interactive:  # rich before 14.3 writes an empty line even for a bar that was never shown
            self.bar.stop()

    def _description(self, trainer: Trainer) -> str:
        label = self.label if len(self.label) <= LABEL_WIDTH else self.label[: LABEL_WIDTH - 3] + "..."
        return f"{label}, epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"

    def _metric(self) -> str:
        values = [row[self.shown[0]] for row in self.curve.rows if self.shown[0] in row]
        return f"{self.shown[0]} {values[-1]:.4f}" if values else ""
