"""The whole job from one file: what is there is reused, what changed is done again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from log_lines import log_lines
from peterrec.config import RunConfig, load_config
from peterrec.data.synthetic import synthetic
from peterrec.errors import ConfigError, DataError, InterruptedRun
from peterrec.experiments import pipeline
from peterrec.experiments.pipeline import run
from peterrec.storage import read_json

STAGES = ["prepare", "pretrain", "adapt cluster (patch)", "adapt cluster (head)", "evaluate cluster",
        "adapt shop (patch)", "adapt shop (head)", "evaluate shop"]  # fmt: skip


def write_data(folder: Path, seed: int) -> None:
    data = synthetic(users=250, items=30, targets=10, mean_events=6, seed=seed)
    pq.write_table(data.events, folder / "events.parquet")
    pq.write_table(data.users, folder / "users.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_folder = tmp_path_factory.mktemp("run")
    write_data(data_folder, seed=1)
    return data_folder


def settings(folder: Path, *overrides: str) -> RunConfig:
    quiet = {"progress": False}
    return load_config(
        RunConfig,
        None,
        overrides,
        title="Small",
        prepare={
            "events": {"paths": [str(folder / "events.parquet")], "domain": "domain"},
            "source": {"exclude_domains": ["target"]},
            "tasks": [
                {"name": "cluster", "labels": {"path": str(folder / "users.parquet"), "label": "cluster"}}
                | {"kind": "classification"},
                {"name": "shop", "kind": "ranking", "domains": ["target"]},
            ],
        },
        pretrain={"backbone": {"channels": 8, "dilations": [1, 2]}, "epochs": 1, "runner": quiet},
        adapt={"epochs": 1, "runner": quiet},
        evaluate={"bootstrap": 50},
    )


def done_again(folder: Path, config: RunConfig, stages_made: list[str] = STAGES) -> list[str]:
    """Run, and return the stages that were not reused."""
    with log_lines() as messages:
        report = run(config, folder / "out", command="peterrec run small.yaml")
    assert report == folder / "out" / "report.html"
    stages = read_json(folder / "out" / "run.json")["stages"]
    assert [stage["name"] for stage in stages] == stages_made
    for stage in stages:
        assert any(f"[{stage['name']}]" in line and ("reusing" in line) == stage["reused"] for line in messages)
    return [stage["name"] for stage in stages if not stage["reused"]]


@pytest.mark.slow
def test_what_is_there_is_reused_and_what_changed_is_done_again(folder: Path) -> None:
    assert done_again(folder, settings(folder)) == STAGES
    page = (folder / "out" / "report.html").read_text()
    assert "peterrec run small.yaml" in page
    assert (folder / "out" / "config.yaml").exists()
    assert done_again(folder, settings(folder)) == []
    later = (folder / "out" / "report.html").read_text()
    assert [line for line in page.splitlines() if "verdict" in line] == [
        line for line in later.splitlines() if "verdict" in line
    ]
    assert done_again(folder, settings(folder, "evaluate.k=3")) == ["evaluate cluster", "evaluate shop"]
    overrides = ("evaluate.k=3", "task_overrides.shop.optim.lr=0.01")
    assert done_again(folder, settings(folder, *overrides)) == STAGES[5:]
    assert done_again(folder, settings(folder, *overrides, "adapt.seed=1")) == STAGES[2:]
    assert done_again(folder, settings(folder, *overrides, "pretrain.seed=1", "adapt.seed=1")) == STAGES[1:]
    write_data(folder, seed=2)
    assert done_again(folder, settings(folder, *overrides, "pretrain.seed=1", "adapt.seed=1")) == STAGES


def test_a_table_of_items_is_read_by_pretraining(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "items.parquet"
    config = settings(folder, f"items={table}")
    with pytest.raises(DataError, match=r"items\.parquet"):
        run(config, tmp_path / "out")
    assert not (tmp_path / "out" / "corpus").exists()
    monkeypatch.setattr("peterrec.experiments.pipeline._adapt_and_evaluate", raise_stopped)
    items = pq.read_table(folder / "events.parquet")["item_id"].unique().to_pylist()
    reused = []
    for price in (1.0, 1.0, 2.0):
        pq.write_table(pa.table({"item_id": items, "price": [price * (n % 3) for n in range(len(items))]}), table)
        with log_lines() as messages, pytest.raises(Stopped):
            run(config, tmp_path / "out")
        reused.append(any("[pretrain]" in line and "reusing" in line for line in messages))
    assert reused == [False, True, False]
    assert (tmp_path / "out" / "backbone" / "item_content.json").is_file()


class Stopped(Exception):  # noqa: N818 - after pre-training, for a test
    """What a run is stopped with."""


def raise_stopped(*_: object) -> None:
    raise Stopped


@pytest.mark.slow
def test_a_damaged_part_is_made_again(folder: Path) -> None:
    config = settings(folder)
    done_again(folder, config)
    (folder / "out" / "bundles" / "shop" / "patch" / "adapter_config.json").write_text("{")
    assert done_again(folder, config) == ["adapt shop (patch)"]


def test_overrides_of_tasks_that_are_not_there_are_refused_first(folder: Path, tmp_path: Path) -> None:
    for override, message in (
        ("nobody.epochs=2", "which is no task"),
        ("shop.epoch=2", "epoch: there is no such setting"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(settings(folder, f"task_overrides.{override}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_strategies_that_train_the_backbone_and_all_tasks_at_once(folder: Path) -> None:
    overrides = ("strategies=[last1,all,joint]", "task_overrides.shop.seed=5")
    stage_names = ["prepare", "pretrain", "adapt all tasks (joint)",
            "adapt cluster (last1)", "adapt cluster (all)", "evaluate cluster",
            "adapt shop (last1)", "adapt shop (all)", "evaluate shop"]  # fmt: skip
    first = done_again(folder, settings(folder, *overrides), stage_names)
    assert first[-7:] == stage_names[2:], "corpus and backbone may be there"
    record = read_json(folder / "out" / "run.json")
    for task in record["tasks"]:
        assert [bundle["strategy"] for bundle in task["bundles"]] == ["last1", "all", "joint"]
        assert all(bundle["backbone_params"] > 0 for bundle in task["bundles"])
        models = [method["name"] for method in task["evaluation"]["methods"] if method["family"] == "model"]
        assert models == ["last1", "all", "joint"]
    assert [bundle["seed"] for bundle in record["tasks"][1]["bundles"]] == [5, 5, 0]
    page = (folder / "out" / "report.html").read_text()
    for strategy in ("last1", "all", "joint"):
        assert f'<th scope="row" class="metric">{strategy}</th>' in page
    assert done_again(folder, settings(folder, *overrides), stage_names) == []

    joint = folder / "out" / "joint"
    assert sorted(path.name for path in joint.iterdir()) == ["cluster", "config.yaml", "joint.json", "shop"]
    (joint / "cluster" / "adapter_config.json").write_text("{")
    assert done_again(folder, settings(folder, *overrides), stage_names) == ["adapt all tasks (joint)"]
    shutil.rmtree(joint / "cluster")
    shutil.copytree(folder / "out" / "bundles" / "cluster" / "last1", joint / "cluster")  # a bundle, but another one
    assert done_again(folder, settings(folder, *overrides), stage_names) == ["adapt all tasks (joint)"]
    changed = settings(folder, *overrides, "adapt.joint_init=random")
    rerun_stages = done_again(folder, changed, stage_names)
    assert rerun_stages[0] == "adapt all tasks (joint)"
    assert {"evaluate cluster", "evaluate shop"} <= set(rerun_stages)


@pytest.mark.slow
def test_a_run_with_a_noncausal_backbone_says_what_it_learned(folder: Path) -> None:
    config = settings(folder, "pretrain.backbone.kind=noncausal", "strategies=[head]")
    run(config, folder / "noncausal")
    page = (folder / "noncausal" / "report.html").read_text()
    assert "It is noncausal" in page
    assert "to fill in what is hidden" in page


def test_a_run_that_is_stopped_goes_on_with_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise InterruptedRun("stopped by the user", remedy="continue with --resume", path=tmp_path)

    write_data(tmp_path, seed=1)
    monkeypatch.setattr(pipeline, "_run", stopped)
    with pytest.raises(InterruptedRun, match="stopped by the user") as caught:
        run(settings(tmp_path), tmp_path / "out")
    assert "run the same command again" in caught.value.remedy
