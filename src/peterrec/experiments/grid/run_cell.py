"""Cells of a grid: a method is trained or fitted on the train users, evaluated on the test users, and written."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peterrec.artifacts.bundle_io import Bundle
from peterrec.config import AdaptConfig, EvaluateConfig
from peterrec.data.corpus import PARTS, Corpus, Task
from peterrec.data.subset import with_share
from peterrec.errors import ConfigError, TaskError
from peterrec.evaluation.baselines import Unavailable, find_baseline, fit_baseline
from peterrec.evaluation.bundles import BundleScorer
from peterrec.evaluation.per_user import evaluate_users, pretraining_users
from peterrec.evaluation.scorers import Scorer, settings_of
from peterrec.experiments.grid import state
from peterrec.experiments.grid.cell_settings import without_runner
from peterrec.experiments.grid.peak_memory import watch_memory
from peterrec.experiments.grid.plan import Unit
from peterrec.experiments.neural_baselines import TrainedBaseline, train_neural_baseline
from peterrec.experiments.reuse import same_bundle
from peterrec.model import UserModel
from peterrec.report.grid.cells import CellKey, CellResult, Cost, Family, write_cell
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.adaptation_run import train_and_valid
from peterrec.training.strategies import build

LARGE = 1_000_000  # bytes of a bundle that is not kept once its cell is written


@dataclass(frozen=True)
class Job:
    """A unit, with the settings that doing it needs.

    Attributes:
        unit: the unit; what it needs is there.
        out: folder of the grid.
        evaluate: of the grid; the seed is the unit's.
        jobs: units that are done at the same time.
        threads: of the engine that prepares; None: its default.
    """

    unit: Unit
    out: Path
    evaluate: EvaluateConfig
    jobs: int = 1
    threads: int | None = None


class NotPossible(Exception):  # noqa: N818 - no error: it is noted, and the grid goes on
    """Impossibility of the cells of a unit; the message gives the reason."""


def _view(job: Job) -> tuple[Corpus, Corpus]:
    """Return the corpus, and the share of it that methods are fitted on."""
    corpus = Corpus.open(job.out / job.unit.needs[0])
    return corpus, with_share(corpus, job.unit.cells[0].share, job.unit.seed)


def adapt_cells(job: Job) -> str:
    """Adapt a backbone to a task, or to all tasks together, and evaluate each bundle.

    Returns:
        The main metric, in a few words.

    Raises:
        NotPossible: there is no such cell, whatever is tried.
    """
    unit, path, joint = job.unit, job.out / job.unit.place, job.unit.kind == "joint"
    assert isinstance(unit.settings, AdaptConfig)
    settings: AdaptConfig = unit.settings
    corpus, view = _view(job)
    model = _model(job, settings)
    tasks = [_task(view, key.task) for key in unit.cells]
    names = [task.name for task in tasks]
    paths = [path / name if joint else path for name in names]
    if not joint:
        _check_possible(settings, model, tasks[0])
    memory_growth = watch_memory()
    if not all(same_bundle(bundle_path, settings, model, view) for bundle_path in paths):
        shutil.rmtree(path, ignore_errors=True)  # made otherwise, or damaged
        if joint:
            adapt_jointly(model, view, names, path, settings, resume=True, overwrite=True)
        else:
            adapt(model, view, names[0], path, settings, resume=True, overwrite=True)
    peak = memory_growth()
    lines = [
        _bundle_cell(job, key, corpus, task, model, bundle_path, peak)
        for key, task, bundle_path in zip(unit.cells, tasks, paths, strict=True)
    ]
    if _size(path) > LARGE:
        shutil.rmtree(path)
    return "; ".join(lines)


def _check_possible(settings: AdaptConfig, model: UserModel, task: Task) -> None:
    try:
        with torch.random.fork_rng(devices=[]):
            build(settings, model.network.backbone, task, train_and_valid(task)[0])
    except (ConfigError, TaskError) as error:
        raise NotPossible(str(error)) from error


def _model(job: Job, settings: AdaptConfig) -> UserModel:
    device = settings.runner.accelerator
    return UserModel.from_pretrained(job.out / job.unit.needs[1], device="auto" if device == "gpu" else device)


def _task(view: Corpus, name: str) -> Task:
    try:
        task = view.task(name)
        train_and_valid(task)
    except TaskError as error:
        raise NotPossible(str(error)) from error
    return task


def _bundle_cell(
    job: Job, key: CellKey, corpus: Corpus, task: Task, model: UserModel, path: Path, peak: int | None
) -> str:
    """Evaluate a bundle and write its cell."""
    assert isinstance(job.unit.settings, AdaptConfig)
    name = model.load_bundle(path, name="cell")
    try:
        bundle = model.bundle(name)
        fields = {
            "cost": _cost(bundle, _size(path), peak, job.jobs),
            "monitor": bundle.metrics["monitor"],
            "curve": [dict(row) for row in bundle.metrics["curve"]],
            "best_epoch": bundle.metrics["best_epoch"],
            "settings": without_runner(job.unit.settings),
        }
        return _write(job, key, corpus, task, "adapt", BundleScorer(model, name, job.evaluate.batch_size), fields)
    finally:
        model.delete_bundle(name)


def _cost(bundle: Bundle, size: int, peak: int | None, jobs: int) -> Cost:
    seconds = [row["seconds"] or 0.0 for row in bundle.metrics["curve"]]
    choosing = [row["seconds"] for row in bundle.metrics.get("cross_validation", {}).get("curve", ())]
    return Cost(
        trained=bundle.trained,
        all_params=bundle.all_params,
        stored_bytes=size,
        seconds=sum(seconds) + sum(choosing),
        seconds_per_epoch=float(np.mean(seconds[1:] or seconds)),
        peak_memory=peak,
        jobs=jobs,
    )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def baseline_cells(job: Job) -> str:
    """Fit or train a baseline, and evaluate it on its tasks.

    Returns:
        The main metric of each task, in a few words.

    Raises:
        NotPossible: there is no such cell, whatever is tried.
        ConfigError: something has to be installed for it.
    """
    unit = job.unit
    corpus, view = _view(job)
    tasks = {key: _task(view, key.task) for key in unit.cells}
    if find_baseline(unit.name).family == "cheap":
        return "; ".join(_cheap_cell(job, key, corpus, task) for key, task in tasks.items())
    assert isinstance(unit.settings, dict)
    memory_growth = watch_memory()
    trained = train_neural_baseline(unit.name, view, [key.task for key in tasks], unit.settings, unit.seed)
    peak = memory_growth()
    lines = []
    for key, task in tasks.items():
        network = trained[key.task]
        fields = _network_fields(network, peak, job.jobs)
        lines.append(_write(job, key, corpus, task, "neural-baseline", network.scorer, fields))
    return "; ".join(lines)


def _cheap_cell(job: Job, key: CellKey, corpus: Corpus, task: Task) -> str:
    """Fit a cheap baseline, evaluate it and write its cell."""
    targets = 0 if task.targets is None else len(task.targets)
    memory_growth, start = watch_memory(), time.perf_counter()
    train, valid = train_and_valid(task)
    fitted = fit_baseline(job.unit.name, train, valid, classes=len(task.class_names), n_targets=targets)
    if isinstance(fitted, Unavailable):
        raise ConfigError(fitted, remedy="install what is missing, and run the same command again")
    if isinstance(fitted, str):
        raise NotPossible(fitted)
    cost = Cost(seconds=time.perf_counter() - start, peak_memory=memory_growth(), jobs=job.jobs)
    return _write(job, key, corpus, task, "baseline", fitted, {"cost": cost, "settings": settings_of(fitted)})


def _network_fields(network: TrainedBaseline, peak: int | None, jobs: int) -> dict[str, Any]:
    history = network.history
    cost = Cost(
        trained=network.trained,
        all_params=network.all_params,
        stored_bytes=4 * network.all_params,  # nothing is shared with other tasks
        seconds=history.seconds,
        seconds_per_epoch=history.seconds_per_epoch,
        peak_memory=peak,
        jobs=jobs,
    )
    epoch_seconds = np.diff([row["seconds"] for row in history.rows], prepend=0.0).tolist()
    return {
        "cost": cost,
        "monitor": history.monitor,
        "curve": [{**row, "seconds": seconds} for row, seconds in zip(history.rows, epoch_seconds, strict=True)],
        "best_epoch": history.best_epoch,
        "settings": network.settings,
    }


def _write(
    job: Job, key: CellKey, corpus: Corpus, task: Task, family: Family, scorer: Scorer, fields: dict[str, Any]
) -> str:
    """Evaluate a method on the test users and write its cell; return the main metric as a line."""
    unit = job.unit
    assert unit.seen_by is not None
    config = job.evaluate.model_copy(update={"seed": unit.seed})
    evaluation = evaluate_users(task, scorer, config, pretraining_users(corpus, unit.seen_by))
    result = CellResult(
        **dataclasses.asdict(key),
        inputs=unit.inputs,
        task_kind=task.kind,
        family=family,
        users={part: len(task.part(part)) for part in PARTS},
        classes=evaluation.classes,
        candidates=evaluation.candidates,
        metrics=evaluation.metrics,
        primary=evaluation.primary,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        **fields,
    )
    write_cell(job.out, result, evaluation.users)
    state.remove_notes(job.out, key)
    line = f"{evaluation.primary} {evaluation.metrics[evaluation.primary]:.4f}"
    return line if len(unit.cells) == 1 else f"{key.task} {line}"
