"""Settings of the running process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from peterrec import process
from peterrec.process import tune_process

FAULTS = """
import resource, sys
from peterrec import tune_process
if sys.argv[1] == "tuned":
    tune_process()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
buffers = bytearray(50_000_000), bytearray(50_000_000)
del buffers
before = faults()
for _ in range(10):
    bytearray(50_000_000)
print(faults() - before)
"""


@pytest.mark.parametrize(("alone", "before", "after"), [(False, None, "1000"), (True, None, "20000"), (True, "7", "7")])
def test_waiting_threads_give_way_to_others_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, alone: bool, before: str | None, after: str
) -> None:
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: object())  # nothing is set for the rest of the tests
    monkeypatch.setenv("GOMP_SPINCOUNT", before or "")
    if before is None:
        monkeypatch.delenv("GOMP_SPINCOUNT")
    assert tune_process(alone=alone) is False
    assert os.environ["GOMP_SPINCOUNT"] == after


@pytest.mark.parametrize(("busy", "free"), [(0, True), (2, True), (3, False), (10, False)])
def test_cores_are_free_where_others_use_less_than_half_of_one(
    monkeypatch: pytest.MonkeyPatch, busy: int, free: bool
) -> None:
    """Of two cores, watched for ten hundredths of a second in all."""
    looks = iter([(1_000, 5_000), (1_000 + busy, 5_010)])
    monkeypatch.setattr(process, "_core_time", lambda: next(looks))
    monkeypatch.setattr(process.os, "cpu_count", lambda: 2)
    assert process.cores_are_free() is free


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts so")
def test_a_busy_core_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        time.sleep(0.3)
        answers = [process.cores_are_free() for _ in range(5)]
        neighbour.kill()
    assert answers.count(False) >= 3


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    """Counted in page faults: without, every large block is mapped and cleared anew."""
    plain, tuned = (
        int(subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, check=True, text=True).stdout)
        for mode in ("plain", "tuned")
    )
    assert tuned * 10 < plain
