"""What a person sees of a grid that is being computed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from peterrec.experiments.grid.plan import Unit
from peterrec.experiments.grid.progress import Lines, LiveTable, Tally, Watch, duration
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


def test_the_time_left_is_told_from_units_of_the_same_method() -> None:
    now = [100.0]
    tally = Tally(UNITS, CELLS, 1, clock=lambda: now[0])
    assert tally.remaining() is None
    for unit, seconds in ((CELLS[0], 10.0), (CELLS[2], 2.0)):
        tally.started(unit)
        now[0] += seconds
        tally.ended(unit, Outcome("done", "", seconds))
    assert tally.elapsed == 12.0
    assert tally.remaining() == pytest.approx(10 + 2), "a patch and a head are left"
    tally.started(CELLS[1])
    now[0] += 4
    assert tally.remaining() == pytest.approx(6 + 2), "the running one has come some way"
    now[0] += 100
    assert tally.remaining() == pytest.approx(2), "and is not below zero when it takes longer"
    two = Tally(UNITS, CELLS, 2, clock=lambda: now[0])
    two.ended(CELLS[0], FINISHED)
    assert two.remaining() == pytest.approx((10 + 10 + 10) / 2), "two at a time; of heads nothing is known yet"
    assert two.line() == "1 of 4 steps in 0 s, about 15 s left"


def shown(tally: Tally, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=80, height=height)
    console.print(tally.table(height))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_a_row_for_each_task_and_method() -> None:
    tally = Tally(UNITS, CELLS[1:], 1)
    rows = [line.split() for line in shown(tally).splitlines()]
    assert rows == [
        ["task", "method", "done"], ["demo/age", "patch", "1/2"], ["demo/age", "head", "0/2"]
    ]  # fmt: skip
    tally.started(CELLS[2])
    assert shown(tally).splitlines()[1].split() == ["demo/age", "head", "0/2", "running"], "what runs stands first"
    tally.ended(CELLS[2], Outcome("failed", "no", 1.0))
    tally.ended(CELLS[1], FINISHED)
    rows = [line.split() for line in shown(tally).splitlines()[1:]]
    assert rows == [["demo/age", "head", "0/2", "1", "failed"], ["demo/age", "patch", "2/2"]]


def test_a_table_fits_on_the_terminal() -> None:
    units = [cell(f"method-{number}") for number in range(50)]
    tally = Tally(units, units[:30], 1)
    lines = shown(tally, height=20).splitlines()
    assert len(lines) <= 20 - 6
    assert lines[-1].strip() == f"and {50 - 12} more, 20 of them done"


def test_methods_with_brackets_are_no_markup() -> None:
    assert "[bold]patch" in shown(Tally([cell("[bold]patch")], [], 1))


def test_the_table_lives_on_a_terminal_and_leaves_a_line() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=90, height=30)
    watch = LiveTable(console)
    watch.begin(UNITS, CELLS, 1)
    watch.started(CELLS[0])
    assert watch.live is not None
    watch.live.refresh()
    picture = console.file.getvalue()  # type: ignore[attr-defined]
    assert "demo/age patch, seed 0 (0 s)" in picture
    assert "0/2" in picture
    watch.ended(CELLS[0], Outcome("skipped", "too few", 1.0))
    watch.close()
    watch.close()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "skipped: too few" in text
    assert "1 of 4 steps in 0 s" in text
    nothing = LiveTable(console)
    nothing.begin(UNITS, [], 1)
    nothing.close()
    assert "0 to compute" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (7500, "2 h 05 min")]
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
