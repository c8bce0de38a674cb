"""A backbone and its bundles where executors find them, loaded once by each Python worker and shared between them."""

from __future__ import annotations

import atexit
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from peterrec.artifacts.backbone_io import load_backbone
from peterrec.artifacts.bundle_io import Bundle, load_bundle
from peterrec.artifacts.identity import load_identity
from peterrec.model import UserModel
from peterrec.nn.precision import Precision
from peterrec.storage import read_json

BACKBONE_FILES = ("config.json", "model.safetensors", "catalogue.parquet")
OUTPUT_FILES = ("labels.json", "targets.parquet", "numbers.json")  # a bundle has the one of its kind
BUNDLE_FILES = ("adapter_config.json", "adapter_model.safetensors", "metrics.json", *OUTPUT_FILES)
DESCRIPTIONS = (
    "config.json",
    "adapter_config.json",
    "labels.json",
    "numbers.json",
)  # which have the fingerprints of everything else
KEY_DIGITS = 24


@dataclass(frozen=True)
class ModelFolder:
    """A folder of a backbone or bundle, for executors.

    Attributes:
        key: digest of its content.
        path: where it is on every machine; None: shipped, its files are called `peterrec-KEY-NAME`.
        files: names of its files.
    """

    key: str
    path: str | None
    files: tuple[str, ...]

    @classmethod
    def from_folder(cls, path: Path, *, on_executors: bool) -> ModelFolder:
        """Return the folder of a backbone or bundle that was loaded already, so that it is whole."""
        files = tuple(name for name in (*BACKBONE_FILES, *BUNDLE_FILES) if (path / name).is_file())
        digest = hashlib.sha256()
        for name in DESCRIPTIONS:
            if name in files:
                digest.update((path / name).read_bytes())
        return cls(digest.hexdigest()[:KEY_DIGITS], str(path.resolve()) if on_executors else None, files)

    def shipped_name(self, file: str) -> str:
        """Return what a file is called among all those that are shipped in a Spark application."""
        return f"peterrec-{self.key}-{file}"

    def find(self) -> Path:
        """Return the folder on this machine: of shipped files, one of links to them."""
        if self.path is not None:
            return Path(self.path)
        from pyspark import SparkFiles  # noqa: PLC0415 - an extra

        folder = Path(SparkFiles.getRootDirectory()) / f"peterrec-{self.key}"
        if not folder.exists():
            work = folder.with_name(f"{folder.name}.{secrets.token_hex(6)}")
            work.mkdir()
            for name in self.files:
                (work / name).symlink_to(SparkFiles.get(self.shipped_name(name)))
            try:
                work.rename(folder)
            except OSError:  # another worker was first
                if not folder.exists():
                    raise
        return folder


def ship(context: Any, path: Path, folder: ModelFolder) -> None:
    """Give the files of a folder to all executors, each of which fetches them once.

    Args:
        context: of Spark.
        path: of the folder here.
        folder: the same, to be shipped.
    """
    shipped = {Path(name).name for name in context.listFiles}
    new = [name for name in folder.files if folder.shipped_name(name) not in shipped]
    if not new:
        return
    # Executors fetch from it as long as the application runs, those that start later too. Spark takes a symbolic link
    # for the file that it leads to, by that one's name.
    staging = Path(tempfile.mkdtemp(prefix="peterrec-"))
    atexit.register(shutil.rmtree, staging, ignore_errors=True)
    for name in new:
        file = staging / folder.shipped_name(name)
        try:
            os.link((path / name).resolve(), file)
        except OSError:  # on another disk, or one without hard links
            shutil.copyfile(path / name, file)
        context.addFile(str(file))


@dataclass(frozen=True)
class ModelFiles:
    """Folders that a Python worker loads.

    Attributes:
        backbone: its folder.
        bundles: their folders.
        precision: of the network.
        compile: whether torch compiles it.
    """

    backbone: ModelFolder
    bundles: Sequence[ModelFolder]
    precision: Precision = "fp32"
    compile: bool = False


_loaded: dict[tuple[str, str, bool], UserModel] = {}


def load(files: ModelFiles) -> UserModel:
    """Return the model with its bundles, each loaded by the `key` of its folder; from disk once in a process.

    Tensors stay in the pages of their files, which all workers of a machine share. A worker holds one backbone: one of
    another takes its place.
    """
    key = (files.backbone.key, files.precision, files.compile)
    if key not in _loaded:
        _loaded.clear()
        torch.set_num_threads(1)  # tasks are what runs side by side
        pretrained = load_backbone(files.backbone.find(), mapped=True)
        _loaded[key] = UserModel(pretrained, "cpu", precision=files.precision, compile=files.compile)
    model = _loaded[key]
    for folder in files.bundles:
        if folder.key not in model.bundles:
            model.bundles[folder.key] = _load_bundle(folder.find(), model, files.backbone.find())
    return model


def _load_bundle(path: Path, model: UserModel, backbone: Path) -> Bundle:
    identity = load_identity(read_json(backbone / "config.json"))  # to compute it would be to read the table
    bundle = load_bundle(path, model.network.backbone, identity, mapped=True).on(model.network.backbone)
    bundle.modules().eval().requires_grad_(False)
    return bundle
