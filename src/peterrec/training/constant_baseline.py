"""The warning about a model that is no better than the answer that is the same for everybody."""

from __future__ import annotations

from typing import Any

from peterrec.config import AdaptConfig
from peterrec.nn.readout import readout_named
from peterrec.training.task_kinds import TaskObjective

SETTINGS_NAMED = 3


def useless(objective: TaskObjective, name: str, metrics: dict[str, Any], valid: int) -> tuple[str, ...]:
    """Return the warning that is due where a model is no better than the constant answer, if one is.

    Held-out train users are asked where there was a cross-validation: they are more than the valid users.

    Args:
        objective: of the task.
        name: of the task.
        metrics: of the bundle: `valid`, `constant`, `cross_validation`, `best_epoch`.
        valid: number of valid users.
    """
    held_out = metrics.get("cross_validation")
    if held_out is not None:
        judged_on, users = "held-out train users", held_out["users"]
        model_metrics, constant_answer = held_out["metrics"], held_out["constant"]
    else:
        judged_on, users = "valid users", valid
        model_metrics, constant_answer = metrics["valid"], metrics["constant"]
    config = objective.config
    problem = objective.problem(model_metrics, constant_answer, users, config)
    if problem is None:
        return ()
    return (f"{name!r} is {problem} for {users:,} {judged_on}: {_advice(config, metrics['best_epoch'])}",)


def settings_to_try(config: AdaptConfig, best_epoch: int) -> tuple[str, ...]:
    """Return the settings that are the most likely to help a model that is no better than the constant answer.

    Args:
        config: of the model.
        best_epoch: the one that was kept, counted from 0; -1: what the training started from.
    """
    settings = []
    if best_epoch == config.epochs - 1:
        settings.append(f"epochs={2 * config.epochs}")
    elif best_epoch <= 0:
        settings.append(f"optim.lr={config.optim.lr / 4:g}")
    if readout_named(config.readout).token_only:
        settings.append("readout=pooled")
    if config.event_dropout == 0.0:
        settings.append("event_dropout=0.5")
    if config.strategy not in ("head", "joint"):
        settings.append("strategy=head")
    if config.optim.weight_decay < 0.1:
        settings.append("optim.weight_decay=0.1")
    return tuple(settings[:SETTINGS_NAMED])


def _advice(config: AdaptConfig, best_epoch: int) -> str:
    """Return what to do about such a model, in words."""
    settings = settings_to_try(config, best_epoch)
    return f"try the settings {', '.join(settings)}; or label more users" if settings else "label more users"
