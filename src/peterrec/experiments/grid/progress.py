"""Progress of a grid on a terminal: a table that lives on a terminal, a line for each unit elsewhere."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from peterrec.experiments.grid.plan import Unit
from peterrec.experiments.grid.run_unit import Outcome

logger = logging.getLogger(__name__)

Row = tuple[str, str]  # data/task, method

AROUND = 8  # lines of the terminal that are not rows of the table
REFRESH = 2  # times a second


class Watch:
    """Observer of a grid while it is computed; this one shows nothing, subclasses show what they override."""

    def begin(self, units: Sequence[Unit], remaining: Sequence[Unit], jobs: int) -> None:
        """Take all units, those that are left to do, and how many are done at a time."""

    def started(self, unit: Unit) -> None:
        """Take a unit that was started."""

    def ended(self, unit: Unit, outcome: Outcome) -> None:
        """Take a unit that is done, failed or was skipped."""

    def close(self) -> None:
        """End the display: no unit will begin or end any more."""


class Tally:
    """Counts of the units that are done, and an estimate of the time that the others will take.

    Attributes:
        total, done: cells by data set, task and method.
        running: units with the time they were started at.
        left: units that are neither done nor running, and those that run.
    """

    def __init__(
        self, units: Sequence[Unit], remaining: Sequence[Unit], jobs: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self.start = clock()
        self.jobs = jobs
        self.total_cells: Counter[Row] = Counter(row for unit in units for row in rows_of(unit))
        self.done_cells = self.total_cells - Counter(row for unit in remaining for row in rows_of(unit))
        self.failed_cells: Counter[Row] = Counter()
        self.running: dict[str, tuple[Unit, float]] = {}
        self.units_left = {unit.place: unit for unit in remaining}
        self.units, self.ended_units = len(remaining), 0
        self._seconds: dict[str, list[float]] = {}

    def started(self, unit: Unit) -> None:
        """Note that a unit runs."""
        self.running[unit.place] = (unit, self.clock())

    def ended(self, unit: Unit, outcome: Outcome) -> None:
        """Note how a unit went."""
        self.running.pop(unit.place, None)
        self.units_left.pop(unit.place, None)
        self.ended_units += 1
        if outcome.status == "failed":
            self.failed_cells.update(rows_of(unit))
        else:
            self.done_cells.update(rows_of(unit))
        if outcome.seconds > 0:
            self._seconds.setdefault(_duration_key(unit), []).append(outcome.seconds)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.start

    def remaining(self) -> float | None:
        """Estimate the seconds that are left, from units of the same method, or of all; None before any is done."""
        all_seconds = [seconds for unit_seconds in self._seconds.values() for seconds in unit_seconds]
        if not all_seconds:
            return None
        total = 0.0
        for place, unit in self.units_left.items():
            similar_seconds = self._seconds.get(_duration_key(unit), all_seconds)
            spent = self.clock() - self.running[place][1] if place in self.running else 0.0
            total += max(0.0, sum(similar_seconds) / len(similar_seconds) - spent)
        return total / max(1, min(self.jobs, len(self.units_left)))

    def table(self, height: int) -> Table:
        """Return the table of cells: those with something to do first, and not more than fit on the terminal."""
        busy = {row for unit, _ in self.running.values() for row in rows_of(unit)}
        order = {row: number for number, row in enumerate(self.total_cells)}
        unfinished = [row for row in order if self.done_cells[row] < self.total_cells[row] or self.failed_cells[row]]
        rows = sorted(unfinished, key=lambda row: (row not in busy, order[row])) + [
            row for row in order if row not in set(unfinished)
        ]
        fit = max(3, height - AROUND - len(self.running))
        table = Table(box=None, pad_edge=False)
        for name in ("task", "method", "done", ""):
            table.add_column(name, justify="right" if name == "done" else "left", no_wrap=True)
        for row in rows[:fit]:
            failed = f"{self.failed_cells[row]} failed" if self.failed_cells[row] else ""
            state = "running" if row in busy else failed
            table.add_row(Text(row[0]), Text(row[1]), f"{self.done_cells[row]}/{self.total_cells[row]}", state)
        if len(rows) > fit:
            finished = sum(self.done_cells[row] == self.total_cells[row] for row in rows[fit:])
            table.add_row(Text(f"and {len(rows) - fit} more, {finished} of them done"), "", "", "")
        return table

    def line(self) -> str:
        """Return how far it is, in one line."""
        seconds_left = self.remaining()
        estimate = "" if seconds_left is None or not self.units_left else f", about {duration(seconds_left)} left"
        return f"{self.ended_units} of {self.units} steps in {duration(self.elapsed)}{estimate}"


def rows_of(unit: Unit) -> list[Row]:
    """Return the row of each cell of a unit."""
    return [(key.task_path, key.method) for key in unit.cells]


def _duration_key(unit: Unit) -> str:
    """Return what units that take about as long have in common."""
    return f"{unit.kind} {unit.data} {unit.cells[0].method if unit.cells else unit.place.split('/')[-2]}"


def duration(seconds: float) -> str:
    """Return a time as people say it: `45 s`, `3 min`, `2 h 05 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


class Lines(Watch):
    """Observer that logs one line for each unit that ended, with the main metric and the seconds."""

    def begin(self, units: Sequence[Unit], remaining: Sequence[Unit], jobs: int) -> None:
        """Log the number of units to do."""
        self.tally = Tally(units, remaining, jobs)
        logger.info(opening(units, remaining, jobs))

    def ended(self, unit: Unit, outcome: Outcome) -> None:
        """Log the result of a unit."""
        self.tally.ended(unit, outcome)
        logger.info(f"[{self.tally.ended_units}/{self.tally.units}] {outcome_line(unit, outcome)}")


def opening(units: Sequence[Unit], remaining: Sequence[Unit], jobs: int) -> str:
    """Return the line that says how much there is to do."""
    cells, unfinished = (sum(len(unit.cells) for unit in unit_list) for unit_list in (units, remaining))
    shared = [unit for unit in remaining if not unit.cells]
    noun = "corpora and backbones" if len(shared) > 1 else "corpus or backbone"
    before = f", after {len(shared)} {noun}" if shared else ""
    times = f", {jobs} at a time" if jobs > 1 and remaining else ""
    return f"{cells} cells, {cells - unfinished} of them finished before; {unfinished} to compute{before}{times}"


def outcome_line(unit: Unit, outcome: Outcome) -> str:
    """Return how a unit went, in one line."""
    first_line = outcome.line.splitlines()[0] if outcome.line else ""
    prefix = {"done": "", "skipped": "skipped: ", "failed": "FAILED: "}[outcome.status]
    return f"{unit}: {prefix}{first_line} ({outcome.seconds:.1f} s)"


class LiveTable(Watch):
    """Observer that shows a table of the units that are done and that run, in one place of a terminal.

    Args:
        console: of the terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None

    def begin(self, units: Sequence[Unit], remaining: Sequence[Unit], jobs: int) -> None:
        """Show the table."""
        self.tally = Tally(units, remaining, jobs)
        self.console.print(opening(units, remaining, jobs), markup=False, highlight=False)
        if remaining:
            self.live = Live(
                get_renderable=self._picture, console=self.console, refresh_per_second=REFRESH, transient=True
            )
            self.live.start()

    def started(self, unit: Unit) -> None:
        """Show that a unit runs."""
        self.tally.started(unit)

    def ended(self, unit: Unit, outcome: Outcome) -> None:
        """Count a unit; one that is not done stays on the terminal as a line."""
        self.tally.ended(unit, outcome)
        if outcome.status != "done":
            self.console.print(outcome_line(unit, outcome), markup=False, highlight=False)

    def close(self) -> None:
        """Take the table away, and leave one line."""
        if self.live is not None:
            self.live.stop()
            self.live = None
            self.console.print(self.tally.line(), markup=False, highlight=False)

    def _picture(self) -> Group:
        now = self.tally.clock()
        running = [
            Text(f"  {unit} ({duration(now - since)})", style="dim", no_wrap=True, overflow="ellipsis")
            for unit, since in list(self.tally.running.values())
        ]
        return Group(self.tally.table(self.console.height), Text(self.tally.line()), *running)
