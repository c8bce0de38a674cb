"""The benchmarks of the engine and of the service run, and print what docs/performance.md shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str, cwd: Path) -> str:
    env = os.environ | {"PYTHONPATH": str(BENCHMARKS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / script), "--tiny", *arguments]
    process = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
def test_the_engine_is_compared_with_what_it_saves(tmp_path: Path) -> None:
    printed = run("serving.py", "--out", "found.json", cwd=tmp_path)
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    sides = {row["a"] for row in rows} | {row["b"] for row in rows}
    assert {"mixed batch", "trunk without patches", "a batch for each task", "one user: an event"} <= sides
    assert all(row["ratio"] > 0 for row in rows)
    assert {row["asked"] for row in rows} >= {"<= 1.2", ">= 5", ">= 18", ">= 40", ">= 20", ">= 70"}
    assert all(f"| {row['a']} | {row['b']} |" in printed for row in rows)


@pytest.mark.slow
def test_the_service_is_asked_over_http_and_answers(tmp_path: Path) -> None:
    printed = run("serve_load.py", "--kinds", "user", "mixed", "--out", "found.json", cwd=tmp_path)
    rows = json.loads((tmp_path / "found.json").read_text())
    assert [row["kind"] for row in rows] == ["user", "mixed"]
    assert all(row["errors"] == {} and row["answered"] >= 15 for row in rows)
    assert printed.count("the knee: ") == 2
    assert not list(tmp_path.glob("peterrec-state"))


@pytest.mark.slow
def test_quick_paths_are_timed_beside_plain_ones(tmp_path: Path) -> None:
    printed = run("paths.py", cwd=tmp_path)
    assert [line.split()[1] for line in printed.splitlines()[4:7]] == ["bf16,", "dropout,", "best"]


@pytest.mark.slow
def test_waiting_awake_is_timed_alone_and_beside_a_busy_core(tmp_path: Path) -> None:
    rows = [line.split("|")[2].strip() for line in run("waiting.py", cwd=tmp_path).splitlines()[2:]]
    assert rows == ["nothing"] * 3 + ["a busy core"] * 2


@pytest.mark.slow
def test_compiled_forms_are_started_twice(tmp_path: Path) -> None:
    rows = [line.split("|")[2].strip() for line in run("compiled_start.py", cwd=tmp_path).splitlines()[2:]]
    assert rows == ["as it is", "compiled, first start", "compiled, second start"] * 2
