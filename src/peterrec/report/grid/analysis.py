"""The numbers of a grid: metrics with intervals over users and spread over seeds, and differences of methods."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from peterrec.config.experiment import ExperimentConfig, QuestionConfig
from peterrec.evaluation.intervals import Resamples
from peterrec.evaluation.results import finite_or_none
from peterrec.evaluation.seed_bootstrap import Paired, SeedEstimate, UserSums, estimate_all, paired
from peterrec.evaluation.statistics import LOWER_IS_BETTER
from peterrec.report.formatting import bins
from peterrec.report.grid.cells import USER_COLUMNS, CellKey, CellResult
from peterrec.report.run.record import Histogram

SEEN, UNSEEN = "seen in pre-training", "not seen"
ORDER = ("accuracy", "auc", "macro_f1", "log_loss")

Metric = str
Stratum = tuple[str, str]  # metric, name of the group of users


@dataclass(frozen=True, order=True)
class Group:
    """Cells that differ in their seed only."""

    task: str
    method: str
    share: float


@dataclass(frozen=True)
class Measured:
    """A metric of a group.

    Attributes:
        mean: over the seeds.
        low, high: limits of the interval over users; None where no sum over users gives the metric.
        seeds: the value of each seed.
        sd: standard deviation over the seeds; None of one seed.
        users: distinct test users of all seeds; None where there is no interval.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: dict[int, float]
    sd: float | None
    users: int | None = None


@dataclass(frozen=True)
class Grid:
    """What was found, by group; made by `load`.

    Attributes:
        config: settings of the grid.
        cells: that are finished.
        estimates: of metrics that are sums over users.
        plain: values by seed of the other metrics.
        strata: of the primary metric, by group of users.
    """

    config: ExperimentConfig
    cells: dict[CellKey, CellResult]
    estimates: dict[tuple[Group, Metric], SeedEstimate]
    plain: dict[tuple[Group, Metric], dict[int, float]]
    strata: dict[tuple[Group, Stratum], SeedEstimate]

    def seeds(self, question: QuestionConfig) -> tuple[int, ...]:
        """Return the seeds that a question looks at."""
        return self.config.seeds if question.seeds is None else question.seeds

    def cells_of(self, question: QuestionConfig, group: Group) -> list[CellResult]:
        """Return the finished cells of a group, by seed."""
        data, task = group.task.split("/")
        keys = (CellKey(data, task, group.method, seed, group.share) for seed in self.seeds(question))
        return [self.cells[key] for key in keys if key in self.cells]

    def tasks(self, question: QuestionConfig) -> list[str]:
        """Return the question's tasks that have any cell."""
        return [task for task in asked_tasks(self.config, question) if self.methods(question, task)]

    def methods(self, question: QuestionConfig, task: str, share: float | None = None) -> list[str]:
        """Return the question's methods that have a cell of a task (and share), in the question's order."""
        shares = question.label_fractions if share is None else (share,)
        return [
            name
            for name in dict.fromkeys(question.methods)
            if any(self.cells_of(question, Group(task, name, one)) for one in shares)
        ]

    def primary(self, task: str) -> Metric:
        """Return the metric that verdicts on a task are told of."""
        return next(cell.primary for key, cell in self.cells.items() if key.task_path == task)

    def metrics(self, task: str) -> list[Metric]:
        """Return the metrics that tables show of a task, the primary one first."""
        found = {name for key, cell in self.cells.items() if key.task_path == task for name in cell.metrics}
        return [self.primary(task), *(name for name in shown(found) if name != self.primary(task))]

    def paired_metrics(self, task: str) -> list[Metric]:
        """Return the shown metrics that methods can be compared on, user by user."""
        known = {name for group, name in self.estimates if group.task == task}
        return [name for name in self.metrics(task) if name in known]

    def measured(self, question: QuestionConfig, group: Group, metric: Metric) -> Measured | None:
        """Return a metric of a group over the question's seeds; None if there is none."""
        estimate = self.estimates.get((group, metric))
        if estimate is not None:
            return self._with_interval(question, estimate)
        values = self.plain.get((group, metric), {})
        known = {seed: values[seed] for seed in self.seeds(question) if seed in values}
        return Measured(statistics.fmean(known.values()), None, None, known, _sd(known.values())) if known else None

    def stratum(self, question: QuestionConfig, group: Group, name: str) -> Measured | None:
        """Return the primary metric of a group on the users of one stratum; None if there are none."""
        estimate = self.strata.get((group, (self.primary(group.task), name)))
        return None if estimate is None else self._with_interval(question, estimate)

    def mean(self, group: Group, metric: Metric, seeds: Sequence[int]) -> float:
        """Return the mean over some seeds of a metric that methods were compared on; NaN if there is none."""
        estimate = self.estimates.get((group, metric))
        kept = estimate.of(seeds) if estimate is not None else None
        return math.nan if kept is None else kept.over_seeds().value

    def pair(self, question: QuestionConfig, first: Group, second: Group, metric: Metric) -> Paired | None:
        """Return first minus second over the question's seeds that both have; None if there are none."""
        one, two = self.estimates.get((first, metric)), self.estimates.get((second, metric))
        mine = one.of(self.seeds(question)) if one is not None else None
        other = two.of(self.seeds(question)) if two is not None else None
        if mine is None or other is None:
            return None
        return paired(mine, other, self.config.evaluate.confidence)

    def _with_interval(self, question: QuestionConfig, estimate: SeedEstimate) -> Measured | None:
        kept = estimate.of(self.seeds(question))
        if kept is None:
            return None
        interval = kept.interval(self.config.evaluate.confidence)
        values = {seed: value for seed, value in kept.values.items() if not math.isnan(value)}
        if not values:
            return None
        low, high = finite_or_none(interval.low), finite_or_none(interval.high)
        return Measured(interval.value, low, high, values, _sd(values.values()), kept.users)


def load(config: ExperimentConfig, cells: Iterable[CellResult], read: Callable[[CellKey], pa.Table]) -> Grid:
    """Read the test users of every cell and draw all resamples.

    Args:
        config: settings of the grid; cells of methods it does not have are left out.
        cells: finished ones.
        read: gives the table of test users of a cell (`cells.USER_COLUMNS` and metrics).

    Raises:
        ArtifactError: a table is missing or damaged.
    """
    known = {cell.key: cell for cell in sorted(cells, key=lambda cell: cell.key) if cell.method in config.methods}
    grid = Grid(config, known, {}, {}, {})
    for key, cell in known.items():
        group = Group(key.task_path, key.method, key.share)
        for name, value in cell.metrics.items():
            if math.isfinite(value):
                grid.plain.setdefault((group, name), {})[key.seed] = value
    for task in dict.fromkeys(key.task_path for key in known):
        tables = {key: read(key) for key in known if key.task_path == task}
        _estimate_task(grid, task, tables)
    return grid


def asked_tasks(config: ExperimentConfig, question: QuestionConfig) -> list[str]:
    """Return the tasks of a question, in the order of the data sets."""
    every = [f"{name}/{task.name}" for name, data in config.data.items() for task in data.prepare.tasks]
    return [path for path in every if not question.tasks or path in question.tasks]


def shown(names: Iterable[Metric]) -> list[Metric]:
    """Return the metrics that tables show: all of a classification; HR and MRR of a ranking, full before sampled."""
    found = set(names)
    ranks = sorted((name for name in found if name.startswith(("hr@", "mrr@"))), key=lambda name: (" " in name, name))
    return [*(name for name in ORDER if name in found), *ranks]


def lower_is_better(metric: Metric) -> bool:
    """Say whether a small value is a good one."""
    return metric in LOWER_IS_BETTER


def strata_names(config: ExperimentConfig) -> list[str]:
    """Return the groups of users: by number of source events, then seen in pre-training or not."""
    bounds = sorted(set(config.event_strata))
    return [*bins(Histogram(edges=bounds, counts=[0] * len(bounds))), SEEN, UNSEEN]


def _estimate_task(grid: Grid, task: str, tables: Mapping[CellKey, pa.Table]) -> None:
    columns = [table["user_id"].cast(pa.string()) for table in tables.values()]
    ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    pool = pc.unique(ids).sort()  # sorted: a user gets the same weights whatever order the rows come in
    if not len(pool):
        return
    settings = grid.config.evaluate
    resamples = Resamples(len(pool), settings.bootstrap, settings.seed)
    by_events = {
        name
        for question in grid.config.questions
        if "events" in question.sections and task in asked_tasks(grid.config, question)
        for name in question.methods
    }
    metrics: dict[tuple[Group, Metric], dict[int, UserSums]] = {}
    strata: dict[tuple[Group, Stratum], dict[int, UserSums]] = {}
    for key, table in tables.items():
        group, rows = Group(task, key.method, key.share), _places(table, pool)
        every = np.ones(len(rows), dtype=bool)
        names = [name for name in table.column_names if name not in USER_COLUMNS]
        for name, one in _sums(table, rows, every, len(pool), names).items():
            metrics.setdefault((group, name), {})[key.seed] = one
        for label, inside in _strata(grid.config, table).items() if key.method in by_events else ():
            primary = grid.cells[key].primary
            for name, one in _sums(table, rows, inside, len(pool), [primary]).items():
                strata.setdefault((group, (name, label)), {})[key.seed] = one
    grid.estimates.update(estimate_all(metrics, resamples))
    grid.strata.update(estimate_all(strata, resamples))


def _places(table: pa.Table, pool: pa.Array) -> Int[np.ndarray, " rows"]:
    places = pc.index_in(table["user_id"].cast(pa.string()), value_set=pool)
    return np.asarray(places.to_numpy())


def _sums(
    table: pa.Table, rows: Int[np.ndarray, " rows"], inside: Bool[np.ndarray, " rows"], users: int, names: list[Metric]
) -> dict[Metric, UserSums]:
    """Spread the columns of a cell's table over the users of the pool."""

    def spread(name: str) -> Float[np.ndarray, " users"]:
        values = table[name].to_numpy().astype(np.float64)
        return np.bincount(rows[inside], weights=values[inside], minlength=users)

    below = spread("rows")
    return {name: UserSums(spread(name), below) for name in names if name in table.column_names}


def _strata(config: ExperimentConfig, table: pa.Table) -> dict[str, Bool[np.ndarray, " rows"]]:
    events, seen = table["events"].to_numpy(), table["seen"].to_numpy().astype(bool)
    bounds = [*sorted(set(config.event_strata)), np.iinfo(np.int64).max]
    masks = [(events >= low) & (events < high) for low, high in pairwise(bounds)]
    return dict(zip(strata_names(config), [*masks, seen, ~seen], strict=True))


def _sd(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.stdev(known) if len(known) > 1 else None
