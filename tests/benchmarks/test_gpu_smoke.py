"""The benchmark of a GPU runs on a CPU, at sizes at which its numbers mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*arguments: str, out: Path, device: str = "cpu") -> tuple[str, dict[str, Any]]:
    """Return what is printed and what is written."""
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", device, "--tiny", "--out", str(out), *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout, json.loads(out.read_text())


def test_limits_are_printed_and_written(tmp_path: Path) -> None:
    printed, tree = run("--sections", "limit", out=tmp_path / "results.json")
    assert "TIMES MEAN NOTHING" in printed.splitlines()[0]
    assert printed.count("\n| fp32 |") == printed.count("\n| tf32 |") == printed.count("\n| bf16 |") == 3
    assert set(tree["limits"]) == {"fp32", "tf32", "bf16"}
    assert min(tree["limits"].values()) > 0
    assert tree["sections"]["limit"]["end"] == "done"
    assert "torch" in tree["machine"]


def test_a_section_that_runs_out_of_time_is_ended(tmp_path: Path) -> None:
    printed, tree = run("--sections", "users", "limit", "--seconds", "0.2", out=tmp_path / "results.json")
    assert [section["end"] for section in tree["sections"].values()] == ["ended, its seconds were used up"] * 2
    assert "users: ended, its seconds were used up" in printed


@pytest.mark.slow
def test_a_row_that_fails_says_so_and_the_next_is_tried(tmp_path: Path) -> None:
    _, tree = run("--sections", "limit", "users", "ml-1m", out=tmp_path / "results.json", device="abacus")
    for name in ("limit", "users"):
        notes = [row["note"] for row in tree["sections"][name]["rows"]]
        assert len(notes) > 3
        assert all("FAILED" in note and "abacus" in note for note in notes)
    assert [row["note"][:8] for row in tree["sections"]["ml-1m"]["rows"]] == ["left out"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_section_has_its_rows(tmp_path: Path) -> None:
    rows = [(f"u{user}", f"i{(user + step) % 13}", step) for user in range(200) for step in range(12)]
    users, items, times = zip(*rows, strict=True)
    events = pa.table({"user_id": users, "item_id": items, "timestamp": times})
    pq.write_table(events, tmp_path / "events.parquet")
    printed, tree = run("--data", str(tmp_path), out=tmp_path / "results.json")
    assert list(tree["sections"]) == ["limit", "users", "training", "ranking", "adapting", "ml-1m"]
    for section in tree["sections"].values():
        assert section["end"] == "done"
        assert not [row["note"] for row in section["rows"] if row.get("note")]
    for name in ("users", "training", "ranking"):
        assert all(
            row["flops"] > 0 and row["share"].endswith(row["arithmetic"]) for row in tree["sections"][name]["rows"]
        )
    assert {row["tables"] for row in tree["sections"]["training"]["rows"]} == {"rows", "dense"}
    (trained,) = tree["sections"]["ml-1m"]["rows"]
    assert trained["epochs"] == 2
    assert 0 <= trained["HR@10"] <= 1
    assert "FAILED" not in printed
