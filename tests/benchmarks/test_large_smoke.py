"""The benchmarks of memory and of quality run: on sizes at which their numbers mean nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PATIENCE = 600.0  # seconds: a process for each row imports torch, which takes ten on a slow machine
pytestmark = pytest.mark.timeout(PATIENCE + 60)


def rows(script: str, *arguments: str) -> list[list[str]]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        env=env, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    lines = [line for line in process.stdout.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.slow
def test_memory_has_a_row_for_each_catalogue_and_way_of_training():
    table = rows("memory.py", "--tiny")
    assert [row[0] for row in table] == [
        "", "200 items, touched rows", "2,000 items, touched rows", "2,000 items, touched rows, recomputed",
        "2,000 items, dense AdamW", "", "200 items", "1,000 items",
    ]  # fmt: skip
    assert all(float(row[1]) > 0 for row in table if row[0])


@pytest.mark.slow
def test_quality_compares_every_setting():
    heading, *table = rows("quality.py", "--tiny")
    assert [row[0] for row in table] == ["dense AdamW, fp32", "touched rows, fp32", "dense AdamW, bf16"]
    assert len({tuple(row[1:4]) for row in table}) == 3, "every setting did something"
    for row in table:
        values = dict(zip(heading[4:], map(float, row[4:]), strict=False))
        assert all(0 <= value <= 1 for value in values.values())
