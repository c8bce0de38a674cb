"""Labelled users of a task: classes from a table or from later activity, targets from other events."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from peterrec.config import (
    ActivityConfig,
    ClassificationTaskConfig,
    EventsConfig,
    LabelsConfig,
    LabelTableConfig,
    MultilabelTaskConfig,
    RegressionTaskConfig,
)
from peterrec.data.arrow_arrays import single_array
from peterrec.data.catalogue import Catalogue
from peterrec.data.prepare.columns import check_types, is_mark, read_id, without_mark
from peterrec.data.prepare.engine import Engine, scalars
from peterrec.data.prepare.event_filters import at_or_after, earlier_than
from peterrec.data.prepare.events import Events
from peterrec.data.prepare.files import InputFile, describe
from peterrec.data.prepare.source_events import Step, Users
from peterrec.data.sequences import IntArray, Sequences
from peterrec.errors import DataError, TaskError

Mask = npt.NDArray[np.bool_]
TableTask = ClassificationTaskConfig | RegressionTaskConfig | MultilabelTaskConfig


@dataclass(frozen=True)
class Labelled:
    """Users of a task, with their classes, targets, numbers or labels.

    Attributes:
        places: (n,) position of each user among the users with source events.
        user_ids: (n,) text.
        labels: (n,) class of each (classification).
        class_names: names of the classes, or of the labels.
        targets: n rows of target indices (ranking).
        catalogue: the targets; its counts are of train users only.
        seen_targets: n rows of targets that stand in the user's source events, all of them, ascending; None where
            targets are other items than those of the source.
        numbers: (n,) float64 number of each (regression).
        label_sets: n rows of labels, ascending (multilabel).
        steps: what was kept and dropped, and why.
    """

    places: IntArray
    user_ids: pa.Array
    labels: IntArray | None = None
    class_names: tuple[str, ...] = ()
    targets: Sequences | None = None
    catalogue: Catalogue | None = None
    seen_targets: Sequences | None = None
    numbers: npt.NDArray[np.float64] | None = None
    label_sets: Sequences | None = None
    steps: list[Step] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.places)


def user_step(description: str, remaining: int, dropped: int = 0, reason: str = "") -> Step:
    """Return a step of the filter summary of a task."""
    return {"what": description, "users": int(remaining), "dropped": int(dropped), "why": reason if dropped else ""}


def describe_labels(config: LabelTableConfig) -> InputFile:
    """Return the columns and types of a table of labels; errors as in `describe` and `check_types`."""
    path = Path(config.path)
    if not path.is_file():
        raise DataError("there is no such file", remedy="check the path of the labels", path=path)
    remedy = (
        "say which columns hold the users and the labels: `labels.user` and `labels.label` of the task, in a --config"
    )
    needed = [config.user, config.label]
    file = describe(path, needed, separator=config.separator, columns=config.columns, remedy=remedy)
    check_types(file, [config.user], [])
    return file


def from_table(
    engine: Engine, task: ClassificationTaskConfig, events: EventsConfig, users: Users, eligible: Mask
) -> Labelled:
    """Read classes from a table with one row per user.

    Raises:
        DataError: a user stands twice in the table, or it cannot be read.
        TaskError: no labelled user has source events.
    """
    assert task.labels is not None
    rows, steps = labelled_rows(engine, task.labels, task, (events, users, eligible))
    if task.labels.bins:
        rows = rows.set_column(rows.column_names.index("label"), "label", _binned(rows["label"], task.labels))
    rows = _common_classes(rows, task, steps)
    encoded = single_array(rows["label"]).dictionary_encode()  # no object in memory for each user
    present = encoded.dictionary.to_pylist()
    in_order = bin_names(task.labels.bins) if task.labels.bins else _sorted_class_names(set(present))
    names = [name for name in in_order if name in set(present)]
    codes = {name: code for code, name in enumerate(names)}
    labels = np.array([codes[name] for name in present], dtype=np.int64)[encoded.indices.to_numpy()]
    places = rows["place"].to_numpy().astype(np.int64)
    return Labelled(places, single_array(rows["user"]), labels, tuple(names), steps=steps)


def labelled_rows(
    engine: Engine,
    config: LabelTableConfig,
    task: TableTask,
    context: tuple[EventsConfig, Users, Mask],
) -> tuple[pa.Table, list[Step]]:
    """Return the users of a table with one row per user who have a label and a history, and the steps to them.

    Args:
        engine: reads the table.
        config: of the table.
        task: that it belongs to.
        context: settings of the events, users with source events, and which of these have enough of them.

    Returns:
        `place`, `user` and `label` (text, or a list of texts) of each user by place; of a column of floats also
        `number` (float64).

    Raises:
        DataError: a user stands twice in the table, or it cannot be read.
        TaskError: no labelled user has source events.
    """
    events, users, eligible = context
    file = describe_labels(config)
    raw = engine.read("labels", [file], {"user": config.user, "label": config.label})
    user = without_mark(raw["user"], events.missing)
    table = engine.rows(
        raw.select(
            user=read_id(user, "integer" if events.ids == "integer" else "text").cast("string"),
            **_label_columns(raw["label"], config),
        ),
        reused=True,
    )
    _no_duplicates(table, file)
    counts = scalars(table.aggregate(n=table.count(), known=table["label"].notnull().cast("int64").sum()))
    labelled = table.drop_null(["user", "label"])
    rows = labelled.inner_join(users.table, "user").order_by("place").to_pyarrow()
    _check_any_labelled(len(rows), labelled, users, file)
    steps = [
        user_step("users in the table", counts["n"]),
        user_step("with a label", counts["known"], counts["n"] - counts["known"], _without_label(table, config)),
        user_step("with source events", len(rows), counts["known"] - len(rows), _without_events(labelled, users)),
    ]
    return keep_users_with_history(rows, task, eligible, steps), steps


def keep_users_with_history(rows: pa.Table, task: TableTask, eligible: Mask, steps: list[Step]) -> pa.Table:
    """Keep the users with enough source events, and note how many have fewer."""
    remaining = rows.filter(pa.array(eligible[rows["place"].to_numpy()]))
    if len(remaining) < len(rows):
        until = "" if task.until is None else f" before {task.until}"
        reason = f"fewer than {task.min_user_events} source events{until}"
        steps.append(user_step("with a history", len(remaining), len(rows) - len(remaining), reason))
    return remaining


def _label_columns(column: Any, config: LabelTableConfig) -> dict[str, Any]:
    if column.type().is_array():
        return {"label": column.cast("array<string>"), "mark": ibis.null("string")}
    text, is_missing = _label_text(column), is_mark(_label_text(column), config.missing)
    labels = {"label": is_missing.ifelse(None, text), "mark": is_missing.ifelse(text, None).nullif("")}
    return labels | ({"number": column.cast("float64")} if column.type().is_floating() else {})


def _label_text(column: Any) -> Any:
    if column.type().is_floating():  # integers with gaps are that in pandas: 1.0 is the class 1
        column = column.isnan().ifelse(None, column)
        is_whole = (column % 1 == 0) & (column.abs() < 2**53)  # not by `floor`, which makes an int64 of 1e20
        return is_whole.ifelse(column.try_cast("int64").cast("string"), column.cast("string"))
    return column.cast("string")


def _no_duplicates(table: Any, file: InputFile) -> None:
    counted = table.group_by("user").aggregate(n=table.count())
    twice = counted.filter((counted["n"] > 1) & counted["user"].notnull()).order_by("user").limit(3).to_pyarrow()
    if len(twice):
        raise DataError(
            f"holds users more than once, such as {', '.join(map(repr, twice['user'].to_pylist()))}",
            remedy="give each user one row",
            path=file.path,
        )


def _check_any_labelled(count: int, labelled: Any, users: Users, file: InputFile) -> None:
    if count:
        return
    labelled_ids = labelled["user"].name("user").as_table().order_by("user").limit(1).to_pyarrow()["user"].to_pylist()
    event_ids = users.table.select("user").order_by("user").limit(1).to_pyarrow()["user"].to_pylist()
    raise TaskError(
        f"no labelled user has source events: its users are such as {labelled_ids}, those of the events such as "
        f"{event_ids}",
        remedy="check that both write user ids the same way, and that the label column is filled",
        path=file.path,
    )


def _without_label(table: Any, config: LabelTableConfig) -> str:
    """Return how rows without a label look."""
    marks = table.select("mark").drop_null().distinct().order_by("mark").limit(5).to_pyarrow()["mark"].to_pylist()
    return " or ".join([f"{config.label!r} is empty", *map(repr, marks)])


def _without_events(labelled: Any, users: Users) -> str:
    lost = labelled.anti_join(users.table, "user").select("user").order_by("user").limit(1).to_pyarrow()
    example = f", such as {lost['user'][0].as_py()!r}" if len(lost) else ""
    return f"no source event{example}"


def _common_classes(rows: pa.Table, task: ClassificationTaskConfig, steps: list[Step]) -> pa.Table:
    counts = rows["label"].value_counts().to_pylist()
    rare = {row["values"] for row in counts if row["counts"] < task.min_class_users}
    is_rare = pc.is_in(rows["label"], value_set=pa.array(rare, rows["label"].type))
    remaining = rows.filter(pc.invert(is_rare))
    if rare:
        classes = f"{len(rare)} classes have" if len(rare) > 1 else f"the class {next(iter(rare))!r} has"
        reason = f"{classes} fewer than {task.min_class_users} users"
        steps.append(user_step("of common classes", len(remaining), len(rows) - len(remaining), reason))
    return remaining


def bin_names(bounds: Sequence[float]) -> list[str]:
    """Return the names of the classes that bounds make of numbers, from low to high."""
    texts = [f"{bound:g}" for bound in bounds]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(texts)]
    return [f"below {texts[0]}", *between, f"{texts[-1]} and above"]


def _binned(labels: pa.ChunkedArray, config: LabelsConfig) -> pa.Array:
    texts = labels.to_pylist()
    if wrong := [text for text in texts if not _is_number(text)]:
        raise TaskError(
            f"the label {wrong[0]!r} is no number, and {config.label!r} is put into bins",
            remedy="correct it, name it under labels.missing, or leave out labels.bins",
            path=config.path,
        )
    numbers = np.asarray(texts, dtype=np.float64)
    names = pa.array(bin_names(config.bins))
    return names.take(pa.array(np.searchsorted(config.bins, numbers, side="right")))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _sorted_class_names(names: Collection[str]) -> list[str]:
    """Order class names as numbers where all of them are, else as text."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return sorted(names)
    if not all(math.isfinite(number) for number in numbers.values()):
        return sorted(names)
    return sorted(names, key=lambda name: (numbers[name], name))  # 7 and 07 are two classes


def from_activity(task: ClassificationTaskConfig, events: Events, users: Users, eligible: Mask) -> Labelled:
    """Label users by whether they have an event in a period: class 1 where they do."""
    assert task.activity is not None
    inside = in_period(events, task.activity, task.name)
    active = inside.select("user").distinct().mutate(active=True)
    joined = users.table.left_join(active, "user")
    labelled = joined.select("place", "user", label=joined["active"].fill_null(False).cast("int64"))
    table = labelled.order_by("place").to_pyarrow()
    steps = [user_step("users with source events", len(table))]
    table = keep_users_with_history(table, task, eligible, steps)
    names = (task.activity.inactive, task.activity.active)
    return Labelled(
        table["place"].to_numpy().astype(np.int64),
        single_array(table["user"]),
        table["label"].to_numpy().astype(np.int64),
        names,
        steps=steps,
    )


def in_period(events: Events, period: ActivityConfig, name: str) -> Any:
    """Return the events of a period, of every domain."""
    table, kind = events.table, events.time_kind
    condition = at_or_after(table, period.after, kind, f"activity.after of {name!r}")
    return table.filter(condition & earlier_than(table, period.before, kind, f"activity.before of {name!r}"))
