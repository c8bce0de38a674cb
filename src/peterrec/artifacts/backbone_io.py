"""A pre-trained backbone on disk: config.json, model.safetensors, catalogue.parquet, README.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from peterrec._version import __version__
from peterrec.artifacts.cards import backbone_card
from peterrec.artifacts.identity import BackboneIdentity, dump_identity, load_identity
from peterrec.artifacts.learned_content import LearnedContent
from peterrec.artifacts.popularity import Popularity
from peterrec.artifacts.tensors import fingerprint, load_into, map_into, read_tensors, write_tensors
from peterrec.config import (
    BackboneConfig,
    KeptOutUsersConfig,
    PreprocessingConfig,
    build_config,
    dump_optional,
    load_optional,
)
from peterrec.data.catalogue import Catalogue, ItemId
from peterrec.data.corpus import Corpus
from peterrec.data.preprocessing import feature_sizes
from peterrec.data.sequences import IntArray
from peterrec.errors import FingerprintError
from peterrec.nn.build import build_backbone
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.tokens import SPECIAL
from peterrec.storage import (
    FORMAT_VERSION,
    description_errors,
    new_folder,
    read_artifact,
    short_hash,
    write_file,
    write_json,
)


@dataclass(frozen=True)
class PretrainedBackbone:
    """A pre-trained backbone with its catalogue and settings: the content of a backbone folder.

    Attributes:
        network: backbone and next-item scores.
        catalogue: the source catalogue that its embedding rows stand for.
        max_length: the most recent events it was trained to read.
        unknown: what is done with items outside the catalogue: skipped, or kept in place as [UNK].
        training: how it was made: corpus fingerprint, curve, metrics, seed. Plain values.
        preprocessing: how the sequences it was trained on were made of events; None where that is not known.
        exclude_seen: whether `recommend` leaves out items of the user's own history unless it is told otherwise.
        new_users: who of its corpus was kept out of pre-training; None: nobody.
        grown_from: the backbones that it was before items were added to it, oldest first.
        content: what it learned of the content of items, which new ones get by; None: nothing.
        retired: items that are read and not recommended any more.
    """

    network: NextItemModel
    catalogue: Catalogue
    max_length: int
    unknown: Literal["skip", "unk"] = "skip"
    training: dict[str, Any] = field(default_factory=dict)
    preprocessing: PreprocessingConfig | None = None
    exclude_seen: bool = True
    new_users: KeptOutUsersConfig | None = None
    grown_from: tuple[BackboneIdentity, ...] = ()
    content: LearnedContent | None = None
    retired: tuple[ItemId, ...] = ()

    @cached_property
    def _recommended(self) -> IntArray:
        """Positions of the items that are recommended."""
        retired = np.asarray(self.catalogue.find(self.retired), dtype=np.int64) - self.catalogue.first
        return np.setdiff1d(np.arange(len(self.catalogue)), retired)

    @cached_property
    def next_items(self) -> Catalogue:
        """Items that `recommend` without a bundle chooses from: the catalogue without those that are retired."""
        return self.catalogue.take(self._recommended) if self.retired else self.catalogue

    @cached_property
    def popularity(self) -> Popularity:
        """Popularity of these items: the answer where no event is known."""
        return Popularity(self.next_items.counts)

    def next_item_outputs(self) -> tuple[Tensor, Tensor]:
        """Return vectors and biases that these items are scored with, (n, C) and (n,)."""
        weight, bias = self.network.output_table()
        if not self.retired:
            return weight, bias
        rows = torch.from_numpy(self._recommended).to(weight.device)
        return weight[rows], bias[rows]

    @property
    def fingerprint(self) -> str:
        """sha256 over all its tensors, and over where [TCL] stands unless at both ends: the tensors may be equal."""
        return self._fingerprint_of(self.network.state_dict())

    @property
    def identity(self) -> BackboneIdentity:
        """Fingerprints that tell it from others, with those of the backbones it was grown from."""
        items = self.network.backbone.items
        return BackboneIdentity(self.fingerprint, self.catalogue.fingerprint, items, self.grown_from)

    @property
    def lineage(self) -> tuple[BackboneIdentity, ...]:
        """The backbones that it was before it was trained further or items were added to it, oldest first."""
        continued = (load_identity(identity) for identity in self.training.get("lineage", ()))
        return (*continued, *self.grown_from)

    def reads(self, catalogue: Catalogue) -> bool:
        """Return whether items have the indices of a catalogue here, too: it is its own, or was before it grew."""
        earlier = (identity.catalogue_fingerprint for identity in self.grown_from)
        return catalogue.fingerprint in (self.catalogue.fingerprint, *earlier)

    def check_corpus(self, corpus: Corpus) -> None:
        """Refuse a corpus whose item indices, or codes of features of events, mean other things than here.

        Raises:
            FingerprintError: they do.
        """
        remedy = "prepare this data with the backbone's catalogue (prepare --catalogue BACKBONE), or pre-train anew"
        if not self.reads(corpus.catalogue):
            fingerprints = f"{short_hash(corpus.catalogue.fingerprint)}, {short_hash(self.catalogue.fingerprint)}"
            raise FingerprintError(
                f"its catalogue is not the backbone's ({fingerprints})", remedy=remedy, path=corpus.path
            )
        self.check_event_features(corpus)

    def check_event_features(self, corpus: Corpus) -> None:
        """Refuse a corpus whose codes of features of events mean other things than here, as `check_corpus`."""
        features, expected = _features(corpus.provenance().preprocessing), _features(self.preprocessing)
        if features and features != expected:
            raise FingerprintError(
                f"its features of events ({_names(features)}) are not the backbone's ({_names(expected)}), or have "
                "other categories",
                remedy="prepare this data with the backbone's catalogue (prepare --catalogue BACKBONE)",
                path=corpus.path,
            )

    def _fingerprint_of(self, tensors: Mapping[str, Tensor]) -> str:
        task_tokens = self.network.backbone.config.task_tokens
        use = "" if task_tokens == "both-ends" else f"task_tokens: {task_tokens}"
        return fingerprint(tensors, use)

    def before_growth(self) -> BackboneIdentity | None:
        """Return the backbone of this one's first items alone, as many as the one had that it was grown from.

        It is that one if not a byte of it was changed. None: this one was not grown.
        """
        if not self.grown_from:
            return None
        items = self.grown_from[-1].items
        rows = {"backbone.embedding.weight": SPECIAL + items, "head.weight": items, "head.bias": items, "bias": items}
        tensors = {name: tensor[: rows.get(name)] for name, tensor in self.network.state_dict().items()}
        catalogue = self.catalogue.first_items(items).fingerprint
        return BackboneIdentity(self._fingerprint_of(tensors), catalogue, items, self.grown_from[:-1])


def _features(preprocessing: PreprocessingConfig | None) -> list[tuple[str, tuple[str, ...]]]:
    """Return encoding and categories of each feature of events; in which column it stands does not matter."""
    features = () if preprocessing is None else preprocessing.columns.features
    return [(feature.encoding, feature.values) for feature in features]


def _names(features: list[tuple[str, tuple[str, ...]]]) -> str:
    return ", ".join(encoding for encoding, _ in features) or "none"


def save_backbone(
    path: Path, pretrained: PretrainedBackbone, *, config_yaml: str = "", overwrite: bool = False
) -> None:
    """Write a backbone folder, atomically.

    Raises:
        ArtifactError: the folder exists and `overwrite` is false.
        StorageError: the disk is full or the place is not writable.
    """
    network, identity = pretrained.network, pretrained.identity
    meta = {
        "kind": "backbone",
        "format_version": FORMAT_VERSION,
        "peterrec_version": __version__,
        "backbone": network.backbone.config.model_dump(mode="json"),
        "items": identity.items,
        "max_length": pretrained.max_length,
        "unknown": pretrained.unknown,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "fingerprint": identity.fingerprint,
        "catalogue_fingerprint": identity.catalogue_fingerprint,
        "training": pretrained.training,
        "preprocessing": dump_optional(pretrained.preprocessing),
        "exclude_seen": pretrained.exclude_seen,
    }
    if pretrained.new_users is not None:
        meta["new_users"] = dump_optional(pretrained.new_users)
    if pretrained.content is not None:
        meta["item_content"] = pretrained.content.fingerprint
    if pretrained.retired:
        meta["retired"] = list(pretrained.retired)
    if pretrained.grown_from:
        meta["grown_from"] = [dump_identity(ancestor) for ancestor in pretrained.grown_from]
    with new_folder(path, overwrite=overwrite, kind="backbone") as folder:
        write_json(folder / "config.json", meta)
        write_tensors(folder / "model.safetensors", network.state_dict())
        pretrained.catalogue.write(folder / "catalogue.parquet")
        if pretrained.content is not None:
            pretrained.content.write(folder)
        write_file(folder / "README.md", backbone_card(meta).encode())
        if config_yaml:
            write_file(folder / "config.yaml", config_yaml.encode())


def load_backbone(path: Path, *, mapped: bool = False) -> PretrainedBackbone:
    """Read a backbone folder and check its fingerprints.

    Args:
        path: the folder.
        mapped: leave the tensors in the pages of the file, which all processes of a machine share, and copy none. They
            must not be trained then, and the file must stay as it is. Nothing is checked by reading all of it: for
            workers, after whoever gave them the folder loaded it.

    Raises:
        ArtifactError: missing, damaged, or not a backbone.
        FormatVersionError: written in another format version.
        FingerprintError: tensors or catalogue are not those that were saved.
    """
    meta = read_artifact(path, "backbone")
    with description_errors(path / "config.json"):
        config = build_config(BackboneConfig, meta["backbone"])
        stated, file = load_identity(meta), path / "model.safetensors"
        preprocessing = load_optional(PreprocessingConfig, meta["preprocessing"])
        with torch.random.fork_rng(devices=[]):  # weights are drawn before they are replaced
            items = 1 if mapped else stated.items
            network = NextItemModel(build_backbone(config, items, feature_sizes=feature_sizes(preprocessing)))
        catalogue = Catalogue.read(path / "catalogue.parquet")
        if mapped:
            map_into(network, read_tensors(file, finite=False), file)
            network.backbone.set_items(stated.items)
        else:
            load_into(network, read_tensors(file), file)
        pretrained = PretrainedBackbone(
            network, catalogue, meta["max_length"], meta["unknown"], meta["training"],
            preprocessing=preprocessing,
            exclude_seen=meta["exclude_seen"],
            new_users=load_optional(KeptOutUsersConfig, meta.get("new_users")),
            grown_from=stated.grown_from,
            content=None if mapped or "item_content" not in meta else LearnedContent.read(path, meta["item_content"]),
            retired=tuple(meta.get("retired", ())),
        )  # fmt: skip
    if not mapped:
        _check_identity(path, pretrained.identity, stated, "its {}")
        if (before := pretrained.before_growth()) is not None:
            _check_identity(path, before, stated.grown_from[-1], "the {} that it was grown from")
    return pretrained


def _check_identity(path: Path, actual: BackboneIdentity, stated: BackboneIdentity, parts: str) -> None:
    fingerprints = {
        "tensors": (actual.fingerprint, stated.fingerprint),
        "catalogue": (actual.catalogue_fingerprint, stated.catalogue_fingerprint),
    }
    for part, (value, expected) in fingerprints.items():
        if value != expected:
            raise FingerprintError(
                f"the fingerprint of {parts.format(part)} is not that of its config.json "
                f"({short_hash(value)}, {short_hash(expected)})",
                remedy="a file of it was changed or mixed with another's: make the backbone again",
                path=path,
            )
