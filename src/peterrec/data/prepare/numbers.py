"""Users of a regression task: each with the number that is to be predicted, exactly as the table has it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from peterrec.config import EventsConfig, RegressionTaskConfig
from peterrec.data.arrow_arrays import single_array
from peterrec.data.prepare.engine import Engine
from peterrec.data.prepare.labels import Labelled, Mask, labelled_rows
from peterrec.data.prepare.source_events import Users
from peterrec.errors import TaskError

FloatArray = npt.NDArray[np.float64]


def numbers_from_table(
    engine: Engine, task: RegressionTaskConfig, events: EventsConfig, users: Users, eligible: Mask
) -> Labelled:
    """Read numbers from a table with one row per user; users without one are left out, as those without a label.

    They are float64: those of a column of floats as they are, all others the float64 nearest to what is written.

    Raises:
        DataError: a user stands twice in the table, or it cannot be read.
        TaskError: no user with a number has source events, or a value is no finite number.
    """
    rows, steps = labelled_rows(engine, task.labels, task, (events, users, eligible))
    if "number" in rows.column_names:
        numbers = rows["number"].to_numpy().astype(np.float64)
    else:
        numbers = np.array([number_of(text) for text in rows["label"].to_pylist()], dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise TaskError(
            f"the value {rows['label'][int(wrong[0])].as_py()!r} of {task.labels.label!r} is no finite number, and "
            f"task {task.name!r} predicts numbers",
            remedy="correct it, name it under labels.missing of the task, or predict classes (--classify)",
            path=task.labels.path,
        )
    return Labelled(rows["place"].to_numpy().astype(np.int64), single_array(rows["user"]), numbers=numbers, steps=steps)


def number_of(text: str) -> float:
    """Return a number as text has it; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def check_numbers(task: RegressionTaskConfig, numbers: FloatArray, train: FloatArray) -> None:
    """Refuse numbers that nothing can be learned of.

    Raises:
        TaskError: all are the same, of all users or of the train users.
    """
    for values, noun in ((numbers, "users"), (train, "train users")):
        if len(np.unique(values)) < 2:
            raise TaskError(
                f"all {noun} of task {task.name!r} have the number {values[0]:g}",
                remedy="a regression task needs numbers that differ: check the column, or give it more users",
            )


def describe_numbers(numbers: FloatArray) -> dict[str, float]:
    """Return the size and spread of numbers, as the manifest has them."""
    return {
        "min": float(numbers.min()),
        "median": float(np.median(numbers)),
        "mean": float(numbers.mean()),
        "max": float(numbers.max()),
        "deviation": float(numbers.std()),
    }
