"""`adapt --strategy`: one task or several, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import peterrec
from peterrec.cli.main import execute

from .conftest import Job

QUICK = ["--set", "epochs=1"]


def run_verb(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> str:
    capsys.readouterr()
    assert execute([*arguments]) == status
    return capsys.readouterr().err


@pytest.mark.slow
def test_a_joint_training_of_two_tasks(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "joint")
    stderr = run_verb(
        capsys, 0, "adapt", job.backbone, job.corpus, "cluster", "shop", "-o", out, "--strategy", "joint", *QUICK
    )
    assert "adapting to 'cluster', 'shop' jointly" in stderr
    assert "trainable params: " in stderr
    assert "relative " in stderr
    assert f"next: peterrec evaluate {job.backbone} {job.corpus} {out}/cluster" in stderr
    assert execute(["inspect", out]) == 0
    printed = capsys.readouterr().out
    assert "joint" in printed
    assert "cluster, shop" in printed
    histories = tmp_path / "h.jsonl"
    histories.write_text('{"user": 1, "items": ["s0001", "s0002"]}\n')
    assert execute(["predict", job.backbone, f"{out}/cluster", str(histories), "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["label"].startswith("c")
    assert execute(["recommend", job.backbone, str(histories), "-b", f"{out}/shop", "-k", "2", "-q"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert execute(["evaluate", job.backbone, job.corpus, f"{out}/shop", "-s", "bootstrap=20", "-q"]) == 0
    assert "joint" in capsys.readouterr().out
    command = ["adapt", job.backbone, job.corpus, "cluster", "shop", "-o", out, "--strategy", "joint", *QUICK, "-q"]
    assert "already exists" in run_verb(capsys, 2, *command)
    assert all(line.startswith("warning: ") for line in run_verb(capsys, 0, *command, "--overwrite").splitlines())


def test_several_tasks_without_joint_are_refused(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for strategy in ([], ["--strategy", "all"]):
        stderr = run_verb(
            capsys, 2, "adapt", job.backbone, job.corpus, "cluster", "shop", "-o", str(tmp_path / "o"), *strategy
        )
        assert "2 tasks were named (cluster, shop)" in stderr
        assert "--strategy joint" in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tasks", [["shop", "shop"], ["shop", "nobody"]])
def test_tasks_of_a_joint_training_that_cannot_be(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], tasks: list[str]
) -> None:
    stderr = run_verb(
        capsys, 2, "adapt", job.backbone, job.corpus, *tasks, "-o", str(tmp_path / "o"), "--strategy", "joint"
    )
    assert tasks[1] in stderr
    assert "What to do" in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_strategy_may_stand_in_the_settings(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, options in (("a", ["--set", "strategy=last1"]), ("b", ["--set", "strategy=head", "--strategy", "last1"])):
        out = str(tmp_path / name)
        stderr = run_verb(capsys, 0, "adapt", job.backbone, job.corpus, "shop", "-o", out, *options, *QUICK)
        assert "adapting to 'shop' with strategy 'last1'" in stderr
        assert peterrec.inspect(out)["strategy"] == "last1"
        assert f"next: peterrec evaluate {job.backbone} {job.corpus} {out}\n" in stderr
    message = run_verb(
        capsys, 2, "adapt", job.backbone, job.corpus, "shop", "-o", str(tmp_path / "c"), "--strategy", "x"
    )
    assert "strategy: " in message
    assert "patch-random" in message


@pytest.mark.slow
def test_the_whole_job_without_a_causal_backbone(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone, bundle = str(tmp_path / "backbone"), str(tmp_path / "bundle")
    shape = ["-s", "backbone.kind=noncausal", "-s", "backbone.channels=8", "-s", "backbone.dilations=[1,2]"]
    assert execute(["pretrain", job.corpus, "-o", backbone, *shape, *QUICK, "-q"]) == 0
    patch = ["-s", "patch.kind=scale-shift", "-s", "class_weights={c0: 2}", "-s", "label_smoothing=0.1"]
    assert execute(["adapt", backbone, job.corpus, "cluster", "-o", bundle, *patch, *QUICK, "-q"]) == 0
    histories = tmp_path / "h.jsonl"
    histories.write_text('{"user": 1, "items": ["s0001", "s0002"]}\n')
    capsys.readouterr()
    assert execute(["predict", backbone, bundle, str(histories), "-q"]) == 0
    assert execute(["recommend", backbone, str(histories), "-k", "3", "-q"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    refused = run_verb(
        capsys, 2, "pretrain", job.corpus, "-o", str(tmp_path / "x"), *shape, "-s", "masking.mask_fraction=0"
    )
    assert "masking.mask_fraction must be above 0" in refused
