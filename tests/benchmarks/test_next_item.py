"""The comparison with other libraries runs, asks all sides the same, and counts right; their numbers mean nothing."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PATIENCE = 600.0  # seconds: a process for each side imports torch, which takes ten on a slow machine
pytestmark = pytest.mark.timeout(2 * PATIENCE + 60)


def run(folder: Path, *arguments: str, script: tuple[str, ...] = (), code: int = 0) -> str:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *(script or (str(BENCHMARKS / "next_item.py"), "--tiny", "--threads", "1")), *arguments]
    process = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert process.returncode == code, process.stderr
    return process.stdout if code == 0 else process.stderr


def rows(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:2] == "| "]


@pytest.mark.slow
def test_our_sides_and_the_floors_are_in_every_table_and_are_not_run_twice(tmp_path: Path) -> None:
    (tmp_path / "variants.yaml").write_text("small: {backbone: {channels: 16, dilations: [1, 2]}, epochs: 2}")
    sides = "ours-small,popularity,rectools-sasrec,recbole-gru4rec"
    options = ("--variants", "variants.yaml", "--sides", sides, "--reference", "popularity", "--peers", "nowhere")
    options = (*options, "--datasets", "made-up-loo")
    printed = run(tmp_path, *options)
    table = rows(printed)
    assert [row[0] for row in table] == ["side", "ours-small", "popularity"] * 2
    for row in table:
        if row[0] != "side":
            assert 0 < float(row[1].split()[0]) <= 1
            assert row[7] in ("budget", "early stopping", "epochs", "solved")
    for name in ("made-up-loo rectools-sasrec", "made-up-loo recbole-gru4rec"):
        assert f"{name}: skipped, not installed: python benchmarks/peers/install.py" in printed
    results = {path: path.read_bytes() for path in (tmp_path / "runs" / "next-item").glob("*/*.json")}
    assert len(results) == 2
    assert rows(run(tmp_path, *options)) == table
    assert all(path.read_bytes() == data for path, data in results.items())


@pytest.mark.slow
def test_every_user_is_split_as_the_log_has_them(tmp_path: Path) -> None:
    run(tmp_path, "--sides", "popularity", "--reference", "popularity")
    out = tmp_path / "runs" / "next-item"
    log = pq.read_table(out / "tiny-data" / "made-up" / "events.parquet").to_pydict()
    users: dict[str, list[str]] = {}
    for user, item in zip(log["user_id"], log["item_id"], strict=True):  # in order of time
        users.setdefault(str(user), []).append(str(item))
    for split, held_out in (("loo", 400), ("users", 40)):
        data = out / f"made-up-{split}" / "data"
        with (data / "events.csv").open() as file:
            events = list(csv.DictReader(file))
        training: dict[str, list[str]] = {}
        for event in events:
            assert int(event["order"]) == len(training.setdefault(event["user_id"], []))
            training[event["user_id"]].append(event["item_id"])
        assert set({event["user_id"]: event["part"] for event in events}.values()) == {"valid"}, "of the last event"
        assert sum(event["part"] == "valid" for event in events) == len(training)
        questions, targets = (json.loads((data / f"{name}.json").read_text()) for name in ("questions", "targets"))
        sequences = sorted([*history, target] for history, target in zip(questions, targets, strict=True))
        if split == "loo":
            assert training == {user: items[:-1] for user, items in users.items()}
            assert sequences == sorted(users.values())
        else:
            assert training == {user: items for user, items in users.items() if user in training}
            assert sequences == sorted(items for user, items in users.items() if user not in training)
        assert len(questions) == pytest.approx(held_out, rel=0.4)


@pytest.mark.slow
def test_a_result_of_other_settings_is_not_taken_for_this_one(tmp_path: Path) -> None:
    options = ("--sides", "popularity", "--reference", "popularity", "--datasets", "made-up-loo")
    run(tmp_path, *options)
    message = run(tmp_path, *options, "--seed", "1", code=1)
    assert "popularity.json is of other seed: remove it, or take another --out" in message
    message = run(tmp_path, *options, "--users", "7", code=1)
    assert "was made with another --users" in message


@pytest.mark.slow
def test_metrics_are_those_of_the_lists(tmp_path: Path) -> None:
    code = """
import json, next_item
lists = [["a", "b", "c"], ["b", "a"], [], ["x"]]
print(json.dumps(next_item.ranks(lists, ["a", "a", "a", "a"]).tolist()))
results = {"mine": {"items": lists}, "none": {"items": [[]] * 4}}
found = next_item.estimates(results, "items", ["a", "a", "a", "a"])
print(json.dumps({metric: estimate.value for (side, metric), estimate in found.items() if side == "mine"}))
print(max(estimate.value for (side, _), estimate in found.items() if side == "none"))
"""
    places, metrics, nothing = run(tmp_path, script=("-c", code)).splitlines()
    assert json.loads(places) == [1, 2, float("inf"), float("inf")]
    second = 0.6309297535714575  # 1 / log2(3)
    assert json.loads(metrics) == pytest.approx({"HR@10": 0.5, "NDCG@10": (1 + second) / 4, "MRR@10": 0.375})
    assert float(nothing) == 0


def test_ease_is_the_solution_of_its_own_definition(tmp_path: Path) -> None:
    code = """
import numpy as np, scipy.sparse as sp
from next_item_floors import bag, ease, top
column = {item: place for place, item in enumerate("abcde")}
rng = np.random.default_rng(0)
x = (rng.random((40, 5)) < 0.5).astype(np.float32)
weights = ease(sp.csr_array(x), 3.0)
for item in range(5):  # each column: ridge regression of an item on all others
    others = [other for other in range(5) if other != item]
    a = x[:, others]
    expected = np.linalg.solve(a.T @ a + 3.0 * np.eye(4), a.T @ x[:, item])
    np.testing.assert_allclose(weights[others, item], expected, rtol=1e-3, atol=1e-4)
    assert weights[item, item] == 0
histories = bag([["a", "a", "z"], []], column)
assert histories.toarray().tolist() == [[1, 0, 0, 0, 0], [0] * 5]
scores = lambda bags: np.tile([5.0, 4, 3, 2, 1], (2, 1))
best = top(scores, histories, np.array(list("abcde")), exclude=True)
assert [list(row) for row in best] == [list("bcde"), list("abcde")]
"""
    run(tmp_path, script=("-c", code))
