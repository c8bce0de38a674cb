"""What a person sees of a grid that is being computed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from peterrec.experiments.grid.plan import Unit
from peterrec.experiments.grid.progress import Lines, LiveTable, Watch
from peterrec.experiments.grid.run_unit import Outcome
from peterrec.report.grid.cells import CellKey


def cell(method: str, seed: int = 0, task: str = "age", share: float = 1.0) -> Unit:
    key = CellKey("demo", task, method, seed, share)
    return Unit("adapt", f"bundles/{key.folder}", {}, cells=(key,), data="demo", seed=seed)


CORPUS = Unit("corpus", "corpora/demo/seed-0", {}, data="demo")
BACKBONE = Unit("backbone", "backbones/demo/base/seed-0", {}, data="demo")
CELLS = [cell("patch"), cell("patch", 1), cell("head"), cell("head", share=0.05)]
UNITS = [CORPUS, BACKBONE, *CELLS]
FINISHED = Outcome("done", "accuracy 0.8123", 10.0)


def test_units_are_called_by_what_people_know() -> None:
    assert [str(unit) for unit in (CORPUS, BACKBONE, CELLS[3])] == [
        "demo corpus, seed 0", "demo backbone base, seed 0", "demo/age head, seed 0, 5 % of the labels",
    ]  # fmt: skip
    keys = tuple(CellKey("demo", task, "joint", 2) for task in ("age", "food"))
    assert str(Unit("joint", "x", {}, cells=keys, seed=2)) == "demo/(age, food) joint, seed 2"


def test_a_line_for_each_unit(logged: list[str]) -> None:
    watch: Watch = Lines()
    watch.begin(UNITS, UNITS[1:5], 2)
    watch.started(BACKBONE)
    watch.ended(BACKBONE, Outcome("done", "valid_loss 3.2", 7.25))
    watch.ended(CELLS[0], FINISHED)
    watch.ended(CELLS[1], Outcome("skipped", "too few users\n  What to do: label more", 0.1))
    watch.ended(CELLS[2], Outcome("failed", "it diverged", 3.0))
    watch.close()
    assert logged == [
        "4 cells, 1 of them finished before; 3 to compute, after 1 corpus or backbone, 2 at a time",
        "[1/4] demo backbone base, seed 0: valid_loss 3.2 (7.2 s)",
        "[2/4] demo/age patch, seed 0: accuracy 0.8123 (10.0 s)",
        "[3/4] demo/age patch, seed 1: skipped: too few users (0.1 s)",
        "[4/4] demo/age head, seed 0: FAILED: it diverged (3.0 s)",
    ]


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=90, height=30, color_system=None)


def picture(watch: LiveTable) -> list[list[str]]:
    """The words of each line that is shown now."""
    assert watch.live is not None
    console = Console(file=io.StringIO(), width=90)
    console.print(watch.live.get_renderable())
    return [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_row_for_each_task_and_method_those_with_something_to_do_first(console: Console) -> None:
    watch = LiveTable(console)
    watch.begin(UNITS, CELLS[2:], 1)
    assert picture(watch)[1:] == [["demo/age", "head", "0/2"], ["demo/age", "patch", "2/2"]]
    watch.close()
    watch.begin(UNITS, CELLS[1:], 1)
    assert picture(watch)[1:] == [["demo/age", "patch", "1/2"], ["demo/age", "head", "0/2"]]
    watch.started(CELLS[2])
    assert picture(watch)[1] == ["demo/age", "head,", "seed", "0", "0:00:00"], "what runs stands first"
    watch.ended(CELLS[2], Outcome("failed", "no", 1.0))
    watch.ended(CELLS[1], FINISHED)
    assert picture(watch)[1:] == [["demo/age", "head", "0/2", "1", "failed"], ["demo/age", "patch", "2/2"]]
    watch.close()


def test_the_time_left_is_told() -> None:
    now = [100.0]
    watch = LiveTable(Console(file=io.StringIO(), force_terminal=True, width=90, get_time=lambda: now[0]))
    watch.begin(UNITS, CELLS, 1)
    for unit in CELLS[:3]:
        now[0] += 60
        watch.ended(unit, FINISHED)
    assert picture(watch)[0][-3:] == ["3/4", "0:03:00", "0:01:00"], "steps, time so far, time left"
    watch.close()


def test_what_does_not_fit_on_the_terminal_is_cut_off() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=90, height=10, color_system=None)
    watch = LiveTable(console)
    units = [cell(f"method-{number}") for number in range(50)]
    watch.begin(units, units[:30], 1)
    watch.started(units[0])
    assert watch.live is not None
    watch.live.refresh()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    watch.close()
    assert "0/30" in shown
    assert "demo/age method-0, seed 0" in shown
    assert "method-7" not in shown


def test_methods_with_brackets_are_no_markup(console: Console) -> None:
    watch = LiveTable(console)
    watch.begin([cell("[bold]patch")], [cell("[bold]patch")], 1)
    watch.started(cell("[bold]patch"))
    assert [line[1] for line in picture(watch)[1:]] == ["[bold]patch,", "[bold]patch"]
    watch.close()


def test_the_table_lives_on_a_terminal_and_leaves_a_line(console: Console) -> None:
    watch = LiveTable(console)
    watch.begin(UNITS, CELLS, 1)
    watch.started(CELLS[0])
    assert watch.live is not None
    watch.live.refresh()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "demo/age patch, seed 0 0:00:00" in shown
    assert "0/2" in shown
    watch.ended(CELLS[0], Outcome("skipped", "too few", 1.0))
    watch.close()
    watch.close()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "skipped: too few" in text
    assert text.splitlines()[-1].split()[-3:-1] == ["1/4", "0:00:00"]
    nothing = LiveTable(console)
    nothing.begin(UNITS, [], 1)
    nothing.close()
    assert "0 to compute" in console.file.getvalue()  # type: ignore[attr-defined]
