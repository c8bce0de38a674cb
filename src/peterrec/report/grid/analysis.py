"""The numbers of a grid: metrics with intervals over users and spread over seeds, by question."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float

from peterrec.config.experiment import ExperimentConfig, QuestionConfig
from peterrec.evaluation.intervals import Interval, Resamples
from peterrec.evaluation.results import finite_or_none
from peterrec.evaluation.seed_bootstrap import Paired, SeedEstimate, UserSums, estimate_all, paired
from peterrec.report.formatting import bins
from peterrec.report.grid.cells import USER_COLUMNS, CellKey, CellResult, question_tasks

PRETRAINED_ON, NOT_PRETRAINED_ON = "seen in pre-training", "not seen"
USER_IDS = pa.schema([("user_id", pa.string())])
ORDER = (
    "accuracy", "auc", "macro_f1", "macro_auc", "macro_ap", "log_loss", "ece", "mae", "rmse", "spearman", "pinball",
)  # fmt: skip

Group = tuple[str, str, float]  # task, method, share: cells that differ in their seed only
Name = tuple[str, str]  # metric, group of users: empty for all users


@dataclass(frozen=True)
class Measured:
    """A metric of a method over the seeds of a question; in `results.json` under the same names.

    Attributes:
        question, task, method, share: whose value it is.
        mean: over the seeds.
        low, high: limits of the interval over users; None where no sum over users gives the metric.
        sd: standard deviation over the seeds; None of one seed.
        seeds: the value of each seed.
        users: distinct test users of all seeds; None where there is no interval.
        metric: its name.
        stratum: the group of users; empty for all users.
    """

    question: str
    task: str
    method: str
    share: float
    mean: float
    low: float | None
    high: float | None
    sd: float | None
    seeds: dict[int, float]
    users: int | None
    metric: str
    stratum: str = ""


@dataclass(frozen=True)
class Grid:
    """The finished cells of a grid, and the estimates of metrics that are sums over users; made by `load`."""

    config: ExperimentConfig
    cells: dict[CellKey, CellResult]
    estimates: dict[Group, dict[Name, SeedEstimate]]


@dataclass(frozen=True)
class QuestionResults:
    """The numbers that answer one question."""

    grid: Grid
    question: QuestionConfig

    @property
    def config(self) -> ExperimentConfig:
        """Settings of the grid."""
        return self.grid.config

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that the question looks at."""
        return self.config.seeds if self.question.seeds is None else self.question.seeds

    @property
    def largest(self) -> float:
        """The largest share of the labels: the one that is meant where none is named."""
        return max(self.question.label_fractions)

    @cached_property
    def cells(self) -> dict[Group, list[CellResult]]:
        """The finished cells by seed, of each task, method and share that has any, in the order of the question."""
        groups: dict[Group, list[CellResult]] = defaultdict(list)
        places = product(
            question_tasks(self.config, self.question),
            self.question.methods,
            sorted(self.question.label_fractions),
            self.seeds,
        )
        for task, method, share, seed in places:
            cell = self.grid.cells.get(CellKey.from_path(task, method, seed, share))
            if cell is not None:
                groups[task, method, share].append(cell)
        return dict(groups)

    @property
    def tasks(self) -> list[str]:
        """The tasks that have any cell."""
        return list(dict.fromkeys(task for task, _, _ in self.cells))

    def methods(self, task: str, shares: Sequence[float] = ()) -> list[str]:
        """Return the methods that have a cell of a task at one of the shares, in the order of the question."""
        groups = (group for group in self.cells if group[2] in (shares or [self.largest]))
        return list(dict.fromkeys(method for place, method, _ in groups if place == task))

    def primary(self, task: str) -> str:
        """Return the metric that verdicts on a task are about."""
        return next(cell.primary for key, cell in self.grid.cells.items() if key.task_path == task)

    def metrics(self, task: str) -> list[str]:
        """Return the metrics that tables show of a task, the primary one first."""
        names = {name for key, cell in self.grid.cells.items() if key.task_path == task for name in cell.metrics}
        return list(dict.fromkeys([self.primary(task), *shown(names)]))

    @cached_property
    def values(self) -> list[Measured]:
        """All values, also those that no table shows; by group of users where the question shows that."""
        strata = strata_names(self.config) if "events" in self.question.sections else []
        values = []
        for group, cells in self.cells.items():
            metrics = {name for cell in cells for name in cell.metrics}
            metrics |= {name for name, _ in self.grid.estimates.get(group, ())}
            names = [*((name, "") for name in sorted(metrics)), *((cells[0].primary, stratum) for stratum in strata)]
            values += [value for name in names if (value := self._measure(group, name)) is not None]
        return values

    def column(self, task: str, metric: str = "", stratum: str = "", share: float | None = None) -> dict[str, Measured]:
        """Return a metric by method: the primary one, of all users, at the largest share if nothing else is named."""
        key = (task, metric or self.primary(task), stratum, share or self.largest)
        return {v.method: v for v in self.values if (v.task, v.metric, v.stratum, v.share) == key}

    def by_share(self, task: str) -> dict[float, dict[str, Measured]]:
        """Return the primary metric by share of the labels, then by method."""
        return {share: self.column(task, share=share) for share in sorted(self.question.label_fractions)}

    def by_stratum(self, task: str) -> dict[str, dict[str, Measured]]:
        """Return the primary metric by group of users, then by method."""
        return {name: self.column(task, stratum=name) for name in strata_names(self.config)}

    def pair(self, task: str, share: float, method: str, reference: str, metric: str) -> Paired | None:
        """Return method minus reference over the question's seeds that both have; None if there are none."""
        minuend, subtrahend = (self._estimate((task, name, share), (metric, "")) for name in (method, reference))
        if minuend is None or subtrahend is None:
            return None
        return paired(minuend, subtrahend, self.config.evaluate.confidence)

    def _estimate(self, group: Group, name: Name) -> SeedEstimate | None:
        estimate = self.grid.estimates.get(group, {}).get(name)
        return None if estimate is None else estimate.select(self.seeds)

    def _measure(self, group: Group, name: Name) -> Measured | None:
        estimate, (metric, stratum) = self._estimate(group, name), name
        if estimate is not None:
            by_seed = estimate.values
        else:
            cells = [] if stratum else self.cells[group]
            by_seed = {cell.seed: cell.metrics[metric] for cell in cells if metric in cell.metrics}
        seeds = {seed: value for seed, value in by_seed.items() if math.isfinite(value)}
        if not seeds:
            return None
        interval = Interval(statistics.fmean(seeds.values()), math.nan, math.nan)
        if estimate is not None:
            interval = estimate.over_seeds().interval(self.config.evaluate.confidence)
        low, high = finite_or_none(interval.low), finite_or_none(interval.high)
        sd = statistics.stdev(seeds.values()) if len(seeds) > 1 else None
        users = None if estimate is None else estimate.users
        return Measured(self.question.name, *group, interval.value, low, high, sd, seeds, users, metric, stratum)


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
    grid = Grid(config, by_key, {})
    for task in dict.fromkeys(key.task_path for key in by_key):
        _estimate_task(grid, task, {key: read(key) for key in by_key if key.task_path == task})
    return grid


def label(config: ExperimentConfig, method: str) -> str:
    """Return the name of a method as the report shows it."""
    return config.methods[method].label or method


def shown(names: Iterable[str]) -> list[str]:
    """Return the metrics that tables show: all of a classification; HR and MRR of a ranking, full before sampled."""
    ordered = sorted(set(names), key=lambda name: (" " in name, name))
    return [*(name for name in ORDER if name in ordered), *(n for n in ordered if n.startswith(("hr@", "mrr@")))]


def strata_names(config: ExperimentConfig) -> list[str]:
    """Return the groups of users: by number of source events, then seen in pre-training or not."""
    return [*bins(sorted(set(config.event_strata))), PRETRAINED_ON, NOT_PRETRAINED_ON]


def _estimate_task(grid: Grid, task: str, tables: Mapping[CellKey, pa.Table]) -> None:
    ids = pa.concat_tables([table.select(["user_id"]).cast(USER_IDS) for table in tables.values()])["user_id"]
    pool = pc.unique(ids).sort()  # sorted: a user gets the same weights whatever order the rows come in
    if not len(pool):
        return
    settings = grid.config.evaluate
    resamples = Resamples(len(pool), settings.bootstrap, settings.seed)
    by_events = [q for q in grid.config.questions if "events" in q.sections and task in question_tasks(grid.config, q)]
    metrics: dict[tuple[Group, Name], dict[int, UserSums]] = defaultdict(dict)
    strata: dict[tuple[Group, Name], dict[int, UserSums]] = defaultdict(dict)
    for key, table in tables.items():
        group, primary = (task, key.method, key.share), grid.cells[key].primary
        names = [name for name in table.column_names if name not in USER_COLUMNS]
        for name, sums in _user_sums(table, pool, names).items():
            metrics[group, (name, "")][key.seed] = sums
        for stratum, mask in _strata(grid.config, table).items():
            if any(key.method in question.methods for question in by_events) and primary in names:
                sums = _user_sums(table.filter(pa.array(mask)), pool, [primary])[primary]
                strata[group, (primary, stratum)][key.seed] = sums
    for sums_by_name in (metrics, strata):
        for (group, metric), estimate in estimate_all(sums_by_name, resamples).items():
            grid.estimates.setdefault(group, {})[metric] = estimate


def _user_sums(table: pa.Table, pool: pa.Array, names: Sequence[str]) -> dict[str, UserSums]:
    """Spread the columns of a cell's table over the users of the pool."""
    places = pc.index_in(table["user_id"].cast(pa.string()), value_set=pool).to_numpy()

    def spread(name: str) -> Float[np.ndarray, " users"]:
        return np.bincount(places, weights=table[name].to_numpy(), minlength=len(pool))

    rows = spread("rows")
    return {name: UserSums(spread(name), rows) for name in names}


def _strata(config: ExperimentConfig, table: pa.Table) -> dict[str, Bool[np.ndarray, " rows"]]:
    events, in_pretraining = table["events"].to_numpy(), table["seen"].to_numpy().astype(bool)
    bounds = sorted(set(config.event_strata))
    masks = list(np.digitize(events, bounds) == np.arange(1, len(bounds) + 1)[:, None])
    return dict(zip(strata_names(config), [*masks, in_pretraining, ~in_pretraining], strict=True))
