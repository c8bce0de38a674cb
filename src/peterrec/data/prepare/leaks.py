"""Refusal of tasks whose answers stand in the source sequences, in any file."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from peterrec.config import ClassificationTaskConfig, RankingTaskConfig
from peterrec.data.history_reader import time_limit_seconds
from peterrec.data.prepare.engine import scalars
from peterrec.data.prepare.event_filters import at_or_after
from peterrec.data.prepare.events import Events
from peterrec.data.prepare.targets import TargetEvents, is_target
from peterrec.data.prepare.units import units_per_second
from peterrec.errors import TaskError

DAY = 86_400  # seconds
IN_THE_QUESTION = "the answer would be in the question"
REPEATED_SHARE = 0.5  # of a task's pairs of user and item: fewer are habits, and nothing to remark on


def refuse_later_source(events: Events, source: Any, task: ClassificationTaskConfig) -> None:
    """Refuse a source that reaches into the period that an activity task asks about.

    Raises:
        TaskError: source events lie in the period, or later.
    """
    assert task.activity is not None
    later = at_or_after(source, task.activity.after, events.time_kind, f"activity.after of {task.name!r}")
    count = _count(source.filter(later))
    if count:
        raise TaskError(
            f"{count:,} source events lie in the period that task {task.name!r} asks about, or later: "
            f"{IN_THE_QUESTION}",
            remedy=f"set source.before: {task.activity.after!r} (or earlier)",
        )


def refuse_targets_in_source(events: Events, source: Any, task: RankingTaskConfig, targets: TargetEvents) -> list[str]:
    """Refuse a source that contains what a ranking task asks for; all of it is done by the engine, which spills.

    Args:
        events: what the source events were chosen from.
        source: the chosen source events.
        task: the task.
        targets: its target events.

    Returns:
        Warnings: most targets are items that the user has in the source, at other times.

    Raises:
        TaskError: target events, or events later than the start of the target period, are in the source sequences.
    """
    if targets.own_events is None:
        chosen = replace(events, table=source)
        _refuse(_count(source.filter(_is_future_or_target(chosen, task))), task)
        return []
    units = [units_per_second(table) for table in (source, targets.table)]
    seconds = [_seconds(table["time"], unit) for table, unit in zip((source, targets.table), units, strict=True)]
    *moments, same_limits = _comparable(source, targets.table, units, seconds)
    source, target_events = (
        _with_moments(*columns) for columns in zip((source, targets.table), moments, seconds, strict=True)
    )
    keys = [name for name in ("user", "item", "domain") if name in source.columns and name in target_events.columns]
    _refuse_equal(target_events.semi_join(source, [*keys, "moment"]), task)
    if _count(target_events.filter(target_events["seconds"] % DAY != 0)) == 0:  # a file of dates
        _refuse_equal(target_events.semi_join(source, [*keys, "day"]), task)
    if task.domains is None and task.after is not None:
        if same_limits:
            in_period = at_or_after(source, task.after, events.time_kind, f"after of {task.name!r}")
        else:
            start = time_limit_seconds(task.after, targets.own_events.time_kind, units[1] or 1.0)
            assert start is not None
            in_period = source["seconds"] >= math.ceil(start)
        _refuse(_count(source.filter(in_period)), task)
    return _repeated_pair_warnings(source, target_events, task)


def _is_future_or_target(events: Events, task: RankingTaskConfig) -> Any:
    """Return the condition that a source event must not meet, for targets of the same files."""
    if task.domains is None:  # a later time: whatever happens from its start on is the future
        return at_or_after(events.table, task.after, events.time_kind, f"after of {task.name!r}")
    return is_target(events, task)


def _count(table: Any) -> int:
    return int(scalars(table.aggregate(n=table.count()))["n"])


def _refuse(count: int, task: RankingTaskConfig) -> None:
    if count:
        before = "" if task.after is None else f": {task.after!r}"
        raise TaskError(
            f"{count:,} events of the source are targets of task {task.name!r}, or later: {IN_THE_QUESTION}",
            remedy=f"leave them out of the source: set source.exclude_domains, or source.before{before}",
        )


def _refuse_equal(equal: Any, task: RankingTaskConfig) -> None:
    count = _count(equal)
    if not count:
        return
    first = equal.mutate(time=equal["time"].cast("string")).order_by(["user", "item", "time"]).limit(1)
    example = first.to_pyarrow().to_pylist()[0]
    raise TaskError(
        f"{count:,} target events of task {task.name!r} are source events too, such as user {example['user']!r}, item "
        f"{example['item']!r} at {example['time']}: {IN_THE_QUESTION}",
        remedy="leave them out of the source (source.before, source.exclude_domains) or out of the task's files; if "
        "they are other items that have the same ids, write the ids apart",
    )


def _with_moments(table: Any, moment: Any, seconds: Any) -> Any:
    """Return user, item (as text, whatever the ids are), time, moment, seconds, day and, where there is one, domain."""
    columns = [name for name in ("time", "domain") if name in table.columns]
    day = (seconds / DAY).floor().cast("int64")
    return table.select("user", *columns, item=table["item"].cast("string"), moment=moment, seconds=seconds, day=day)


def _comparable(source: Any, targets: Any, units: list[float | None], seconds: list[Any]) -> tuple[Any, Any, bool]:
    """Return the times of both in one form, and whether the configured time limits mean the same in both.

    Times that are written in two ways are compared in whole seconds: the same log may have been exported with dates,
    and with numbers of seconds or milliseconds.
    """
    if source["time"].type().is_timestamp() and targets["time"].type().is_timestamp():
        return source["time"].truncate("s"), targets["time"].truncate("s"), True
    if None not in units and units[0] == units[1]:
        if source["time"].type() == targets["time"].type():
            return source["time"], targets["time"], True
        return source["time"].cast("float64"), targets["time"].cast("float64"), True
    return seconds[0], seconds[1], False


def _seconds(time: Any, unit: float | None) -> Any:
    if unit is None:
        return time.truncate("s").epoch_seconds().cast("int64")
    return (time.cast("float64") / unit).floor().cast("int64")


def _repeated_pair_warnings(source: Any, target_events: Any, task: RankingTaskConfig) -> list[str]:
    pairs = target_events.select("user", "item").distinct()
    total, repeated = _count(pairs), _count(pairs.semi_join(source, ["user", "item"]))
    if repeated < REPEATED_SHARE * total:
        return []
    return [
        f"task {task.name}: {repeated:,} of its {total:,} pairs of user and item are in the source too, at other times "
        "or in another domain; if these are the same events, only written otherwise, leave them out of the source "
        f"(source.before, source.exclude_domains): {IN_THE_QUESTION}"
    ]
