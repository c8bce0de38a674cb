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
from jaxtyping import Bool, Float

from peterrec.config.experiment import ExperimentConfig, QuestionConfig
from peterrec.evaluation.intervals import Resamples
from peterrec.evaluation.results import finite_or_none
from peterrec.evaluation.seed_bootstrap import Paired, SeedEstimate, UserSums, estimate_all, paired
from peterrec.evaluation.statistics import LOWER_IS_BETTER
from peterrec.report.formatting import bins
from peterrec.report.grid.cells import USER_COLUMNS, CellKey, CellResult, question_tasks
from peterrec.report.run.record import Histogram

PRETRAINED_ON, NOT_PRETRAINED_ON = "seen in pre-training", "not seen"
USER_IDS = pa.schema([("user_id", pa.string())])
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
        users: distinct test users of all seeds; None where there is no interval.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: dict[int, float]
    users: int | None = None

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds; None of one seed."""
        return statistics.stdev(self.seeds.values()) if len(self.seeds) > 1 else None


@dataclass(frozen=True)
class Grid:
    """The numbers of a grid, by group; made by `load`.

    Attributes:
        config: settings of the grid.
        cells: that are finished.
        estimates: of metrics that are sums over users.
        without_interval: values by seed of the other metrics.
        strata: of the primary metric, by group of users.
    """

    config: ExperimentConfig
    cells: dict[CellKey, CellResult]
    estimates: dict[tuple[Group, Metric], SeedEstimate]
    without_interval: dict[tuple[Group, Metric], dict[int, float]]
    strata: dict[tuple[Group, Stratum], SeedEstimate]

    def seeds(self, question: QuestionConfig) -> tuple[int, ...]:
        """Return the seeds that a question looks at."""
        return self.config.seeds if question.seeds is None else question.seeds

    def cells_of(self, question: QuestionConfig, group: Group) -> list[CellResult]:
        """Return the finished cells of a group, by seed."""
        keys = (CellKey.from_path(group.task, group.method, seed, group.share) for seed in self.seeds(question))
        return [self.cells[key] for key in keys if key in self.cells]

    def tasks(self, question: QuestionConfig) -> list[str]:
        """Return the question's tasks that have any cell."""
        return [task for task in question_tasks(self.config, question) if self.methods(question, task)]

    def methods(self, question: QuestionConfig, task: str, share: float | None = None) -> list[str]:
        """Return the question's methods that have a cell of a task (and share), in the question's order."""
        shares = question.label_fractions if share is None else (share,)
        groups = [Group(task, name, share) for name in question.methods for share in shares]
        return list(dict.fromkeys(group.method for group in groups if self.cells_of(question, group)))

    def primary(self, task: str) -> Metric:
        """Return the metric that verdicts on a task are about."""
        return next(cell.primary for key, cell in self.cells.items() if key.task_path == task)

    def metrics(self, task: str) -> list[Metric]:
        """Return the metrics that tables show of a task, the primary one first."""
        names = {name for key, cell in self.cells.items() if key.task_path == task for name in cell.metrics}
        return list(dict.fromkeys([self.primary(task), *shown(names)]))

    def paired_metrics(self, task: str) -> list[Metric]:
        """Return the shown metrics that methods can be compared on, user by user."""
        estimated = {name for group, name in self.estimates if group.task == task}
        return [name for name in self.metrics(task) if name in estimated]

    def measured(self, question: QuestionConfig, group: Group, metric: Metric) -> Measured | None:
        """Return a metric of a group over the question's seeds; None if there is none."""
        estimate = self.estimates.get((group, metric))
        if estimate is not None:
            return self._with_interval(question, estimate)
        by_seed = self.without_interval.get((group, metric), {})
        values = {seed: by_seed[seed] for seed in self.seeds(question) if seed in by_seed}
        return Measured(statistics.fmean(values.values()), None, None, values) if values else None

    def measured_methods(
        self, question: QuestionConfig, task: str, share: float, metric: Metric = "", stratum: str = ""
    ) -> dict[str, Measured]:
        """Return a metric of every method that has it, at one share of labels; of one stratum if it is named.

        Args:
            question: whose methods and seeds.
            task: DATA/TASK.
            share: of the labelled train users.
            metric: the primary one if not named.
            stratum: a group of users, for the primary metric only.
        """
        values = {}
        for method in self.methods(question, task, share):
            group = Group(task, method, share)
            if stratum:
                value = self.stratum(question, group, stratum)
            else:
                value = self.measured(question, group, metric or self.primary(task))
            if value is not None:
                values[method] = value
        return values

    def stratum(self, question: QuestionConfig, group: Group, name: str) -> Measured | None:
        """Return the primary metric of a group on the users of one stratum; None if there are none."""
        estimate = self.strata.get((group, (self.primary(group.task), name)))
        return None if estimate is None else self._with_interval(question, estimate)

    def mean(self, group: Group, metric: Metric, seeds: Sequence[int]) -> float:
        """Return the mean over some seeds of a metric that methods were compared on; NaN if there is none."""
        estimate = self.estimates.get((group, metric))
        selected = estimate.select(seeds) if estimate is not None else None
        return math.nan if selected is None else selected.over_seeds().value

    def pair(self, question: QuestionConfig, first: Group, second: Group, metric: Metric) -> Paired | None:
        """Return first minus second over the question's seeds that both have; None if there are none."""
        estimates = [self.estimates.get((group, metric)) for group in (first, second)]
        minuend, subtrahend = (e and e.select(self.seeds(question)) for e in estimates)
        if minuend is None or subtrahend is None:
            return None
        return paired(minuend, subtrahend, self.config.evaluate.confidence)

    def _with_interval(self, question: QuestionConfig, estimate: SeedEstimate) -> Measured | None:
        selected = estimate.select(self.seeds(question))
        values = {} if selected is None else {seed: x for seed, x in selected.values.items() if not math.isnan(x)}
        if selected is None or not values:
            return None
        interval = selected.interval(self.config.evaluate.confidence)
        low, high = finite_or_none(interval.low), finite_or_none(interval.high)
        return Measured(interval.value, low, high, values, selected.users)


def load(config: ExperimentConfig, cells: Iterable[CellResult], read: Callable[[CellKey], pa.Table]) -> Grid:
    """Read the test users of every cell and draw all resamples.

    Args:
        config: settings of the grid; cells of methods it does not have are left out.
        cells: finished ones.
        read: gives the table of test users of a cell (`cells.USER_COLUMNS` and metrics).

    Raises:
        ArtifactError: a table is missing or damaged.
    """
    by_key = {cell.key: cell for cell in sorted(cells, key=lambda cell: cell.key) if cell.method in config.methods}
    grid = Grid(config, by_key, {}, {}, {})
    for key, cell in by_key.items():
        group = Group(key.task_path, key.method, key.share)
        for name, value in cell.metrics.items():
            if math.isfinite(value):
                grid.without_interval.setdefault((group, name), {})[key.seed] = value
    for task in dict.fromkeys(key.task_path for key in by_key):
        _estimate_task(grid, task, {key: read(key) for key in by_key if key.task_path == task})
    return grid


def shown(names: Iterable[Metric]) -> list[Metric]:
    """Return the metrics that tables show: all of a classification; HR and MRR of a ranking, full before sampled."""
    unique = set(names)
    ranks = sorted((name for name in unique if name.startswith(("hr@", "mrr@"))), key=lambda name: (" " in name, name))
    return [*(name for name in ORDER if name in unique), *ranks]


def lower_is_better(metric: Metric) -> bool:
    """Return whether a small value is a good one."""
    return metric in LOWER_IS_BETTER


def strata_names(config: ExperimentConfig) -> list[str]:
    """Return the groups of users: by number of source events, then seen in pre-training or not."""
    bounds = sorted(set(config.event_strata))
    return [*bins(Histogram(edges=bounds, counts=[0] * len(bounds))), PRETRAINED_ON, NOT_PRETRAINED_ON]


def _estimate_task(grid: Grid, task: str, tables: Mapping[CellKey, pa.Table]) -> None:
    ids = pa.concat_tables([table.select(["user_id"]).cast(USER_IDS) for table in tables.values()])["user_id"]
    pool = pc.unique(ids).sort()  # sorted: a user gets the same weights whatever order the rows come in
    if not len(pool):
        return
    settings = grid.config.evaluate
    resamples = Resamples(len(pool), settings.bootstrap, settings.seed)
    by_events = {
        name
        for question in grid.config.questions
        if "events" in question.sections and task in question_tasks(grid.config, question)
        for name in question.methods
    }
    metrics: dict[tuple[Group, Metric], dict[int, UserSums]] = {}
    strata: dict[tuple[Group, Stratum], dict[int, UserSums]] = {}
    for key, table in tables.items():
        group, primary = Group(task, key.method, key.share), grid.cells[key].primary
        names = [name for name in table.column_names if name not in USER_COLUMNS]
        for name, sums in _user_sums(table, pool, names).items():
            metrics.setdefault((group, name), {})[key.seed] = sums
        for stratum, mask in _strata(grid.config, table).items() if key.method in by_events else ():
            for name, sums in _user_sums(table.filter(pa.array(mask)), pool, [primary]).items():
                strata.setdefault((group, (name, stratum)), {})[key.seed] = sums
    grid.estimates.update(estimate_all(metrics, resamples))
    grid.strata.update(estimate_all(strata, resamples))


def _user_sums(table: pa.Table, pool: pa.Array, names: Sequence[Metric]) -> dict[Metric, UserSums]:
    """Spread the columns of a cell's table over the users of the pool."""
    places = pc.index_in(table["user_id"].cast(pa.string()), value_set=pool).to_numpy()

    def spread(name: str) -> Float[np.ndarray, " users"]:
        return np.bincount(places, weights=table[name].to_numpy(), minlength=len(pool))

    rows = spread("rows")
    return {name: UserSums(spread(name), rows) for name in names if name in table.column_names}


def _strata(config: ExperimentConfig, table: pa.Table) -> dict[str, Bool[np.ndarray, " rows"]]:
    events, in_pretraining = table["events"].to_numpy(), table["seen"].to_numpy().astype(bool)
    bounds = [*sorted(set(config.event_strata)), np.iinfo(np.int64).max]
    masks = [(events >= low) & (events < high) for low, high in pairwise(bounds)]
    return dict(zip(strata_names(config), [*masks, in_pretraining, ~in_pretraining], strict=True))
