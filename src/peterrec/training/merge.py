"""The verb `merge`: one bundle of several of the same task."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from peterrec.arguments import checked
from peterrec.artifacts.bundle_io import Bundle, load_bundle, save_bundle
from peterrec.artifacts.hub import artifact_folder
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import BottleneckConfig, PatchConfig
from peterrec.errors import ConfigError, FingerprintError
from peterrec.model import UserModel
from peterrec.nn.backbone import Backbone
from peterrec.nn.patch import Patch
from peterrec.training.merged_weights import averaged, side_by_side, ties

logger = logging.getLogger(__name__)

Method = Literal["linear", "ties", "cat"]
RANDOM_STARTS = ("scratch", "patch-random")  # strategies whose backbone is drawn, and not kept as it was
TIES_DENSITY = 0.2  # what the paper of TIES takes where nothing is tuned

SHARED_FACTS: dict[str, Callable[[Bundle], Any]] = {
    "task": lambda bundle: (bundle.name, bundle.kind),
    "strategy": lambda bundle: bundle.strategy,
    "patch": lambda bundle: bundle.patch_config,
    "readout": lambda bundle: bundle.readout,
    "length of histories": lambda bundle: bundle.max_length,
    "classes, targets or scale of numbers": lambda bundle: bundle.outputs_fingerprint,
    "order of classes": lambda bundle: bundle.class_names,
    "modules of its own": lambda bundle: bundle.unshared,
    "items": lambda bundle: bundle.items,
    "split of users": lambda bundle: bundle.provenance and bundle.provenance.split,
    "preparation of events": lambda bundle: bundle.provenance and bundle.provenance.preprocessing,
}
"""What bundles that are merged must have in common, by its name in messages."""


@checked
def merge_bundles(
    backbone: str | Path | UserModel,
    bundles: Sequence[str | Path | Bundle],
    out: str | Path | None = None,
    *,
    method: Method = "linear",
    weights: Sequence[float] | None = None,
    density: float = TIES_DENSITY,
    overwrite: bool = False,
) -> Bundle:
    """Merge bundles of one task, of several seeds or weeks, into one that costs as much as each.

    `linear` averages all weights. `ties` does so to changes of the same start (TIES-Merging: Yadav et al., NeurIPS
    2023), heads are averaged. `cat` puts bottlenecks side by side, so that a patch adds the mean of what each adds: of
    patches of different seeds, too, but it is as wide as all of them together.

    Args:
        backbone: folder of `pretrain` or `grow`, `hf://organization/name`, or a model: that the bundles are of.
        bundles: two or more, as folders or as `adapt` returns them, of the same task, strategy and settings.
        out: folder of the bundle to write; None writes none.
        method: how.
        weights: of each bundle, such as its number of users; None: all alike.
        density: of `ties`: fraction of the changes of each that stay.
        overwrite: replace the bundle at `out`.

    Returns:
        The bundle. `metrics` has what was merged under `merged`, and no `valid`: judge it by `evaluate`.

    Raises:
        ConfigError: fewer than two bundles, weights that do not fit, bundles that differ in what they must have in
            common, or that a method cannot merge.
        FingerprintError: a bundle is of another backbone.
        ArtifactError: a folder is missing or damaged, or `out` exists.
        StorageError: `out` cannot be written.
    """
    if method not in get_args(Method):
        raise ConfigError(f"{method!r} is no method", remedy=f"choose one of {', '.join(get_args(Method))}")
    shares = _shares(len(bundles), weights)
    if not 0 < density <= 1:
        raise ConfigError(f"density is {density:g}", remedy="give a fraction above 0, at most 1")
    if not isinstance(backbone, UserModel):
        backbone = UserModel.from_pretrained(artifact_folder(backbone, "backbone"))
    # Calibration, thresholds and the users to compare with were of each bundle's own answers.
    loaded = [_loaded(bundle, backbone) for bundle in bundles]
    uncalibrated = [replace(bundle, calibration=None, decision=None, reference=None) for bundle in loaded]
    _require_same(uncalibrated)
    merged = _merged(uncalibrated, shares, backbone, method, density)
    if any(bundle.calibration is not None or bundle.decision is not None for bundle in loaded):
        merged.metrics["warnings"].append(
            "calibration and thresholds of the bundles were of their own answers: it has none"
        )
    if out is not None:
        save_bundle(Path(out), merged, overwrite=overwrite)
    for warning in merged.metrics["warnings"]:
        logger.warning(warning)
    return merged


def _shares(bundles: int, weights: Sequence[float] | None) -> list[float]:
    if bundles < 2:
        raise ConfigError(f"{bundles} bundles are nothing to merge", remedy="name two or more")
    if weights is None:
        return [1.0 / bundles] * bundles
    if len(weights) != bundles or min(weights) <= 0:
        raise ConfigError(
            f"weights are {', '.join(f'{weight:g}' for weight in weights) or 'none'}, for {bundles} bundles",
            remedy="give a number above 0 for each",
        )
    return [weight / sum(weights) for weight in weights]


def _loaded(bundle: str | Path | Bundle, model: UserModel) -> Bundle:
    if not isinstance(bundle, Bundle):
        return load_bundle(artifact_folder(bundle, "bundle"), model.network.backbone, model.identity)
    model.identity.owner(bundle.backbone_fingerprint, bundle.catalogue_fingerprint)
    return bundle


def _require_same(bundles: Sequence[Bundle]) -> None:
    """Refuse bundles that differ in what they must have in common.

    Raises:
        FingerprintError: they are of different backbones.
        ConfigError: they differ in something else, or have erasers.
    """
    first = bundles[0]
    if len({bundle.backbone_fingerprint for bundle in bundles}) > 1:
        raise FingerprintError("bundles of different backbones cannot be merged", remedy="adapt to the same backbone")
    for name, value in SHARED_FACTS.items():
        if any(value(bundle) != value(first) for bundle in bundles):
            raise ConfigError(
                f"the bundles differ in their {name}", remedy="merge bundles of one task, with the same settings"
            )
    if any(bundle.eraser is not None for bundle in bundles):
        raise ConfigError(
            f"{first.erased or 'an attribute'} was erased from what a bundle reads, by that bundle's own readouts",
            remedy="merge bundles without an eraser",
        )


def _merged(
    bundles: Sequence[Bundle], shares: Sequence[float], model: UserModel, method: Method, density: float
) -> Bundle:
    first = bundles[0]
    owner = model.identity.owner(first.backbone_fingerprint, first.catalogue_fingerprint)
    backbone = model.network.backbone.truncated(owner.items)
    networks = [{name: tensor.detach().cpu() for name, tensor in bundle.tensors().items()} for bundle in bundles]
    tensors, config = averaged(networks, shares), first.patch_config
    if method == "ties":
        start = _common_start(bundles, backbone)
        changed = [{name: weights[name] for name in start} for weights in networks]
        tensors |= ties(changed, shares, start, density)
    elif method == "cat":
        config = _side_by_side_config(bundles)
        patches = [{name: weights[name] for name in weights if name.startswith("patch.")} for weights in networks]
        tensors |= side_by_side(patches, shares)
    merged = replace(
        first,
        patch=None if config is None else Patch(config, backbone.config, items=backbone.items),
        patch_config=config,
        head=copy.deepcopy(first.head).cpu(),
        readout_module=copy.deepcopy(first.readout_module),
        backbone=None if first.unshared is None else backbone.fork(first.unshared),
        class_priors=_priors(bundles, shares),
        items=None,
    )
    merged.modules().load_state_dict(tensors)
    merged.modules().eval().requires_grad_(False)
    added = merged.patch_params - first.patch_params
    trained = first.trained | ({"patch": merged.patch_params} if added else {})
    metrics = _metrics(bundles, shares, method, density)
    return replace(merged, trained=trained, all_params=first.all_params + added, metrics=metrics)


def _priors(bundles: Sequence[Bundle], shares: Sequence[float]) -> tuple[float, ...] | None:
    priors = [bundle.class_priors for bundle in bundles if bundle.class_priors is not None]
    if len(priors) < len(bundles):
        return None
    return tuple(np.average(np.array(priors), axis=0, weights=shares).tolist())


def _common_start(bundles: Sequence[Bundle], backbone: Backbone) -> dict[str, Tensor]:
    """Return the weights that all trainings began with, of patches and of the backbone's own modules.

    Raises:
        ConfigError: they began with different ones, or it is not known with which.
    """
    first = bundles[0]
    seeds = {bundle.metrics.get("seed") for bundle in bundles}
    if first.strategy in RANDOM_STARTS or (first.patch is not None and (len(seeds) > 1 or None in seeds)):
        raise ConfigError(
            "ties merges changes of the same start, and these bundles began with different random weights, or do not "
            "say with which", remedy="adapt with one seed, or merge by linear or cat",
        )  # fmt: skip
    parts: dict[str, nn.Module] = {}
    if first.patch_config is not None:
        generator = torch.Generator().manual_seed(int(first.metrics["seed"]))
        parts["patch"] = Patch(first.patch_config, backbone.config, generator, backbone.items)
    if first.unshared is not None:
        parts["backbone"] = backbone.modules_of(first.unshared)
    if not parts:
        raise ConfigError("the bundles have a head only, which ties does not merge", remedy="merge by linear")
    return {name: tensor.detach().cpu() for name, tensor in nn.ModuleDict(parts).state_dict().items()}


def _side_by_side_config(bundles: Sequence[Bundle]) -> PatchConfig:
    """Return the settings of the patch that has the bottlenecks of all of them.

    Raises:
        ConfigError: they have none.
    """
    config, patch = bundles[0].patch_config, bundles[0].patch
    if patch is None or not isinstance(config, BottleneckConfig):
        raise ConfigError("cat puts bottlenecks side by side, and these bundles have none", remedy="merge by linear")
    width = next(int(patch.state_dict()[name].shape[0]) for name in patch.state_dict() if name.endswith("down.weight"))
    rank = None if config.item_rank is None else config.item_rank * len(bundles)
    return config.model_copy(update={"bottleneck": width * len(bundles), "item_rank": rank})


def _metrics(bundles: Sequence[Bundle], shares: Sequence[float], method: Method, density: float) -> dict[str, Any]:
    sources = [
        {
            "fingerprint": fingerprint(bundle.tensors()),
            "weight": share,
            "seed": bundle.metrics.get("seed"),
            "valid": bundle.metrics.get("valid", {}),
        }
        for bundle, share in zip(bundles, shares, strict=True)
    ]
    warnings = []
    seeds = {str(bundle.metrics.get("seed", "unknown")) for bundle in bundles}
    if method == "linear" and bundles[0].patch is not None and len(seeds) > 1:
        warnings.append(
            f"patches of seeds {', '.join(sorted(seeds))} began with other random weights, so that the mean of their "
            "weights is not a mean of what they do: evaluate it, or merge by cat"
        )
    settings = {"density": density} if method == "ties" else {}
    return {"merged": {"method": method, **settings, "bundles": sources}, "warnings": warnings}
