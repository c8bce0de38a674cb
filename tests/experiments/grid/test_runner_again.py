"""What a review of the runner found: leftovers within leftovers, settings there and back, cells without their users."""

from __future__ import annotations

from pathlib import Path

import pytest

from peterrec.errors import ArtifactError
from peterrec.evaluation.baselines import Unavailable
from peterrec.experiments.grid import run_unit as work
from peterrec.experiments.grid import runner, state
from peterrec.experiments.grid.runner import FailedCells, experiment
from peterrec.report.grid.cells import CellKey

from .small_grid import Recorder, question, small_grid

CONSTANT = question("majority")


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "write_grid_report", lambda config, cells, out, **args: out / "report.html")


def test_what_a_kill_left_within_what_it_left_is_cleared_away(tmp_path: Path) -> None:
    leftovers = tmp_path / "cells" / "d" / ".x.tmp"
    leftovers.mkdir(parents=True)
    (leftovers / ".c.json.tmp").touch()
    (leftovers.parent / ".y.tmp").touch()
    state.open_folder(tmp_path, overwrite=False)
    assert list(leftovers.parent.iterdir()) == []


@pytest.mark.slow
def test_a_backbone_made_in_between_with_other_settings_is_not_taken_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"questions": [question("head", tasks=["small/cluster"])]}
    experiment(small_grid(**grid), tmp_path, jobs=1)
    with monkeypatch.context() as killed:
        killed.setattr(work.state, "mark", lambda *args: (_ for _ in ()).throw(ValueError("killed here")))
        with pytest.raises(FailedCells):
            experiment(small_grid("pretrain.epochs=2", **grid), tmp_path, jobs=1)
    recorder = Recorder()
    experiment(small_grid("methods.head.adapt.patience=9", **grid), tmp_path, jobs=1, watch=recorder)
    assert "backbones/small/base/seed-0" in recorder.done_places, "it is made again, with the first settings"


@pytest.mark.slow
def test_a_cell_without_its_users_is_computed_again(tmp_path: Path) -> None:
    config = small_grid(questions=[CONSTANT])
    experiment(config, tmp_path, jobs=1)
    (tmp_path / CellKey("small", "cluster", "majority", 0).folder / "users.parquet").unlink()
    recorder = Recorder()
    experiment(config, tmp_path, jobs=1, watch=recorder)
    assert recorder.done_places == ["bundles/small/cluster/majority/seed-0-share-100"]


@pytest.mark.slow
def test_what_only_has_to_be_installed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_grid(questions=[CONSTANT])
    with monkeypatch.context() as missing:
        missing.setattr(work, "fit_baseline", lambda *args, **options: Unavailable("trees: install them"))
        with pytest.raises(FailedCells, match="trees: install them"):
            experiment(config, tmp_path, jobs=1)
    recorder = Recorder()
    experiment(config, tmp_path, jobs=1, watch=recorder)
    assert recorder.done_places == ["bundles/small/cluster/majority/seed-0-share-100"]


@pytest.mark.slow
def test_without_any_cell_it_is_said_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "fit_baseline", lambda *args, **options: "it is too large")
    with pytest.raises(ArtifactError, match=r"no finished cell of this grid \(it is too large\)"):
        experiment(small_grid(questions=[CONSTANT]), tmp_path, jobs=1)
