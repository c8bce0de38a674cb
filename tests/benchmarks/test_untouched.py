"""A grid on untouched users: the means are of those users alone."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from peterrec.config import SplitConfig
from peterrec.data.hashing import id_hash
from peterrec.data.splits import assign_parts
from peterrec.report.grid.cells import CellResult, write_cell

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "untouched.py"


def write(root: Path, users: list[str], right: list[float], *, seed: int, share: float = 1.0) -> None:
    result = CellResult(
        data="d", task="t", method="m", seed=seed, share=share, inputs={}, task_kind="classification", family="adapt",
        users={"test": len(users)}, metrics={"accuracy": sum(right) / len(right)}, primary="accuracy",
    )  # fmt: skip
    table = {"user_id": users, "events": [3] * len(users), "seen": [True] * len(users), "rows": [1] * len(users)}
    write_cell(root, result, pa.table(table | {"accuracy": right}))


@pytest.mark.slow
def test_only_test_users_of_the_first_split_count(tmp_path: Path) -> None:
    users = [f"user-{i}" for i in range(200)]
    test = assign_parts(id_hash(users), SplitConfig(salt="chosen")) == 2
    assert 20 < test.sum() < 90
    write(tmp_path, users, [float(is_test) for is_test in test], seed=0)  # right of the untouched, wrong of all others
    write(tmp_path, users, [0.0] * 200, seed=1)
    write(tmp_path, users, [1.0] * 200, seed=0, share=0.1)
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--salt", "chosen"]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout.splitlines()
    row = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert row[:3] == ["d/t", "m", "accuracy"]
    assert float(row[3]) == pytest.approx(test.mean() / 2, abs=6e-4)
    assert (row[4], row[5]) == ("0.500", str(test.sum()))
    assert len(lines) == 3
