"""The run over an ordered list of tasks runs, and patches and Conure forget nothing in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import peterrec
from peterrec.data.synthetic import planted

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "lifelong.py"


@pytest.mark.slow
def test_every_method_learns_tasks_in_order(tmp_path: Path) -> None:
    data = planted(users=200, items=30, clusters=3, mean_events=6, seed=1)
    corpus = peterrec.prepare(
        data.events, tmp_path / "corpus", domain="domain", source={"domains": ["source"]}, users=data.users,
        classify=["cluster", "noise"], split={"train": 0.5, "valid": 0.25, "test": 0.25},
    )  # fmt: skip
    backbone = {"channels": 8, "dilations": [1]}
    peterrec.pretrain(corpus, tmp_path / "backbone", backbone=backbone, epochs=1, runner={"progress": False})
    out = tmp_path / "losses.json"
    arguments = [str(tmp_path / "corpus"), str(tmp_path / "backbone"), "noise", "cluster"]
    settings = [f"--set={setting}" for setting in ("epochs=3", "selection=valid", "optim.lr=0.02")]
    process = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, *settings, "--out", str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    results = json.loads(out.read_text())
    assert list(results) == ["patches", "fine-tuning in sequence", "conure", "teracon"]
    for method in ("patches", "conure"):
        first, last = results[method]["losses"]["noise"]
        assert first == last, method
    for method in ("fine-tuning in sequence", "teracon"):
        first, last = results[method]["losses"]["noise"]
        assert first != last, method
    for shares in ("trained", "stored"):
        assert results["patches"][shares]["cluster"] < results["fine-tuning in sequence"]["trained"]["cluster"]
    assert process.stdout.count("| cluster | ") == 4
