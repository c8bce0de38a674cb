"""The worker of our sides of `next_item.py`: `prepare`, `pretrain` and `recommend`, as a user calls them.

`pretrain` has no limit in seconds but one in epochs, over which the learning rate falls. So a few steps are timed
first, within the budget, and `epochs` is set to what fits in the rest of it, unless the settings say a number. Where
that was too many, a callback stops the training in the middle of an epoch, which is then validated as a whole one is.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import Callback, LightningModule, Trainer
from next_item_job import TOP, Job, Training

import peterrec
from peterrec.training import pretrain as training_module
from peterrec.training.callbacks import BestEpoch

PROBE = 0.05  # of the budget
LONGEST = 1_000_000


class TimeLimit(Callback):
    """Stop when a budget is used up, and count steps.

    Args:
        training: the clock.
        seconds: of the budget, after which to stop.
    """

    def __init__(self, training: Training, seconds: float) -> None:
        self.training = training
        self.seconds = seconds
        self.steps = self.steps_per_epoch = 0
        self.first = self.last = self.validated = training.elapsed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps_per_epoch = int(trainer.num_training_batches)
        self.first = self.training.elapsed

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps += 1
        self.last = self.training.elapsed
        if self.last >= self.seconds:
            trainer.should_stop = True
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, BestEpoch):
                    callback.patience = 0  # else it goes on, as long as epochs become better

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated = self.training.elapsed

    @property
    def epochs(self) -> float:
        """Epochs so far."""
        return self.steps / max(1, self.steps_per_epoch)

    @property
    def epoch_seconds(self) -> float:
        """Seconds of an epoch and its validation, of a training that was stopped in its first epoch or after it."""
        return (self.last - self.first) / max(self.epochs, 1e-9) + (self.validated - self.last)


def main() -> None:
    job = Job.read()
    with tempfile.TemporaryDirectory() as folder:
        corpus = prepared(job, Path(folder))
        config = peterrec.PretrainConfig.model_validate(job.settings | {"seed": job.seed})
        training = Training(job.budget)
        if job.free_epochs:
            probe = pretrained(corpus, Path(folder) / "probe", config, TimeLimit(training, PROBE * job.budget))[1]
            fitting = max(1, round((job.budget - training.elapsed) / probe.epoch_seconds))
            config = config.model_copy(update={"epochs": fitting})
        model, limit = pretrained(corpus, Path(folder) / "backbone", config, TimeLimit(training, job.budget))
        by_patience = limit.epochs < config.epochs - 0.5
        training.finish(limit.epochs, "early stopping" if by_patience else "epochs")
        histories = job.histories
        rank = partial(model.recommend, histories, k=TOP)
        job.write(
            training,
            parameters=sum(parameter.numel() for parameter in model.network.parameters()),
            notes=f"best epoch {model.pretrained.training['best_epoch'] + 1} of {config.epochs}",
            all_items=rank(exclude_seen=False).items, unseen_items=rank(exclude_seen=True).items,  # type: ignore[arg-type]
        )  # fmt: skip


def prepared(job: Job, folder: Path) -> peterrec.Corpus:
    """Return the train events as a corpus of the same items and order."""
    users, items, order, _ = zip(*job.events("train"), strict=True)
    table = {"user_id": pa.array(users), "item_id": pa.array(items), "timestamp": pa.array(order)}
    pq.write_table(pa.table(table), folder / "events.parquet")
    tree = {
        "events": {"paths": [str(folder / "events.parquet")], "ids": "text"},
        "source": {"min_item_events": 1, "max_history": LONGEST},
    }
    return peterrec.prepare(peterrec.PrepareConfig.model_validate(tree), folder / "corpus")


def pretrained(
    corpus: peterrec.Corpus, out: Path, config: peterrec.PretrainConfig, limit: TimeLimit
) -> tuple[peterrec.UserModel, TimeLimit]:
    """Pre-train until the limit."""
    fit = training_module.fit
    training_module.fit = partial(fit, extra=[limit])  # it takes further callbacks, but `pretrain` hands none on
    try:
        return peterrec.pretrain(corpus, out, config), limit
    finally:
        training_module.fit = fit


if __name__ == "__main__":
    main()
