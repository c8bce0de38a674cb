"""Tasks as they are written: users split by the hash of their id, each with a sequence and a label or targets."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from peterrec.config import (
    ClassificationTaskConfig,
    EventsConfig,
    HistoryCutConfig,
    MultilabelTaskConfig,
    RankingTaskConfig,
    RegressionTaskConfig,
    SplitConfig,
    TaskConfig,
    TaskKind,
)
from peterrec.data import arrow_arrays
from peterrec.data.arrow_arrays import feature_lists, to_lists
from peterrec.data.corpus import PARTS
from peterrec.data.prepare.engine import Engine
from peterrec.data.prepare.event_filters import parse_time_limit
from peterrec.data.prepare.events import Events
from peterrec.data.prepare.label_sets import check_label_sets, label_sets_from_table
from peterrec.data.prepare.labels import Labelled, Mask, from_activity, from_table
from peterrec.data.prepare.numbers import check_numbers, describe_numbers, number_of, numbers_from_table
from peterrec.data.prepare.sortable import in_nanoseconds
from peterrec.data.prepare.source_events import Source, Users
from peterrec.data.prepare.targets import TargetEvents, label_targets
from peterrec.data.sequences import IntArray, Sequences
from peterrec.errors import TaskError
from peterrec.storage import write_json

USERS_AT_ONCE = 100_000
FILTERS: dict[TaskKind, str] = {
    "classification": "min_user_events or min_class_users",
    "ranking": "min_user_events or min_item_events",
    "regression": "min_user_events",
    "multilabel": "min_user_events",
}
"""By kind of task: the settings that leave out users."""

MOST_REPEATS = 0.01  # of the targets, that `recommend` may leave out by default


@dataclass(frozen=True)
class UserHistories:
    """Place and length of the sequence of each of a task's users.

    Attributes:
        sequences: memory-mapped rows.
        rows: (users,) row of each user with source events; -1 where there is none.
        lengths: (users,) length of it.
    """

    sequences: Sequences
    rows: IntArray
    lengths: IntArray


def cut_of(task: TaskConfig) -> HistoryCutConfig:
    """Return which events of a sequence the model of a task reads."""
    return HistoryCutConfig(**{name: getattr(task, name) for name in HistoryCutConfig.model_fields})


def task_ends(task: TaskConfig, events: Events, source: Source, targets: TargetEvents | None) -> Any | None:
    """Return place and cut, the time before which the events are that a task reads; None: all are.

    Raises:
        ConfigError: `until` is not of the kind of the times.
    """
    first_target = None if targets is None else targets.cut
    if task.until is None:
        return first_target
    nanoseconds = in_nanoseconds(source.table["time"].type())
    limit = parse_time_limit(task.until, events.time_kind, f"until of {task.name!r}", nanoseconds=nanoseconds)
    if first_target is None:
        return source.users.table.select("place", cut=limit)
    places = source.users.table.select("place").left_join(first_target, "place")
    return places.select("place", cut=ibis.least(ibis.coalesce(places["cut"], limit), limit))


def label_task(
    engine: Engine,
    task: TaskConfig,
    users: Users,
    histories: UserHistories,
    context: tuple[Events, EventsConfig],
    targets: TargetEvents | None,
) -> Labelled:
    """Find the users of a task and what is to be learned of them.

    Raises:
        TaskError, DataError: as in `from_table`, `numbers_from_table`, `label_sets_from_table` and `label_targets`.
    """
    eligible: Mask = histories.lengths >= task.min_user_events
    if targets is not None:
        return label_targets(engine, targets, users, eligible)
    if isinstance(task, RegressionTaskConfig):
        return numbers_from_table(engine, task, context[1], users, eligible)
    if isinstance(task, MultilabelTaskConfig):
        return label_sets_from_table(engine, task, context[1], users, eligible)
    assert isinstance(task, ClassificationTaskConfig)
    if task.labels is not None:
        return from_table(engine, task, context[1], users, eligible)
    return from_activity(task, context[0], users, eligible)


def write_task(
    folder: Path, task: TaskConfig, labelled: Labelled, source: Source, histories: UserHistories, split: SplitConfig
) -> dict[str, Any]:
    """Write a task to `folder` and return its entry of the manifest.

    A split without test users is for a model that somebody else evaluates.

    Raises:
        TaskError: a part without users, fewer than two classes or numbers, or a class that no train user has.
    """
    part = source.users.parts[labelled.places]
    _check_parts(task, labelled, part, [name for name in PARTS if name != "test" or split.test])
    folder.mkdir(parents=True)
    digest = hashlib.sha256(f"{task.name} {task.kind} {labelled.class_names}\n".encode())
    if labelled.catalogue is not None:
        labelled.catalogue.write(folder / "targets.parquet")
        digest.update(labelled.catalogue.fingerprint.encode())
    for number, name in enumerate(PARTS):
        chosen = np.flatnonzero(part == number)
        _write_part(folder / f"{name}.parquet", chosen, labelled, histories, digest.update)
    entry = _entry(task, labelled, part, histories, digest.hexdigest())
    if isinstance(task, RankingTaskConfig):
        entry |= _seen_items(labelled, np.flatnonzero(part == 0))
    write_json(folder / "task.json", entry | {"class_names": list(labelled.class_names)})
    return entry


def _entry(
    task: TaskConfig, labelled: Labelled, part: IntArray, histories: UserHistories, digest: str
) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": task.name, "kind": task.kind}
    entry["users"] = {name: int((part == number).sum()) for number, name in enumerate(PARTS)}
    entry["median_history"] = float(np.median(histories.lengths[labelled.places]))
    held = labelled.labels if labelled.label_sets is None else labelled.label_sets.items
    if held is not None:
        counts = np.bincount(held, minlength=len(labelled.class_names)).tolist()
        entry["classes" if labelled.label_sets is None else "labels"] = [
            {"name": name, "users": count} for name, count in zip(labelled.class_names, counts, strict=True)
        ]
    if labelled.numbers is not None:
        entry["numbers"] = describe_numbers(labelled.numbers)
    if labelled.catalogue is not None and labelled.targets is not None:
        entry |= {"targets": len(labelled.catalogue), "pairs": len(labelled.targets.items)}
        entry["targets_fingerprint"] = labelled.catalogue.fingerprint
    return entry | {"fingerprint": digest, "steps": labelled.steps}


def _seen_items(labelled: Labelled, train: IntArray) -> dict[str, Any]:
    """Decide whether items of a user's own history can be answers, by what the train users did."""
    if labelled.seen_targets is None:
        reason = "targets are of another domain: an item of the history with the same id is another"
        return {"exclude_seen": False, "exclude_seen_reason": reason}
    assert labelled.targets is not None
    assert labelled.catalogue is not None
    targets, in_history, width = (
        labelled.targets.take(train),
        labelled.seen_targets.take(train),
        len(labelled.catalogue),
    )
    repeats = np.isin(targets.repeat() * width + targets.items, in_history.repeat() * width + in_history.items)
    fraction = float(repeats.mean()) if len(repeats) else 0.0
    reason = f"{100 * fraction:.1f} % of the targets of train users are in their histories"
    return {"repeat_fraction": fraction, "exclude_seen": fraction < MOST_REPEATS, "exclude_seen_reason": reason}


def _check_parts(task: TaskConfig, labelled: Labelled, part: IntArray, needed: Sequence[str]) -> None:
    if not len(labelled):
        last = labelled.steps[-1]
        raise TaskError(
            f"no user is left for task {task.name!r}: {last['why']}",
            remedy=f"lower its {FILTERS[task.kind]}",
        )
    empty = [name for number, name in enumerate(PARTS) if name in needed and not (part == number).any()]
    if empty:
        raise TaskError(
            f"task {task.name!r} has {len(labelled)} users and none for {' and '.join(empty)}",
            remedy="give it more users, or change the shares under `split`",
        )
    if labelled.numbers is not None:
        assert isinstance(task, RegressionTaskConfig)
        check_numbers(task, labelled.numbers, labelled.numbers[part == 0])
    if labelled.label_sets is not None:
        assert isinstance(task, MultilabelTaskConfig)
        check_label_sets(task, labelled, np.flatnonzero(part == 0))
    if labelled.labels is None:
        return
    present = np.unique(labelled.labels)
    if len(present) < 2:
        only = labelled.class_names[int(present[0])]
        raise TaskError(
            f"all users of task {task.name!r} have the label {only!r}",
            remedy="a task needs at least two classes: check the label column or the period",
        )
    counts = np.bincount(labelled.labels, minlength=len(labelled.class_names))
    missing = np.setdiff1d(np.arange(len(counts)), labelled.labels[part == 0])
    if len(missing):
        rare = missing[np.argmax(counts[missing])]  # the most frequent: what leaves it out leaves out all of them
        raise TaskError(
            f"the label {labelled.class_names[int(rare)]!r} of task {task.name!r} occurs only among valid or test "
            f"users ({counts[rare]} of them), so it cannot be learned",
            remedy="merge rare labels (numbers by labels.bins), or leave them out with "
            f"min_class_users: {counts[rare] + 1} or more{_or_as_numbers(labelled.class_names)}",
        )


def _or_as_numbers(names: Sequence[str]) -> str:
    if not all(math.isfinite(number_of(name)) for name in names):
        return ""
    return ", or predict the numbers themselves: a task of kind regression (--regress, regress=)"


def one_class_part_warnings(task: TaskConfig, labelled: Labelled, users: Users) -> list[str]:
    """Return a warning for the valid and the test part if all users there are of one class: any answer is as good."""
    if labelled.labels is None:
        return []
    part, warnings = users.parts[labelled.places], []
    for number, name in enumerate(PARTS):
        classes = np.unique(labelled.labels[part == number])
        if len(classes) == 1:
            warnings.append(
                f"task {task.name}: all {int((part == number).sum()):,} {name} users have the label "
                f"{labelled.class_names[int(classes[0])]!r}, so no model can be told from another there: label more "
                f"users, or raise split.{name}"
            )
    return warnings


def similar_class_warnings(task: TaskConfig, labelled: Labelled) -> list[str]:
    """Return a warning about classes whose names differ only by blanks, by case, or by how a number is written."""
    alike: dict[Any, list[str]] = {}
    for name in labelled.class_names:
        alike.setdefault(_plain_name(name), []).append(name)
    spelled_alike = [names for names in alike.values() if len(names) > 1]
    shown = "; ".join(", ".join(map(repr, names)) for names in spelled_alike[:3])
    return (
        [f"task {task.name}: some classes look like one that is written in several ways ({shown})"]
        if spelled_alike
        else []
    )


def _plain_name(name: str) -> Any:
    try:
        return float(name)
    except ValueError:
        return name.strip().casefold()


def _write_part(
    path: Path, chosen: IntArray, labelled: Labelled, histories: UserHistories, digest: Callable[[bytes], None]
) -> None:
    ragged = pa.list_(pa.int32())
    fields = [("user_id", pa.string()), ("sequence", ragged)]
    if labelled.numbers is not None:
        fields.append(("number", pa.float64()))
    elif labelled.label_sets is not None:
        fields.append(("labels", ragged))
    else:
        fields.append(("label", pa.int64()) if labelled.labels is not None else ("targets", ragged))
    if labelled.seen_targets is not None:
        fields.append(("seen", ragged))
    if histories.sequences.features is not None:
        fields.append(("features", ragged))
    schema = pa.schema(fields)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _blocks(chosen, labelled, histories):
            sequences = histories.sequences.take(histories.rows[labelled.places[rows]])
            user_ids = labelled.user_ids.take(pa.array(rows)).cast(pa.string())  # so few are no large strings
            columns = [user_ids, to_lists(sequences)]
            if labelled.labels is not None:
                columns.append(pa.array(labelled.labels[rows]))
                digest(labelled.labels[rows].tobytes())
            elif labelled.numbers is not None:
                columns.append(pa.array(labelled.numbers[rows]))
                digest(labelled.numbers[rows].tobytes())
            else:
                targets = _lists_of(labelled).take(rows)
                columns.append(to_lists(targets))
                digest(targets.offsets.tobytes() + targets.items.tobytes())
            if labelled.seen_targets is not None:
                columns.append(to_lists(labelled.seen_targets.take(rows)))
            if sequences.features is not None:
                columns += feature_lists(sequences).values()
                digest(np.ascontiguousarray(sequences.features).tobytes())
            digest("\n".join(user_ids.to_pylist()).encode())
            digest(sequences.offsets.tobytes() + np.ascontiguousarray(sequences.items).tobytes())
            writer.write_table(pa.table(columns, schema=schema))


def _lists_of(labelled: Labelled) -> Sequences:
    """Return the targets, or the labels, of each user."""
    lists = labelled.targets if labelled.label_sets is None else labelled.label_sets
    assert lists is not None
    return lists


def _blocks(chosen: IntArray, labelled: Labelled, histories: UserHistories) -> Iterator[IntArray]:
    """Yield the rows of users who are written together: few enough for lists of the plain type."""
    values = histories.sequences.lengths_of(histories.rows[labelled.places[chosen]])
    for sequences in (labelled.targets, labelled.seen_targets, labelled.label_sets):
        values = values if sequences is None else values + sequences.lengths_of(chosen)
    ends, start = np.cumsum(values), 0
    while start < len(chosen):
        before = ends[start - 1] if start else 0
        fitting = int(np.searchsorted(ends, before + arrow_arrays.LIMIT, side="right"))
        end = min(start + USERS_AT_ONCE, max(start + 1, fitting))
        yield chosen[start:end]
        start = end
