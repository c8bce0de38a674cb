"""The work on one unit of a grid, in any process: a corpus, a backbone, or cells from training to the users' table."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from peterrec.config import PrepareConfig, PretrainConfig
from peterrec.data.prepare import prepare
from peterrec.errors import InterruptedRun, PeterRecError, StorageError
from peterrec.experiments.grid import state
from peterrec.experiments.grid.run_cell import Job, NotPossible, adapt_cells, baseline_cells
from peterrec.training.pretrain import pretrain


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
    seconds: float


def do(job: Job) -> Outcome:
    """Run a unit and write its result: corpora and backbones for the cells, cells for the report.

    Small bundles are kept beside their cells; those above 1 MB (copies of the backbone, large heads) are removed once
    the cell is written. An adaptation that was killed goes on where it was.

    Raises:
        InterruptedRun: it was told to stop. All other errors are noted and end in the outcome.
    """
    start = time.perf_counter()
    try:
        line = _DO[job.unit.kind](job)
        return Outcome("done", line, time.perf_counter() - start)
    except NotPossible as error:
        _note(job, "skipped", str(error), "")
        return Outcome("skipped", str(error), time.perf_counter() - start)
    except InterruptedRun:
        raise
    except PeterRecError as error:
        reason = str(error)
        _note(job, "failed", reason, traceback.format_exc())
    except Exception as error:  # one cell must not end the grid: it is noted with where it came from
        reason = f"unexpected {type(error).__name__}: {error}"
        _note(job, "failed", reason, traceback.format_exc())
    return Outcome("failed", reason, time.perf_counter() - start)


def _note(job: Job, kind: state.Note, reason: str, trace: str) -> None:
    try:
        state.note(job.out, job.unit, kind, reason, trace)
    except StorageError:  # where the disk is full, the outcome still tells
        return


def _clear(job: Job) -> None:
    """Remove what is there and was made otherwise, or is damaged; resume points lie beside it.

    The file that says how it was made goes first: a kill in between must not leave it beside something else.
    """
    (job.out / job.unit.marker).unlink(missing_ok=True)
    shutil.rmtree(job.out / job.unit.place, ignore_errors=True)


def _corpus(job: Job) -> str:
    unit = job.unit
    assert isinstance(unit.settings, PrepareConfig)
    settings = unit.settings
    if settings.threads is None and job.threads is not None:
        settings = settings.model_copy(update={"threads": job.threads})
    _clear(job)
    corpus = prepare(settings, job.out / unit.place)
    state.mark(job.out, unit)
    return f"{corpus.manifest['users']:,} users, {corpus.manifest['items']:,} items"


def _backbone(job: Job) -> str:
    unit = job.unit
    assert isinstance(unit.settings, PretrainConfig)
    _clear(job)
    model = pretrain(job.out / unit.needs[0], job.out / unit.place, unit.settings, resume=True, overwrite=True)
    state.mark(job.out, unit)
    return ", ".join(f"{name} {value:.4f}" for name, value in model.pretrained.training["metrics"].items())


_DO: dict[str, Callable[[Job], str]] = {
    "corpus": _corpus,
    "backbone": _backbone,
    "adapt": adapt_cells,
    "joint": adapt_cells,
    "baseline": baseline_cells,
}
