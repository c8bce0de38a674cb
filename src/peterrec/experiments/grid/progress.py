"""What a person sees while a grid is computed: a table that lives on a terminal, a line for each unit elsewhere."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

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


class Watch(Protocol):
    """Is told how a grid goes on."""

    def begin(self, units: Sequence[Unit], left: Sequence[Unit], jobs: int) -> None:
        """All units, those that are left to do, and how many are done at a time."""

    def started(self, unit: Unit) -> None:
        """A unit was started."""

    def ended(self, unit: Unit, outcome: Outcome) -> None:
        """A unit is done, or is not to be."""

    def close(self) -> None:
        """There will be no more, for whatever reason."""


class Tally:
    """Counts what is done, and estimates how long the rest will take.

    Attributes:
        total, done: cells by data set, task and method.
        running: units with the time they were started at.
        left: units that are neither done nor running, and those that run.
    """

    def __init__(
        self, units: Sequence[Unit], left: Sequence[Unit], jobs: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self.start = clock()
        self.jobs = jobs
        self.total: Counter[Row] = Counter(row for unit in units for row in rows_of(unit))
        self.done = self.total - Counter(row for unit in left for row in rows_of(unit))
        self.failed: Counter[Row] = Counter()
        self.running: dict[str, tuple[Unit, float]] = {}
        self.left = {unit.place: unit for unit in left}
        self.units, self.ended_units = len(left), 0
        self._seconds: dict[str, list[float]] = {}

    def started(self, unit: Unit) -> None:
        """Note that a unit runs."""
        self.running[unit.place] = (unit, self.clock())

    def ended(self, unit: Unit, outcome: Outcome) -> None:
        """Note how a unit went."""
        self.running.pop(unit.place, None)
        self.left.pop(unit.place, None)
        self.ended_units += 1
        if outcome.status == "failed":
            self.failed.update(rows_of(unit))
        else:
            self.done.update(rows_of(unit))
        if outcome.seconds > 0:
            self._seconds.setdefault(_alike(unit), []).append(outcome.seconds)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.start

    def remaining(self) -> float | None:
        """Estimate the seconds that are left, from units of the same method, or of all; None before any is done."""
        every = [seconds for found in self._seconds.values() for seconds in found]
        if not every:
            return None
        total = 0.0
        for place, unit in self.left.items():
            known = self._seconds.get(_alike(unit), every)
            spent = self.clock() - self.running[place][1] if place in self.running else 0.0
            total += max(0.0, sum(known) / len(known) - spent)
        return total / max(1, min(self.jobs, len(self.left)))

    def table(self, height: int) -> Table:
        """Return the table of cells: those with something to do first, and not more than fit on the terminal."""
        busy = {row for unit, _ in self.running.values() for row in rows_of(unit)}
        order = {row: number for number, row in enumerate(self.total)}
        unfinished = [row for row in order if self.done[row] < self.total[row] or self.failed[row]]
        rows = sorted(unfinished, key=lambda row: (row not in busy, order[row])) + [
            row for row in order if row not in set(unfinished)
        ]
        fit = max(3, height - AROUND - len(self.running))
        table = Table(box=None, pad_edge=False)
        for name in ("task", "method", "done", ""):
            table.add_column(name, justify="right" if name == "done" else "left", no_wrap=True)
        for row in rows[:fit]:
            failed = f"{self.failed[row]} failed" if self.failed[row] else ""
            state = "running" if row in busy else failed
            table.add_row(Text(row[0]), Text(row[1]), f"{self.done[row]}/{self.total[row]}", state)
        if len(rows) > fit:
            finished = sum(self.done[row] == self.total[row] for row in rows[fit:])
            table.add_row(Text(f"and {len(rows) - fit} more, {finished} of them done"), "", "", "")
        return table

    def line(self) -> str:
        """Return how far it is, in one line."""
        left = self.remaining()
        soon = "" if left is None or not self.left else f", about {duration(left)} left"
        return f"{self.ended_units} of {self.units} steps in {duration(self.elapsed)}{soon}"


def rows_of(unit: Unit) -> list[Row]:
    """Return the row of each cell of a unit."""
    return [(key.task_path, key.method) for key in unit.cells]


def _alike(unit: Unit) -> str:
    """Return what units that take about as long have in common."""
    return f"{unit.kind} {unit.data} {unit.cells[0].method if unit.cells else unit.place.split('/')[-2]}"


def duration(seconds: float) -> str:
    """Return a time as people say it: `45 s`, `3 min`, `2 h 05 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


class Silent:
    """Says nothing."""

    def begin(self, units: Sequence[Unit], left: Sequence[Unit], jobs: int) -> None:
        """Say nothing."""

    def started(self, unit: Unit) -> None:
        """Say nothing."""

    def ended(self, unit: Unit, outcome: Outcome) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Say nothing."""


class Lines(Silent):
    """Logs one line for each unit that ended, with the main metric and the seconds."""

    def begin(self, units: Sequence[Unit], left: Sequence[Unit], jobs: int) -> None:
        """Say how much there is to do."""
        self.tally = Tally(units, left, jobs)
        logger.info(opening(units, left, jobs))

    def ended(self, unit: Unit, outcome: Outcome) -> None:
        """Say how a unit went."""
        self.tally.ended(unit, outcome)
        logger.info(f"[{self.tally.ended_units}/{self.tally.units}] {told(unit, outcome)}")


def opening(units: Sequence[Unit], left: Sequence[Unit], jobs: int) -> str:
    """Return the line that says how much there is to do."""
    cells, to_do = (sum(len(unit.cells) for unit in some) for some in (units, left))
    made = [unit for unit in left if not unit.cells]
    what = "corpora and backbones" if len(made) > 1 else "corpus or backbone"
    before = f", after {len(made)} {what}" if made else ""
    times = f", {jobs} at a time" if jobs > 1 and left else ""
    return f"{cells} cells, {cells - to_do} of them finished before; {to_do} to compute{before}{times}"


def told(unit: Unit, outcome: Outcome) -> str:
    """Return how a unit went, in one line."""
    what = outcome.line.splitlines()[0] if outcome.line else ""
    word = {"done": "", "skipped": "skipped: ", "failed": "FAILED: "}[outcome.status]
    return f"{unit}: {word}{what} ({outcome.seconds:.1f} s)"


class LiveTable:
    """Shows a table of what is done and what runs, which stays where it is on a terminal.

    Args:
        console: of the terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None

    def begin(self, units: Sequence[Unit], left: Sequence[Unit], jobs: int) -> None:
        """Show the table."""
        self.tally = Tally(units, left, jobs)
        self.console.print(opening(units, left, jobs), markup=False, highlight=False)
        if left:
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
            self.console.print(told(unit, outcome), markup=False, highlight=False)

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
