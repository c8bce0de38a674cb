"""The report of a run: one HTML page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from peterrec.report import formatting as wording
from peterrec.report.run import tables
from peterrec.report.run.figures import adapt_panel, data_panels, pretrain_panels, result_panels
from peterrec.report.run.record import RunRecord
from peterrec.report.run.summary import summary
from peterrec.storage import write_file

FILTERS: dict[str, Callable[..., Any]] = {
    "count": wording.count,
    "compact": wording.compact,
    "percent": wording.percent,
    "duration": wording.duration,
    "size": wording.size,
    "number": wording.number,
    "metric": wording.metric,
    "plural": wording.plural,
}


def write_report(record: RunRecord, path: str | Path) -> Path:
    """Write the report of a run as one self-contained HTML file, and return its path.

    The same record gives the same bytes; `RunRecord.model_validate(read_json(run.json))` draws it again.

    Args:
        record: what `assemble` gathered.
        path: the HTML file; its folder exists.

    Raises:
        StorageError: the disk is full or the place is not writable.
    """
    path = Path(path)
    write_file(path, render(record).encode())
    return path


def render(record: RunRecord) -> str:
    """Return the page as text."""
    return environment().get_template("report.html").render(_context(record))


def environment() -> Environment:
    """Return what draws the templates: everything is escaped, and a name that is not there is an error."""
    found = Environment(
        loader=PackageLoader("peterrec.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters.update(FILTERS)
    return found


def paragraphs(sentence: str) -> list[str]:
    """Split what is said about a task into one paragraph for each model and metric."""
    return re.split(r"(?<=\.)\s+(?=On )", sentence)


def _context(record: RunRecord) -> dict[str, Any]:
    first = record.tasks[0].evaluation if record.tasks else None
    return {
        "run": record,
        "date": datetime.fromisoformat(record.date),
        "summary": summary(record),
        "strategies": tables.strategies(record.tasks),
        "headline": tables.headline(record.tasks),
        "results": [_result(index, record) for index in range(len(record.tasks))],
        "protocol": first.protocol if first is not None else None,
        "k": next((task.evaluation.protocol.k for task in record.tasks if task.evaluation.kind == "ranking"), 10),
        "kinds": {task.evaluation.kind for task in record.tasks},
        "pretrain_panels": pretrain_panels(record.backbone),
        "data_panels": data_panels(record.data),
        "seconds": sum(stage.seconds for stage in record.stages),
        "longest": max((stage.seconds for stage in record.stages), default=0.0) or 1.0,
    }


def _result(index: int, record: RunRecord) -> dict[str, Any]:
    task = record.tasks[index]
    return {
        "task": task,
        "evaluation": task.evaluation,
        "sentences": paragraphs(task.evaluation.sentence),
        "compared": tables.compared(task.evaluation),
        "methods": tables.method_rows(task),
        "differences": tables.differences(task.evaluation),
        "panels": result_panels(index, task),
        "curve": adapt_panel(index, task),
    }
