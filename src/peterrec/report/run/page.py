"""The report of a run: one HTML page that needs nothing else."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from peterrec.report.formatting import percent
from peterrec.report.page import render_paragraphs, render_template
from peterrec.report.run import tables
from peterrec.report.run.figures import adapt_panel, data_panels, pretrain_panels, reliability_panels, result_panels
from peterrec.report.run.record import RunRecord
from peterrec.storage import write_file


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
    evaluations = [task.evaluation for task in record.tasks]
    context = {
        "run": record,
        "date": datetime.fromisoformat(record.date),
        "summary": summary(record),
        "headline": tables.headline(record.tasks),
        "results": [
            {
                "task": task,
                "evaluation": task.evaluation,
                "sentences": paragraphs(task.evaluation.sentence),
                "compared": tables.compared_metrics(task.evaluation),
                "methods": tables.method_table(task),
                "differences": tables.difference_table(task.evaluation),
                "panels": [*result_panels(index, task), *reliability_panels(index, task)],
                "curve": adapt_panel(index, task),
            }
            for index, task in enumerate(record.tasks)
        ],
        "protocol": evaluations[0].protocol if evaluations else None,
        "k": next((evaluation.protocol.k for evaluation in evaluations if evaluation.kind == "ranking"), 10),
        "kinds": {evaluation.kind for evaluation in evaluations},
        "has_baselines": any(tables.best_baseline(evaluation, evaluation.primary) for evaluation in evaluations),
        "pretrain_panels": pretrain_panels(record.backbone),
        "data_panels": data_panels(record.data),
        "seconds": sum(stage.seconds for stage in record.stages),
        "longest": max((stage.seconds for stage in record.stages), default=0.0) or 1.0,
    }
    return render_template("report.html", context)


def paragraphs(sentence: str) -> list[str]:
    """Split the sentences about a task into one paragraph for each model and metric."""
    return re.split(r"(?<=\.)\s+(?=On )", sentence)


def summary(record: RunRecord) -> list[str]:
    """Return one sentence about pre-training and one about the tasks, with the numbers of the record."""
    names = tables.strategies(record.tasks)
    main = "patch" if "patch" in names else next(iter(names), "")
    bundles = [bundle for task in record.tasks if (bundle := task.bundle(main)) is not None]
    shares = sorted(bundle.share(bundle.patch_params) for bundle in bundles if bundle.patch_params)
    verdicts = {task.name: tables.beats_all(task.evaluation, main) for task in record.tasks}
    context = {
        "run": record,
        "strategy": main,
        "shares": list(dict.fromkeys(percent(share) for share in (shares[:1] + shares[-1:]))),
        "won": [name for name, verdict in verdicts.items() if verdict],
        "lost": [name for name, verdict in verdicts.items() if verdict is False],
    }
    return render_paragraphs("summary.txt", context)
