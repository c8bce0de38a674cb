"""Tiny untrained artifacts that tests of several modules share: plain functions, the same result every time."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from peterrec.artifacts.backbone_io import PretrainedBackbone
from peterrec.artifacts.bundle_io import Bundle
from peterrec.config import BackboneConfig, PatchConfig
from peterrec.data.catalogue import Catalogue
from peterrec.data.hashing import id_hash
from peterrec.data.number_outputs import NumberOutputs
from peterrec.data.preprocessing import feature_sizes
from peterrec.data.sequences import FIRST_ITEM, Sequences
from peterrec.nn.build import build_backbone
from peterrec.nn.heads import ClassificationHead, Head, ItemHead, MultilabelHead, RegressionHead
from peterrec.nn.next_item import NextItemModel
from peterrec.nn.patch import Patch
from peterrec.nn.readout import build_readout_module, readout_named
from peterrec.training.strategies import group_counts

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="torch compiles for the CPU with g++"
)
CLASSES = ("young", "old", "older")


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow past `size` bytes: what a full disk does, for real."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def shaken(module: torch.nn.Module, seed: int = 0, scale: float = 0.3) -> torch.nn.Module:
    """Give every parameter a random value: a fresh patch does nothing, fresh biases are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module


# ---------------------------------------------------------------- catalogue, backbone, bundles


def tiny_catalogue(items: int = 12, *, integers: bool = False, first: int = FIRST_ITEM) -> Catalogue:
    """item-0, item-1, ... (or 100, 101, ...), each with one event less than the one before."""
    ids = [100 + i if integers else f"item-{i}" for i in range(items)]
    return Catalogue(pa.array(ids), np.arange(items, 0, -1), first=first)


def tiny_pretrained(catalogue: Catalogue | None = None, *, seed: int = 0, **settings: Any) -> PretrainedBackbone:
    """An untrained backbone of 8 channels whose users and items differ visibly; `settings` of `PretrainedBackbone`."""
    catalogue = catalogue or tiny_catalogue()
    values = {"channels": 8, "dilations": (1, 2), "tie_weights": True} | settings.pop("backbone", {})
    config = BackboneConfig(**values)
    sizes = feature_sizes(settings.get("preprocessing"))
    network = NextItemModel(build_backbone(config, len(catalogue), seed=seed, feature_sizes=sizes), seed=seed)
    shaken(network, seed, scale=0.5)
    with torch.no_grad():
        network.backbone.embedding.weight[0].zero_()
    defaults = {"max_length": 6, "training": {"users": 7, "metrics": {"mrr@10": 0.25}}}
    return PretrainedBackbone(network, catalogue, **(defaults | settings))


def tiny_bundle(pretrained: PretrainedBackbone, *, targets: Catalogue | None = None, **settings: Any) -> Bundle:
    """A bundle that does something: of a ranking task if it has targets, a regression task if it has `numbers`.

    `settings`: fields of `Bundle`; `seed`; and `strategy="head"` for a bundle without a patch.
    """
    seed = settings.pop("seed", 0)
    strategy = settings.get("strategy", "patch")
    patch_config = settings.pop("patch_config", PatchConfig(bottleneck=3)) if strategy == "patch" else None
    backbone = pretrained.network.backbone.config
    numbers: NumberOutputs | None = settings.get("numbers")
    names = settings.pop("class_names", CLASSES) if targets is None and numbers is None else ()
    generator = torch.Generator().manual_seed(seed)
    width = readout_named(settings.get("readout", "token")).width(backbone.channels)
    if numbers is not None:
        head: Head = RegressionHead(width, numbers.count, generator)
    elif settings.get("kind") == "multilabel":
        head = MultilabelHead(width, len(names), generator)
    elif targets is None:
        head = ClassificationHead(width, len(names), generator)
    else:
        head = ItemHead(width, len(targets), generator)
    readout = build_readout_module(settings.get("readout", "token"), backbone.channels, generator)
    patch = Patch(patch_config, backbone, items=len(pretrained.catalogue)) if patch_config is not None else None
    if patch is not None:
        shaken(patch, seed + 1)
    defaults: dict[str, Any] = {
        "name": "age" if targets is None else "shop",
        "kind": "regression" if numbers is not None else "classification" if targets is None else "ranking",
        "strategy": strategy,
        "max_length": 5,
        "backbone_fingerprint": pretrained.fingerprint,
        "catalogue_fingerprint": pretrained.catalogue.fingerprint,
        "all_params": 1000,
        "trained": group_counts(None, patch, [head], [] if readout is None else [readout]),
        "readout_module": None if readout is None else shaken(readout, seed + 3),
        "metrics": {"valid": {"accuracy": 0.5}, "best_epoch": 3},
        "class_priors": tuple((np.arange(len(names), 0, -1) / sum(range(len(names) + 1))).tolist()) if names else None,
    }
    shaken(head, seed + 2)
    parts = {"patch": patch, "patch_config": patch_config, "head": head, "class_names": names, "targets": targets}
    return Bundle(**(parts | defaults | settings))


# ---------------------------------------------------------------- corpus


def ragged(rows: Sequence[Sequence[int]]) -> pa.Array:
    """Rows as the list column of a Parquet file."""
    sequences = Sequences.from_rows(rows)
    return pa.ListArray.from_arrays(pa.array(sequences.offsets, pa.int32()), pa.array(sequences.items, pa.int32()))


def random_histories(users: int, items: int, seed: int = 0, longest: int = 9) -> list[list[int]]:
    """Sequences of item indices; the first user has none."""
    rng = np.random.default_rng(seed)
    lengths = [0, *rng.integers(1, longest + 1, users - 1)]
    return [(FIRST_ITEM + rng.integers(0, items, length)).tolist() for length in lengths]


def write_corpus(folder: Path, *, users: int = 10, catalogue: Catalogue | None = None, **manifest: Any) -> Path:
    """A corpus folder as `prepare` writes it: tasks `age` (classification) and `shop` (ranking, 5 targets)."""
    catalogue = catalogue or tiny_catalogue()
    (folder / "cache").mkdir(parents=True)
    sequences = Sequences.from_rows(random_histories(users, len(catalogue)))
    np.save(folder / "cache" / "items.npy", sequences.items)
    np.save(folder / "cache" / "offsets.npy", sequences.offsets)
    np.save(folder / "cache" / "user_hashes.npy", id_hash([f"user-{i}" for i in range(users)]))
    catalogue.write(folder / "catalogue.parquet")
    tasks = [{"name": "age", "kind": "classification"}, {"name": "shop", "kind": "ranking"}]
    for task in tasks:
        _write_task(folder / "tasks" / task["name"], task, users, len(catalogue))
    meta = {
        "kind": "corpus",
        "format_version": 2,
        "fingerprint": "f" * 64,
        "catalogue_fingerprint": catalogue.fingerprint,
        "users": users,
        "events": len(sequences.items),
        "items": len(catalogue),
        "rare_items": "drop",
        "tasks": tasks,
    }
    (folder / "manifest.json").write_text(json.dumps(meta | manifest))
    return folder


def _write_task(folder: Path, task: dict[str, str], users: int, items: int) -> None:
    folder.mkdir(parents=True)
    ranking = task["kind"] == "ranking"
    targets = tiny_catalogue(5, first=0)
    description = {"targets_fingerprint": targets.fingerprint} if ranking else {"class_names": list(CLASSES)}
    (folder / "task.json").write_text(json.dumps(task | description))
    if ranking:
        targets.write(folder / "targets.parquet")
    for seed, part in enumerate(("train", "valid", "test")):
        rng = np.random.default_rng(seed)
        columns: dict[str, Any] = {
            "user_id": [f"{part}-{i}" for i in range(users)],
            "sequence": ragged(random_histories(users, items, seed)),
        }
        if ranking:
            columns["targets"] = ragged([rng.permutation(5)[: 1 + i % 3].tolist() for i in range(users)])
        else:
            columns["label"] = pa.array(np.arange(users) % len(CLASSES), pa.int64())
        pq.write_table(pa.table(columns), folder / f"{part}.parquet")
