"""A bundle that an adaptation goes on from, of the backbone or of one that it was before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from peterrec.artifacts.bundle_io import Bundle, load_bundle
from peterrec.artifacts.hub import artifact_folder
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import AdaptConfig, with_settings
from peterrec.data.corpus import Corpus, Task
from peterrec.data.sequences import IntArray
from peterrec.errors import ConfigError, FingerprintError, TaskError
from peterrec.evaluation.matching import check_preprocessing
from peterrec.model import UserModel
from peterrec.nn.heads import Head
from peterrec.training.strategies import Trainable, count_parameters
from peterrec.training.task_kinds import TaskObjective
from peterrec.training.task_kinds.regression import RegressionObjective

logger = logging.getLogger(__name__)

ANEW = "adapt anew, without --from"
NETWORK_SETTINGS: dict[str, Callable[[Bundle], Any]] = {
    "strategy": lambda bundle: bundle.strategy,
    "patch": lambda bundle: bundle.patch_config,
    "readout": lambda bundle: bundle.readout,
    "quantiles": lambda bundle: None if bundle.numbers is None else bundle.numbers.quantiles,
    "target_transform": lambda bundle: None if bundle.numbers is None else bundle.numbers.transform,
}
"""Settings that decide the shapes of weights, or what they are of, with the value of a bundle; None: it has none."""


def load_from_lineage(bundle: str | Path | Bundle, model: UserModel) -> Bundle:
    """Return a bundle of a backbone or of one of its `lineage`, with what it has of its own.

    Args:
        bundle: folder or object.
        model: the backbone.

    Raises:
        FingerprintError: it is of a backbone that this one does not come from.
        ArtifactError, HubError: it is missing or damaged.
    """
    identity = model.identity._replace(grown_from=model.pretrained.lineage)
    try:
        if not isinstance(bundle, Bundle):
            bundle = load_bundle(artifact_folder(bundle, "bundle"), model.network.backbone, identity)
        identity.owner(bundle.backbone_fingerprint, bundle.catalogue_fingerprint)
    except FingerprintError as error:
        remedy = "name a bundle of this backbone or of one that it was grown or continued from (`pretrain --from`)"
        raise FingerprintError(error.message, remedy=remedy, path=error.path) from error
    return bundle


def moved_to(bundle: Bundle, model: UserModel) -> Bundle:
    """Return a bundle with every weight as it is, as a bundle of this backbone.

    Items that its own tables lack have the embeddings of the backbone, with nothing that its patch adds.

    Args:
        bundle: of the backbone or of one of its `lineage`.
        model: the backbone.
    """
    backbone = model.network.backbone
    moved = bundle.on(backbone)
    modules = (moved.backbone or backbone, moved.patch, moved.readout_module, moved.head)
    return replace(
        moved,
        items=None,
        all_params=sum(count_parameters(module) for module in modules if module is not None),
        backbone_fingerprint=model.fingerprint,
        catalogue_fingerprint=model.catalogue.fingerprint,
    )


@dataclass(frozen=True)
class InitialBundle:
    """Weights that a patch, a head, and what else a bundle has, begin with.

    Attributes:
        bundle: moved to the backbone that is adapted.
        fingerprint: of its tensors, as they were saved.
        backbone_fingerprint: of the backbone that it was made for.
    """

    bundle: Bundle
    fingerprint: str
    backbone_fingerprint: str

    @classmethod
    def read(cls, bundle: str | Path | Bundle, model: UserModel) -> Self:
        """Read a bundle for a backbone.

        Raises:
            ConfigError: it is of strategy `joint`, or its patch is made of patches of other tasks.
            FingerprintError, ArtifactError, HubError: as in `load_from_lineage`.
        """
        bundle = load_from_lineage(bundle, model)
        moved = moved_to(bundle, model)
        if moved.strategy == "joint" or (moved.patch_config is not None and moved.patch_config.kind == "fusion"):
            training = (
                "several tasks together" if moved.strategy == "joint" else "attention over patches of other tasks"
            )
            raise ConfigError(f"the bundle to go on from is trained as {training}", remedy=ANEW)
        return cls(moved, fingerprint(bundle.tensors()), bundle.backbone_fingerprint)

    @property
    def facts(self) -> dict[str, str]:
        """Entry of the metrics of the new bundle."""
        return {
            "name": self.bundle.name,
            "fingerprint": self.fingerprint,
            "backbone_fingerprint": self.backbone_fingerprint,
        }

    def settings(self, config: AdaptConfig) -> AdaptConfig:
        """Return settings with the network of the bundle, and its length of histories and erased attribute if not set.

        Raises:
            ConfigError: they name another network, or users that the bundle has learned from are to choose the epoch.
        """
        if config.fuse:
            raise ConfigError("fuse makes a patch of other bundles, and --from goes on with one", remedy=ANEW)
        if config.selection == "cross-validation":
            raise ConfigError(
                "the bundle to go on from has learned from the train users whom a cross-validation holds out",
                remedy="set selection to valid",
            )
        network = {name: value(self.bundle) for name, value in NETWORK_SETTINGS.items()}
        network = {name: value for name, value in network.items() if value is not None}
        for name, value in network.items():
            if name in config.model_fields_set and getattr(config, name) != value:
                raise ConfigError(
                    f"{name} is not that of the bundle to go on from", remedy=f"leave {name} out, or {ANEW}"
                )
        defaults = {"max_length": self.bundle.max_length, "erase": self.bundle.erased}
        unset = {name: value for name, value in defaults.items() if name not in config.model_fields_set}
        return with_settings(AdaptConfig, config, network | unset)

    def check_task(self, corpus: Corpus, task: Task) -> None:
        """Refuse a task that is another than that of the bundle, and log targets that the bundle lacks.

        Raises:
            TaskError: it is of another kind, or has other classes or labels, or no target of the bundle; or its users
                are split otherwise, so that some of the test users were learned from.
            FingerprintError: the events were prepared so that the sequences are of another kind.
        """
        places = self.places(task)
        if not (places >= 0).any():
            raise TaskError("has no target of the bundle to go on from", remedy=ANEW, path=task.path)
        provenance = self.bundle.provenance
        split = None if provenance is None else provenance.split
        if split is not None and task.provenance.split is not None and split != task.provenance.split:
            raise TaskError(
                "its users are split otherwise than those of the bundle to go on from, which has learned from some "
                "that are valid or test users here",
                remedy=f"prepare it with the same settings under `split`, or {ANEW}",
                path=task.path,
            )
        for line in check_preprocessing(corpus, task, None if provenance is None else provenance.preprocessing):
            logger.info(line)
        if missing := int((places < 0).sum()):
            logger.info(f"{missing:,} targets that the bundle to go on from lacks start as in a bundle made anew")

    def places(self, task: Task) -> IntArray:
        """Return, for each output of a task, the output of the bundle that it is; -1: the bundle lacks it; (K,).

        Raises:
            TaskError: the task is of another kind, or has other classes or labels.
        """
        bundle = self.bundle
        if bundle.kind != task.kind:
            raise TaskError(
                f"is a {task.kind} task, and the bundle to go on from is of a {bundle.kind} task",
                remedy=f"name a bundle of the same task, or {ANEW}",
                path=task.path,
            )
        if task.targets is not None and bundle.targets is not None:
            return np.asarray(bundle.targets.encode(task.targets.ids) - bundle.targets.first)
        if set(task.class_names) != set(bundle.class_names):
            raise TaskError(
                f"its classes are {', '.join(task.class_names[:5])}, and those of the bundle to go on from are "
                f"{', '.join(bundle.class_names[:5])}",
                remedy=f"prepare the labels with the same names, or {ANEW}",
                path=task.path,
            )
        if bundle.numbers is not None:
            return np.arange(bundle.numbers.count)
        return np.array([bundle.class_names.index(name) for name in task.class_names], dtype=np.int64)

    def load_network(self, parts: Trainable) -> None:
        """Give a network the bundle's patch, its readout, and its own modules of the backbone."""
        bundle = self.bundle
        if parts.patch is not None and bundle.patch is not None:
            parts.patch.load_state_dict(bundle.patch.state_dict())
        if parts.readout_module is not None and bundle.readout_module is not None:
            parts.readout_module.load_state_dict(bundle.readout_module.state_dict())
        if parts.unshared is not None and bundle.backbone is not None:
            modules = parts.backbone.modules_of(parts.unshared)
            modules.load_state_dict(bundle.backbone.modules_of(parts.unshared).state_dict())

    @torch.no_grad()
    def load_head(self, head: Head, objective: TaskObjective) -> None:
        """Give a head the bundle's weights of the outputs that the bundle has; the others stay."""
        places = self.places(objective.task)
        rows = np.flatnonzero(places >= 0)
        weight, bias = self._head_weights(objective)
        taken = torch.from_numpy(places[rows])
        head.start_rows_at(torch.from_numpy(rows), weight[taken], bias[taken])

    def _head_weights(self, objective: TaskObjective) -> tuple[Tensor, Tensor]:
        """Return weights and biases; of numbers on the scale of the users that are learned from now."""
        weight, bias = (tensor.detach().double().cpu() for tensor in (self.bundle.head.weight, self.bundle.head.bias))
        before = self.bundle.numbers
        if before is None or not isinstance(objective, RegressionObjective):
            return weight, bias
        scale = objective.numbers
        bias = (before.mean + before.deviation * bias - scale.mean) / scale.deviation
        return weight * (before.deviation / scale.deviation), bias
