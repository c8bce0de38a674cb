"""Kinds of task, as training sees them: one class each, in one registry."""

from collections.abc import Mapping

from peterrec.config import AdaptConfig, TaskKind
from peterrec.data.corpus import Task, TaskPart
from peterrec.training.task_kinds.base import Judges, Metrics, MetricTotals, TaskObjective, mean_metrics
from peterrec.training.task_kinds.classification import ClassificationObjective
from peterrec.training.task_kinds.multilabel import MultilabelObjective
from peterrec.training.task_kinds.ranking import RankingObjective
from peterrec.training.task_kinds.regression import RegressionObjective

__all__ = [
    "OBJECTIVES",
    "Judges",
    "MetricTotals",
    "Metrics",
    "TaskObjective",
    "mean_metrics",
    "task_objective",
    "unused_settings",
]

OBJECTIVES: Mapping[TaskKind, type[TaskObjective]] = {
    "classification": ClassificationObjective,
    "ranking": RankingObjective,
    "regression": RegressionObjective,
    "multilabel": MultilabelObjective,
}


def task_objective(config: AdaptConfig, task: Task, train: TaskPart) -> TaskObjective:
    """Return what the training of a task is like.

    Raises:
        ConfigError: a setting does not fit the task.
    """
    return OBJECTIVES[task.kind](config, task, train)


def unused_settings(config: AdaptConfig, kind: TaskKind) -> list[str]:
    """Return the settings that were changed, and that only tasks of other kinds look at."""
    objectives = [objective for name, objective in OBJECTIVES.items() if name != kind]
    looked_at = OBJECTIVES[kind].settings
    named = [name for objective in objectives for name in objective.settings if name not in looked_at]
    defaults = AdaptConfig()
    return [name for name in dict.fromkeys(named) if getattr(config, name) != getattr(defaults, name)]
