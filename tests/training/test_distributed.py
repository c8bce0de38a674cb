"""Several ranks train what one process does, end together, and go on where they stopped; in real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from peterrec.artifacts.backbone_io import load_backbone
from peterrec.data.corpus import Corpus
from training.small import plain
from training.trained_by_ranks import ADAPT, PRETRAIN, train

TESTS = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
}
SECONDS = 120  # for all ranks to end, on a machine that does much else
QUICK = ("full", "rows", "views", "few", "patch", "joint")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    arguments = [*map(str, command)]
    return subprocess.run(arguments, check=False, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, timeout=500)


def train_by_ranks(corpus: Corpus, backbone: Path, out: Path, ranks: int, *names: str, launcher: str = "own") -> None:
    start = [sys.executable] if launcher == "own" else [*TORCHRUN, str(ranks)]
    script = [*start, "-m", "training.trained_by_ranks", corpus.path, backbone, out]
    completed = run(*script, str(ranks) if launcher == "own" else "1", *names)
    assert completed.returncode == 0, completed.stderr


def train_on_two_machines(corpus: Corpus, backbone: Path, out: Path, *names: str) -> None:
    """As Spark's TorchDistributor does: by the variables of `torchrun`, for one process on each of two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "training.trained_by_ranks", str(corpus.path), str(backbone), str(out), "1", *names],
            env=ENVIRONMENT | master | {"TORCHELASTIC_RUN_ID": "spark", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
            | {"RANK": rank, "GROUP_RANK": rank, "LOCAL_RANK": "0"},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    assert [rank.wait(500) for rank in ranks] == [0, 0]


def curves(folder: Path) -> list[list[dict[str, float]]]:
    described = [*folder.rglob("config.json"), *folder.rglob("metrics.json")]
    contents = [json.loads(path.read_text()) for path in sorted(described)]
    return [plain(content.get("training", content)["curve"]) for content in contents]


def weights(folder: Path) -> dict[str, Any]:
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{path.relative_to(folder)} {name}": array for path in files for name, array in load_file(path).items()}


def check_alike(single: Path, ranks: Path, name: str) -> None:
    """The losses of the first two steps, which are an epoch, and what the weights after them say and are."""
    for expected, actual in zip(curves(single / name), curves(ranks / name), strict=True):
        assert [list(row) for row in actual] == [list(row) for row in expected]
        for row, actual_row in zip(expected, actual, strict=True):
            assert actual_row == pytest.approx(row, abs=1e-5), name
    expected_weights, actual_weights = weights(single / name), weights(ranks / name)
    assert list(actual_weights) == list(expected_weights)
    for key, array in expected_weights.items():
        np.testing.assert_allclose(actual_weights[key], array, atol=2e-5, err_msg=f"{name}: {key}")


def check_ranks(corpus: Corpus, backbone: Path, folder: Path, ranks: int, names: tuple[str, ...]) -> None:
    for part in ("single", "ranks"):
        (folder / part).mkdir()
    train_by_ranks(corpus, backbone, folder / "ranks", ranks, *names)
    for name in names:
        train(name, str(corpus.path), str(backbone), folder / "single" / name, 1)
        check_alike(folder / "single", folder / "ranks", name)
        if name in PRETRAIN:  # something was learned
            assert load_backbone(folder / "ranks" / name).training["best_epoch"] == PRETRAIN[name].get("epochs", 1) - 1


def test_two_ranks_train_what_one_process_does(corpus: Corpus, backbone: Path, tmp_path: Path) -> None:
    check_ranks(corpus, backbone, tmp_path, 2, QUICK)


@pytest.mark.slow
def test_two_ranks_train_whatever_one_process_does(corpus: Corpus, backbone: Path, tmp_path: Path) -> None:
    names = tuple(name for name in (*PRETRAIN, *ADAPT) if name not in (*QUICK, "dropout"))
    check_ranks(corpus, backbone, tmp_path, 2, names)


@pytest.mark.slow
def test_three_ranks_train_what_one_process_does(corpus: Corpus, backbone: Path, tmp_path: Path) -> None:
    check_ranks(corpus, backbone, tmp_path, 3, ("rows", "few", "views", "folds", "joint"))


@pytest.mark.slow
def test_every_launcher_gives_the_same_bytes(corpus: Corpus, backbone: Path, tmp_path: Path) -> None:
    names = ("dropout", "rows", "patch", "joint")
    for launcher in ("own", "torchrun", "two machines"):
        (tmp_path / launcher).mkdir()
    train_by_ranks(corpus, backbone, tmp_path / "own", 2, *names)
    train_by_ranks(corpus, backbone, tmp_path / "torchrun", 2, *names, launcher="torchrun")
    train_on_two_machines(corpus, backbone, tmp_path / "two machines", *names)
    for name in names:
        for launcher in ("torchrun", "two machines"):
            assert curves(tmp_path / "own" / name) == curves(tmp_path / launcher / name)
            first, second = weights(tmp_path / "own" / name), weights(tmp_path / launcher / name)
            assert list(first) == list(second)
            assert all(np.array_equal(first[key], second[key]) for key in first)


# ---------------------------------------------------------------- the command line, and ranks that end


SETTINGS = ["backbone.channels=8", "backbone.dilations=[1,2]", "batch_size=2", "epochs=2"]
SETTINGS += [
    "runner.checkpoint_share=1e9",
    "runner.accelerator=cpu",
    "checkpoint_every=7",
    "loss=sampled",
    "negatives=20",
    "dropout=0.2",
]


def command(corpus: Corpus, out: Path, launcher: str) -> list[str]:
    start = [sys.executable] if launcher == "own" else [*TORCHRUN, "2"]
    settings = [*SETTINGS, *(["runner.devices=2"] if launcher == "own" else [])]
    options = [option for setting in settings for option in ("-s", setting)]
    return [*start, "-m", "peterrec", "pretrain", str(corpus.path), "-o", str(out), "-q", *options]


def ranks_of(process: subprocess.Popen[str], launcher: str) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    trainings = [pid for pid in map(int, children) if b"pretrain" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return [process.pid, *trainings] if launcher == "own" else trainings


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def uninterrupted(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("ranks") / "whole"
    assert run(*command(corpus, out, "own")).returncode == 0
    return load_backbone(out).fingerprint


@pytest.mark.slow
@pytest.mark.timeout(900)  # processes start slowly on a machine that does much else
@pytest.mark.parametrize(
    ("launcher", "number", "victim"),
    [
        ("own", signal.SIGKILL, 0),
        ("own", signal.SIGKILL, 1),
        ("own", signal.SIGTERM, 0),
        ("own", signal.SIGTERM, 1),
        ("torchrun", signal.SIGKILL, 1),
        ("torchrun", signal.SIGTERM, 0),
    ],
)
def test_a_rank_that_ends_ends_all_and_a_resume_is_as_if_none_had(
    corpus: Corpus, uninterrupted: str, tmp_path: Path, launcher: str, number: signal.Signals, victim: int
) -> None:
    out = tmp_path / "out"
    point, times = tmp_path / "out.training" / "last.ckpt", set()
    with subprocess.Popen(
        command(corpus, out, launcher), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        while len(times) < 8:
            assert process.poll() is None, process.stderr and process.stderr.read()
            if point.exists():
                times.add(point.stat().st_mtime_ns)
            time.sleep(0.001)
        ranks = ranks_of(process, launcher)
        assert len(ranks) == 2
        os.kill(ranks[victim], number)
        _, message = process.communicate(timeout=SECONDS)
    deadline = time.monotonic() + SECONDS
    while any(is_running(rank) for rank in ranks):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.returncode != 0
    if launcher == "torchrun" and number == signal.SIGKILL:  # it may end the others before they can say anything
        assert f"Signal {int(number)}" in message
    else:
        assert "--resume" in message
        reason = "stopped by the user" if number == signal.SIGTERM else "another process of this training ended"
        assert reason in message
    assert not out.exists()
    assert run(*command(corpus, out, launcher), "--resume").returncode == 0
    assert load_backbone(out).fingerprint == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_mistakes_are_told_once_and_nothing_is_written(corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    existing = run(*command(corpus, out, "own"))
    assert existing.returncode == 2
    assert "already exists" in existing.stderr
    contradiction = run(*command(corpus, tmp_path / "new", "torchrun"), "-s", "runner.devices=3")
    assert contradiction.returncode == 1  # torchrun's
    assert "torchrun started 2 processes on 1 machines, runner.devices=3" in contradiction.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "notes.txt"]
