"""What all strategies share: checks before, training over a backbone that must not change, and what is said after."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peterrec.artifacts.bundle_io import Bundle
from peterrec.config import AdaptConfig
from peterrec.data.batching import EpochStream, inference_batches
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.preprocessing import pretraining_remarks
from peterrec.data.sequences import IntArray
from peterrec.errors import WARNING, FingerprintError, TaskError
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone, Own
from peterrec.nn.heads import ClassificationHead, ItemHead
from peterrec.nn.patch import Patch
from peterrec.training.callbacks import Curve
from peterrec.training.folder import WorkFolder
from peterrec.training.loop import Plan, TrainedModule, fit
from peterrec.training.strategies import count_parameters

STANDARD_USERS = 2048  # enough for a mean and a deviation
STANDARD_BATCH = 64


def load_model(
    backbone: str | Path | UserModel, corpus: Corpus, tasks: Iterable[str], say: Callable[[str], None]
) -> UserModel:
    """Return the model of a backbone that tasks of a corpus are adapted on, and say what it has seen otherwise.

    Raises:
        FingerprintError: item indices of the corpus mean other items than the backbone's.
        ArtifactError: the backbone is missing or damaged.
    """
    model = backbone if isinstance(backbone, UserModel) else UserModel.from_pretrained(backbone)
    _same_catalogue(model, corpus)
    for line in _remarks(model, corpus, tasks):
        say(line)
    return model


def _same_catalogue(model: UserModel, corpus: Corpus) -> None:
    if corpus.catalogue.fingerprint != model.catalogue.fingerprint:
        raise FingerprintError(
            f"its catalogue is {corpus.catalogue.fingerprint}, the backbone's is {model.catalogue.fingerprint}",
            remedy="prepare this data with the backbone's catalogue (prepare --catalogue BACKBONE), or pre-train anew",
            path=corpus.path,
        )


def _remarks(model: UserModel, corpus: Corpus, tasks: Iterable[str]) -> list[str]:
    """Return in words what is to be known where the backbone was pre-trained on another corpus."""
    if model.pretrained.training.get("corpus_fingerprint") == corpus.manifest["fingerprint"]:
        return []
    preprocessing = model.pretrained.preprocessing
    lines = [line for task in tasks for line in pretraining_remarks(preprocessing, corpus.manifest, task)]
    return list(dict.fromkeys(lines))


def parts_of(spec: Task) -> tuple[TaskPart, TaskPart]:
    """Return the users to train on and to validate.

    Raises:
        TaskError: there are none of either.
    """
    train, valid = spec.part("train"), spec.part("valid")
    if len(train) == 0 or len(valid) == 0:
        raise TaskError(
            f"has {len(train)} users to train on and {len(valid)} to validate; both are needed",
            remedy="label more users, or raise split.train or split.valid, and prepare again",
            path=spec.path,
        )
    return train, valid


def train(
    model: UserModel,
    module: TrainedModule,
    stream: EpochStream[Any],
    valid: Iterable[Any],
    work: WorkFolder,
    plan: Plan,
    config: AdaptConfig,
) -> Curve:
    """Train to the best epoch, and make sure that the pre-trained backbone is what it was.

    Raises:
        FingerprintError: it is not, which is a bug.
        ConfigError, TrainingError, InterruptedRun, StorageError: as in `loop.fit`.
    """
    before = model.pretrained.fingerprint
    try:
        curve = fit(module, stream, valid, work, plan, config.runner)
    finally:
        model.network.to(model.device)  # Lightning leaves everything on the CPU
    if model.pretrained.fingerprint != before:
        raise FingerprintError("the pre-trained backbone changed while adapting", remedy="report this as a bug")
    module.trained.eval().requires_grad_(False)
    return curve


@torch.no_grad()
def standardise(
    head: ClassificationHead | ItemHead,
    config: AdaptConfig,
    users: TaskPart,
    read: Callable[..., Tensor],
    device: torch.device,
) -> None:
    """Tell a head that reads sums of states how large they are, from some of the users to train on.

    Args:
        head: of the task; that of readout `token` stays as it is: LayerNorm has seen to it.
        config: says what is read.
        users: to train on.
        read: from tokens to representations, before anything is trained.
        device: where the backbone is.
    """
    if config.readout == "token":
        return
    some = users.sequences.take(np.linspace(0, len(users) - 1, min(len(users), STANDARD_USERS)).astype(np.int64))
    batches = inference_batches(some, STANDARD_BATCH, config.max_length)
    vectors = [read(torch.from_numpy(tokens).to(device), readout=config.readout) for _, tokens in batches]
    head.standardise(torch.cat(vectors).float().to(head.weight.device))


def new_bundle(
    spec: Task,
    config: AdaptConfig,
    model: UserModel,
    *,
    head: ClassificationHead | ItemHead,
    patch: Patch | None,
    backbone: Backbone,
    own: Own | None,
    trained: dict[str, int],
) -> Bundle:
    """Return the bundle of a task, without metrics yet."""
    labels = spec.part("train").labels if spec.kind == "classification" else None
    parts = [model.network, head] + ([patch] if patch is not None else [])
    return Bundle(
        name=spec.name,
        kind=spec.kind,
        strategy=config.strategy,
        patch=patch,
        patch_config=config.patch if patch is not None else None,
        head=head,
        class_names=spec.class_names,
        targets=spec.targets,
        max_length=config.max_length,
        readout=config.readout,
        backbone_fingerprint=model.fingerprint,
        catalogue_fingerprint=model.catalogue.fingerprint,
        all_params=sum(count_parameters(part) for part in parts),
        trained=trained,
        backbone=backbone if own is not None else None,
        unshared=own,
        exclude_seen=spec.exclude_seen,
        exclude_seen_reason=spec.exclude_seen_reason,
        provenance=spec.provenance,
        class_priors=None if labels is None else _class_shares(labels, len(spec.class_names)),
    )


def _class_shares(labels: IntArray, classes: int) -> tuple[float, ...]:
    shares: list[float] = (np.bincount(labels, minlength=classes) / len(labels)).tolist()
    return tuple(shares)


def metrics_of(curve: Curve, shown: Iterable[str], corpus: Corpus) -> dict[str, Any]:
    """Return what a bundle says of its training."""
    return {
        "valid": {name: curve.best[name] for name in shown},
        "best_epoch": int(curve.best["epoch"]),
        "monitor": curve.monitor,
        "curve": curve.rows,
        "corpus_fingerprint": corpus.manifest["fingerprint"],
    }


def trainable_line(counts: dict[str, int], everything: int) -> str:
    """Return the line `trainable params: ... || all params: ... || trainable%: ...`, with the groups behind it."""
    total = sum(counts.values())
    groups = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    share = 100 * total / everything
    return f"trainable params: {total:,} || all params: {everything:,} || trainable%: {share:.4f} ({groups})"


def best_line(curve: Curve, shown: Iterable[str]) -> str:
    """Return the line that says which epoch was best, and how good."""
    metrics = ", ".join(f"{name} {curve.best[name]:.4f}" for name in shown)
    return f"best epoch {int(curve.best['epoch']) + 1}: {metrics}"


def say_result(say: Callable[[str], None], line: str, warnings: Iterable[str]) -> None:
    """Say how good the best epoch was, and last of all what is wrong with it."""
    for text in (line, *(f"{WARNING}{warning}" for warning in warnings)):
        say(text)
