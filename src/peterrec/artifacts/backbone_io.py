"""A pre-trained backbone on disk: config.json, model.safetensors, catalogue.parquet, README.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from peterrec._version import __version__
from peterrec.artifacts.cards import backbone_card
from peterrec.artifacts.tensors import fingerprint, load_into, map_into, read_tensors, write_tensors
from peterrec.config import (
    BackboneConfig,
    KeptOutUsersConfig,
    PreprocessingConfig,
    build_config,
    dump_optional,
    load_optional,
)
from peterrec.data.catalogue import Catalogue
from peterrec.errors import FingerprintError
from peterrec.nn.build import build_backbone
from peterrec.nn.next_item import NextItemModel
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
    """

    network: NextItemModel
    catalogue: Catalogue
    max_length: int
    unknown: Literal["skip", "unk"] = "skip"
    training: dict[str, Any] = field(default_factory=dict)
    preprocessing: PreprocessingConfig | None = None
    exclude_seen: bool = True
    new_users: KeptOutUsersConfig | None = None

    @property
    def fingerprint(self) -> str:
        """sha256 over all its tensors, and over where [TCL] stands unless at both ends: the tensors may be equal."""
        task_tokens = self.network.backbone.config.task_tokens
        use = "" if task_tokens == "both-ends" else f"task_tokens: {task_tokens}"
        return fingerprint(self.network.state_dict(), use)


def save_backbone(
    path: Path, pretrained: PretrainedBackbone, *, config_yaml: str = "", overwrite: bool = False
) -> None:
    """Write a backbone folder, atomically.

    Raises:
        ArtifactError: the folder exists and `overwrite` is false.
        StorageError: the disk is full or the place is not writable.
    """
    network = pretrained.network
    meta = {
        "kind": "backbone",
        "format_version": FORMAT_VERSION,
        "peterrec_version": __version__,
        "backbone": network.backbone.config.model_dump(mode="json"),
        "items": network.backbone.items,
        "max_length": pretrained.max_length,
        "unknown": pretrained.unknown,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "fingerprint": pretrained.fingerprint,
        "catalogue_fingerprint": pretrained.catalogue.fingerprint,
        "training": pretrained.training,
        "preprocessing": dump_optional(pretrained.preprocessing),
        "exclude_seen": pretrained.exclude_seen,
    }
    if pretrained.new_users is not None:
        meta["new_users"] = dump_optional(pretrained.new_users)
    with new_folder(path, overwrite=overwrite, kind="backbone") as folder:
        write_json(folder / "config.json", meta)
        write_tensors(folder / "model.safetensors", network.state_dict())
        pretrained.catalogue.write(folder / "catalogue.parquet")
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
        items, file = int(meta["items"]), path / "model.safetensors"
        with torch.random.fork_rng(devices=[]):  # weights are drawn before they are replaced
            network = NextItemModel(build_backbone(config, 1 if mapped else items))
        catalogue = Catalogue.read(path / "catalogue.parquet")
        if mapped:
            map_into(network, read_tensors(file, finite=False), file)
            network.backbone.set_items(items)
        else:
            load_into(network, read_tensors(file), file)
        pretrained = PretrainedBackbone(
            network, catalogue, meta["max_length"], meta["unknown"], meta["training"],
            preprocessing=load_optional(PreprocessingConfig, meta["preprocessing"]),
            exclude_seen=meta["exclude_seen"],
            new_users=load_optional(KeptOutUsersConfig, meta.get("new_users")),
        )  # fmt: skip
        expected = {"tensors": meta["fingerprint"], "catalogue": meta["catalogue_fingerprint"]}
    if mapped:
        return pretrained
    actual = {"tensors": pretrained.fingerprint, "catalogue": catalogue.fingerprint}
    for part, value in expected.items():
        if actual[part] != value:
            raise FingerprintError(
                f"the fingerprint of its {part} is not that of its config.json "
                f"({short_hash(actual[part])}, {short_hash(value)})",
                remedy="a file of it was changed or mixed with another's: make the backbone again",
                path=path,
            )
    return pretrained
