"""Targets of a ranking task: items of another domain, or of a later time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ibis
import numpy as np
import pyarrow as pa

from peterrec.config import EventsConfig, RankingTaskConfig
from peterrec.data.arrow_arrays import as_text, from_lists, single_array
from peterrec.data.catalogue import Catalogue
from peterrec.data.prepare.engine import Engine, scalars
from peterrec.data.prepare.event_filters import earlier_than, known_domains, target_filter
from peterrec.data.prepare.events import SORT_COLUMNS, Events, open_events
from peterrec.data.prepare.labels import Labelled, Mask, user_step
from peterrec.data.prepare.source_events import Source, Users
from peterrec.data.sequences import IntArray, Sequences
from peterrec.errors import TaskError


@dataclass(frozen=True)
class TargetEvents:
    """Target events of users who have source events.

    Attributes:
        config: of the task.
        own_events: the events of the task's own files that they are of; None if they are of the files of the source.
        table: engine table: place, user, time, [order,] [line,] [domain,] item.
        cut: place and cut, the time of each user's first target event; None if all of the history is used.
        all_users: users with target events, with or without source events.
        source: expression of the source events: user, item, time, whatever the item.
        warnings: what looks wrong in the further files.
    """

    config: RankingTaskConfig
    own_events: Events | None
    table: Any
    cut: Any | None
    all_users: int
    source: Any
    warnings: tuple[str, ...] = ()


def target_events(
    engine: Engine, task: RankingTaskConfig, events: Events, settings: EventsConfig, source: Source
) -> TargetEvents:
    """Choose the target events of a task.

    Raises:
        TaskError: there are none, or none of users with source events.
        DataError: as in `open_events`, for a task with files of its own.
    """
    own_events = _own_events(engine, task, settings)
    searched = own_events if own_events is not None else events
    if task.history == "before-first-target" and searched.time_kind != events.time_kind:
        raise TaskError(
            f"the times of task {task.name!r} are of kind {searched.time_kind}, those of the source {events.time_kind}",
            remedy="write them alike, or use history: all",
        )
    chosen = searched.table.filter(is_target(searched, task))
    total = int(scalars(chosen.aggregate(n=chosen["user"].nunique()))["n"])
    if not total:
        remedy = f"check its domains, after and before{known_domains(searched.table)}"
        raise TaskError(f"task {task.name!r} has no target events", remedy=remedy)
    columns = [column for column in (*SORT_COLUMNS, "domain") if column in chosen.columns]
    joined = chosen.inner_join(source.users.table, "user").select("place", "user", *columns, "item")
    table = engine.store("targets", joined)
    cut = None
    if task.history == "before-first-target":
        cut = engine.store("first_targets", table.group_by("place").aggregate(cut=table["time"].min()))
    # An event that comes after all that is read is no item that the user has seen.
    read = source.chosen.filter(earlier_than(source.chosen, task.until, events.time_kind, f"until of {task.name!r}"))
    return TargetEvents(task, own_events, table, cut, total, read, own_events.warnings if own_events else ())


def _own_events(engine: Engine, task: RankingTaskConfig, settings: EventsConfig) -> Events | None:
    if task.events is None:
        return None
    return open_events(engine, task_events(task.events, settings), "own_events")


def task_events(task_files: EventsConfig, settings: EventsConfig) -> EventsConfig:
    """Return the settings by which the files of a task are read; what they leave out is as for the other files."""
    named = task_files.model_dump(include=task_files.model_fields_set)
    return EventsConfig.model_validate(settings.model_dump(exclude={"paths", "features"}) | named)


def is_target(events: Events, task: RankingTaskConfig) -> Any:
    """Return the condition that an event is a target event."""
    return target_filter(events.table, task, events.time_kind, f"of {task.name!r}")


def label_targets(engine: Engine, events: TargetEvents, users: Users, eligible: Mask) -> Labelled:
    """List the distinct targets of each eligible user, in order of time, and make the target catalogue.

    Args:
        engine: of the tables.
        events: the target events.
        users: users with source events.
        eligible: (users,) who has enough history.

    Raises:
        TaskError: no item has enough users.
    """
    task, table = events.config, events.table
    with_source = int(scalars(table.aggregate(n=table["place"].nunique()))["n"])
    steps = [user_step("users with target events", events.all_users)]
    steps.append(user_step("with source events", with_source, events.all_users - with_source, "no source event"))
    pairs = engine.store("target_pairs", _pairs(engine, events, users, eligible))  # which is asked three times
    remaining = int(scalars(pairs.aggregate(n=pairs["place"].nunique()))["n"])
    reason = f"fewer than {task.min_user_events} source events"
    if events.cut is not None:
        reason += " before the first target"
    if task.until is not None:
        reason += f" before {task.until}"
    steps.append(user_step("with a history", remaining, with_source - remaining, reason))
    catalogue = _target_catalogue(pairs, task)
    places, user_ids, targets = _collect(engine, pairs, catalogue)
    steps.append(
        user_step(
            "with a target of the catalogue", len(places), remaining - len(places),
            f"their targets have fewer than {task.min_item_events} users",
        )
    )  # fmt: skip
    seen_targets = None if task.domains is not None else _seen_targets(engine, events, users, catalogue, places)
    return Labelled(places, user_ids, targets=targets, catalogue=catalogue, seen_targets=seen_targets, steps=steps)


def _seen_targets(
    engine: Engine, targets: TargetEvents, users: Users, catalogue: Catalogue, places: IntArray
) -> Sequences:
    """List the targets that each user has among the source events that the task may read; rows as in `places`."""
    index = pa.table({"id": as_text(catalogue.ids), "target": np.arange(len(catalogue), dtype=np.int32)})
    items = engine.upload("seen_items", index)
    source = targets.source.select("user", "time", id=targets.source["item"].cast("string"))
    events = source.inner_join(items, "id").inner_join(users.table, "user")
    if targets.cut is not None:
        events = events.inner_join(targets.cut, "place")
        events = events.filter(events["time"] < events["cut"])
    pairs = events.select("place", "target").distinct().order_by("place", "target").to_pyarrow()
    in_task = np.isin(pairs["place"].to_numpy(), places)
    rows = np.searchsorted(places, pairs["place"].to_numpy()[in_task])
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(places)))]).astype(np.int64)
    return Sequences(pairs["target"].to_numpy()[in_task].astype(np.int32), offsets)


def _pairs(engine: Engine, targets: TargetEvents, users: Users, eligible: Mask) -> Any:
    """Return place, user, item, the first time of the pair, and whether the user is a train user."""
    places = np.flatnonzero(eligible)
    rows = pa.table({"place": places, "train": users.parts[places] == 0})
    chosen = targets.table.inner_join(engine.upload("eligible", rows), "place")
    if targets.cut is not None:
        chosen = chosen.inner_join(targets.cut, "place")
        chosen = chosen.filter(chosen["time"] == chosen["cut"])
    keys = [name for name in SORT_COLUMNS if name in chosen.columns]
    first = _ordered(chosen, keys[:-1], keys[-1])[0]  # of the whole event: its least order may be another event's
    grouped = chosen.group_by(["place", "user", "item", "train"]).aggregate(first=first)
    return grouped.mutate(**{name: grouped["first"][name] for name in keys}).drop("first")


def _target_catalogue(pairs: Any, task: RankingTaskConfig) -> Catalogue:
    counted = pairs.group_by("item").aggregate(users=pairs.count(), train=pairs["train"].cast("int64").sum())
    # Counts are of train users only: they are where a head starts, and what a popularity baseline knows.
    items = counted.filter(counted["users"] >= task.min_item_events).order_by([ibis.desc("train"), "item"]).to_pyarrow()
    if len(items) < 2:
        raise TaskError(
            f"task {task.name!r}: {len(items)} items have {task.min_item_events} users; at least 2 are needed",
            remedy="lower its min_item_events, or choose a larger domain or time",
        )
    return Catalogue(items["item"], items["train"].to_numpy(), first=0)


def _collect(engine: Engine, pairs: Any, catalogue: Catalogue) -> tuple[IntArray, pa.Array, Sequences]:
    index = pa.table({"item": catalogue.ids, "target": np.arange(len(catalogue), dtype=np.int32)})
    items = engine.upload("target_items", index)
    named = pairs.inner_join(items, "item")
    keys: Sequence[str] = [name for name in SORT_COLUMNS if name in named.columns]
    grouped = named.group_by(["place", "user"]).aggregate(events=_ordered(named, keys, "target"))
    grouped_targets = grouped.select("place", "user", targets=grouped["events"].map(lambda event: event["target"]))
    table = grouped_targets.order_by("place").to_pyarrow()
    places = table["place"].to_numpy().astype(np.int64)
    return places, single_array(table["user"]), from_lists(table["targets"])


def _ordered(table: Any, columns: Sequence[str], value: str) -> Any:
    """Aggregate the values of a group, sorted by columns.

    Structs are collected and the array is sorted, because an ordered collect does not exist on every engine.
    """
    return ibis.struct({name: table[name] for name in (*columns, value)}).collect().sort()
