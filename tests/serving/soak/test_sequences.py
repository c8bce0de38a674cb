"""Sequences of requests, operations and faults; `make soak` runs others for ten minutes with each store."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from serving.soak.machine import RedisMachine, ServiceMachine, SqliteMachine, write_artifacts
from serving.soak.starter import Starter

SOAK_SECONDS = float(os.environ.get("PETERREC_SOAK_SECONDS", "0"))  # with each store; 0: the same few sequences
FEW = settings(
    max_examples=8,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # each try is of real processes: a shorter sequence that fails too is not looked for
)
RANDOMISED = settings(FEW, derandomize=False, database=None, max_examples=10, stateful_step_count=60)


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    starter = Starter()
    yield starter
    starter.close()


@pytest.mark.slow
@pytest.mark.timeout(900 + 2 * SOAK_SECONDS)
@pytest.mark.parametrize("machine", [SqliteMachine, RedisMachine])
def test_any_sequence_of_requests_operations_and_faults(
    machine: type[ServiceMachine], starter: Starter, tmp_path: Path
) -> None:
    if machine.redis and shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server on this machine (Debian's package of that name has it)")
    machine.folder, machine.starter, machine.counts = tmp_path, starter, {}
    machine.models = write_artifacts(tmp_path)
    until = time.monotonic() + SOAK_SECONDS
    run_state_machine_as_test(machine, settings=RANDOMISED if SOAK_SECONDS else FEW)
    while time.monotonic() < until:
        run_state_machine_as_test(machine, settings=RANDOMISED)
    print(f"{machine.__name__}:", ", ".join(f"{count:,} {action}" for action, count in sorted(machine.counts.items())))
