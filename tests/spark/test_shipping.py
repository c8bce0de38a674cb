"""Executors that are processes of their own get backbone and bundle from the driver, named by their content."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.model import UserModel
from spark_session import skip_without_spark

HISTORIES = [["item-1", "item-2"], ["item-9"], ["nowhere"]]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.spark
@pytest.mark.xdist_group("spark")
def test_a_model_is_shipped(tmp_path):
    skip_without_spark()
    pretrained = tiny_pretrained()
    save_backbone(tmp_path / "backbone", pretrained)
    pq.write_table(pa.table({"user": ["0", "1", "2"], "items": HISTORIES}), tmp_path / "rows.parquet")
    program, out = Path(__file__).with_name("shipped.py"), tmp_path / "out.json"
    arguments = [str(tmp_path / "backbone"), str(tmp_path / "rows.parquet"), str(out)]
    # Executors of such a cluster work in the folder of Spark, whatever one says.
    work = Path(importlib.import_module("pyspark").__file__ or "").with_name("work")
    work_folders = set(work.glob("*"))
    try:
        subprocess.run([sys.executable, str(program), *arguments], check=True, timeout=550)
    finally:
        for folder in set(work.glob("*")) - work_folders:
            shutil.rmtree(folder, ignore_errors=True)
    written = json.loads(out.read_text())
    answers = sorted(written["answers"], key=lambda row: row["user"])
    expected = UserModel(pretrained, "cpu").represent(HISTORIES)
    np.testing.assert_allclose([row["vector"] for row in answers], expected, atol=1e-5)
    shipped = [name for name in written["files"] if name.startswith("peterrec-")]
    assert {name.split("-", 2)[-1] for name in shipped} >= {"config.json", "model.safetensors", "catalogue.parquet"}
    assert len({name.split("-", 2)[1] for name in shipped}) == 1, "they are named by what they are"
