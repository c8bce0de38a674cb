"""Gathering the record of a run from its configuration, corpus, backbone, bundles and evaluations."""

from __future__ import annotations

import importlib.metadata
import os
import platform
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
from peterrec.report.run import record


def assemble(
    config: RunConfig,
    corpus: Corpus,
    model: UserModel,
    out: Path,
    evaluations: list[dict[str, Any]],
    stages: list[dict[str, Any]],
    command: str,
) -> record.RunRecord:
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
    manifest = corpus.manifest
    shape, ties = manifest.get("shape", {}), manifest.get("ties", {})
    return record.RunRecord(
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
        stages=[record.Stage(**stage) for stage in stages],
        data=record.DataFacts.model_validate({**manifest, **shape, "tied_fraction": ties.get("fraction", 0.0)}),
        backbone=_backbone(inspect(out / "backbone"), model),
        tasks=[_task(config, manifest, out, TaskEvaluation.from_json(tree)) for tree in evaluations],
        config=dump_yaml(config),
    )


def machine_of(device: torch.device) -> record.Machine:
    """Return a record of the machine and of the device that torch computes on."""
    return record.Machine(
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


def _backbone(meta: dict[str, Any], model: UserModel) -> record.BackboneFacts:
    training, backbone, head = meta["training"], model.network.backbone, model.network.head
    derived = {
        "item_table": backbone.embedding.weight.numel() + (head.weight.numel() if head is not None else 0),
        "receptive_field": backbone.receptive_field,
        "curve": {"monitor": "valid_loss", **training},
    }
    return record.BackboneFacts.model_validate({**meta, **training, **meta["backbone"], **derived})


def _task(config: RunConfig, manifest: dict[str, Any], out: Path, evaluation: TaskEvaluation) -> record.TaskRecord:
    name = evaluation.task
    facts = next(task for task in manifest["tasks"] if task["name"] == name)
    seed = config.task_overrides.get(name, {}).get("seed", config.adapt.seed)
    bundles = [
        # Settings of one task are not those of a joint training.
        _bundle(inspect(out / record.bundle_folder(name, s)), s, config.adapt.seed if s == "joint" else seed)
        for s in config.strategies
    ]
    return record.TaskRecord(facts=record.TaskFacts.model_validate(facts), bundles=bundles, evaluation=evaluation)


def _bundle(meta: dict[str, Any], strategy: str, seed: int) -> record.BundleFacts:
    metrics, trained = meta["metrics"], meta["trained"]
    derived = {
        "strategy": strategy,
        "seed": seed,
        "backbone_params": sum(trained.get(group, 0) for group in ("embedding", "blocks", "norms")),
        "curve": metrics,
        "warnings": metrics.get("warnings", []),
    }
    return record.BundleFacts.model_validate({**meta, **derived})
