"""A run of `adapt`: the checks before it, training over a backbone that must not change, and the bundles after it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback
from torch import nn

from peterrec.artifacts.bundle_io import Bundle, load_bundle
from peterrec.artifacts.hub import artifact_folder
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import AdaptConfig
from peterrec.data.batching import EpochStream
from peterrec.data.corpus import Corpus, Task, TaskPart
from peterrec.data.preprocessing import pretraining_remarks
from peterrec.errors import ConfigError, FingerprintError, TaskError
from peterrec.model import UserModel
from peterrec.training.activation_cache import TrunkCache
from peterrec.training.callbacks import Curve
from peterrec.training.decide import check_calibration, decide, with_reference
from peterrec.training.distributed import Batches, join
from peterrec.training.erasure import Erasure, attribute_to_erase, erase
from peterrec.training.initial_bundle import InitialBundle
from peterrec.training.learners import Learner, new_learner
from peterrec.training.loggers import check_loggers_and_callbacks
from peterrec.training.loop import Plan, TrainedModule, fit
from peterrec.training.patch_size import wide_patch_line
from peterrec.training.selection import select_by
from peterrec.training.strategies import build_networks, count_parameters, joint_counts
from peterrec.training.task_kinds import unused_settings
from peterrec.training.task_kinds.regression import RegressionObjective
from peterrec.training.work_folder import WorkFolder

logger = logging.getLogger(__name__)


class AdaptationRun:
    """One adaptation: a backbone, a corpus, the tasks, the settings and the folder of the bundle or bundles.

    Args:
        backbone: a folder written by `pretrain` or `hf://organization/name`, or a loaded model.
        corpus: a folder written by `prepare`, or an open one.
        task_names: one, or with strategy `joint` any number.
        out: folder of the bundle; with strategy `joint`, of the bundles.
        config: settings.
        callbacks: of Lightning, called while training.
        initial: bundle to go on from.

    Raises:
        FingerprintError: item indices of the corpus mean other items than the backbone's.
        ArtifactError: backbone or corpus are missing or damaged.
        TaskError: no such task, or a part of it without users; no negative can be drawn for a user.
        ConfigError: settings that do not fit backbone or task.
    """

    def __init__(
        self,
        backbone: str | Path | UserModel,
        corpus: str | Path | Corpus,
        task_names: Sequence[str],
        out: Path,
        config: AdaptConfig,
        callbacks: Sequence[Callback] = (),
        initial: str | Path | Bundle | None = None,
    ) -> None:
        check_loggers_and_callbacks(config.runner)
        join(config.runner)  # before the backbone is put on a device
        self.callbacks = callbacks
        self.out = out
        self.corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
        if not isinstance(backbone, UserModel):
            backbone = UserModel.from_pretrained(artifact_folder(backbone, "backbone"))
        self.model = backbone
        self.initial = None if initial is None else InitialBundle.read(initial, backbone)
        self.config = config = config if self.initial is None else self.initial.settings(config)
        self.model.pretrained.check_corpus(self.corpus)
        for line in _remarks(self.model, self.corpus, task_names):
            logger.info(line)
        self.task_names = task_names
        self.joint = config.strategy == "joint"
        self.cache: TrunkCache | None = None
        self.attribute = attribute_to_erase(config, self.corpus, list(task_names))
        self.fused = read_fused(config.fuse, self.model)
        self.fused_patches = [bundle.patch for bundle in self.fused if bundle.patch is not None]
        self.learners = self._build_learners([self.corpus.task(name) for name in task_names])

    def _build_learners(self, tasks: Sequence[Task]) -> list[Learner]:
        if self.initial is not None:
            self.initial.check_task(self.corpus, tasks[0])
        users = [train_and_valid(task) for task in tasks]
        for task, (_, valid) in zip(tasks, users, strict=True):
            check_calibration(self.config, task, valid)
        self.selections = [
            select_by(self.config, task, train, valid, continues=self.initial is not None)
            for task, (train, valid) in zip(tasks, users, strict=True)
        ]
        backbone, device = self.model.network.backbone, self.model.device
        networks = build_networks(
            self.config,
            backbone,
            [(task, train) for task, (train, _) in zip(tasks, users, strict=True)],
            self.fused_patches,
        )
        if self.initial is not None:
            self.initial.load_network(networks[0])
        if not self.joint:
            ((train, valid),) = users
            self.cache = TrunkCache.from_config(self.config, networks[0], train.sequences, valid.sequences)
        states = None if self.cache is None else self.cache.train
        return [
            new_learner(
                self.config, task, train, valid, network, device, states,
                valid_chooses=selection.folds == 0, initial=self.initial,
            )
            for task, (train, valid), network, selection in zip(tasks, users, networks, self.selections, strict=True)
        ]  # fmt: skip

    def open_work_folder(self, *, resume: bool, overwrite: bool) -> WorkFolder:
        """Return the folder of the unfinished run; for the errors see there."""
        inputs = {
            "corpus": self.corpus.manifest["fingerprint"],
            "backbone": self.model.fingerprint,
            "tasks" if self.joint else "task": ",".join(self.task_names),
            **({"initial": self.initial.fingerprint} if self.initial is not None else {}),
            **({"fused": ",".join(fingerprint(bundle.tensors()) for bundle in self.fused)} if self.fused else {}),
        }
        kind = "joint" if self.joint else "bundle"
        return WorkFolder(self.out, self.config, inputs, resume=resume, overwrite=overwrite, kind=kind)

    def train(
        self, module: TrainedModule, stream: EpochStream[Any], valid: Batches[Any], work: WorkFolder, plan: Plan
    ) -> Curve:
        """Train to the best epoch, and make sure that the pre-trained backbone is what it was.

        Raises:
            FingerprintError: it is not, which is a bug.
            ConfigError, TrainingError, InterruptedRun, StorageError: as in `loop.fit`.
        """
        model = self.model
        before = model.pretrained.fingerprint
        try:
            curve = fit(module, stream, valid, work, plan, self.config.runner, extra=self.callbacks)
        finally:
            model.network.to(model.device)  # Lightning leaves everything on the CPU
        if model.pretrained.fingerprint != before:
            raise FingerprintError("the pre-trained backbone changed while adapting", remedy="report this as a bug")
        module.trained.eval().requires_grad_(False)
        return curve

    def log_start(self) -> None:
        """Log who is learned from, and how many weights are trained."""
        config, (first, *_) = self.config, self.learners
        if self.joint:
            if config.selection == "cross-validation":
                logger.info(
                    "selection cross-validation is not used: the valid users of all tasks choose the epoch together"
                )
            names = ", ".join(repr(name) for name in self.task_names)
            users = " + ".join(f"{len(learner.train):,}" for learner in self.learners)
            logger.info(f"adapting to {names} jointly on {users} users")
        else:
            users = f"{len(first.train):,} users, {len(first.valid):,} to validate"
            logger.info(f"adapting to {first.task.name!r} with strategy {config.strategy!r} on {users}")
            for name in unused_settings(config, first.task.kind):
                logger.info(f"{name} is not used: {first.task.name!r} is a {first.task.kind} task")
        if self.cache is not None:
            logger.info(self.cache.line)
        networks = [learner.parts for learner in self.learners]
        modules: list[nn.Module | None] = [first.parts.backbone, first.parts.patch]
        modules += [module for network in networks for module in (network.readout_module, network.head)]
        total = sum(count_parameters(module) for module in modules if module is not None)
        logger.info(trainable_line(joint_counts(networks), total))
        if first.parts.patch is not None and (
            line := wide_patch_line(first.parts.patch.config, first.parts.backbone.config)
        ):
            logger.info(line)

    def erase_attribute(self) -> list[Erasure | None]:
        """Erase the attribute of the settings from what each trained head reads; None where there is none."""
        chooses = [selection.folds == 0 for selection in self.selections]
        return [
            None if self.attribute is None else erase(learner, self.attribute, self.config, valid_chooses=valid_chooses)
            for learner, valid_chooses in zip(self.learners, chooses, strict=True)
        ]

    def new_bundle(self, learner: Learner, metrics: dict[str, Any], erasure: Erasure | None = None) -> Bundle:
        """Return the bundle of a task that was trained."""
        config, model, task, parts = self.config, self.model, learner.task, learner.parts
        modules = [parts.backbone, parts.patch, parts.readout_module, parts.head]
        bundle = Bundle(
            name=task.name,
            kind=task.kind,
            strategy=config.strategy,
            patch=parts.patch,
            patch_config=None if parts.patch is None else parts.patch.config,
            head=parts.head,
            class_names=task.class_names,
            targets=task.targets,
            numbers=learner.objective.numbers if isinstance(learner.objective, RegressionObjective) else None,
            max_length=config.max_length,
            readout=config.readout,
            readout_module=parts.readout_module,
            backbone_fingerprint=model.fingerprint,
            catalogue_fingerprint=model.catalogue.fingerprint,
            all_params=sum(count_parameters(module) for module in modules if module is not None),
            trained=parts.counts(),
            backbone=parts.backbone if parts.unshared is not None else None,
            unshared=parts.unshared,
            metrics=metrics,
            exclude_seen=task.exclude_seen,
            exclude_seen_reason=task.exclude_seen_reason,
            provenance=task.provenance,
            new_users=model.pretrained.new_users,
            class_priors=_shares(learner.train, len(task.class_names)),
            eraser=None if erasure is None else erasure.eraser,
            erased=None if erasure is None else erasure.attribute,
        )
        return with_reference(model, decide(model, bundle, task, learner.valid, config), learner.train, learner.valid)


def read_fused(paths: Sequence[str], model: UserModel) -> list[Bundle]:
    """Read the bundles whose patches are to be fused.

    Raises:
        FingerprintError: one is of another backbone.
        ArtifactError: one is missing or damaged.
        ConfigError: one is not a patch on the frozen backbone.
    """
    bundles = []
    for path in paths:
        bundle = load_bundle(artifact_folder(path, "bundle"), model.network.backbone, model.identity)
        if bundle.patch is None or bundle.unshared is not None:
            raise ConfigError(
                f"{path} has no patch on the frozen backbone (strategy {bundle.strategy})",
                remedy="fuse bundles of strategy patch",
            )
        bundles.append(bundle.on(model.network.backbone))
    return bundles


def _remarks(model: UserModel, corpus: Corpus, tasks: Iterable[str]) -> list[str]:
    """Return in words what is to be known where the backbone was pre-trained on another corpus."""
    if model.pretrained.training.get("corpus_fingerprint") == corpus.manifest["fingerprint"]:
        return []
    preprocessing = model.pretrained.preprocessing
    lines = [line for task in tasks for line in pretraining_remarks(preprocessing, corpus.manifest, task)]
    return list(dict.fromkeys(lines))


def train_and_valid(spec: Task) -> tuple[TaskPart, TaskPart]:
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


def _shares(train: TaskPart, outputs: int) -> tuple[float, ...] | None:
    """Return the share of users of each class, or with each label; None of tasks that have neither."""
    held = train.labels if train.label_sets is None else train.label_sets.items
    if held is None:
        return None
    shares: list[float] = (np.bincount(held, minlength=outputs) / len(train)).tolist()
    return tuple(shares)


def trainable_line(counts: dict[str, int], everything: int) -> str:
    """Return the line `trainable params: ... || all params: ... || trainable%: ...`, with the groups behind it."""
    total = sum(counts.values())
    groups = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    share = 100 * total / everything
    return f"trainable params: {total:,} || all params: {everything:,} || trainable%: {share:.4f} ({groups})"


def best_line(curve: Curve, shown: Iterable[str]) -> str:
    """Return the line that says which epoch was best, and how good."""
    metrics = ", ".join(f"{name} {curve.best[name]:.4f}" for name in shown)
    return f"{epoch_phrase(int(curve.best['epoch']))}: {metrics}"


def epoch_phrase(best_epoch: int) -> str:
    """Return in words which epoch was best, counted from 0; -1: none was better than the start."""
    return f"best epoch {best_epoch + 1}" if best_epoch >= 0 else "no epoch was better than the start"
