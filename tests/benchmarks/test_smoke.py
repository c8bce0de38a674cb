"""The benchmarks run: on sizes at which their numbers mean nothing, so nothing is said about speed."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = {"channels": 16, "events": 8, "batch": 4, "items": 50, "negatives": 16, "top": 3}
ROWS = (
    "user representations, 50 events",
    "user representations, 200 events",
    "full ranking, top 10",
    "pre-training step, sampled softmax, d=64",
    "pre-training step, sampled softmax, d=256",
    "training step with RecBole's loss (last item, full softmax)",
    "100,000 supervised targets",
    "contrastive pre-training, 64 users beside 64 windows of 100 events, batches drawn in the step",
    "contrastive pre-training, 64 users beside 64 windows of 10 events, batches drawn in the step",
    "step of adapting a patch, 10 classes",
)
MEASURED = re.compile(r"(\S+) \((\S+) \.\. (\S+)\)")


def run(*arguments: str, code: str | None = None, stdin: str | None = None) -> str:
    script = ["-c", code] if code is not None else [str(BENCHMARKS / arguments[0]), *arguments[1:]]
    # One thread: the other cores run other tests, and threads that wait for each other's turn take seconds.
    env = os.environ | {"PYTHONPATH": str(BENCHMARKS), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, *script], env=env, input=stdin, capture_output=True, text=True, timeout=200, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
def test_limits_are_positive_rates():
    limits = json.loads(run("limits.py", "--tiny", "--json"))
    assert set(limits) == {"fp32", "bf16", "bandwidth", "threads"}
    assert all(math.isfinite(value) and value > 0 for value in limits.values())


@pytest.fixture(scope="module")
def speed(tmp_path_factory):
    out = tmp_path_factory.mktemp("speed") / "results.json"
    printed = run("speed.py", "--tiny", "--without", "recbole", "--out", str(out))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:1] == "|"]
    return printed, cells[2:], out


@pytest.mark.slow
def test_the_table_has_every_row(speed):
    _, cells, _ = speed
    assert list(dict.fromkeys(row[0] for row in cells)) == list(ROWS)


@pytest.mark.slow
def test_ratios_and_shares_are_finite_and_positive(speed):
    _, cells, _ = speed
    measured = [row for row in cells if MEASURED.fullmatch(row[3])]
    assert {row[0] for row in measured} >= {ROWS[0], ROWS[1], ROWS[2], ROWS[7]}
    for row in measured:
        assert all(math.isfinite(number) and number > 0 for number in map(float, MEASURED.fullmatch(row[3]).groups()))
    assert all("%" in row[4] and row[3] == "" for row in cells if row[0] in (ROWS[3], ROWS[4]))


@pytest.mark.slow
def test_only_recbole_is_skipped_and_says_why(speed):
    _, cells, _ = speed
    skipped = [row for row in cells if row[3].startswith("skipped")]
    assert len(skipped) == 4 + 4 + 12 + 4
    assert all("recbole is left out" in row[3] and row[1].startswith("RecBole") for row in skipped)


@pytest.mark.slow
def test_the_table_and_all_times_are_written(speed):
    printed, cells, out = speed
    assert out.with_suffix(".md").read_text().strip() == printed.strip()
    tree = json.loads(out.read_text())
    assert len(tree["rows"]) == len(cells)
    assert all(row["skipped"] or min(row["data"]["b"]) > 0 for row in tree["rows"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "jobs"),
    [
        ("ours_side.py", ("represent", "rank", "pretrain", "adapt")),
        ("peers/plain_side.py", ("represent", "rank", "adapt")),
    ],
)
def test_a_worker_answers_every_request(script, jobs):
    requests = [{"go": 1}, {"job": "unheard-of", "sizes": {}}, {"job": jobs[0], "sizes": {"colour": 1}}]
    for job in jobs:
        requests += [{"job": job, "sizes": TINY}, {"go": 2}]
    printed = run(script, stdin="".join(json.dumps(request) + "\n" for request in requests))
    answers = [json.loads(line) for line in printed.splitlines()]
    assert [list(answer) for answer in answers] == [["error"]] * 3 + [["ready"], ["seconds"]] * len(jobs)
    assert all(len(answer["seconds"]) == 2 and min(answer["seconds"]) > 0 for answer in answers[4::2])


@pytest.mark.slow
def test_sides_take_turns_and_are_compared():
    code = f"""
from sides import FOLDER, Side, interleave, ratio
with Side("a", FOLDER / "peers/plain_side.py") as a, Side("b", FOLDER / "peers/plain_side.py", tuned=True) as b:
    for side in (a, b):
        side.start("represent", {TINY})
    first, second = interleave([a, b], rounds=3, repeats=2)
found, half = ratio(first, second), ratio(first, second, units=(2.0, 1.0))
print(len(first.rounds), len(second.rounds), found.low > 0, found.value == 2 * half.value)
"""
    assert run(code=code).split() == ["3", "3", "True", "True"]


def test_work_counts_what_the_last_position_depends_on():
    code = """
from work import adapt, receptive_field_positions, represent, window_positions
from worker import Sizes
small = Sizes(dilations=(1,), channels=2, batch=1, events=8)
print(window_positions(small, 9), receptive_field_positions(small, 9), receptive_field_positions(small, 4))
print(represent(small).window, represent(small).receptive_field)
print(receptive_field_positions(Sizes(), 51)[-1], max(receptive_field_positions(Sizes(), 51)) <= 51)
"""
    lines = run(code=code).splitlines()
    # The second convolution reads 8, 6, 4 of the first, which reads these, one and two before each: 8 .. 2.
    assert lines[0] == "[9, 9] [3, 1] [2, 1]"
    assert lines[1].split() == [str(2.0 * 3 * 2 * 2 * 18), str(2.0 * 3 * 2 * 2 * 4)]
    assert lines[2].split() == ["1", "True"]
