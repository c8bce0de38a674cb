"""A grid that is killed, stopped by Ctrl-C or terminated goes on, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from .small_grid import cells_on_disk, question, small_grid, workers_of

QUESTION = question("patch", "head", "majority", "popularity")
ALL_CELLS = sorted(
    f"small/{task}/{method}/seed-0-share-100"
    for task, constant in (("cluster", "majority"), ("target", "popularity"))
    for method in ("patch", "head", constant)
)


def write_config(folder: Path, *overrides: str) -> Path:
    config = small_grid("adapt.epochs=40", "adapt.patience=40", "adapt.batch_size=16", *overrides, questions=[QUESTION])
    (folder / "grid.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    return folder / "grid.yaml"


def start(config: Path, out: Path, jobs: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "peterrec", "experiment", str(config), "-o", str(out), "-j", str(jobs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)


def wait_for_cells(process: subprocess.Popen[str], out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(cells_on_disk(out)) < count:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check_whole(out: Path) -> None:
    """Whatever is under the name of a cell is whole."""
    for folder in out.glob("cells/*/*/*/seed-*-share-*"):
        if folder.is_dir():
            assert sorted(path.name for path in folder.iterdir()) == ["cell.json", "users.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_grid_that_was_killed_goes_on(tmp_path: Path, jobs: int) -> None:
    out, path = tmp_path / "grid", write_config(tmp_path)
    with start(path, out, jobs) as process:
        wait_for_cells(process, out, 2)
        workers = workers_of(process.pid)
        process.kill()
        process.wait(60)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and "Z" not in status(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)
    check_whole(out)
    before = {cell: (out / "cells" / cell / "cell.json").stat().st_mtime_ns for cell in cells_on_disk(out)}
    assert 2 <= len(before) < len(ALL_CELLS)
    with start(path, out, jobs) as process:
        assert process.stderr is not None
        output = process.stderr.read()
        assert process.wait(120) == 0, output
    assert f"6 cells, {len(before)} of them finished before; {6 - len(before)} to compute" in output
    assert cells_on_disk(out) == ALL_CELLS
    assert before == {cell: (out / "cells" / cell / "cell.json").stat().st_mtime_ns for cell in before}
    assert list(out.rglob(".*.tmp")) == []


def status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGINT, 1)])
def test_a_grid_that_is_told_to_stop_says_how_to_go_on(tmp_path: Path, number: signal.Signals, jobs: int) -> None:
    out, path = tmp_path / "grid", write_config(tmp_path)
    with start(path, out, jobs) as process:
        wait_for_cells(process, out, 1)
        workers = workers_of(process.pid)
        process.send_signal(number)
        assert process.stderr is not None
        output = process.stderr.read()
        assert process.wait(60) == 130, output
    assert "stopped by the user" in output
    assert "run the same command again to go on" in output
    assert "Traceback" not in output
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    check_whole(out)
    assert list(out.rglob(".*.tmp")) == []
