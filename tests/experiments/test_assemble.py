"""Gathering a record from real artifacts on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import tiny_bundle, tiny_pretrained
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.config import RunConfig, load_config
from peterrec.data.corpus import Corpus
from peterrec.errors import ArtifactError
from peterrec.evaluation.results import TaskEvaluation
from peterrec.experiments.assemble import assemble
from peterrec.model import UserModel
from peterrec.report.run.page import render
from peterrec.report.run.record import RunRecord

STAGES = [{"name": "prepare", "seconds": 1.5, "reused": False}, {"name": "pretrain", "seconds": 0.1, "reused": True}]
CURVE = [{"epoch": 0, "train_loss": 1.0, "seconds": 2.0}, {"epoch": 1, "train_loss": 0.5, "seconds": 3.0}]
MANIFEST = {
    "kind": "corpus",
    "fingerprint": "c" * 64,
    "catalogue_fingerprint": "d" * 64,
    "users": 30,
    "events": 300,
    "items": 12,
    "rare_items": "drop",
    "tasks": [{"name": "age", "kind": "classification"}],
}
MANIFEST_FACTS = {
    "inputs": [{"path": "events.parquet", "bytes": 123, "rows": 4}],
    "steps": [{"what": "read", "events": 310, "dropped": 0, "why": ""}],
    "shape": {
        "history_length": {"edges": [1, 5], "users": [20, 10]},
        "item_events": {"edges": [5, 10], "items": [8, 4]},
        "median_history": 9.5,
        "top_share": {"1": 0.2, "10": 0.6},
        "first": "2000-11-01",
        "last": "2001-01-31",
    },
    "tasks": [
        {
            "name": "age",
            "kind": "classification",
            "users": {"train": 20, "valid": 3, "test": 7},
            "median_history": 8.0,
            "classes": [{"name": "young", "users": 12}, {"name": 1999, "users": 18}],
            "steps": [{"what": "labelled", "users": 30, "dropped": 2, "why": "no label"}],
        }
    ],
}


@pytest.fixture
def model(tmp_path: Path) -> UserModel:
    training = {
        "users": 25,
        "windows": 26,
        "loss": "full softmax",
        "best_epoch": 1,
        "curve": [{**row, "valid_loss": 2.0 - row["epoch"], "hr@10": 0.25, "mrr@10": 0.125} for row in CURVE],
    }
    model = UserModel(tiny_pretrained(training=training), device="cpu")
    model.save_pretrained(tmp_path / "backbone")
    for strategy in ("patch", "head"):
        metrics = {
            "monitor": "log_loss",
            "best_epoch": 0,
            "curve": [{**row, "log_loss": 1.0 if row["epoch"] == 0 else float("inf")} for row in CURVE],
        }
        bundle = tiny_bundle(model.pretrained, name="age", strategy=strategy, metrics=metrics)
        save_bundle(tmp_path / "bundles" / "age" / strategy, bundle)
    return model


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(
        RunConfig,
        None,
        ["adapt.seed=3", "pretrain.seed=4", "evaluate.seed=5"],
        title="A run",
        prepare={"events": {"paths": ["events.parquet"]}},
        task_overrides={"age": {"seed": 6}},
    )


def gather(
    config: RunConfig, model: UserModel, out: Path, evaluation: TaskEvaluation | None, **manifest: Any
) -> RunRecord:
    corpus = Corpus(out / "corpus", MANIFEST | manifest)
    evaluations = [evaluation.to_json()] if evaluation is not None else []
    return assemble(config, corpus, model, out, evaluations, STAGES, "peterrec run c.yaml --out o")


@pytest.fixture
def age(record: RunRecord) -> TaskEvaluation:
    return record.tasks[1].evaluation


def test_sizes_and_curves_come_from_the_artifacts(
    config: RunConfig, model: UserModel, tmp_path: Path, age: TaskEvaluation
) -> None:
    record = gather(config, model, tmp_path, age, **MANIFEST_FACTS)
    network = model.network
    assert record.backbone.parameters == sum(p.numel() for p in network.parameters())
    assert record.backbone.item_table == network.backbone.embedding.weight.numel()
    assert record.backbone.fingerprint == model.fingerprint
    assert record.backbone.receptive_field == network.backbone.receptive_field
    assert record.backbone.bytes == sum(file.stat().st_size for file in (tmp_path / "backbone").iterdir())
    assert record.backbone.curve.best["valid_loss"] == 1.0
    assert record.backbone.curve.seconds == 5.0
    patch, head = record.tasks[0].bundles
    assert (patch.strategy, head.strategy) == ("patch", "head")
    assert patch.patch_params > 0 == head.patch_params
    assert patch.head_params == head.head_params > 0
    assert patch.curve.monitor == "log_loss"
    assert patch.curve.rows[1]["log_loss"] is None  # JSON has no infinity
    assert record.tasks[0].evaluation == age


def test_an_output_table_of_its_own_is_an_item_table_too(config: RunConfig, model: UserModel, tmp_path: Path) -> None:
    training = model.pretrained.training
    untied = UserModel(tiny_pretrained(training=training, backbone={"tie_weights": False}), device="cpu")
    out = tmp_path / "untied"
    untied.save_pretrained(out / "backbone")
    record = gather(config, untied, out, None, tasks=[])
    assert record.backbone.item_table == (12 + 4 + 12) * 8
    assert record.tasks == []


def test_the_manifest_is_taken_over(config: RunConfig, model: UserModel, tmp_path: Path, age: TaskEvaluation) -> None:
    record = gather(config, model, tmp_path, age, **MANIFEST_FACTS)
    data, facts = record.data, record.tasks[0].facts
    assert data.history_length is not None
    assert data.item_events is not None
    assert (data.history_length.counts, data.item_events.counts) == ([20, 10], [8, 4])
    assert (data.median_history, data.top_share, data.first, data.last) == (
        9.5,
        {"1": 0.2, "10": 0.6},
        "2000-11-01",
        "2001-01-31",
    )
    assert (data.steps[0].remaining, data.inputs[0].bytes) == (310, 123)
    assert (facts.users["test"], facts.classes[1].name, facts.steps[0].remaining, facts.steps[0].dropped) == (
        7,
        "1999",
        30,
        2,
    )


def test_a_manifest_that_tells_little_still_gives_a_report(
    config: RunConfig, model: UserModel, tmp_path: Path, age: TaskEvaluation
) -> None:
    record = gather(config, model, tmp_path, age)
    assert record.data.history_length is None
    assert "300 events of 30 users over 12 items." in render(record)


def test_the_run_itself_is_recorded(config: RunConfig, model: UserModel, tmp_path: Path, age: TaskEvaluation) -> None:
    record = gather(config, model, tmp_path, age)
    assert (record.title, record.command) == ("A run", "peterrec run c.yaml --out o")
    assert record.seeds == {
        "split of a task's users (salt)": "peterrec",
        "pre-training": 4,
        "adaptation": 3,
        "evaluation": 5,
    }
    assert [bundle.seed for bundle in record.tasks[0].bundles] == [6, 6]
    assert [(stage.name, stage.seconds, stage.reused) for stage in record.stages] == [
        ("prepare", 1.5, False),
        ("pretrain", 0.1, True),
    ]
    assert record.machine.cores >= 1
    assert record.machine.cpu
    assert record.machine.device == "cpu"
    assert "seed: 4" in record.config


def test_a_record_is_plain_values(config: RunConfig, model: UserModel, tmp_path: Path, age: TaskEvaluation) -> None:
    record = gather(config, model, tmp_path, age, **MANIFEST_FACTS)
    text = json.dumps(json.loads(record.model_dump_json(by_alias=True)), allow_nan=False)
    assert RunRecord.model_validate_json(text) == record
    assert str(tmp_path) not in text  # whoever is sent a report need not know where it was made


def test_a_missing_bundle_is_named(config: RunConfig, model: UserModel, tmp_path: Path, age: TaskEvaluation) -> None:
    (tmp_path / "bundles" / "age" / "head" / "adapter_config.json").unlink()
    with pytest.raises(ArtifactError, match="no artifact") as caught:
        gather(config, model, tmp_path, age)
    assert "head" in str(caught.value)


def test_what_was_trained_of_the_backbone_is_counted_and_joint_bundles_lie_together(
    config: RunConfig, model: UserModel, tmp_path: Path, age: TaskEvaluation
) -> None:
    """A seed of one task is not that of the joint training, which has no settings of a task."""
    metrics = {"monitor": "log_loss", "best_epoch": 0, "curve": [{**row, "log_loss": 1.0} for row in CURVE]}
    for folder, strategy in (("bundles/age/all", "all"), ("joint/age", "joint")):
        trained = {"embedding": 128, "blocks": 800, "norms": 64, "head": 27}
        bundle_ = tiny_bundle(model.pretrained, name="age", strategy=strategy, metrics=metrics, trained=trained)
        save_bundle(tmp_path / folder, bundle_)
    config = config.model_copy(update={"strategies": ("patch", "all", "joint")})
    bundles = gather(config, model, tmp_path, age).tasks[0].bundles
    assert [bundle.strategy for bundle in bundles] == ["patch", "all", "joint"]
    assert [bundle.backbone_params for bundle in bundles] == [0, 992, 992]
    assert [bundle.trained_params for bundle in bundles[1:]] == [992 + 27] * 2
    assert [bundle.seed for bundle in bundles] == [6, 6, 3]
