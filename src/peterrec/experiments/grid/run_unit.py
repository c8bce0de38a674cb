"""The work on one unit of a grid, in any process: a corpus, a backbone, or cells from training to the users' table."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from peterrec.artifacts.inspection import inspect
from peterrec.config import AdaptConfig, EvaluateConfig, PrepareConfig, PretrainConfig
from peterrec.data.corpus import PARTS, Corpus, Task
from peterrec.data.prepare import prepare
from peterrec.data.pretraining_users import unlabelled_sequences
from peterrec.data.subset import with_share
from peterrec.errors import ConfigError, InterruptedRun, PeterRecError, StorageError, TaskError
from peterrec.evaluation.baselines import Unavailable, find_baseline, fit_baseline
from peterrec.evaluation.bundles import BundleScorer
from peterrec.evaluation.per_user import evaluate_users, pretraining_users
from peterrec.evaluation.scorers import Scorer, settings_of
from peterrec.experiments.grid import state
from peterrec.experiments.grid.cell_settings import deciding_settings
from peterrec.experiments.grid.peak_memory import watch_memory
from peterrec.experiments.grid.plan import Unit
from peterrec.experiments.neural_baselines import train_neural_baseline
from peterrec.experiments.reuse import same_bundle
from peterrec.model import UserModel
from peterrec.process import alone
from peterrec.report.grid.cells import CellKey, CellResult, Cost, write_cell
from peterrec.training.adapt import adapt, adapt_jointly
from peterrec.training.adaptation_run import train_and_valid
from peterrec.training.pretrain import pretrain
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


@dataclass(frozen=True)
class Outcome:
    """The result of doing a unit: done, skipped or failed.

    Attributes:
        status: `skipped`: its cells cannot be had; `failed`: it may go well another time.
        line: the main metric, or what went wrong, in a few words.
        seconds: that it took.
    """

    status: Literal["done", "skipped", "failed"]
    line: str
    seconds: float = 0.0


class NotPossible(Exception):  # noqa: N818 - no error: it is noted, and the grid goes on
    """Impossibility of the cells of a unit; the message gives the reason."""


@alone()
def do(job: Job) -> Outcome:
    """Run a unit and write its result: corpora and backbones for the cells, cells for the report.

    Small bundles are kept beside their cells; those above 1 MB (copies of the backbone, large heads) are removed once
    the cell is written. An adaptation that was killed goes on where it was.

    Raises:
        InterruptedRun: it was told to stop. All other errors are noted and end in the outcome.
    """
    start = time.perf_counter()
    status: state.Note = "failed"
    trace = ""
    try:
        return Outcome("done", _DO[job.unit.kind](job), time.perf_counter() - start)
    except NotPossible as error:
        status, line = "skipped", str(error)
    except InterruptedRun:
        raise
    except PeterRecError as error:
        line, trace = str(error), traceback.format_exc()
    except Exception as error:  # one cell must not end the grid: it is noted with where it came from
        line, trace = f"unexpected {type(error).__name__}: {error}", traceback.format_exc()
    with contextlib.suppress(StorageError):  # where the disk is full, the outcome still tells
        state.note(job.out, job.unit, status, line, trace)
    return Outcome(status, line, time.perf_counter() - start)


def _make_shared(job: Job) -> str:
    """Prepare a corpus or pre-train a backbone, in place of what was made otherwise or is damaged.

    Resume points lie beside it. The file that says how it was made goes first: a kill in between must not leave it
    beside something else.
    """
    unit, place, settings = job.unit, job.out / job.unit.place, job.unit.settings
    (job.out / unit.marker).unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    if isinstance(settings, PrepareConfig):
        corpus = prepare(settings.model_copy(update={"threads": settings.threads or job.threads}), place)
        line = f"{corpus.manifest['users']:,} users, {corpus.manifest['items']:,} items"
    else:
        assert isinstance(settings, PretrainConfig)
        model = pretrain(job.out / unit.needs[0], place, settings, resume=True, overwrite=True)
        line = ", ".join(f"{name} {value:.4f}" for name, value in model.pretrained.training["metrics"].items())
    state.mark(job.out, unit)
    return line


@contextlib.contextmanager
def _not_possible() -> Iterator[None]:
    try:
        yield
    except (ConfigError, TaskError) as error:
        raise NotPossible(str(error)) from error


def _open_tasks(job: Job) -> tuple[Corpus, Corpus, list[Task], list[Task]]:
    """Return the corpus, the share of it that methods are fitted on, its tasks to fit to and those of the cells."""
    corpus = Corpus.open(job.out / job.unit.needs[0])
    share = with_share(corpus, job.unit.cells[0].share, job.unit.seed)
    with _not_possible():
        train_tasks = [share.task(name) for name in job.unit.train_tasks]
        tasks = [share.task(key.task) for key in job.unit.cells]
        for train_task, task in zip(train_tasks, tasks, strict=True):
            train_and_valid(train_task)
            _check_same_answers(train_task, task)
    return corpus, share, train_tasks, tasks


def _check_same_answers(train_task: Task, task: Task) -> None:
    """Refuse a task to be asked of what was fitted to another, unless both have the same answers."""
    if train_task.name == task.name:
        return
    if _answers(train_task) != _answers(task):
        raise ConfigError(
            f"what is fitted to {train_task.name!r} cannot be asked of {task.name!r}: their answers are not the same",
            remedy="let `trained_on` name a task that differs in the histories only",
        )


def _answers(task: Task) -> tuple[Any, ...]:
    return task.kind, task.class_names, None if task.targets is None else task.targets.fingerprint


def _adapt_cells(job: Job) -> str:
    """Adapt a backbone to a task, or to all tasks together, and evaluate each bundle."""
    unit, path, settings = job.unit, job.out / job.unit.place, job.unit.settings
    assert isinstance(settings, AdaptConfig)
    corpus, share, train_tasks, tasks = _open_tasks(job)
    device = settings.runner.accelerator
    model = UserModel.from_pretrained(job.out / unit.needs[1], device="auto" if device == "gpu" else device)
    names = [task.name for task in train_tasks]
    joint = unit.kind == "joint"
    paths = [path / name if joint else path for name in names]
    if not joint:
        with _not_possible(), torch.random.fork_rng(devices=[]):
            build(settings, model.network.backbone, train_tasks[0], train_and_valid(train_tasks[0])[0])
    memory_growth = watch_memory()
    if not all(same_bundle(bundle_path, settings, model, share) for bundle_path in paths):
        shutil.rmtree(path, ignore_errors=True)  # made otherwise, or damaged
        if joint:
            adapt_jointly(model, share, names, path, settings, resume=True, overwrite=True)
        else:
            adapt(model, share, names[0], path, settings, resume=True, overwrite=True)
    peak = memory_growth()
    lines = [
        _bundle_cell(job, corpus, key, task, model, bundle_path, peak)
        for key, task, bundle_path in zip(unit.cells, tasks, paths, strict=True)
    ]
    if inspect(path)["bytes"] > LARGE:
        shutil.rmtree(path)
    return "; ".join(lines)


def _bundle_cell(
    job: Job, corpus: Corpus, key: CellKey, task: Task, model: UserModel, path: Path, peak: int | None
) -> str:
    """Evaluate a bundle and write its cell."""
    assert isinstance(job.unit.settings, AdaptConfig)
    name = model.load_bundle(path, name="cell")
    try:
        bundle = model.bundle(name)
        metrics, scorer = bundle.metrics, BundleScorer(model, name, job.evaluate.batch_size)
        fields = _training_fields(
            metrics["curve"], metrics["monitor"], metrics["best_epoch"], start=metrics.get("start"),
            settings=deciding_settings(job.unit.settings),
            seconds=sum(row["seconds"] for row in metrics.get("cross_validation", {}).get("curve", ())),
            trained=bundle.trained, all_params=bundle.all_params, stored_bytes=inspect(path)["bytes"],
            peak_memory=peak, jobs=job.jobs,
        )  # fmt: skip
        return _write(job, corpus, key, task, scorer, family="adapt", **fields)
    finally:
        model.delete_bundle(name)


def _training_fields(
    rows: Sequence[Mapping[str, float]],
    monitor: str,
    best_epoch: int,
    *,
    settings: dict[str, Any],
    start: Mapping[str, float] | None = None,
    seconds: float = 0.0,
    **costs: Any,
) -> dict[str, Any]:
    """Return what a cell says of a training; `seconds` are those that went before it."""
    epochs = [row["seconds"] for row in rows]
    per_epoch = float(np.mean(epochs[1:] or epochs)) if epochs else None  # a cross-validation may choose the start
    return {
        "cost": Cost(seconds=sum(epochs) + seconds, seconds_per_epoch=per_epoch, **costs),
        "monitor": monitor,
        "curve": [dict(row) for row in rows],
        "start": dict(start or {}),
        "best_epoch": best_epoch,
        "settings": settings,
    }


def _baseline_cells(job: Job) -> str:
    """Fit or train a baseline, and evaluate it on its tasks."""
    unit = job.unit
    corpus, share, train_tasks, tasks = _open_tasks(job)
    cells = list(zip(unit.cells, train_tasks, tasks, strict=True))
    if find_baseline(unit.name).family == "cheap":
        return "; ".join(_cheap_cell(job, corpus, *cell) for cell in cells)
    assert isinstance(unit.settings, dict)
    memory_growth = watch_memory()
    trained = train_neural_baseline(unit.name, share, list(unit.train_tasks), unit.settings, unit.seed)
    peak = memory_growth()
    lines = []
    for key, train_task, task in cells:
        network = trained[train_task.name]
        curve = network.curve
        fields = _training_fields(
            curve.rows, curve.monitor, int(curve.best["epoch"]), settings=network.settings, trained=network.trained,
            all_params=network.all_params,
            stored_bytes=4 * network.all_params,  # nothing is shared with other tasks
            peak_memory=peak, jobs=job.jobs,
        )  # fmt: skip
        lines.append(_write(job, corpus, key, task, network.scorer, family="neural-baseline", **fields))
    return "; ".join(lines)


def _cheap_cell(job: Job, corpus: Corpus, key: CellKey, train_task: Task, task: Task) -> str:
    """Fit a cheap baseline, evaluate it and write its cell."""
    targets = 0 if task.targets is None else len(task.targets)
    memory_growth, start = watch_memory(), time.perf_counter()
    train, valid = train_and_valid(train_task)
    fitted = fit_baseline(
        job.unit.name, train, valid, classes=len(task.class_names), n_targets=targets,
        unlabelled=unlabelled_sequences(corpus),
    )  # fmt: skip
    if isinstance(fitted, Unavailable):
        raise ConfigError(fitted, remedy="install what is missing, and run the same command again")
    if isinstance(fitted, str):
        raise NotPossible(fitted)
    cost = Cost(seconds=time.perf_counter() - start, peak_memory=memory_growth(), jobs=job.jobs)
    return _write(job, corpus, key, task, fitted, family="baseline", cost=cost, settings=settings_of(fitted))


def _write(job: Job, corpus: Corpus, key: CellKey, task: Task, scorer: Scorer, **fields: Any) -> str:
    """Evaluate a method on the test users and write its cell; return the main metric as a line."""
    unit = job.unit
    assert unit.seen_by is not None
    config = job.evaluate.model_copy(update={"seed": unit.seed})
    evaluation = evaluate_users(task, scorer, config, pretraining_users(corpus, unit.seen_by))
    result = CellResult(
        **dataclasses.asdict(key),
        inputs=unit.inputs,
        task_kind=task.kind,
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


_DO: dict[str, Callable[[Job], str]] = {
    "corpus": _make_shared,
    "backbone": _make_shared,
    "adapt": _adapt_cells,
    "joint": _adapt_cells,
    "baseline": _baseline_cells,
}
