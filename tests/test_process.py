"""Settings of the running process."""

from __future__ import annotations

import os
import subprocess
import sys

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


def test_waiting_threads_give_way_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: object())  # nothing is set for the rest of the tests
    for before, after in ((None, "1000"), ("7", "7")):
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        if before is not None:
            monkeypatch.setenv("GOMP_SPINCOUNT", before)
        assert tune_process() is False
        assert os.environ["GOMP_SPINCOUNT"] == after


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    """Counted in page faults: without, every large block is mapped and cleared anew."""
    plain, tuned = (
        int(subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, check=True, text=True).stdout)
        for mode in ("plain", "tuned")
    )
    assert tuned * 10 < plain
