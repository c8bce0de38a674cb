"""Callbacks of a training: curve, best epoch, resume points."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from peterrec.artifacts.tensors import load_into, read_tensors, write_tensors
from peterrec.data.batching import EpochStream
from peterrec.errors import ArtifactError, TrainingError
from peterrec.storage import replace_file
from peterrec.training.distributed import broadcast_weights, is_rank_zero, on_rank_zero, world_size
from peterrec.training.work_folder import START_OVER

Row = dict[str, float]

LOG_EVERY = 10  # steps between the losses written by a logger


def require_finite(value: float | torch.Tensor, name: str, epoch: int) -> None:
    """Stop a training that diverged.

    Raises:
        TrainingError: a value is NaN or infinite.
    """
    if bool(torch.as_tensor(value).isfinite().all()):
        return
    shown = f" ({value})" if isinstance(value, float) else ""
    raise TrainingError(
        f"training diverged: {name} of epoch {epoch + 1} is not finite{shown}",
        remedy=f"lower optim.lr, keep optim.clip_norm set, or set runner.precision to 32-true; then {START_OVER}",
    )


class Curve(Callback):
    """Curve of a training, one row per epoch: mean training loss, validation metrics, seconds. It survives a resume.

    Where the weights are evaluated before the first step, `start` has these metrics, as of epoch -1.

    Args:
        monitor: the validation metric that decides which epoch is best.
        mode: `min` or `max` of it.
        chosen: the epoch that was decided on elsewhere, counted from 0; then the metric has no say.
    """

    def __init__(self, monitor: str, mode: str, chosen: int | None = None) -> None:
        self.monitor = monitor
        self.mode = mode
        self.chosen = chosen
        self.start: Row | None = None
        self.rows: list[Row] = []
        self._loss: torch.Tensor | float = 0.0
        self._steps = 0
        self._seconds = 0.0
        self._clock = time.perf_counter()

    @property
    def best(self) -> Row:
        """The row of the best epoch; the first of those that are equally good. Of a chosen one: the last until it.

        An epoch whose row lacks the monitor was not measured; the first one always is.
        """
        candidates = self.rows if self.start is None else [self.start, *self.rows]
        if self.chosen is not None:
            return [row for row in candidates if row["epoch"] <= self.chosen][-1]
        measured = [row for row in candidates if self.monitor in row]
        return (min if self.mode == "min" else max)(measured, key=lambda row: row[self.monitor])

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        return int(self.rows[-1]["epoch"] - self.best["epoch"]) if self.rows else 0

    def finished(self, patience: int) -> bool:
        """Return whether to train no further: the chosen epoch is there, or `patience` have not been better."""
        if self.chosen is not None:
            return len(self.rows) > self.chosen  # at once, if the start was chosen
        return self.waited >= patience

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far and the running sums of the epoch under way."""
        running = {"loss": float(self._loss), "steps": self._steps, "seconds": self._elapsed()}
        return {"start": self.start, "rows": self.rows, **running}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a curve."""
        self.start, self.rows = state_dict["start"], list(state_dict["rows"])
        self._loss, self._steps, self._seconds = state_dict["loss"], state_dict["steps"], state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a step's loss, on its device: reading it out would make a GPU wait."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if world_size() > 1:
            loss = cast(torch.Tensor, pl_module.loss_share)  # of all ranks
        kind = torch.float32 if loss.device.type == "mps" else torch.float64  # which Apple's GPUs do not have
        self._loss = self._loss + loss.detach().to(kind)
        self._steps += 1
        if trainer.loggers and trainer.global_step % LOG_EVERY == 0:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            for logger in trainer.loggers:
                logger.log_metrics({"train_loss": float(loss), "lr": rate}, step=trainer.global_step)

    def check(self, epoch: int) -> None:
        """Check that the loss of the epoch under way is finite.

        Raises:
            TrainingError: it is not finite.
        """
        require_finite(float(self._loss), "the training loss", epoch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the loss before the weights behind it are evaluated."""
        self.check(trainer.current_epoch)
        trainer.callback_metrics.clear()  # what this epoch does not measure is no column of its row

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch's row, or that of the start.

        Raises:
            TrainingError: a metric is not finite.
        """
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for name, value in metrics.items():
            require_finite(value, name, trainer.current_epoch)
        if trainer.sanity_checking:
            self.start = {"epoch": -1, **metrics}
            return
        loss = float(self._loss) / max(1, self._steps)
        self.rows.append({"epoch": trainer.current_epoch, "train_loss": loss, **metrics, "seconds": self._elapsed()})
        self._loss, self._steps, self._seconds, self._clock = 0.0, 0, 0.0, time.perf_counter()

    def _elapsed(self) -> float:
        return self._seconds + time.perf_counter() - self._clock


class BestEpoch(Callback):
    """Keeper of the weights of the best epoch, which stops after `patience` epochs without a better (`Curve.finished`).

    Everything it knows is read off the curve, so that it survives a resume with it.

    Args:
        folder: where the weights are kept.
        network: what is trained.
        curve: says which epoch is best; it and the `ResumePoint` must stand before this among the callbacks.
        patience: epochs.
    """

    def __init__(self, folder: Path, network: nn.Module, curve: Curve, patience: int) -> None:
        self.folder = folder
        self.network = network
        self.curve = curve
        self.patience = patience

    def _path(self, epoch: float) -> Path:
        return self.folder / f"best-{int(epoch)}.safetensors"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train no further if the run was killed after its last epoch: Lightning does not remember that it stopped.

        Raises:
            ArtifactError: the weights of the best epoch so far are gone.
        """
        begun = self.curve.start is not None or self.curve.rows
        if is_rank_zero() and begun and not self._path(self.curve.best["epoch"]).exists():
            raise ArtifactError("is missing", remedy=START_OVER, path=self._path(self.curve.best["epoch"]))
        trainer.should_stop = self.curve.finished(self.patience)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are the best so far."""
        if self.curve.waited == 0:
            on_rank_zero(self._keep)
        trainer.should_stop = self.curve.finished(self.patience)

    def _keep(self) -> None:
        with replace_file(self._path(self.curve.best["epoch"])) as temporary:
            write_tensors(temporary, self.network.state_dict())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget weights that were better before: only now does no resume point go back to them."""
        for path in self.folder.glob("best-*.safetensors") if is_rank_zero() else ():
            if path != self._path(self.curve.best["epoch"]):
                path.unlink()

    def load(self) -> None:
        """Load the weights of the best epoch into the network.

        Raises:
            ArtifactError: they are damaged.
        """
        path = self._path(self.curve.best["epoch"])
        on_rank_zero(lambda: load_into(self.network, read_tensors(path), path))
        broadcast_weights(self.network)


class ResumePoint(Callback):
    """Resume point with everything needed to go on, saved after every n-th step inside an epoch and after every epoch.

    Not after the last step of an epoch: its validation belongs to it, and the point after the epoch has both. Inside an
    epoch a point is left out while it would take more than a share of the time: of a large table, minutes.

    Args:
        path: the file.
        every_n_steps: inside an epoch, at most.
        max_share: of the time since the last point that the next may take, if it takes as long as the last.
        stream: its place is part of the point. (Lightning saves it too, but puts it back within an epoch only.)
        curve: a training that diverged is not saved.
    """

    def __init__(
        self, path: Path, every_n_steps: int, max_share: float, stream: EpochStream[Any], curve: Curve
    ) -> None:
        self.path = path
        self.every_n_steps = every_n_steps
        self.max_share = max_share
        self._seconds = 0.0  # of the last point
        self._saved_at = time.monotonic()
        self.stream = stream
        self.curve = curve

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the stream of batches."""
        return self.stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the stream back in its place."""
        self.stream.load_state_dict(state_dict)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save inside an epoch; also when told to terminate (SIGTERM), upon which Lightning stops after the step."""
        if trainer.is_last_batch:
            return
        stop_requested = trainer.received_sigterm if world_size() == 1 else cast(bool, pl_module.stop_requested)
        if stop_requested or (trainer.global_step % self.every_n_steps == 0 and on_rank_zero(self._is_cheap)):
            self._save(trainer)

    def _is_cheap(self) -> bool:
        return self._seconds <= self.max_share * (time.monotonic() - self._saved_at)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after an epoch and its validation."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self.curve.check(trainer.current_epoch)
        start = time.monotonic()
        on_rank_zero(lambda: trainer.save_checkpoint(self.path))
        self._saved_at = time.monotonic()
        self._seconds = self._saved_at - start
