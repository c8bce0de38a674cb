"""The benchmarks of loading and preparing run, on sizes at which their numbers mean nothing."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS, POLARS = "peterrec prepare", "Polars by hand"


def run(*arguments: str, cwd: Path) -> list[list[str]]:
    """Run a script and return the cells of its tables, header lines included."""
    # One thread: the other cores run other tests.
    env = os.environ | {"PYTHONPATH": str(BENCHMARKS), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert process.returncode == 0, process.stderr
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in process.stdout.splitlines() if line[:1] == "|"]


def numbers(cells: list[str]) -> list[float]:
    return [float(cell.replace(",", "")) for cell in cells]


@pytest.mark.slow
def test_loading_prints_both_tables_and_leaves_nothing_behind(tmp_path: Path) -> None:
    rows = run(str(BENCHMARKS / "loading.py"), "--tiny", cwd=tmp_path)
    starts, loader = rows[:3], rows[3:]
    assert starts[0][:3] == ["users", "windows", "start-up (s)"]
    assert [row[0] for row in starts[2:]] == ["300"]
    for row in starts[2:]:
        users, windows, total, *parts, peak, before = numbers(row)
        assert windows > 0.5 * users  # a few users are held out or too short
        assert total == pytest.approx(sum(parts), abs=0.03)  # all are rounded
        assert peak >= before > 1
    assert loader[0] == ["objective", "events a user", "mean window", "loader (windows/s)", *loader[0][4:]]
    kinds = [("causal", "20"), ("noncausal", "20"), ("causal", "100"), ("noncausal", "100")]
    assert [(row[0], row[1]) for row in loader[2:]] == kinds
    assert all(min(numbers(row[1:5])) > 0 for row in loader[2:])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_prepare_prints_a_row_of_each_side(tmp_path: Path) -> None:
    pytest.importorskip("polars")
    rows = run(str(BENCHMARKS / "prepare.py"), "--tiny", cwd=tmp_path)
    ours, theirs = rows[2:]
    assert (ours[1], theirs[1]) == (OURS, POLARS)
    assert ours[2:4] == theirs[2:4]  # users and events kept
    assert all(min(numbers(row[2:7])) > 0 for row in (ours, theirs))


def test_prepare_skips_polars_where_it_is_not_installed(tmp_path: Path) -> None:
    code = "import sys; sys.modules['polars'] = None; import prepare; prepare.main()"
    rows = run("-c", code, "--tiny", "--sides", POLARS, cwd=tmp_path)
    assert rows[2][1:3] == [POLARS, "skipped: polars is not installed"]


@pytest.mark.slow
def test_both_sides_make_the_same_sequences(tmp_path: Path) -> None:
    pytest.importorskip("polars")
    code = """
import prepare, pathlib, sys, argparse
here, options = pathlib.Path.cwd(), argparse.Namespace(items=300, seed=1, memory_limit="1GB", threads=1)
prepare.write_log(here / "log.parquet", 6_000, options)
prepare.by_prepare(here / "log.parquet", here / "ours", options)
prepare.by_hand(here / "log.parquet", here / "theirs", options)
"""
    run("-c", code, cwd=tmp_path)
    ours = pq.read_table(tmp_path / "ours" / "sequences").to_pylist()
    theirs = pq.read_table(tmp_path / "theirs" / "sequences.parquet").to_pylist()
    assert {row["user_id"]: row["sequence"] for row in ours} == {str(row["user_id"]): row["sequence"] for row in theirs}
    items, offsets = (np.load(tmp_path / "theirs" / f"{name}.npy") for name in ("items", "offsets"))
    assert items.dtype == np.int32
    assert [items[i:j].tolist() for i, j in itertools.pairwise(offsets)] == [r["sequence"] for r in theirs]


@pytest.mark.slow
def test_scale_prints_rates_and_what_they_come_to(tmp_path: Path) -> None:
    rows = run(str(BENCHMARKS / "scale.py"), "--tiny", cwd=tmp_path)
    start = next(place for place, row in enumerate(rows) if row[1] == "a core does in a second")
    work = [row[0] for row in rows[start + 2 :]]
    assert work[:3] == ["prepare (DuckDB)", "pre-training, one epoch", "embed"]
    assert all(numbers([row[-1]])[0] > 0 for row in rows[start + 2 :])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_answers_of_files_print_a_row_of_each_source_and_verb(tmp_path: Path) -> None:
    rows = run(str(BENCHMARKS / "answer_files.py"), "--tiny", cwd=tmp_path)
    assert [row[:3] for row in rows[2:]] == [
        [verb, source, users]
        for users in ("200", "400")
        for source in ("parquet", "jsonl")
        for verb in ("embed", "recommend")
    ]
    assert list(tmp_path.iterdir()) == []
