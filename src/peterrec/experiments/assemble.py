"""Gathering the record of a run from its configuration, corpus, backbone, bundles and evaluations."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from peterrec._version import __version__
from peterrec.artifacts.inspection import inspect
from peterrec.config import RunConfig, dump_yaml
from peterrec.data.corpus import Corpus
from peterrec.evaluation.results import TaskEvaluation
from peterrec.model import UserModel
from peterrec.report.run.record import (
    BackboneFacts,
    BundleFacts,
    ClassFacts,
    Curve,
    DataFacts,
    Histogram,
    InputFile,
    Machine,
    RunRecord,
    Stage,
    Step,
    TaskFacts,
    TaskRecord,
    bundle_folder,
)


def assemble(
    config: RunConfig,
    corpus: Corpus,
    model: UserModel,
    out: Path,
    evaluations: list[dict[str, Any]],
    stages: list[dict[str, Any]],
    command: str,
) -> RunRecord:
    """Gather all that the report shows.

    Args:
        config: of the run.
        corpus: of the run.
        model: the backbone of the run.
        out: folder of the run: `backbone` and `bundles/TASK/STRATEGY` are read.
        evaluations: `TaskEvaluation.to_json()` of every task of the corpus, in any order.
        stages: `name`, `seconds` and `reused` of every stage, in order.
        command: what does the run again; may be empty.

    Raises:
        ArtifactError: a backbone or bundle of the run cannot be read, or an evaluation is missing keys.
    """
    return RunRecord(
        title=config.title,
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine_of(model.device),
        seeds={
            "split of a task's users (salt)": config.prepare.split.salt,
            "pre-training": config.pretrain.seed,
            "adaptation": config.adapt.seed,
            "evaluation": config.evaluate.seed,
        },
        stages=[Stage(**stage) for stage in stages],
        data=_data(corpus.manifest),
        backbone=_backbone(inspect(out / "backbone"), model),
        tasks=_tasks(config, corpus.manifest, out, evaluations),
        config=dump_yaml(config),
    )


def machine_of(device: torch.device) -> Machine:
    """Return a record of the machine and of the device that torch computes on."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        lightning=importlib.metadata.version("lightning"),
        peterrec=__version__,
    )


def _cpu() -> str:
    """Return the model name of the processor where the system tells it cheaply."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine() or "unknown"


# A corpus may come from an older or another `prepare`: a report after hours of training must not fail because of a
# fact that is only shown. So what the loops do not need may be absent here.


def _data(manifest: Mapping[str, Any]) -> DataFacts:
    shape = manifest.get("shape", {})
    return DataFacts(
        fingerprint=manifest["fingerprint"],
        catalogue_fingerprint=manifest["catalogue_fingerprint"],
        users=manifest["users"],
        events=manifest["events"],
        items=manifest["items"],
        rare_items=manifest["rare_items"],
        inputs=[InputFile(path=file["path"], bytes=file.get("bytes")) for file in manifest.get("inputs", ())],
        steps=_steps(manifest, "events"),
        history_length=_histogram(shape.get("history_length"), "users"),
        item_events=_histogram(shape.get("item_events"), "items"),
        median_history=shape.get("median_history"),
        top_share=shape.get("top_share", {}),
        first=_text(shape.get("first")),
        last=_text(shape.get("last")),
        tied_fraction=manifest.get("ties", {}).get("fraction", 0.0),
        warnings=manifest.get("warnings", []),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _steps(manifest: Mapping[str, Any], unit: str) -> list[Step]:
    return [
        Step(
            description=step["what"],
            remaining=step[unit],
            dropped=step.get("dropped", 0),
            reason=step.get("why") or "",
        )
        for step in manifest.get("steps", ())
    ]


def _histogram(bins: Mapping[str, Any] | None, unit: str) -> Histogram | None:
    return Histogram(edges=bins["edges"], counts=bins[unit]) if bins else None


def _backbone(meta: Mapping[str, Any], model: UserModel) -> BackboneFacts:
    training, backbone, head = meta["training"], model.network.backbone, model.network.head
    return BackboneFacts(
        kind=backbone.config.kind,
        parameters=meta["parameters"],
        item_table=backbone.embedding.weight.numel() + (head.weight.numel() if head is not None else 0),
        channels=backbone.config.channels,
        kernel_size=backbone.config.kernel_size,
        dilations=list(backbone.config.dilations or ()),
        layers=backbone.config.layers,
        heads=backbone.config.heads,
        receptive_field=backbone.receptive_field,
        max_length=meta["max_length"],
        users=training["users"],
        windows=training["windows"],
        loss=training["loss"],
        fingerprint=meta["fingerprint"],
        bytes=meta["bytes"],
        curve=_curve("valid_loss", training),
    )


def _curve(monitor: str, training: Mapping[str, Any]) -> Curve:
    rows: Iterable[Mapping[str, float]] = training["curve"]
    return Curve(
        monitor=monitor,
        best_epoch=training["best_epoch"],
        rows=[{name: value if math.isfinite(value) else None for name, value in row.items()} for row in rows],
    )


def _tasks(
    config: RunConfig, manifest: Mapping[str, Any], out: Path, evaluations: list[dict[str, Any]]
) -> list[TaskRecord]:
    facts = {task["name"]: task for task in manifest["tasks"]}
    records = []
    for evaluation in (TaskEvaluation.from_json(tree) for tree in evaluations):
        name = evaluation.task
        seed = config.task_overrides.get(name, {}).get("seed", config.adapt.seed)
        bundles = [
            # Settings of one task are not those of a joint training.
            _bundle(inspect(out / bundle_folder(name, s)), s, config.adapt.seed if s == "joint" else seed)
            for s in config.strategies
        ]
        records.append(TaskRecord(facts=_task(facts[name]), bundles=bundles, evaluation=evaluation))
    return records


def _task(task: Mapping[str, Any]) -> TaskFacts:
    return TaskFacts(
        name=task["name"],
        kind=task["kind"],
        users=task.get("users", {}),
        median_history=task.get("median_history"),
        classes=[
            ClassFacts(name=str(class_entry["name"]), users=class_entry["users"])
            for class_entry in task.get("classes", ())
        ],
        targets=task.get("targets"),
        pairs=task.get("pairs"),
        steps=_steps(task, "users"),
    )


def _bundle(meta: Mapping[str, Any], strategy: str, seed: int) -> BundleFacts:
    return BundleFacts(
        strategy=strategy,
        patch_params=meta["patch_params"],
        head_params=meta["head_params"],
        backbone_params=sum(meta["trained"].get(group, 0) for group in ("embedding", "blocks", "norms")),
        all_params=meta["all_params"],
        outputs=meta["outputs"],
        seed=seed,
        fingerprint=meta["fingerprint"],
        bytes=meta["bytes"],
        curve=_curve(meta["metrics"]["monitor"], meta["metrics"]),
        warnings=meta["metrics"].get("warnings", []),  # bundles of before there were any lack them
    )
