"""The metric of a bundle over time, once labels of its users arrive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from peterrec.arguments import did_you_mean
from peterrec.artifacts.bundle_io import Bundle
from peterrec.data.frames import is_dataframe
from peterrec.errors import ConfigError, DataError
from peterrec.evaluation.intervals import Resamples, Statistic, bootstrap
from peterrec.evaluation.number_statistics import regression_statistics
from peterrec.evaluation.protocols import classification_outcome, regression_outcome
from peterrec.evaluation.statistics import classification_statistics
from peterrec.watching.result import PeriodMetric

RESAMPLES = 1000
EVERYTHING = "all"  # the only period of labels without one
METRICS = {"classification": ("accuracy", "log_loss", "auc"), "regression": ("mae", "rmse")}


class Labels:
    """Labels of users that arrived, by user and period.

    Args:
        source: a .parquet or .csv file, or a DataFrame, with columns user, label and perhaps period.
        bundle: whose classes, or whose numbers, they are.

    Raises:
        ConfigError: the bundle is of a ranking or a multilabel task.
        DataError: the file cannot be read, lacks a column, or has a class that the bundle does not.
    """

    def __init__(self, source: Any, bundle: Bundle) -> None:
        if bundle.kind not in METRICS:
            raise ConfigError(
                f"labels are of classification and regression tasks, and {bundle.name!r} is a {bundle.kind} task",
                remedy="leave them out, or evaluate the bundle on a corpus of the new users",
            )
        table, path = _read(source)
        missing = [name for name in ("user", "label") if name not in table.column_names]
        if missing:
            suggestion = did_you_mean(missing[0], table.column_names)
            remedy = "name the columns user, label and, if you like, period"
            raise DataError(f"has no column {missing[0]!r}{suggestion}", remedy=remedy, path=path)
        table = table.filter(pa.compute.is_valid(table["label"]))
        self.bundle = bundle
        self.users: list[str] = table["user"].cast(pa.string()).to_pylist()
        self.values = _values(table["label"], bundle, path)
        named = "period" in table.column_names
        self.periods: list[str] = (
            table["period"].cast(pa.string()).to_pylist() if named else [EVERYTHING] * len(self.users)
        )

    def metrics(self, answers: dict[str, np.ndarray], confidence: float = 0.95) -> list[PeriodMetric]:
        """Return the metrics of each period, with intervals over users.

        Args:
            answers: of users, by their ids: probabilities of classes, or a number.
            confidence: of the intervals.
        """
        rows = []
        for period in sorted(set(self.periods)):
            places = [i for i, user in enumerate(self.users) if self.periods[i] == period and user in answers]
            if not places:
                continue
            answered = np.stack([answers[self.users[i]] for i in places])
            statistics = self._statistics(answered, self.values[places])
            estimates = bootstrap(statistics, Resamples(len(places), RESAMPLES, 0))
            for metric in METRICS[self.bundle.kind]:
                if metric in estimates:
                    at = estimates[metric].interval(confidence)
                    rows.append(PeriodMetric(period, metric, len(places), at.value, at.low, at.high))
        return rows

    def _statistics(self, answered: np.ndarray, values: np.ndarray) -> dict[str, Statistic]:
        if self.bundle.kind == "regression":
            return regression_statistics(regression_outcome(answered, values))
        outcome = classification_outcome(answered, values)
        return classification_statistics(outcome)


def _read(source: Any) -> tuple[pa.Table, Path | None]:
    if is_dataframe(source):
        return nw.from_native(source, eager_only=True).to_arrow(), None
    path = Path(source)
    readers: dict[str, Callable[[Path], pa.Table]] = {".parquet": pq.read_table, ".csv": pacsv.read_csv}
    if path.suffix not in readers:
        raise DataError("labels are a .parquet or a .csv file", remedy="name such a file", path=path)
    try:
        return readers[path.suffix](path), path
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"cannot be read ({error})", remedy="check the path and the file", path=path) from error


def _values(labels: pa.ChunkedArray, bundle: Bundle, path: Path | None) -> np.ndarray:
    if bundle.kind == "regression":
        try:
            return np.asarray(labels.cast(pa.float64()).to_numpy())
        except pa.ArrowInvalid as error:
            raise DataError("a label is no number", remedy="give the numbers of the task", path=path) from error
    places = {name: place for place, name in enumerate(bundle.class_names)}
    names = labels.cast(pa.string()).to_pylist()
    strangers = sorted(set(names) - places.keys())
    if strangers:
        raise DataError(
            f"has the class {strangers[0]!r}, which {bundle.name!r} does not have",
            remedy=f"its classes are {', '.join(bundle.class_names)}",
            path=path,
        )
    return np.array([places[name] for name in names], dtype=np.int64)
