"""The cells of each kind of method: trained or fitted on the train users, judged on the test users, written."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
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
from peterrec.evaluation.baselines import Unavailable, fit_baseline
from peterrec.evaluation.bundles import BundleScorer
from peterrec.evaluation.per_user import judge, seen_by
from peterrec.evaluation.scorers import Scorer, settings_of
from peterrec.experiments.grid import state
from peterrec.experiments.grid.cell_settings import without_runner
from peterrec.experiments.grid.peak_memory import watch_memory
from peterrec.experiments.grid.plan import Unit
from peterrec.experiments.reuse import same_bundle
from peterrec.experiments.references import Rival, train_rival
from peterrec.model import UserModel
from peterrec.report.grid.cells import CellResult, Cost, Family, write_cell
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.adaptation_run import train_and_valid
from peterrec.training.strategies import build

LARGE = 1_000_000  # bytes of a bundle that is not kept once its cell is written


@dataclass(frozen=True)
class Job:
    """A unit and what is to be known to do it.

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
    """The cells of a unit cannot be had; says why."""


def _view(job: Job) -> tuple[Corpus, Corpus]:
    """Return the corpus, and what methods see of it."""
    corpus = Corpus.open(job.out / job.unit.needs[0])
    return corpus, with_share(corpus, job.unit.cells[0].share, job.unit.seed)


def adapt_cell(job: Job) -> str:
    """Adapt a backbone to a task, and judge the bundle.

    Returns:
        The main metric, in a few words.

    Raises:
        NotPossible: there is no such cell, whatever is tried.
    """
    unit, path = job.unit, job.out / job.unit.place
    assert isinstance(unit.settings, AdaptConfig)
    settings: AdaptConfig = unit.settings
    corpus, view = _view(job)
    model = _model(job, settings)
    task = _task(view, unit.cells[0].task)
    try:
        with torch.random.fork_rng(devices=[]):
            build(settings, model.network.backbone, task, train_and_valid(task)[0])
    except (ConfigError, TaskError) as error:
        raise NotPossible(str(error)) from error
    grown = watch_memory()
    if not same_bundle(path, settings, model, view):
        shutil.rmtree(path, ignore_errors=True)  # made otherwise, or damaged
        adapt(model, view, task.name, path, settings, resume=True, overwrite=True)
    peak = grown()
    line = _adapted(job, corpus, task, model, path, peak)
    if _size(path) > LARGE:
        shutil.rmtree(path)
    return line


def joint_cells(job: Job) -> str:
    """Adapt a backbone to all tasks together, and judge each bundle.

    Returns:
        The main metric, in a few words.

    Raises:
        NotPossible: there is no such cell, whatever is tried.
    """
    unit, path = job.unit, job.out / job.unit.place
    assert isinstance(unit.settings, AdaptConfig)
    corpus, view = _view(job)
    model = _model(job, unit.settings)
    tasks = {key: _task(view, key.task) for key in unit.cells}
    grown = watch_memory()
    names = [key.task for key in unit.cells]
    if not all(same_bundle(path / name, unit.settings, model, view) for name in names):
        shutil.rmtree(path, ignore_errors=True)
        adapt_jointly(model, view, names, path, unit.settings, resume=True, overwrite=True)
    peak = grown()
    lines = []
    for key, task in tasks.items():
        one = replace(job, unit=replace(unit, cells=(key,)))
        lines.append(f"{key.task} {_adapted(one, corpus, task, model, path / key.task, peak)}")
    if _size(path) > LARGE:
        shutil.rmtree(path)
    return "; ".join(lines)


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


def _adapted(job: Job, corpus: Corpus, task: Task, model: UserModel, path: Path, peak: int | None) -> str:
    """Judge a bundle and write its cell."""
    name = model.load_bundle(path, name="cell")
    try:
        bundle = model.bundle(name)
        scorer = BundleScorer(model, name, job.evaluate.batch_size)
        cost = _cost(bundle, _size(path), peak, job.jobs)
        found = bundle.metrics
        assert isinstance(job.unit.settings, AdaptConfig)
        told = {
            "cost": cost,
            "monitor": found["monitor"],
            "curve": [dict(row) for row in found["curve"]],
            "best_epoch": found["best_epoch"],
            "settings": without_runner(job.unit.settings),
        }
        return _write(job, corpus, task, "adapt", scorer, told)
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


def baseline_cell(job: Job) -> str:
    """Fit a baseline, and judge it.

    Returns:
        The main metric, in a few words.

    Raises:
        NotPossible: there is no such cell, whatever is tried.
        ConfigError: something has to be installed for it.
    """
    corpus, view = _view(job)
    task = _task(view, job.unit.cells[0].task)
    targets = 0 if task.targets is None else len(task.targets)
    grown, start = watch_memory(), time.perf_counter()
    train, valid = train_and_valid(task)
    fitted = fit_baseline(job.unit.name, train, valid, classes=len(task.class_names), n_targets=targets)
    if isinstance(fitted, Unavailable):
        raise ConfigError(fitted, remedy="install what is missing, and run the same command again")
    if isinstance(fitted, str):
        raise NotPossible(fitted)
    cost = Cost(seconds=time.perf_counter() - start, peak_memory=grown(), jobs=job.jobs)
    return _write(job, corpus, task, "baseline", fitted, {"cost": cost, "settings": settings_of(fitted)})


def rival_cells(job: Job) -> str:
    """Train a reference, and judge it on its tasks.

    Returns:
        The main metric, in a few words.

    Raises:
        NotPossible: there is no such cell, whatever is tried.
    """
    unit = job.unit
    assert isinstance(unit.settings, dict)
    corpus, view = _view(job)
    tasks = {key: _task(view, key.task) for key in unit.cells}
    grown = watch_memory()
    trained = train_rival(unit.name, view, [key.task for key in unit.cells], unit.settings, unit.seed)
    peak = grown()
    lines = []
    for key, task in tasks.items():
        reference = trained[key.task]
        one = replace(job, unit=replace(unit, cells=(key,)))
        lines.append(f"{key.task} {_write(one, corpus, task, 'reference', reference.scorer, _told(reference, peak, job.jobs))}")
    return "; ".join(lines)


def _told(reference: Rival, peak: int | None, jobs: int) -> dict[str, Any]:
    cost = Cost(
        trained=reference.trained,
        all_params=reference.all_params,
        stored_bytes=reference.stored_bytes,
        seconds=reference.seconds,
        seconds_per_epoch=reference.seconds_per_epoch,
        peak_memory=peak,
        jobs=jobs,
    )
    ends = [row["seconds"] or 0.0 for row in reference.curve]  # since the start; in cells they are of each epoch
    epochs = np.diff(ends, prepend=0.0).tolist()
    return {
        "cost": cost,
        "monitor": reference.monitor,
        "curve": [{**row, "seconds": seconds} for row, seconds in zip(reference.curve, epochs, strict=True)],
        "best_epoch": reference.best_epoch,
        "settings": reference.settings,
    }


def _write(job: Job, corpus: Corpus, task: Task, family: Family, scorer: Scorer, told: dict[str, Any]) -> str:
    """Judge a method on the test users and write its cell; return the main metric as a line."""
    unit, key = job.unit, job.unit.cells[0]
    assert unit.seen_by is not None
    config = job.evaluate.model_copy(update={"seed": unit.seed})
    found = judge(task, scorer, config, seen_by(corpus, unit.seen_by))
    result = CellResult(
        data=key.data,
        task=key.task,
        method=key.method,
        seed=key.seed,
        share=key.share,
        inputs=unit.inputs,
        task_kind=task.kind,
        family=family,
        users={part: len(task.part(part)) for part in PARTS},
        classes=found.classes,
        candidates=found.candidates,
        metrics=found.metrics,
        primary=found.primary,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        **told,
    )
    write_cell(job.out, result, found.users)
    state.forget(job.out, key)
    return f"{found.primary} {found.metrics[found.primary]:.4f}"
