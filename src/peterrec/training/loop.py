"""Running a Lightning module to its best weights, resumable, with the terminal left tidy."""

from __future__ import annotations

import logging
import shutil
import signal
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from peterrec.config import Config, RunnerConfig, dump_yaml, same_settings
from peterrec.data.batching import EpochStream
from peterrec.errors import ArtifactError, ConfigError, InterruptedRun
from peterrec.storage import storage_errors, write_file
from peterrec.training.callbacks import AtomicCheckpoints, Curve, ProgressBar, ResumePoint


@dataclass(frozen=True)
class Plan:
    """How long to train and what decides.

    Attributes:
        label: shown beside the progress bar.
        monitor: validation metric that chooses the best epoch.
        mode: `min` or `max` of it.
        epochs: at most.
        patience: epochs without improvement before stopping.
        checkpoint_every: steps between resume points.
        clip_norm: largest norm of the gradient, or None.
        shown: metrics shown in the progress bar.
    """

    label: str
    monitor: str
    mode: str
    epochs: int
    patience: int
    checkpoint_every: int
    clip_norm: float | None
    shown: tuple[str, ...]


class WorkFolder:
    """`OUT.training`: resume points of a run that is not finished, beside where its artifact will be.

    Args:
        out: folder of the artifact.
        config: resolved configuration of the run; a resume must have the same.
        resume: go on from the resume point, if there is one.
        overwrite: an artifact at `out` may be replaced, and an unfinished run that is not (or cannot be) resumed.

    Raises:
        ArtifactError: `out` exists, or an unfinished run is there, and neither `resume` nor `overwrite` was given.
        ConfigError: the unfinished run had another configuration.
    """

    def __init__(self, out: Path, config: Config, *, resume: bool, overwrite: bool) -> None:
        self.path = out.with_name(out.name + ".training")
        if out.exists() and not overwrite:
            raise ArtifactError("already exists", remedy="choose another folder, or pass --overwrite", path=out)
        if self.path.exists() and not resume:
            if not overwrite:
                raise ArtifactError(
                    "holds an unfinished run",
                    remedy="continue it with --resume, or start over with --overwrite",
                    path=self.path,
                )
            shutil.rmtree(self.path)
        kept = self.path / "config.yaml"
        if kept.exists() and not same_settings(kept, config):
            if not overwrite:
                raise ConfigError(
                    "the unfinished run had another configuration",
                    remedy="resume with the same settings, or start over with --overwrite",
                    path=kept,
                )
            shutil.rmtree(self.path)
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_file(kept, dump_yaml(config).encode())

    @property
    def resume_point(self) -> Path:
        """Where the resume point is, once there is one."""
        return self.path / "last.ckpt"

    def remove(self) -> None:
        """Remove it: the artifact is written."""
        shutil.rmtree(self.path)


def fit(
    module: LightningModule,
    stream: EpochStream[Any],
    valid: Iterable[Any],
    work: WorkFolder,
    plan: Plan,
    runner: RunnerConfig,
    extra: Iterable[Callback] = (),
) -> list[dict[str, float]]:
    """Train `module`, load the weights of its best epoch into it, and return the curve.

    Raises:
        InterruptedRun: the user pressed Ctrl-C; the run can be resumed.
        TrainingError: the loss is not finite.
    """
    curve = Curve()
    best = ModelCheckpoint(
        work.path,
        "best",
        monitor=plan.monitor,
        mode=plan.mode,
        save_weights_only=True,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    stopping = EarlyStopping(plan.monitor, mode=plan.mode, patience=plan.patience, check_on_train_epoch_end=False)
    callbacks: list[Callback] = [curve, best, stopping, *extra, ResumePoint(work.resume_point, plan.checkpoint_every)]
    if runner.progress:
        callbacks.append(ProgressBar(plan.label, curve, plan.shown))
    with _quiet(), _interruptible(work):
        trainer = _trainer(runner, plan, callbacks, work.path)
        resume_from = work.resume_point if work.resume_point.exists() else None
        trainer.fit(module, stream, valid, ckpt_path=resume_from, weights_only=True)
    chosen = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(chosen["state_dict"], strict=False)
    return curve.rows


def _trainer(runner: RunnerConfig, plan: Plan, callbacks: list[Callback], folder: Path) -> Trainer:
    return Trainer(
        accelerator=runner.accelerator,
        devices=runner.devices,
        precision=runner.precision,
        max_epochs=plan.epochs,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        gradient_clip_val=plan.clip_norm,
        logger=_logger(runner, folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=True,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def _logger(runner: RunnerConfig, folder: Path) -> Logger | bool:
    if runner.logger == "csv":
        return CSVLogger(folder.parent, name=folder.stem + ".log")
    if runner.logger == "tensorboard":
        try:
            return TensorBoardLogger(folder.parent, name=folder.stem + ".log")
        except ModuleNotFoundError as error:
            raise ConfigError("tensorboard is not installed", remedy="pip install tensorboard") from error
    return False


@contextmanager
def _interruptible(work: WorkFolder) -> Iterator[None]:
    """Lightning answers Ctrl-C by ignoring the signal from then on and exiting: turn that into our error."""
    try:
        handler = signal.getsignal(signal.SIGINT)
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, handler)
        raise InterruptedRun("stopped by the user", remedy="continue with --resume", path=work.path) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's remarks about devices and finished fits out of the user's terminal; errors still show."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            warnings.filterwarnings("ignore", message=".*lightning.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
