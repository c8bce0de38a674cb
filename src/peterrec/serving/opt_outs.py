"""Opt-outs: tasks that are not answered about a user, by the user's wish."""

from __future__ import annotations

from dataclasses import replace

from peterrec.errors import OptedOutError, RequestError
from peterrec.serving.batch_plan import Prepared
from peterrec.serving.requests import EVERY_TASK

MAX_OPT_OUTS = 1_000  # of a user


def changed_opt_outs(tasks: frozenset[str], task: str, *, opted_out: bool) -> frozenset[str]:
    """Return the tasks that a user has opted out of after a change.

    Raises:
        RequestError: they would be too many.
    """
    if not opted_out:
        return tasks - {task}
    if len(tasks | {task}) > MAX_OPT_OUTS:
        raise RequestError(f"more than {MAX_OPT_OUTS:,} tasks to opt out of", remedy="erase the user instead")
    return tasks | {task}


def without_opted_out(prepared: Prepared, opted_out: frozenset[str]) -> Prepared:
    """Return a question without tasks that its user has opted out of, where it asks for all.

    Raises:
        OptedOutError: it names one of them.
    """
    refused = [task.name for task in prepared.tasks if task.name in opted_out]
    if not refused:
        return prepared
    if prepared.question.tasks != EVERY_TASK:
        raise OptedOutError(
            f"the user has opted out of {', '.join(refused)}", remedy="do not ask about it, or ask for all tasks (*)"
        )
    return replace(prepared, tasks=tuple(task for task in prepared.tasks if task.name not in refused))
