"""The verb `experiment`: a grid computed cell by cell, gone on with where it was, and its report."""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

import pyarrow.parquet as pq

from peterrec.arguments import checked
from peterrec.config import dump_yaml
from peterrec.config.experiment import ExperimentConfig, GridDataConfig
from peterrec.data.sources import fetch
from peterrec.data.synthetic import planted
from peterrec.errors import ArtifactError, ConfigError, DataError, PeterRecError
from peterrec.experiments.assemble import machine_of
from peterrec.experiments.grid import state
from peterrec.experiments.grid.cell_settings import check_settings
from peterrec.experiments.grid.plan import Unit, needed, units_of
from peterrec.experiments.grid.progress import Lines, Watch
from peterrec.experiments.grid.run_unit import Job, Outcome, do
from peterrec.experiments.grid.workers import Worker, stop, stoppable
from peterrec.nn.device import find_device
from peterrec.report.grid.cells import CellKey, CellResult, expected_cells, read_cell
from peterrec.report.grid.page import write_grid_report
from peterrec.report.run.record import Machine
from peterrec.storage import new_folder, read_json, write_file, write_json

logger = logging.getLogger(__name__)

Failure = tuple[Unit, Outcome]

SHOWN = 10  # failures that the error names
WAIT = 1.0  # seconds in which nothing need be done by the process that waits for the others

MOST_REASONS = 3  # told in one message


class FailedCells(PeterRecError):  # noqa: N818 - it names what there is
    """Failure of some cells of a grid; the others are there, and the report is written."""

    exit_code = 1


@checked
def experiment(
    config: ExperimentConfig,
    out: str | Path,
    *,
    overwrite: bool = False,
    jobs: int | None = None,
    command: str = "",
    watch: Watch | None = None,
) -> Path:
    """Compute the cells of a grid that are not there yet, and write the report that answers its questions.

    A cell is one method on one task of one data set, with one seed and one share of the labels (paper, section 4).
    What is finished is never computed again while its inputs are the same: a killed grid goes on. All of it lies under
    `out`: `corpora`, `backbones`, `bundles` (small ones), `cells`, and the report as `report.html`, `results.md` and
    `results.json`.

    Args:
        config: the grid.
        out: its folder.
        overwrite: compute everything again.
        jobs: cells at a time, each in a process of its own; that of the settings if not given, or one for each core.
        command: shown in the report, for doing it again.
        watch: is told of each step; if not given, each is logged.

    Returns:
        Path of the HTML report.

    Raises:
        ConfigError: a setting is wrong; the message names the method, backbone or data set.
        DataError: a file of a data set is missing or cannot be read.
        ArtifactError: `out` is something else, or is being written by another run.
        FailedCells: some cells failed; running again tries them again.
        InterruptedRun: Ctrl-C or SIGTERM; running again goes on.
        FetchError, StorageError: a data set cannot be fetched; the place is not writable.
    """
    out, watch, machine = Path(out), watch or Lines(), machine_of(find_device("auto"))
    jobs = jobs if jobs is not None else config.jobs or machine.cores
    if jobs < 1:
        raise ConfigError(f"{jobs} cells at a time cannot be computed", remedy="give --jobs 1 or more")
    check_settings(config)
    state.check_folder(out)
    _fetch(config)
    units = units_of(config, out)
    with stoppable(out), state.locked(out):
        state.open_folder(out, overwrite=overwrite)
        _write_synthetic_data(config, out)
        write_file(out / "config.yaml", dump_yaml(config).encode())
        write_json(out / "machine.json", machine.model_dump())
        failures = _compute(config, out, units, jobs, machine.cores, watch)
        if not failures:
            return _write_report(config, out, units, machine, command)
        with contextlib.suppress(ArtifactError):  # no cell is finished
            _write_report(config, out, units, machine, command)
    steps = f"{len(failures)} step{'s' if len(failures) > 1 else ''} of the grid failed; the rest is in its report"
    shown = [f"\n  {unit}: {outcome.line.splitlines()[0]}" for unit, outcome in failures[:SHOWN]]
    overflow = f"\n  and {len(failures) - SHOWN} more" if len(failures) > SHOWN else ""
    remedy = "run the same command again: only what is missing is computed"
    raise FailedCells(f"{steps}{''.join(shown)}{overflow}", remedy=remedy, path=out)


def report_only(config: ExperimentConfig, out: str | Path, *, command: str = "") -> Path:
    """Write the report of the cells that are finished, and compute nothing.

    Where the data are not there, cells are taken as they are; otherwise only those that were computed with these
    settings.

    Raises:
        ConfigError: as `experiment`.
        ArtifactError: `out` is no folder of a grid, or no cell of it is finished.
        StorageError: the place is not writable.
    """
    out = Path(out)
    check_settings(config)
    if not (out / state.MARKER).is_file():
        raise ArtifactError("is no folder of a grid", remedy="run it without --report-only first", path=out)
    try:
        units: list[Unit] | None = units_of(config, out)
    except (DataError, ArtifactError):
        units = None
    machine = Machine.model_validate(read_json(out / "machine.json"))
    return _write_report(config, out, units, machine, command)


def _fetch(config: ExperimentConfig) -> None:
    """Fetch data sets that are to be fetched and are not there."""
    for _, data in _used_data_sets(config):
        place = Path(config.data_root) / (data.fetch or "")
        if data.fetch is not None and not place.exists():  # what is there may be the user's own copy
            fetch(data.fetch, place, report=logger.info)


def _used_data_sets(config: ExperimentConfig) -> list[tuple[str, GridDataConfig]]:
    """Return the data sets that a question asks about."""
    names = {key.data for key in expected_cells(config)}
    return [(name, data) for name, data in config.data.items() if name in names]


def _write_synthetic_data(config: ExperimentConfig, out: Path) -> None:
    for name, data in _used_data_sets(config):
        if data.synthetic is None:
            continue
        folder, settings = out / "data" / name, data.synthetic.model_dump(mode="json")
        if (folder / "synthetic.json").is_file() and read_json(folder / "synthetic.json") == settings:
            continue
        log = planted(**settings)
        with new_folder(folder, overwrite=True) as new:
            pq.write_table(log.events, new / "events.parquet")
            pq.write_table(log.users, new / "users.parquet")
            write_json(new / "synthetic.json", settings)


def _compute(
    config: ExperimentConfig, out: Path, units: list[Unit], jobs: int, cores: int, watch: Watch
) -> list[Failure]:
    """Run all units that are not done, in order, each once its inputs are there; return those that failed."""
    remaining = needed(units, [state.is_done(out, unit) for unit in units])
    jobs = max(1, min(jobs, len(remaining)))
    threads = None if jobs == 1 else max(1, cores // jobs)
    workers = [Worker(threads) for _ in range(jobs)]
    running: dict[Future[Outcome], tuple[Unit, Worker]] = {}
    waiting, missing = list(remaining), {unit.place for unit in remaining}
    failures: list[Failure] = []
    watch.begin(units, remaining, jobs)
    try:
        while waiting or running:
            idle = [worker for worker in workers if not worker.busy]
            ready = [unit for unit in waiting if missing.isdisjoint(unit.needs)]
            for unit, worker in zip(ready, idle, strict=False):
                waiting.remove(unit)
                watch.started(unit)
                running[worker.submit(do, Job(unit, out, config.evaluate, jobs, threads))] = unit, worker
            for future in wait(running, WAIT, FIRST_COMPLETED).done:
                unit, worker = running.pop(future)
                error = future.exception()
                outcome = future.result() if error is None else Outcome("failed", worker.death(error))
                worker.busy = False
                missing.discard(unit.place)
                failed = [(unit, outcome)]
                if outcome.status == "failed":
                    failed += _failed_with(unit, out, waiting)
                    failures += failed
                for ended, its_outcome in failed:
                    watch.ended(ended, its_outcome)
    finally:
        stop(workers, running)
        watch.close()
    return failures


def _failed_with(failed: Unit, out: Path, waiting: list[Unit]) -> list[Failure]:
    """Take the units that can no longer be done out of those that wait, note the reason, and return them with it."""
    outcome = Outcome("failed", f"what it needs failed: {failed}")
    dependents = [unit for unit in waiting if failed.place in unit.needs]
    for unit in dependents:
        waiting.remove(unit)
        state.note(out, unit, "failed", outcome.line)
    return [(unit, outcome) for unit in dependents]


def _write_report(
    config: ExperimentConfig, out: Path, units: list[Unit] | None, machine: Machine, command: str
) -> Path:
    by_cell = {key: unit for unit in units or () for key in unit.cells}
    cells: list[CellResult] = []
    skipped: list[tuple[CellKey, str]] = []
    for key in expected_cells(config):
        unit = by_cell.get(key)
        finished = (out / key.folder / "cell.json").is_file() if unit is None else state.is_finished(out, key, unit)
        if finished:
            cells.append(read_cell(out / key.folder))
        elif unit is not None and (reason := state.why_missing(out, key, unit)):
            skipped.append((key, reason))
    if not cells:
        reasons = "; ".join(sorted({reason for _, reason in skipped})[:MOST_REASONS])
        raise ArtifactError(
            "has no finished cell of this grid" + (f" ({reasons})" if reasons else ""),
            remedy="change what cannot be had" if reasons else "run it without --report-only",
            path=out,
        )
    return write_grid_report(config, cells, out, machine=machine, command=command, skipped=skipped)
