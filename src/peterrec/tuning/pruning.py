"""A Lightning callback that tells Optuna how a trial goes, and ends it where it is not worth going on."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch import Callback, LightningModule, Trainer
from optuna import Trial, TrialPruned

from peterrec.training.callbacks import Curve, Row


class ReportEpochs(Callback):
    """Reporter of the metric that chooses the epoch, after each epoch of a trial.

    It reports what the curve of the training has, so that nothing is missing in a trial that was killed and went on. In
    a training whose length was decided on elsewhere (after a cross-validation) the metric has no say, and is left out.

    Args:
        trial: of Optuna.
        monitor: the metric.
        prune: whether the trial may be ended.
    """

    def __init__(self, trial: Trial, monitor: str, *, prune: bool) -> None:
        self.trial = trial
        self.monitor = monitor
        self.prune = prune
        self.reported: set[int] = set()

    def report(self, rows: Iterable[Row]) -> bool:
        """Report the rows of a curve that were not reported yet, and return whether there were any."""
        rows = [row for row in rows if self.monitor in row and int(row["epoch"]) not in self.reported]
        for row in rows:
            self.trial.report(row[self.monitor], int(row["epoch"]))
            self.reported.add(int(row["epoch"]))
        return bool(rows)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch.

        Raises:
            TrialPruned: trials before were better at this epoch.
        """
        curve = next(callback for callback in getattr(trainer, "callbacks") if isinstance(callback, Curve))  # noqa: B009
        if trainer.sanity_checking or curve.chosen is not None:
            return
        if self.report(curve.rows) and self.prune and self.trial.should_prune():
            raise TrialPruned
