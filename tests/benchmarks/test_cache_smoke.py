"""The benchmark of the cache runs, on sizes at which its numbers mean nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cache.py"


@pytest.mark.slow
def test_the_table_has_every_row(tmp_path):
    env = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny"], env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert process.returncode == 0, process.stderr
    lines = [line for line in process.stdout.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["variant", "an epoch without the cache (s)", "with it (s)", "ratio"]
    assert [row[0] for row in cells[2:]] == ["head", "patch.blocks=1", "patch.blocks=2"]
    assert all(float(number) > 0 for row in cells[2:] for number in row[2:])
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")]
