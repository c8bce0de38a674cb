"""The reliability diagram on the page of a run: of every model, with intervals, and only of what has probabilities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from peterrec.evaluation.reliability import Judged, reliability
from peterrec.evaluation.results import ReliabilityBin
from peterrec.report.run.page import render, write_report
from peterrec.report.run.record import RunRecord, TaskRecord
from report.html_page import Page

CAPTION = "Share that comes true, by probability"
DRAWS = np.random.default_rng(0)


def with_reliability(task: TaskRecord) -> TaskRecord:
    """Models of which the first is calibrated, and each after it says more than is true."""
    true = DRAWS.random(4000) * 0.8
    came_true = (DRAWS.random(4000) < true).astype(np.int64)
    methods = []
    for place, method in enumerate(task.evaluation.methods):
        bins = reliability([Judged(np.minimum(1, true * (1 + 0.25 * place)), came_true)])
        methods.append(method.model_copy(update={"reliability": [ReliabilityBin(**row._asdict()) for row in bins]}))
    return task.model_copy(update={"evaluation": task.evaluation.model_copy(update={"methods": methods})})


def test_every_model_has_its_line(make_record: Callable[..., RunRecord], tmp_path: Path) -> None:
    record = make_record()
    assert CAPTION not in render(record)
    task = with_reliability(record.tasks[0])
    shown = record.model_copy(update={"tasks": [task, *record.tasks[1:]]})
    text = write_report(shown, tmp_path / "report.html").read_text()
    drawing = text[text.index('id="task0-reliability-title"') :].split("</svg>")[0]
    for method in task.evaluation.methods:
        assert (f'data-series="{method.name}"' in drawing) == (method.family == "model")
    assert 'data-series="as often as it says"' in drawing
    assert "task1-reliability" not in text
    assert not Page(text).mistakes
