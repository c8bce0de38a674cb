"""Promise 7 with real processes: killed, stopped by Ctrl-C, terminated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from peterrec.artifacts.backbone_io import load_backbone
from peterrec.artifacts.bundle_io import load_bundle
from peterrec.artifacts.tensors import fingerprint
from peterrec.cli.main import execute
from peterrec.data.corpus import Corpus
from peterrec.errors import InterruptedRun
from peterrec.training.pretrain import pretrain
from training.small import plain, pretrain_config

# Every epoch has about a hundred steps, and so many epochs are left that no machine is through before the signal.
PRETRAIN = [
    "-s",
    "backbone.channels=8",
    "-s",
    "backbone.dilations=[1,2]",
    "-s",
    "batch_size=1",
    "-s",
    "masking.mask_fraction=0.2",
]
ADAPT = ["-s", "patch.bottleneck=2", "-s", "batch_size=1", "-s", "selection=valid", "-s", "head_init=random"]
COMMON = [
    "-s",
    "runner.checkpoint_share=1e9",
    "-s",
    "epochs=4",
    "-s",
    "patience=4",
    "-s",
    "checkpoint_every=7",
    "-s",
    "runner.accelerator=cpu",
]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "peterrec", *map(str, arguments)]


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, env=ONE_THREAD)


def wait_for_points(run: subprocess.Popen[str], out: Path, count: int) -> None:
    """Return when the resume point was written `count` times."""
    point, times = out.with_name(out.name + ".training") / "last.ckpt", set()
    deadline = time.monotonic() + 120
    while len(times) < count:
        assert run.poll() is None, run.stderr.read() if run.stderr else ""
        assert time.monotonic() < deadline
        if point.exists():
            times.add(point.stat().st_mtime_ns)
        time.sleep(0.001)


def end(run: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal; return the exit status and what was said."""
    run.send_signal(number)
    assert run.stderr is not None
    output = run.stderr.read()
    return run.wait(60), output


def run_here(*arguments: str | Path) -> int:
    return execute([str(argument) for argument in arguments])


@pytest.mark.slow
def test_a_pretraining_killed_twice_equals_the_one_never_killed(corpus: Corpus, tmp_path: Path) -> None:
    arguments = ["pretrain", corpus.path, *PRETRAIN, *COMMON, "-q", "-s", "loss=sampled", "-s", "negatives=20"]
    arguments += ["-s", "masking.mask_fraction=0.2", "-o"]
    assert run_here(*arguments, tmp_path / "whole") == 0
    out = tmp_path / "killed"
    for points, options in ((3, []), (8, ["--resume"])):
        with start(*arguments, out, *options) as run:
            wait_for_points(run, out, points)
            assert end(run, signal.SIGKILL) == (-signal.SIGKILL, "")
        assert not out.exists()
    assert run_here(*arguments, out, "--resume") == 0
    uninterrupted, killed = load_backbone(tmp_path / "whole"), load_backbone(out)
    assert killed.fingerprint == uninterrupted.fingerprint
    assert plain(killed.training["curve"]) == plain(uninterrupted.training["curve"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]  # the resume points are gone


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cluster", "shop"])
def test_an_adaptation_killed_equals_the_one_never_killed(
    corpus: Corpus, backbone: Path, tmp_path: Path, task: str
) -> None:
    arguments = ["adapt", backbone, corpus.path, task, *ADAPT, *COMMON, "-q", "-o"]
    assert run_here(*arguments, tmp_path / "whole") == 0
    out = tmp_path / "killed"
    with start(*arguments, out) as run:
        wait_for_points(run, out, 20)  # in the second epoch
        assert end(run, signal.SIGKILL) == (-signal.SIGKILL, "")
    assert run_here(*arguments, out, "--resume") == 0
    owner = load_backbone(backbone)
    uninterrupted, killed = (
        load_bundle(path, owner.network.backbone, owner.identity) for path in (tmp_path / "whole", out)
    )
    assert fingerprint(killed.tensors()) == fingerprint(uninterrupted.tensors())
    assert plain(killed.metrics["curve"]) == plain(uninterrupted.metrics["curve"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_says_how_to_go_on_and_does(
    corpus: Corpus, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    checkpoint_every = "7" if number == signal.SIGINT else "1000000"
    arguments = ["pretrain", corpus.path, *PRETRAIN, *COMMON, "-s", f"checkpoint_every={checkpoint_every}", "-q", "-o"]
    with start(*arguments, out) as run:
        wait_for_points(run, out, 2 if number == signal.SIGINT else 1)
        time.sleep(0.1)
        status, output = end(run, number)
    assert status == 130
    assert f"error: {tmp_path / 'out.training'}: stopped by the user\n  What to do: continue with --resume" in output
    assert "Traceback" not in output
    assert [path.name for path in tmp_path.iterdir()] == ["out.training"]
    assert run_here(*arguments, out) == 2  # an unfinished run is in the way
    assert run_here(*arguments, out, "--resume") == 0
    assert run_here(*arguments, tmp_path / "whole") == 0
    assert load_backbone(out).fingerprint == load_backbone(tmp_path / "whole").fingerprint


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("hook", "step"), [("on_train_batch_start", 6), ("on_train_batch_end", 5)])
def test_a_step_in_which_sigterm_comes_is_saved(
    corpus: Corpus, tmp_path: Path, watched: Callable[..., None], hook: str, step: int
) -> None:
    """It can wait for the end of a step; no resume point was due."""

    def terminate(trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    callback = Callback()
    setattr(callback, hook, terminate)
    watched(callback)
    config = pretrain_config(batch_size=8, checkpoint_every=1_000_000)
    with pytest.raises(InterruptedRun, match="stopped by the user"):
        pretrain(corpus, tmp_path / "out", config)
    point = torch.load(tmp_path / "out.training" / "last.ckpt", weights_only=False)
    assert point["global_step"] == step
    watched()
    resumed = pretrain(corpus, tmp_path / "out", config, resume=True)
    assert resumed.fingerprint == pretrain(corpus, tmp_path / "whole", config).fingerprint
