"""A session that is started by a verb says nothing of its own, and what goes wrong in it is told once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from builders import tiny_pretrained
from peterrec.artifacts.backbone_io import save_backbone
from spark_session import skip_without_spark

SETTINGS = ("SPARK_CONF_DIR", "SPARK_HOME", "PYSPARK_GATEWAY_PORT")


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("spark")
def test_the_error_of_a_worker_is_all_that_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_spark()
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    save_backbone(tmp_path / "backbone", tiny_pretrained())
    (tmp_path / "users.jsonl").write_text('{"user": 7, "items": []}\n')
    command = [sys.executable, "-m", "peterrec", "embed", "backbone", "users.jsonl", "--out", "out", "--quiet"]
    result = subprocess.run(
        [*command, "--engine", "spark"], cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False
    )
    lines = [line for line in result.stderr.splitlines() if "incubator modules" not in line]  # of Java itself
    assert result.returncode == 2
    assert len(lines) == 2, result.stderr
    assert "user 7 has no items" in lines[0]
    assert "What to do" in lines[1]
