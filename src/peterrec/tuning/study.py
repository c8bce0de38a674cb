"""The study of a search: Optuna's, kept in a SQLite file, so that a killed search goes on."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from peterrec.errors import ArtifactError
from peterrec.training.callbacks import Row

FILE = "search.sqlite3"
NAME = "search"
STARTUP_TRIALS = 5  # finished ones, before which none is pruned
ENOUGH_TRIALS = 4  # finished ones, to say what mattered

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Study:
    """A study of Optuna, whose next trial depends on its finished trials only.

    Each trial is drawn by a sampler of its own, with a seed made of the search's and the number of finished trials: a
    trial that was killed is drawn again as it was, and so is all that comes after it.

    Args:
        study: of Optuna.
        seed: of the search.
    """

    def __init__(self, study: optuna.Study, seed: int) -> None:
        self._study = study
        self.seed = seed

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, mode: str, seed: int) -> Iterator[Study]:
        """Open the study of a folder, or make it; trials that a killed search has begun are given up.

        Raises:
            ArtifactError: the file is damaged, or of a version of Optuna that this one does not read.
        """
        with _quiet():
            try:
                storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / FILE).absolute()}")
            except Exception as error:  # SQLAlchemy's, Alembic's and Optuna's have no base in common
                raise ArtifactError(
                    f"cannot be read ({error})", remedy="start over with --overwrite", path=folder / FILE
                ) from error
            try:
                pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)
                direction: Literal["maximize", "minimize"] = "maximize" if mode == "max" else "minimize"
                study = optuna.create_study(
                    storage=storage, study_name=NAME, direction=direction, pruner=pruner, load_if_exists=True
                )
                for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                    study.tell(trial.number, state=TrialState.FAIL)
                yield cls(study, seed)
            finally:
                storage.remove_session()
                storage.engine.dispose()

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that came to an end, in their order."""
        return self._study.get_trials(deepcopy=False, states=FINISHED)

    def ask(self, distributions: Mapping[str, BaseDistribution]) -> optuna.Trial:
        """Draw the next trial."""
        seed = np.random.SeedSequence([self.seed % 2**32, len(self.finished)]).generate_state(1)[0]
        self._study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        return self._study.ask(dict(distributions))

    def tell(self, trial: optuna.Trial, value: float | None) -> None:
        """End a trial; without a value it was stopped."""
        self._study.tell(trial, value, state=TrialState.PRUNED if value is None else TrialState.COMPLETE)

    def give_up(self, trial: optuna.Trial) -> None:
        """End a trial that is to be drawn again."""
        self._study.tell(trial, state=TrialState.FAIL)

    def importance(self) -> dict[str, float]:
        """Return the share of each setting in how the metric varies (fANOVA), the largest first; {} of few trials.

        Source: Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014.
        """
        values = {trial.value for trial in self.finished if trial.state is TrialState.COMPLETE}
        if len(values) < ENOUGH_TRIALS:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.seed % 2**32)
        return dict(optuna.importance.get_param_importances(self._study, evaluator=evaluator))


def trial_facts(trial: FrozenTrial) -> dict[str, Any]:
    """Return what was kept of a trial beside its parameters."""
    return dict(trial.user_attrs)


def curve_of(trial: FrozenTrial, monitor: str) -> list[Row]:
    """Return what was reported of a trial, a row for each epoch."""
    return [{"epoch": epoch, monitor: value} for epoch, value in sorted(trial.intermediate_values.items())]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let Optuna write warnings only; ours says what came of each trial."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
