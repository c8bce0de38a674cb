"""A grid goes on where it was: after an end, a change, a failure, a kill."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from peterrec.config.experiment import ExperimentConfig
from peterrec.data.synthetic import synthetic
from peterrec.errors import ArtifactError, ConfigError, DataError, InterruptedRun
from peterrec.experiments.grid import run_unit as work
from peterrec.experiments.grid import runner, state
from peterrec.experiments.grid.runner import FailedCells, experiment, report_only
from peterrec.experiments.grid.workers import Worker
from peterrec.report.grid.cells import CellKey, CellResult

from .small_grid import Recorder, cells_on_disk, question, small_grid, workers_of

FEW = question("patch", "majority", "popularity")
CELLS = [
    f"small/{name}/seed-0-share-100"
    for name in ("cluster/majority", "cluster/patch", "target/patch", "target/popularity")
]


class Reports:
    """Stands in for the report: keeps what it was given."""

    def __init__(self) -> None:
        self.cells: list[CellResult] = []
        self.skipped: list[tuple[CellKey, str]] = []

    def __call__(self, config: ExperimentConfig, cells: list[CellResult], out: Path, **options: Any) -> Path:
        self.cells, self.skipped = cells, options["skipped"]
        (out / "report.html").write_text(options["command"])
        return out / "report.html"


@pytest.fixture(autouse=True)
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    stub_reports = Reports()
    monkeypatch.setattr(runner, "write_grid_report", stub_reports)
    return stub_reports


def run(config: ExperimentConfig, out: Path, **options: Any) -> Recorder:
    recorder = Recorder()
    try:
        experiment(config, out, jobs=options.pop("jobs", 1), watch=recorder, **options)
    except FailedCells as error:
        recorder.errors.append(str(error))
    return recorder


@pytest.mark.slow
def test_finished_cells_are_never_computed_again(tmp_path: Path, reports: Reports) -> None:
    out, config = tmp_path / "grid", small_grid(questions=[FEW])
    first = run(config, out, command="peterrec experiment x")
    assert first.done_places == [
        "backbones/small/base/seed-0",
        *(f"bundles/{c}" for c in CELLS),
        "corpora/small/seed-0",
    ]
    assert cells_on_disk(out) == CELLS
    assert [cell.key.method for cell in reports.cells].count("patch") == 2
    assert (out / "report.html").read_text() == "peterrec experiment x"
    times = {path: path.stat().st_mtime_ns for path in out.glob("cells/**/cell.json")}
    assert run(config, out).ended_units == []
    assert run(small_grid("title=Other", "evaluate.bootstrap=70", questions=[FEW]), out).ended_units == []
    assert {path: path.stat().st_mtime_ns for path in out.glob("cells/**/cell.json")} == times

    changed = small_grid("methods.patch.adapt.patience=9", questions=[FEW])
    assert run(changed, out).done_places == [
        f"bundles/small/{task}/patch/seed-0-share-100" for task in ("cluster", "target")
    ]
    shares_config = small_grid(
        "methods.patch.adapt.patience=9", questions=[question("patch", "conet", label_fractions=[1, 0.5])]
    )
    assert run(shares_config, out).done_places == sorted(
        [f"bundles/small/{task}/patch/seed-0-share-50" for task in ("cluster", "target")]
        + [f"bundles/small/target/conet/seed-0-share-{share}" for share in (100, 50)]
    )
    # Nothing below a finished cell is needed, and what is needed is made again.
    for folder in ("corpora", "backbones", "bundles"):
        for path in (out / folder).rglob("*.json"):
            path.unlink()
    assert run(shares_config, out).ended_units == []
    (out / "cells" / CELLS[0] / "cell.json").write_text("{")
    rerun = run(small_grid(questions=[FEW]), out)
    assert f"bundles/{CELLS[0]}" in rerun.done_places
    assert "backbones/small/base/seed-0" in rerun.done_places
    assert f"bundles/{CELLS[-1]}" not in rerun.done_places
    assert run(small_grid(questions=[FEW]), out, overwrite=True).done_places == first.done_places


@pytest.mark.slow
def test_a_cell_that_fails_does_not_stop_the_others(
    tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, config = tmp_path / "grid", small_grid(questions=[FEW])
    plain = work.adapt

    def broken(model: Any, corpus: Any, task: str, *options: Any, **shares_config: Any) -> Any:
        if task == "target" and options[1].strategy == "patch":
            raise ValueError("by accident")
        return plain(model, corpus, task, *options, **shares_config)

    monkeypatch.setattr(work, "adapt", broken)
    recorder = run(config, out)
    bad = "small/target/patch/seed-0-share-100"
    assert cells_on_disk(out) == [cell for cell in CELLS if cell != bad]
    assert "1 step of the grid failed; the rest is in its report" in recorder.errors[-1]
    assert "small/target patch, seed 0: unexpected ValueError: by accident" in recorder.errors[-1]
    assert "run the same command again" in recorder.errors[-1]
    assert reports.skipped == [(CellKey("small", "target", "patch", 0), "failed: unexpected ValueError: by accident")]
    monkeypatch.undo()
    monkeypatch.setattr(runner, "write_grid_report", reports)
    assert run(config, out).done_places == [f"bundles/{bad}"], "it is tried again, alone"
    assert reports.skipped == []


@pytest.mark.slow
def test_what_needs_something_that_failed_is_not_tried(
    tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "grid"
    config = small_grid("pretrain.valid_fraction=0.0001", questions=[FEW])  # so nobody is held out
    recorder = run(config, out)
    assert dict(recorder.ended_units)["backbones/small/base/seed-0"] == "failed"
    assert cells_on_disk(out) == [cell for cell in CELLS if "patch" not in cell]
    assert "3 steps of the grid failed" in recorder.errors[-1]
    assert {reason for _, reason in reports.skipped} == {"failed: what it needs failed: small backbone base, seed 0"}


@pytest.mark.slow
def test_cells_side_by_side_are_the_same(tmp_path: Path, reports: Reports) -> None:
    config = small_grid(questions=[FEW])
    run(config, tmp_path / "one")
    alone = {cell.key: cell.metrics for cell in reports.cells}
    recorder = run(config, tmp_path / "two", jobs=2)
    assert recorder.jobs == 2
    assert cells_on_disk(tmp_path / "two") == CELLS
    assert {cell.key: cell.metrics for cell in reports.cells} == {
        key: pytest.approx(metrics, abs=1e-6) for key, metrics in alone.items()
    }
    assert {cell.cost.jobs for cell in reports.cells} == {2}


@pytest.mark.slow
def test_a_worker_that_dies_is_a_cell_that_failed(tmp_path: Path) -> None:
    class Killer(Recorder):
        def started(self, unit: Any) -> None:
            if "popularity" in unit.place:  # the majority is being fitted
                for worker in workers_of(os.getpid()):
                    os.kill(worker, signal.SIGKILL)

    out, config = tmp_path / "grid", small_grid(questions=[question("popularity", "majority")])
    recorder = Killer()
    with pytest.raises(FailedCells, match="small/cluster majority, seed 0: its process died of signal 9"):
        experiment(config, out, jobs=2, watch=recorder)
    assert cells_on_disk(out) == ["small/target/popularity/seed-0-share-100"]
    assert run(config, out).done_places == ["bundles/small/cluster/majority/seed-0-share-100"]


def test_a_worker_that_others_stop_says_so() -> None:
    error = InterruptedRun("stopped by the user", remedy="continue with --resume")
    assert Worker(None).death(error) == "its process was stopped (InterruptedRun)"


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "grid"
    with state.locked(out), pytest.raises(ArtifactError, match=rf"another run \(process {os.getpid()}\) is at work"):
        run(small_grid(questions=[FEW]), out)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "lock"]
    (out / "lock").write_text("999999\n")  # of a process that is no more
    run(small_grid(questions=[question("majority")]), out)


def test_stopped_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "fit_baseline", interrupted)
    with pytest.raises(InterruptedRun, match="run the same command again to go on"):
        experiment(small_grid(questions=[question("majority")]), tmp_path / "grid", jobs=1)


def test_bad_input_is_told_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "grid"
    with pytest.raises(ConfigError, match="method 'head' on 'small'"):
        experiment(small_grid("methods.head.adapt.epoch=1"), out)
    data = small_grid().model_dump(mode="json", exclude_unset=True)["data"]
    del data["small"]["synthetic"]
    with pytest.raises(DataError, match="there is no such file"):
        experiment(small_grid(data=data, data_root=str(tmp_path)), out)
    with pytest.raises(ConfigError, match="0 cells at a time"):
        experiment(small_grid("jobs=1"), out, jobs=0)
    with pytest.raises(ArtifactError, match="is no folder of a grid"):
        report_only(small_grid(), out)
    assert not out.exists()
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match="is there and is not a grid of experiments"):
            experiment(small_grid(), out, overwrite=overwrite)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_data_that_nobody_asks_about_may_be_absent(tmp_path: Path) -> None:
    data = small_grid().model_dump(mode="json", exclude_unset=True)["data"]
    data["absent"] = {key: value for key, value in data["small"].items() if key != "synthetic"}
    only = question("majority", tasks=["small/cluster"])
    config = small_grid(data=data, data_root=str(tmp_path), questions=[only])
    assert run(config, tmp_path / "grid").done_places == [
        "bundles/small/cluster/majority/seed-0-share-100",
        "corpora/small/seed-0",
    ]
    with pytest.raises(DataError, match="there is no such file"):
        run(small_grid(data=data, data_root=str(tmp_path), questions=[question("majority")]), tmp_path / "grid")


@pytest.mark.slow
def test_the_report_alone(tmp_path: Path, reports: Reports) -> None:
    out, config = tmp_path / "grid", small_grid(questions=[question("majority", "popularity", "head")])
    run(small_grid(questions=[question("majority", "popularity")]), out)
    reports.cells = []
    report_only(config, out)
    assert [cell.method for cell in reports.cells] == ["majority", "popularity"]
    with pytest.raises(ArtifactError, match="has no finished cell of this grid"):
        report_only(small_grid("evaluate.k=3", questions=[FEW]), out)


def test_a_data_set_is_fetched_only_where_it_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Path] = []

    def stub(name: str, path: Path, report: object) -> None:
        assert name == "ml-1m"
        fetched.append(path)
        path.mkdir()
        pq.write_table(synthetic(users=20).events, path / "events.parquet")

    monkeypatch.setattr(runner, "fetch", stub)
    prepare = {
        "events": {"paths": ["ml-1m/events.parquet"], "domain": "domain"},
        "tasks": [{"name": "shop", "kind": "ranking", "domains": ["target"]}],
    }
    data = {"films": {"fetch": "ml-1m", "prepare": prepare}}
    config = small_grid(data=data, data_root=str(tmp_path), questions=[question("patch")])
    runner._fetch(config)
    assert fetched == [tmp_path / "ml-1m"]
    runner._fetch(config)  # the user's own copy may lie there as well
    assert len(fetched) == 1
