"""Methods that are fitted to another task than the one they are asked about: whole histories, then short ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peterrec.config.experiment import ExperimentConfig
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError
from peterrec.evaluation import per_user
from peterrec.evaluation.baselines import fit_baseline
from peterrec.experiments.grid import run_unit, state
from peterrec.experiments.grid.cell_settings import check_settings
from peterrec.experiments.grid.plan import Unit, units_of
from peterrec.experiments.grid.run_unit import Job
from peterrec.experiments.grid.runner import _write_synthetic_data
from peterrec.report.grid.cells import expected_cells, read_cell

from .small_grid import TASKS, question, small_grid

CUT = {**TASKS[0], "name": "cluster-2", "first_events": 2}
TREES = "64 factors + logistic regression"
ON_WHOLE = {"cluster-2": "cluster"}
METHODS: dict[str, dict[str, Any]] = {
    "patch": {"adapt": {}},
    "patch-whole": {"adapt": {}, "trained_on": ON_WHOLE},
    "factors": {"baseline": TREES},
    "factors-whole": {"baseline": TREES, "trained_on": ON_WHOLE},
}


def grid(methods: dict[str, dict[str, Any]] = METHODS) -> ExperimentConfig:
    data = small_grid().model_dump(mode="json", exclude_unset=True)["data"]
    data["small"]["prepare"] |= {"tasks": [*TASKS, CUT]}
    return small_grid(questions=[question(*methods)], data=data, methods=methods)


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Unit]]:
    """A grid's folder with its corpus and backbone, and its units by place."""
    out, config = tmp_path_factory.mktemp("grid"), grid()
    _write_synthetic_data(config, out)
    units = units_of(config, out)
    for unit in units:
        if not unit.cells:
            assert run_unit.do(Job(unit, out, config.evaluate)).status == "done"
    return out, {unit.place: unit for unit in units}


def place(task: str, method: str) -> str:
    return f"bundles/small/{task}/{method}/seed-0-share-100"


def test_such_a_method_exists_for_the_tasks_it_names_only() -> None:
    tasks = {key.task for key in expected_cells(grid()) if key.method == "patch-whole"}
    assert tasks == {"cluster-2"}


def test_it_is_fitted_to_the_one_and_judged_on_the_other(units: tuple[Path, dict[str, Unit]]) -> None:
    out, by_place = units
    unit, config = by_place[place("cluster-2", "factors-whole")], grid().evaluate
    assert run_unit.do(Job(unit, out, config)).status == "done"
    assert state.is_finished(out, unit.cells[0], unit), "it would be computed again each time"
    cell = read_cell(out / unit.cells[0].folder)
    corpus = Corpus.open(out / "corpora/small/seed-0")
    uncut, cut = corpus.task("cluster"), corpus.task("cluster-2")
    results = []
    for task in (uncut, cut):
        fitted = fit_baseline(
            TREES, task.part("train"), task.part("valid"), classes=4, unlabelled=run_unit.unlabelled_sequences(corpus)
        )
        assert not isinstance(fitted, str)
        results.append(per_user.evaluate_users(cut, fitted, config, lambda ids: np.zeros(len(ids), dtype=bool)).metrics)
    assert cell.metrics == results[0] != results[1]
    assert cell.task == "cluster-2"


@pytest.mark.slow
def test_a_patch_is_adapted_to_the_one_and_judged_on_the_other(units: tuple[Path, dict[str, Unit]]) -> None:
    out, by_place = units
    cells = {}
    for task, method in (("cluster", "patch"), ("cluster-2", "patch"), ("cluster-2", "patch-whole")):
        unit = by_place[place(task, method)]
        assert run_unit.do(Job(unit, out, grid().evaluate)).status == "done"
        cells[task, method] = read_cell(out / unit.cells[0].folder)
    uncut, cut, redirected = cells.values()
    curves = [[row["log_loss"] for row in cell.curve] for cell in (uncut, cut, redirected)]
    assert curves[2] == curves[0] != curves[1]
    assert len({cell.metrics["log_loss"] for cell in (uncut, cut, redirected)}) == 3


def test_what_it_is_fitted_to_decides_the_result() -> None:
    plain, redirected = (
        {unit.place: unit.inputs for unit in units_of(grid(methods), Path("out"))}[place("cluster-2", "factors")]
        for methods in ({"factors": METHODS["factors"]}, {"factors": METHODS["factors-whole"]})
    )
    assert set(redirected["tasks"]) == {"cluster", "cluster-2"}
    assert plain != redirected


def test_other_answers_are_refused(units: tuple[Path, dict[str, Unit]]) -> None:
    out, _ = units
    corpus = Corpus.open(out / "corpora/small/seed-0")
    with pytest.raises(ConfigError, match=r"fitted to 'target' cannot be asked of 'cluster'.*answers are not the same"):
        run_unit._check_same_answers(corpus.task("target"), corpus.task("cluster"))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"adapt": {}, "trained_on": {"cluster-2": "clusters"}}, "no data set has tasks 'cluster-2' and 'clusters'"),
        ({"adapt": {"strategy": "joint"}, "trained_on": ON_WHOLE}, "trains all tasks together"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_computed(method: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(grid({"method": method}))
