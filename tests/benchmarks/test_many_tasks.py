"""The benchmark of many tasks runs, on users at whom its numbers mean nothing, and counts labels and bytes right."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
REGRESSIONS = ["tf-idf + logistic regression", "64 factors + logistic regression"]
METHODS = ["patches", "heads", "fine-tuned copies", *REGRESSIONS]
TASKS = ["gender", "age", "occupation", "age-c3"]


def run(*arguments: str, cwd: Path) -> str:
    # One thread: the other cores run other tests.
    command = [sys.executable, str(BENCHMARKS / "many_tasks.py"), *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=250, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(request.param)


@pytest.mark.slow
def test_every_method_learns_every_task_and_is_asked(tmp_path: Path) -> None:
    printed = run("--quick", "--work", "work", "--out", "results.json", cwd=tmp_path)
    assert (tmp_path / "results.md").read_text() == printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert "12 test users are asked about, 5 at a time" in printed
    assert [row[0] for row in results["tasks"][1:]] == TASKS
    for table in ("cost", "quality"):
        assert [row[0] for row in results[table][1:]] == METHODS
    assert {method: len(seconds) for method, seconds in results["training_seconds"].items()} == dict.fromkeys(
        METHODS, 4
    )
    assert all(float(cell) > 0 for row in results["cost"][1:] for cell in (row[1], *row[3:]))
    assert results["cost"][1][2] == results["answers"][1][2] == "1.00 (1.00 .. 1.00)"
    assert [row[0] for row in results["answers"][1:]] == list(results["round_seconds"])
    assert len(results["answers"]) == 1 + 8
    assert all(int(row[1].replace(",", "")) > 0 for row in results["answers"][1:])
    assert all(0 < float(cell) < 1 for row in results["quality"][1:] for cell in row[1:3])
    assert all("[" in row[4] for row in results["quality"][2:])
    bundles = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("adapter_config.json")}
    assert bundles >= {f"work/bundles/{method}/{task}" for method in METHODS[:3] for task in TASKS}
    labels = pq.read_table(tmp_path / "work" / "labels.parquet")
    assert labels.column_names == ["user_id", *TASKS]


@pytest.mark.slow
def test_without_the_data_it_says_what_to_do(tmp_path: Path) -> None:
    printed = run("--data", "nowhere", cwd=tmp_path)
    assert printed.startswith(
        "skipped: there is no events.parquet and no users.parquet in nowhere: run `peterrec fetch"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", ["many_tasks_fit"], indirect=True)
def test_attributes_are_the_most_frequent_values(script: ModuleType) -> None:
    users = {
        "user_id": [1, 2, 3, 4, 5, 6], "gender": ["F", "F", "F", "F", "M", None],
        "age": [25, 25, 25, 1, 1, 25], "occupation": ["0", "0", "7", "7", "4", "7"],
    }  # fmt: skip
    labels = script.labels_of(pa.table(users), 4).to_pydict()
    # Without the sixth user, who has no gender: 3 are of age 25, 2 of age 1, 2 of occupation 0, 2 of 7; ties by name.
    assert list(labels) == ["user_id", "gender", "age", "occupation", "age-25", "age-1", "occupation-0", "occupation-7"]
    assert labels["user_id"] == [1, 2, 3, 4, 5]
    assert labels["age"] == ["25", "25", "25", "1", "1"]
    assert labels["occupation-7"] == ["no", "no", "yes", "yes", "no"]


@pytest.mark.parametrize("script", ["array_sizes"], indirect=True)
def test_bytes_are_of_every_array_once(script: ModuleType, tmp_path: Path) -> None:
    table, layer = np.zeros((10, 4)), torch.nn.Linear(3, 2)
    rows = table[:5]
    roots = {"closure": lambda: rows, "copies": [table.copy(), (table,)], "module": layer, "same": layer.weight}
    arrays = script.arrays_in(roots)
    assert len(arrays) == 5
    assert script.memory_bytes(arrays) == 2 * 320 + (6 + 2) * 4  # `rows` is a view of `table`
    assert script.content_bytes(arrays) == 320 + 160
    assert [len(script.arrays_in(action)) for action in (partial(np.sum, table), layer.forward)] == [1, 2]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(7))
    assert script.folder_bytes(tmp_path) == 7
