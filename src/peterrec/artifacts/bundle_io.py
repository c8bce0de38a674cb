"""An adapter bundle on disk: patch, head, modules of its own, labels or targets, metrics."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from peterrec._version import __version__
from peterrec.artifacts.bundle_outputs import Outputs, check_distinct, output_format
from peterrec.artifacts.bundle_parts import (
    REFERENCE_FILE,
    check_fingerprint,
    check_sizes,
    dump_unshared,
    read_reference,
)
from peterrec.artifacts.cards import bundle_card
from peterrec.artifacts.identity import BackboneIdentity
from peterrec.artifacts.popularity import Popularity
from peterrec.artifacts.provenance import dump_provenance, load_provenance
from peterrec.artifacts.tensors import fingerprint, load_into, read_tensors, write_tensors
from peterrec.config import (
    KeptOutUsersConfig,
    PatchConfig,
    ReadoutName,
    TaskKind,
    build_config,
    dump_optional,
    load_optional,
)
from peterrec.data.catalogue import Catalogue
from peterrec.data.corpus import Provenance
from peterrec.data.decision import Decision
from peterrec.data.number_outputs import NumberOutputs
from peterrec.data.reference import Reference
from peterrec.display import facts_html, shown
from peterrec.errors import ArtifactError
from peterrec.nn import fusion  # noqa: F401 - registers its kind
from peterrec.nn.backbone import Backbone, UnsharedModules
from peterrec.nn.calibration import Calibration, plain_probabilities
from peterrec.nn.eraser import Eraser
from peterrec.nn.heads import Head
from peterrec.nn.patch import Patch
from peterrec.nn.readout import build_readout_module, readout_named
from peterrec.nn.tokens import SPECIAL
from peterrec.storage import (
    DESCRIPTIONS,
    FORMAT_VERSION,
    description_errors,
    new_folder,
    read_artifact,
    read_json,
    write_file,
    write_json,
)

ITEM_TABLES = ("backbone.embedding.weight", "patch.task_items.table")  # with a row for each item and special token


@dataclass(frozen=True, repr=False)
class Bundle:
    """An adapter bundle: everything that one task adds to a backbone.

    Attributes:
        name: of the task.
        kind: of the task.
        strategy: what was trained.
        patch: the patch, or None (strategies without one).
        patch_config: how the patch is made, or None.
        head: class scores or item scores.
        class_names: of a classification task, in the head's order; of a multilabel task the names of its labels.
        class_priors: share of each class, or of users with each label, among the train users, in the head's order: the
            answer about a user without known events. None: of a ranking task, or of a bundle written before they were
            kept.
        targets: target catalogue of a ranking task, in the head's order.
        numbers: scale and quantiles of the head of a regression task.
        backbone: the network it runs on, where modules of it are its own; None: the frozen backbone itself.
        unshared: which modules these are.
        readout: what of the hidden states the head reads.
        readout_module: what it reads them by, where the readout is trained (`nn.readout.TrainedReadout`).
        trained: parameters that were trained, by group: embedding, blocks, norms, patch, readout, head.
        max_length: most recent events read.
        backbone_fingerprint: of the only backbone it works on.
        catalogue_fingerprint: of that backbone's catalogue.
        all_params: parameters of backbone, patch and head together.
        metrics: plain values: `valid` metrics, learning curve.
        exclude_seen: whether `recommend` leaves out items of the user's own history unless it is told otherwise.
        exclude_seen_reason: why, in words.
        provenance: corpus, split and preprocessing of the users it was trained on; None where that is not known.
        new_users: who was kept out of the pre-training of the backbone; None: nobody.
        eraser: of an attribute, for representations that are handed out: the head has it in its weights; None: none.
        erased: the attribute.
        items: that its tables were made with, where they have more since the backbone was grown; None: all.
        calibration: of the probabilities of classes or labels, fitted on valid users; None: the network's own.
        decision: thresholds and sets of classes, chosen by valid users; None: the most probable is answered.
        reference: what the valid users were like, for `drift`; None: they were too few, or it was not kept.
    """

    name: str
    kind: TaskKind
    strategy: str
    patch: Patch | None
    patch_config: PatchConfig | None
    head: Head
    class_names: tuple[str, ...]
    targets: Catalogue | None
    max_length: int
    backbone_fingerprint: str
    catalogue_fingerprint: str
    all_params: int
    trained: dict[str, int]
    backbone: Backbone | None = None
    unshared: UnsharedModules | None = None
    readout: ReadoutName = "token"
    readout_module: nn.Module | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    exclude_seen: bool = True
    exclude_seen_reason: str = ""
    provenance: Provenance | None = None
    class_priors: tuple[float, ...] | None = None
    numbers: NumberOutputs | None = None
    new_users: KeptOutUsersConfig | None = None
    eraser: Eraser | None = None
    erased: str | None = None
    items: int | None = None
    calibration: Calibration | None = None
    decision: Decision | None = None
    reference: Reference | None = None

    def __repr__(self) -> str:
        return f"Bundle({', '.join(f'{name}={shown(value)}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        curve = [row[self.metrics["monitor"]] for row in self.metrics.get("curve", []) if "monitor" in self.metrics]
        return facts_html(f"Bundle of task {self.name}", self._facts(), curve)

    def _facts(self) -> dict[str, Any]:
        answers: dict[str, Any] = {"labels" if self.kind == "multilabel" else "classes": self.class_names}
        if self.targets is not None:
            answers = {"items": len(self.targets)}
        elif self.numbers is not None:
            answers = {"predicts": ", ".join(self.numbers.names)}
        share = f"{self.trainable_params / self.all_params:.1%}"
        if self.erased is not None:
            answers["erased"] = self.erased
        valid = {f"valid {name}": value for name, value in self.metrics.get("valid", {}).items()}
        return {"task": self.name, "kind": self.kind, "strategy": self.strategy, **answers, "trained": share, **valid}

    @property
    def outputs(self) -> Outputs:
        """Meaning of the outputs of the head."""
        meaning = (self.class_names, self.class_priors, self.targets, self.numbers)
        return Outputs(*meaning, self.calibration, self.decision)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return (N, K) probabilities of classes or labels from (N, K) outputs of the head, calibrated or plain."""
        exclusive = self.kind != "multilabel"
        if self.calibration is None:
            return plain_probabilities(outputs, exclusive=exclusive)
        return self.calibration.probabilities(outputs, exclusive=exclusive)

    @property
    def outputs_fingerprint(self) -> str:
        """Fingerprint of what the head scores: classes, targets, or numbers of a scale."""
        return output_format(self.kind).fingerprint(self.outputs)

    @cached_property
    def popularity(self) -> Popularity | None:
        """Popularity of the targets of a ranking task among the train users: the answer where no event is known."""
        return None if self.targets is None else Popularity(self.targets.counts)

    @property
    def patch_params(self) -> int:
        """Parameters of the patch."""
        return self._params("patch.")

    @property
    def head_params(self) -> int:
        """Parameters of the head."""
        return self._params("head.")

    @property
    def readout_params(self) -> int:
        """Parameters of the readout."""
        return self._params("readout.")

    def _params(self, prefix: str) -> int:
        return sum(tensor.numel() for name, tensor in self.tensors().items() if name.startswith(prefix))

    @property
    def trainable_params(self) -> int:
        """Parameters that were trained, of all groups."""
        return sum(self.trained.values())

    def on(self, backbone: Backbone) -> Bundle:
        """Return the same bundle with what it shares of a backbone taken from this one: its owner, or grown from that.

        Of items that its own tables lack it has the embeddings of this backbone, with nothing that its patch adds.
        """
        bundle, patch, items = self, self.patch, self.items
        if patch is not None and patch.task_items is not None and patch.task_items.items < backbone.items:
            items = patch.task_items.items if items is None else items
            bundle = replace(bundle, patch=patch.grown(backbone.items))
        if self.backbone is None or self.unshared is None:
            return replace(bundle, items=items)
        if self.unshared.embedding and self.backbone.items < backbone.items:
            items = self.backbone.items if items is None else items
        grafted = backbone.graft(self.unshared, self.backbone.modules_of(self.unshared))
        return replace(bundle, backbone=grafted, items=items)

    def modules(self) -> nn.ModuleDict:
        """Return all that the bundle has of its own, as it is saved: `backbone`, `patch`, `readout`, ..."""
        parts: dict[str, nn.Module] = {"head": self.head}
        if self.patch is not None:
            parts["patch"] = self.patch
        if self.readout_module is not None:
            parts["readout"] = self.readout_module
        if self.eraser is not None:
            parts["eraser"] = self.eraser
        if self.backbone is not None and self.unshared is not None:
            parts["backbone"] = self.backbone.modules_of(self.unshared)
        return nn.ModuleDict(parts)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors, as `patch.*`, `readout.*`, ...: of the items that it was made with."""
        tensors = dict(self.modules().state_dict())
        if self.items is not None:
            rows = {name: tensors[name][: SPECIAL + self.items] for name in ITEM_TABLES if name in tensors}
            tensors |= rows
        return tensors


def save_bundle(path: Path, bundle: Bundle, *, config_yaml: str = "", overwrite: bool = False) -> None:
    """Write a bundle folder, atomically.

    Raises:
        ArtifactError: the folder exists and `overwrite` is false; two classes have one name; weights are not numbers.
        StorageError: the disk is full or the place is not writable.
    """
    with description_errors(path):
        check_distinct(bundle.class_names)
    tensors = bundle.tensors()
    meta = _description(bundle, fingerprint(tensors))
    with new_folder(path, overwrite=overwrite, kind="bundle") as folder:
        write_json(folder / "adapter_config.json", meta)
        write_tensors(folder / "adapter_model.safetensors", tensors)
        write_json(folder / "metrics.json", bundle.metrics)
        form = output_format(bundle.kind)
        form.write(folder / form.file, bundle.outputs)
        if bundle.reference is not None:
            write_json(folder / REFERENCE_FILE, bundle.reference.to_json())
        write_file(folder / "README.md", bundle_card(meta, bundle.metrics).encode())
        if config_yaml:
            write_file(folder / "config.yaml", config_yaml.encode())


def _description(bundle: Bundle, tensors_fingerprint: str) -> dict[str, Any]:
    """Return what `adapter_config.json` says of a bundle."""
    meta: dict[str, Any] = {
        "kind": "bundle",
        "format_version": FORMAT_VERSION,
        "peterrec_version": __version__,
        "name": bundle.name,
        "kind_of_task": bundle.kind,
        "strategy": bundle.strategy,
        "patch": bundle.patch_config.model_dump(mode="json") if bundle.patch_config is not None else None,
        "unshared": dump_unshared(bundle.unshared),
        "outputs": output_format(bundle.kind).count(bundle.outputs),
        "max_length": bundle.max_length,
        "readout": bundle.readout,
        "patch_params": bundle.patch_params,
        **({} if bundle.readout_module is None else {"readout_params": bundle.readout_params}),
        "head_params": bundle.head_params,
        "trained": bundle.trained,
        "trainable_params": bundle.trainable_params,
        "all_params": bundle.all_params,
        "trainable_fraction": bundle.trainable_params / bundle.all_params,
        "backbone_fingerprint": bundle.backbone_fingerprint,
        "catalogue_fingerprint": bundle.catalogue_fingerprint,
        "outputs_fingerprint": bundle.outputs_fingerprint,
        "fingerprint": tensors_fingerprint,
        "exclude_seen": bundle.exclude_seen,
        "exclude_seen_reason": bundle.exclude_seen_reason,
        "provenance": dump_provenance(bundle.provenance),
    }
    if bundle.eraser is not None:
        meta["erased"] = {"attribute": bundle.erased, "rank": bundle.eraser.rank}
    if bundle.new_users is not None:
        meta["new_users"] = dump_optional(bundle.new_users)
    return meta


def load_bundle(path: Path, backbone: Backbone, identity: BackboneIdentity, *, mapped: bool = False) -> Bundle:
    """Read a bundle of this backbone, or of one that it was grown from.

    Args:
        path: the folder.
        backbone: that it is to run on, by `Bundle.on`.
        identity: of the backbone.
        mapped: as in `load_backbone`.

    Raises:
        ArtifactError: missing, damaged, changed, or not a bundle.
        FormatVersionError: written in another format version.
        FingerprintError: it belongs to another backbone or catalogue.
    """
    if (path / DESCRIPTIONS["joint"]).exists():
        tasks = ", ".join(read_json(path / DESCRIPTIONS["joint"]).get("tasks", ()))
        raise ArtifactError(
            f"is a joint training of several tasks ({tasks})", remedy="name the folder of one task in it", path=path
        )
    meta = read_artifact(path, "bundle")
    with description_errors(path / "adapter_config.json"):
        owner = identity.owner(meta["backbone_fingerprint"], meta["catalogue_fingerprint"], path)
        with torch.random.fork_rng(devices=[]):  # weights are drawn before they are replaced
            return _build(path, meta, backbone.truncated(owner.items), mapped=mapped)


class _Parts(NamedTuple):
    tensors: dict[str, Tensor]
    outputs: Outputs


def read_description(path: Path) -> dict[str, Any]:
    """Return the adapter_config.json of a bundle whose files are all there and are those that were saved together.

    Raises:
        ArtifactError: missing, damaged, changed, or not a bundle.
        FormatVersionError: written in another format version.
    """
    meta = read_artifact(path, "bundle")
    with description_errors(path / DESCRIPTIONS["bundle"]):
        _read_parts(path, meta, mapped=False)
    return meta


def _read_parts(path: Path, meta: dict[str, Any], *, mapped: bool) -> _Parts:
    tensors = read_tensors(path / "adapter_model.safetensors", finite=not mapped)
    form = output_format(meta["kind_of_task"])
    outputs = form.read(path / form.file)
    if not mapped:
        check_fingerprint("tensors", fingerprint(tensors), meta["fingerprint"], path)
        check_fingerprint(form.noun, form.fingerprint(outputs), meta["outputs_fingerprint"], path)
    check_sizes(meta, form.count(outputs))
    return _Parts(tensors, outputs)


def _build(path: Path, meta: dict[str, Any], backbone: Backbone, *, mapped: bool) -> Bundle:
    tensors, outputs = _read_parts(path, meta, mapped=mapped)
    patch_config = build_config(PatchConfig, meta["patch"]) if meta["patch"] is not None else None
    readout: ReadoutName = meta["readout"]
    width = readout_named(readout).width(backbone.config.channels)
    unshared = UnsharedModules(**meta["unshared"]) if meta["unshared"] is not None else None
    erased = meta.get("erased")
    bundle = Bundle(
        name=meta["name"],
        kind=meta["kind_of_task"],
        strategy=meta["strategy"],
        patch=Patch(patch_config, backbone.config, items=backbone.items) if patch_config is not None else None,
        patch_config=patch_config,
        head=output_format(meta["kind_of_task"]).head(width, meta["outputs"]),
        **outputs._asdict(),
        max_length=meta["max_length"],
        backbone_fingerprint=meta["backbone_fingerprint"],
        catalogue_fingerprint=meta["catalogue_fingerprint"],
        all_params=meta["all_params"],
        trained=meta["trained"],
        backbone=backbone.fork(unshared) if unshared is not None else None,
        unshared=unshared,
        readout=readout,
        readout_module=build_readout_module(readout, backbone.config.channels),
        eraser=None if erased is None else Eraser(width, erased["rank"]),
        erased=None if erased is None else erased["attribute"],
        metrics=read_json(path / "metrics.json"),
        exclude_seen=meta["exclude_seen"],
        exclude_seen_reason=meta["exclude_seen_reason"],
        provenance=load_provenance(meta["provenance"]),
        new_users=load_optional(KeptOutUsersConfig, meta.get("new_users")),
        reference=read_reference(path / REFERENCE_FILE),
    )
    load_into(bundle.modules(), tensors, path, mapped=mapped)
    return bundle
