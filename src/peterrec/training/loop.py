"""Running a Lightning module to its best weights, resumable, with the terminal left tidy."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler
from torch import Tensor, nn

from peterrec.config import AdaptConfig, OptimConfig, PretrainConfig, RunnerConfig
from peterrec.data.batching import EpochStream
from peterrec.errors import ConfigError, InterruptedRun
from peterrec.nn.backbone import Backbone
from peterrec.nn.matmul import onednn_matmul
from peterrec.storage import storage_errors
from peterrec.training.callbacks import LOG_EVERY, BestEpoch, Curve, ResumePoint
from peterrec.training.distributed import (
    Batches,
    ShardedBatches,
    StopTogether,
    broadcast_weights,
    is_rank_zero,
    on_rank_zero,
    sum_gradients,
    trainer_devices,
    world_size,
)
from peterrec.training.loggers import make_callbacks, make_loggers
from peterrec.training.optim import clip_gradients, make_optimizer, make_schedule
from peterrec.training.progress import ProgressBar
from peterrec.training.quiet import quiet
from peterrec.training.work_folder import AtomicCheckpoints, WorkFolder

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """Plan of a training: its length, and the metric that chooses the epoch.

    Attributes:
        label: shown beside the progress bar.
        monitor: validation metric that chooses the best epoch.
        mode: `min` or `max` of it.
        epochs: at most.
        patience: epochs without improvement before stopping.
        checkpoint_every: steps between resume points.
        clip_norm: largest norm of the gradient, or None.
        shown: metrics shown while training, `monitor` first.
        chosen: epoch to stop after and to keep, counted from 0; None: what the monitor says.
        evaluates_start: whether the weights before the first step are a candidate, as epoch -1.
    """

    label: str
    monitor: str
    mode: str
    epochs: int
    patience: int
    checkpoint_every: int
    clip_norm: float | None
    shown: tuple[str, ...]
    chosen: int | None = None
    evaluates_start: bool = False

    @classmethod
    def from_config(cls, config: PretrainConfig | AdaptConfig, label: str, mode: str, shown: tuple[str, ...]) -> Plan:
        """Return the plan of these settings; the first of the shown metrics decides."""
        return cls(
            label=label,
            monitor=shown[0],
            mode=mode,
            epochs=config.epochs,
            patience=config.patience,
            checkpoint_every=config.checkpoint_every,
            clip_norm=config.optim.clip_norm,
            shown=shown,
            evaluates_start=isinstance(config, AdaptConfig),
        )


class Unprofiled(PassThroughProfiler):
    """Profiler that measures nothing, in less time than Lightning's own: it is called dozens of times a step."""

    def profile(self, action_name: str) -> Any:
        """Return a context that does nothing."""
        return nullcontext()


class TrainedModule(LightningModule):
    """A module that says what of it is trained: that, and nothing else, is optimised and kept.

    Args:
        trained: what is trained.
        optim: optimiser and schedule.

    Attributes:
        tables: parameters of which only touched rows have a gradient.
        loss_share: what this rank adds to the loss of the step; after the backward pass the loss of all ranks.
        stop_requested: whether a rank was, in this step.
        valid: batches of the validation, of which a rank computes some.
        config: all settings of the training.
    """

    config: Any  # AdaptConfig or PretrainConfig, as subclasses say

    def __init__(self, trained: nn.Module, optim: OptimConfig) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold what is trained; a frozen backbone is never copied
        self.trained = trained
        self.optim = optim
        self.tables: list[nn.Parameter] = []
        self.loss_share: Tensor | None = None
        self.stop_requested = False
        self.valid: ShardedBatches[Any] | None = None

    def full_precision(self) -> AbstractContextManager[Any]:
        """Leave mixed precision, for scores that are ranked: the few bits of bfloat16 would make ties."""
        device = self.device.type
        return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()

    def on_after_backward(self) -> None:
        """Add up the gradients of all ranks."""
        if world_size() > 1:
            assert self.loss_share is not None
            loss = self.loss_share.detach().float()
            self.loss_share, self.stop_requested = sum_gradients(self.trained.parameters(), self.tables, loss)

    def in_order(self, results: list[T]) -> list[T]:
        """Return what came of each batch of the validation, of all ranks."""
        return results if self.valid is None else self.valid.in_order(results)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is frozen."""
        checkpoint["state_dict"] = self.trained.state_dict(prefix="trained.")

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the norm of all gradients together, also of tables of which only some rows have one."""
        if gradient_clip_val is not None:
            clip_gradients(self.trained.parameters(), float(gradient_clip_val))

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of all that is trained."""
        return make_optimizer(self.trained.parameters(), self.optim)

    def configure_optimizers(self) -> Any:
        """Make an AdamW over the trained parameters, with the configured schedule stepped every batch."""
        optimizer = self.make_optimizer()
        schedule = make_schedule(optimizer, self.optim, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def backbone_for_runner(backbone: Backbone, runner: RunnerConfig, rows: int, lengths: Iterable[int]) -> Backbone:
    """Return the form of a backbone that the runner's settings ask for; all modules are shared.

    Args:
        backbone: the plain one.
        runner: the settings.
        rows: of a full batch.
        lengths: tokens of the rows of batches that are compiled.
    """
    if runner.compile:
        backbone = backbone.compiled(rows, lengths)
    return backbone.recomputing() if runner.gradient_checkpointing else backbone


def fit(
    module: TrainedModule,
    stream: EpochStream[Any],
    valid: Batches[Any],
    work: WorkFolder,
    plan: Plan,
    runner: RunnerConfig,
    extra: Iterable[Callback] = (),
) -> Curve:
    """Train `module`, load the weights of its best epoch into it, and return the curve.

    Raises:
        InterruptedRun: the user pressed Ctrl-C; the run can be resumed.
        TrainingError: the loss is not finite.
        ConfigError: the runner's settings do not work on this machine, or a logger or callback refuses its options.
        StorageError: the disk is full; what was saved before can be resumed.
    """
    module.valid = ShardedBatches(valid)
    curve = Curve(plan.monitor, plan.mode, plan.chosen)
    point = ResumePoint(work.resume_point, plan.checkpoint_every, runner.checkpoint_share, stream, curve)
    best = BestEpoch(work.path, module.trained, curve, plan.patience)
    callbacks: list[Callback] = [curve, *extra, point, best]
    if runner.progress and is_rank_zero():
        callbacks.append(ProgressBar(plan.label, curve, plan.shown))
    if world_size() > 1:
        callbacks.append(StopTogether())
    with quiet(), work.removed_on_failure(), _interruptible(work), storage_errors(work.path):
        resume_point = work.resume_point if on_rank_zero(work.resume_point.exists) else None
        evaluates_start = plan.evaluates_start and resume_point is None
        callbacks[1:1] = make_callbacks(runner) if is_rank_zero() else []
        trainer = _trainer(runner, plan, callbacks, work.path, evaluates_start=evaluates_start)
        for logger in trainer.loggers:
            logger.log_hyperparams(module.config.model_dump(mode="json", exclude={"runner"}))
        with _reproducible(trainer), onednn_matmul(trainer.strategy.root_device):
            broadcast_weights(module.trained)
            trainer.fit(module, stream, module.valid, ckpt_path=resume_point)
        best.load()
    return curve


def _trainer(
    runner: RunnerConfig, plan: Plan, callbacks: list[Callback], folder: Path, *, evaluates_start: bool
) -> Trainer:
    try:
        trainer = Trainer(
            accelerator=runner.accelerator,
            devices=trainer_devices(runner),
            precision=runner.precision,
            max_epochs=plan.epochs,
            callbacks=callbacks,
            # Lightning knows of this rank only (training/distributed.py), also in a job of Slurm, where it would
            # requeue with resume points of its own.
            plugins=[AtomicCheckpoints(), LightningEnvironment()],
            gradient_clip_val=plan.clip_norm,
            logger=make_loggers(runner, folder) if is_rank_zero() else False,
            profiler=Unprofiled(),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=-1 if evaluates_start else 0,  # all batches, before the first step
            log_every_n_steps=LOG_EVERY,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
    except (MisconfigurationException, ValueError, RuntimeError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"the runner's settings do not work here ({error})", remedy="set runner.accelerator to auto or cpu"
        ) from error
    assert trainer.world_size == 1, "`join` was not called"
    return trainer


@contextmanager
def _reproducible(trainer: Trainer) -> Iterator[None]:
    """Make gradients the same bits each time on a CPU, and leave torch's settings as they were.

    Without it, rows of an embedding table that stand several times in a batch are added up in the order in which
    threads come by (torch's `index_put` with `accumulate`).
    """
    if trainer.strategy.root_device.type != "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic: Any = torch.utils.deterministic  # a module with a property, which type checkers do not see
    filled = deterministic.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # a check for torch's own tests; it costs time
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        deterministic.fill_uninitialized_memory = filled


@contextmanager
def _interruptible(work: WorkFolder) -> Iterator[None]:
    """Turn Ctrl-C into `InterruptedRun`: Lightning ignores the signal from then on and exits."""
    try:
        handler = signal.getsignal(signal.SIGINT)
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, handler)
        raise InterruptedRun("stopped by the user", remedy="continue with --resume", path=work.root) from error
