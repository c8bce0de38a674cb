"""Ctrl-C: one line, the status of a shell, and nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peterrec.cli.main import execute

from .conftest import Job
from .test_bad_input import events_file


@pytest.mark.slow
def test_ctrl_c_stops_with_one_line_and_leaves_nothing(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "backbone"
    command = [sys.executable, "-m", "peterrec", "pretrain", job.corpus, "-o", str(out), "-s", "epochs=5000"]
    command += ["-s", "patience=5000", "-s", "runner.progress=false", "-s", "backbone.channels=8"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as run:
        deadline = time.monotonic() + 120
        while not (tmp_path / "backbone.training" / "last.ckpt").exists():
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        printed = run.stderr.read()
        assert run.wait(60) == 130
    assert "stopped by the user" in printed
    assert "--resume" in printed
    assert "Traceback" not in printed
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["backbone.training"]


def test_ctrl_c_outside_training_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import peterrec.data.prepare

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(peterrec.data.prepare, "prepare", interrupted)
    assert execute(["prepare", events_file(tmp_path), "-o", str(tmp_path / "corpus")]) == 130
    assert capsys.readouterr().err == "stopped\n"
