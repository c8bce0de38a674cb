"""The strategies: the modules that are trained on a task, chosen as modules and never by matching names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from peterrec.config import AdaptConfig, Strategy
from peterrec.data.corpus import Task, TaskPart
from peterrec.errors import ConfigError
from peterrec.nn.backbone import Backbone, UnsharedModules
from peterrec.nn.build import build_backbone
from peterrec.nn.fusion import fused_patch
from peterrec.nn.heads import Head
from peterrec.nn.patch import Patch
from peterrec.nn.readout import build_readout_module, readout_named
from peterrec.training.task_kinds import task_objective


@dataclass(frozen=True)
class BackbonePlan:
    """Rule of a strategy: its part of the backbone, and whether there is a patch.

    Attributes:
        unshared: what of the backbone is the task's alone: the number of last blocks (None: all) and the embedding.
        per_block: sublayers of these blocks: both, or the second only.
        trained: whether that is trained; if not, it is frozen like the rest.
        pretrained: whether it starts at the pre-trained weights; if not, at random.
        patch: whether there is one.
    """

    unshared: int | None = 0
    per_block: Literal[1, 2] = 2
    trained: bool = True
    pretrained: bool = True
    patch: bool = False


# Behind each, what the paper calls it.
PLANS: dict[Strategy, BackbonePlan] = {
    "patch": BackbonePlan(patch=True),  # PeterRec
    "head": BackbonePlan(),  # FineCLS
    "last-sublayer": BackbonePlan(unshared=1, per_block=1),  # FineLast1, by convolutions; FineLast2 is then `last1`
    "last1": BackbonePlan(unshared=1),  # FineLast1, by blocks
    "last2": BackbonePlan(unshared=2),  # FineLast2
    "all": BackbonePlan(unshared=None),  # FineAll
    "scratch": BackbonePlan(unshared=None, pretrained=False),  # FineZero
    "patch-random": BackbonePlan(unshared=None, trained=False, pretrained=False, patch=True),  # PeterZero
    "joint": BackbonePlan(unshared=None),  # MTL
}


@dataclass(frozen=True)
class Trainable:
    """The network of one task, and what of it is trained.

    Attributes:
        backbone: the frozen backbone itself, or a fork of it with modules of the task's own.
        unshared: which modules are its own; None if none is.
        unshared_trained: whether these are trained.
        patch: the task's patch, or None.
        head: the task's head.
        readout_module: what the task's head reads by, where the readout is trained.
    """

    backbone: Backbone
    unshared: UnsharedModules | None
    unshared_trained: bool
    patch: Patch | None
    head: Head
    readout_module: nn.Module | None = None

    def backbone_modules(self) -> nn.ModuleDict | None:
        """Return what of the backbone is trained."""
        if self.unshared is None or not self.unshared_trained:
            return None
        return self.backbone.modules_of(self.unshared)

    def modules(self) -> nn.ModuleDict:
        """Return all that is trained, and nothing else."""
        parts: dict[str, nn.Module | None] = {
            "backbone": self.backbone_modules(), "patch": self.patch, "head": self.head, "readout": self.readout_module
        }  # fmt: skip
        return nn.ModuleDict({name: module for name, module in parts.items() if module is not None})

    def counts(self) -> dict[str, int]:
        """Return the number of trained parameters of each group, without groups that are not trained."""
        return joint_counts([self])


def joint_counts(networks: Sequence[Trainable]) -> dict[str, int]:
    """Return the `counts` of tasks that are trained together, whose networks share all but heads and readouts."""
    readouts = [network.readout_module for network in networks if network.readout_module is not None]
    first = networks[0]
    return group_counts(first.backbone_modules(), first.patch, [network.head for network in networks], readouts)


def group_counts(
    backbone: nn.ModuleDict | None,
    patch: nn.Module | None,
    heads: Sequence[nn.Module],
    readouts: Sequence[nn.Module] = (),
) -> dict[str, int]:
    """Count parameters of each group; empty groups are left out.

    Returns:
        `embedding`, `blocks` (convolutions), `norms`, `patch`, `readout` (modules of trained readouts), `head`.
    """
    modules = list(backbone.modules()) if backbone is not None else []
    embedding = sum(count_parameters(module) for module in modules if isinstance(module, nn.Embedding))
    norms = sum(count_parameters(module) for module in modules if isinstance(module, nn.LayerNorm))
    everything = count_parameters(backbone) if backbone is not None else 0
    counts = {
        "embedding": embedding,
        "blocks": everything - embedding - norms,
        "norms": norms,
        "patch": 0
        if patch is None
        else count_parameters(patch) - (patch.frozen_params if isinstance(patch, Patch) else 0),
        "readout": sum(count_parameters(readout) for readout in readouts),
        "head": sum(count_parameters(head) for head in heads),
    }
    return {name: count for name, count in counts.items() if count}


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def build(
    config: AdaptConfig, backbone: Backbone, task: Task, train: TaskPart, fused: Sequence[Patch] = ()
) -> Trainable:
    """Build the network of a task: fresh patch and head, and its own part of the backbone; arguments as of the next.

    Raises:
        ConfigError: patch or strategy do not fit the backbone.
    """
    return build_networks(config, backbone, [(task, train)], fused)[0]


def build_networks(
    config: AdaptConfig,
    backbone: Backbone,
    tasks: Sequence[tuple[Task, TaskPart]],
    fused: Sequence[Patch] = (),
) -> list[Trainable]:
    """Build the networks of tasks that are trained together: all else than heads, and what they read by, is shared.

    Args:
        config: strategy and patch.
        backbone: the pre-trained one.
        tasks: each with its train users.
        fused: patches of other tasks, attention over which takes the place of a patch.

    Raises:
        ConfigError: patch or strategy do not fit the backbone.
    """
    generator = torch.Generator().manual_seed(config.seed)
    plan = PLANS[config.strategy]
    network, unshared = fork(config, backbone)
    patch: Patch | None = None
    if fused:
        patch = fused_patch(fused, config.fusion_width, backbone.config, generator)
    elif plan.patch:
        patch = Patch(config.patch, backbone.config, generator, backbone.items)
    width = readout_named(config.readout).width(backbone.config.channels)
    heads = [task_objective(config, task, train).new_head(width, generator) for task, train in tasks]
    modules = [build_readout_module(config.readout, backbone.config.channels, generator) for _ in tasks]
    return [
        Trainable(network, unshared, plan.trained, patch, head, module)
        for head, module in zip(heads, modules, strict=True)
    ]


def fork(config: AdaptConfig, backbone: Backbone) -> tuple[Backbone, UnsharedModules | None]:
    """Return the backbone that a strategy works on, and what of it is not shared with the frozen one.

    What is shared is frozen, what is not is trainable or frozen as the strategy says.

    Raises:
        ConfigError: the strategy trains more blocks than there are.
    """
    plan = PLANS[config.strategy]
    backbone.requires_grad_(False)
    if plan.unshared == 0:
        return backbone, None
    blocks = len(backbone.blocks)
    if plan.unshared is not None and plan.unshared > blocks:
        raise ConfigError(
            f"strategy {config.strategy} trains the last {plan.unshared} blocks, but the backbone has {blocks}",
            remedy="use strategy all, or last1",
        )
    unshared = UnsharedModules(
        embedding=plan.unshared is None,
        blocks=blocks if plan.unshared is None else plan.unshared,
        per_block=plan.per_block,
    )
    # A seed of its own: the pre-trained backbone may have started at random weights of the same seed.
    pretrained = starts_pretrained(config)
    start = backbone if pretrained else _untrained(backbone, config.seed + 1)
    network = start.fork(unshared)
    network.modules_of(unshared).requires_grad_(plan.trained)
    return network, unshared


def _untrained(backbone: Backbone, seed: int) -> Backbone:
    return build_backbone(backbone.config, backbone.items, seed=seed, feature_sizes=backbone.feature_sizes)


def starts_pretrained(config: AdaptConfig) -> bool:
    """Return whether a strategy begins with the weights of the pre-trained backbone."""
    return PLANS[config.strategy].pretrained and (config.strategy, config.joint_init) != ("joint", "random")
