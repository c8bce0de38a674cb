"""Events with features: `drift` reads them as `predict` does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from asking.logs import HEADER, log_rows, prepared, write_models
from data.prepare.logs import write_csv
from peterrec.serving.files import predict
from peterrec.watching.drift import drift


def test_answers_are_those_of_predict(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", log_rows(users=60), HEADER)
    backbone, bundles = write_models(tmp_path, prepared(tmp_path, log, {"columns.features": ["n", "time:gap,hour"]}))
    answers = predict(backbone, bundles["group"], str(log)).to_pylist()
    labels = pa.table({"user": [row["user"] for row in answers], "label": ["abc"[n % 3] for n in range(len(answers))]})
    report = drift(backbone, bundles["group"], str(log), reference=str(log), labels=labels)
    expected = -np.mean([np.log(row[f"p({'abc'[n % 3]})"]) for n, row in enumerate(answers)])
    by_metric = {row.metric: row.value for row in report.periods}
    assert by_metric["log_loss"] == pytest.approx(expected, abs=1e-5)
    assert report.shifted == []
