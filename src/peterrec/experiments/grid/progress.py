"""Progress of a grid: bars that live on a terminal, a line for each unit elsewhere."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from peterrec.experiments.grid.plan import Unit
from peterrec.experiments.grid.run_unit import Outcome

logger = logging.getLogger(__name__)

Row = tuple[str, str]  # data/task, method

REFRESH = 2  # times a second
FOREVER = float("inf")  # seconds of the steps whose speed says how long the others will take


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


class Lines(Watch):
    """Observer that logs one line for each unit that ended, with the main metric and the seconds."""

    def begin(self, units: Sequence[Unit], remaining: Sequence[Unit], jobs: int) -> None:
        """Log the number of units to do."""
        self.steps, self.ended_steps = len(remaining), 0
        logger.info(opening(units, remaining, jobs))

    def ended(self, unit: Unit, outcome: Outcome) -> None:
        """Log the result of a unit."""
        self.ended_steps += 1
        logger.info(f"[{self.ended_steps}/{self.steps}] {outcome_line(unit, outcome)}")


class LiveTable(Watch):
    """Observer that shows on a terminal how many steps are done, those that run, and the cells of each task and method.

    Args:
        console: of the terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None

    def begin(self, units: Sequence[Unit], remaining: Sequence[Unit], jobs: int) -> None:
        """Show what there is to do."""
        self.console.print(opening(units, remaining, jobs), markup=False, highlight=False)
        if not remaining:
            return
        name = TextColumn("{task.description}", markup=False)
        self.steps = Progress(
            name, BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
            console=self.console, speed_estimate_period=FOREVER,
        )  # fmt: skip
        self.running = Progress(name, TimeElapsedColumn(), console=self.console)
        self.cells = _UnfinishedFirst(name, MofNCompleteColumn(), TextColumn("{task.fields[state]}"))
        self.all_steps = self.steps.add_task("steps", total=len(remaining))
        self.running_units: dict[str, TaskID] = {}
        self.failed: Counter[Row] = Counter()
        total, unfinished = (Counter(row for unit in subset for row in rows_of(unit)) for subset in (units, remaining))
        self.rows = {
            row: self.cells.add_task("  ".join(row), total=count, completed=count - unfinished[row], state="")
            for row, count in total.items()
        }
        # What does not fit on the terminal is cut off at the end.
        self.live = Live(
            Group(self.steps, self.running, self.cells),
            console=self.console,
            refresh_per_second=REFRESH,
            transient=True,
        )
        self.live.start()

    def started(self, unit: Unit) -> None:
        """Show that a unit runs."""
        self.running_units[unit.place] = self.running.add_task(f"  {unit}", total=None)

    def ended(self, unit: Unit, outcome: Outcome) -> None:
        """Count a unit; one that is not done stays on the terminal as a line."""
        self.steps.advance(self.all_steps)
        if unit.place in self.running_units:
            self.running.remove_task(self.running_units.pop(unit.place))
        for row in rows_of(unit):
            if outcome.status == "failed":
                self.failed[row] += 1
                self.cells.update(self.rows[row], state=f"{self.failed[row]} failed")
            else:
                self.cells.advance(self.rows[row])
        if outcome.status != "done":
            self.console.print(outcome_line(unit, outcome), markup=False, highlight=False)

    def close(self) -> None:
        """Take the display away, and leave one line."""
        if self.live is not None:
            self.live.stop()
            self.live = None
            self.console.print(self.steps)


class _UnfinishedFirst(Progress):
    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(sorted(self.tasks, key=lambda task: task.remaining == 0))


def rows_of(unit: Unit) -> list[Row]:
    """Return the row of each cell of a unit."""
    return [(key.task_path, key.method) for key in unit.cells]


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
