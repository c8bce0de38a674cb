"""Tiny corpora, settings that train in a blink, and runs that are stopped wherever a test says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch import Callback

from builders import ragged, tiny_catalogue
from peterrec.artifacts.tensors import fingerprint
from peterrec.config import (
    AdaptConfig,
    BackboneConfig,
    ClassificationTaskConfig,
    EventsConfig,
    LabelsConfig,
    OptimConfig,
    PatchConfig,
    PrepareConfig,
    PretrainConfig,
    RankingTaskConfig,
    RunnerConfig,
    SourceConfig,
    SplitConfig,
)
from peterrec.data.corpus import Corpus
from peterrec.data.hashing import id_hash
from peterrec.data.prepare import prepare
from peterrec.data.sequences import Sequences
from peterrec.data.synthetic import synthetic

QUIET = RunnerConfig(accelerator="cpu", progress=False, checkpoint_share=1e9)  # points wherever a test wants them
BACKBONE = BackboneConfig(channels=8, dilations=(1, 2), tie_weights=True)
# For what is to learn something.
LEARNS = {"batch_size": 32, "optim": OptimConfig(lr=0.01)}
CHANNELS = BackboneConfig(channels=16, dilations=(1, 2), tie_weights=True)


def pretrain_config(**settings: Any) -> PretrainConfig:
    """Four steps an epoch on the tiny corpus, of the paper's objective on random items."""
    defaults = {"backbone": BACKBONE, "batch_size": 24, "epochs": 3, "valid_fraction": 0.3, "runner": QUIET}
    defaults |= {"item_init": "random", "contrastive": {"weight": 0.0}, "dropout": 0.0}
    return PretrainConfig(**(defaults | settings))


def adapt_config(**settings: Any) -> AdaptConfig:
    """Four steps an epoch on the tiny corpus, whose few valid users choose the epoch."""
    defaults = {"patch": PatchConfig(bottleneck=2), "selection": "valid", "batch_size": 24, "epochs": 3}
    defaults |= {"readout": "token", "head_init": "random"}
    return AdaptConfig(**(defaults | {"runner": QUIET} | settings))


# ---------------------------------------------------------------- corpora


def prepare_synthetic(folder: Path, **numbers: int) -> Corpus:
    """Tasks `cluster` (classification) and `shop` (ranking)."""
    data = synthetic(**numbers)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(data.events, folder / "events.parquet")
    pq.write_table(data.users, folder / "users.parquet")
    config = PrepareConfig(
        events=EventsConfig(paths=(str(folder / "events.parquet"),), domain="domain"),
        source=SourceConfig(domains=("source",), min_item_events=1),
        tasks=(
            ClassificationTaskConfig(
                name="cluster", labels=LabelsConfig(path=str(folder / "users.parquet"), label="cluster")
            ),
            RankingTaskConfig(name="shop", domains=("target",), min_item_events=1),
        ),
        split=SplitConfig(train=0.7, valid=0.15, test=0.15),
    )
    return prepare(config, folder / "corpus")


def corpus_of(
    folder: Path,
    histories: Sequence[Sequence[int]],
    items: int,
    *,
    labels: Mapping[str, Sequence[int]] | None = None,
    targets: Mapping[str, Sequence[Sequence[int]]] | None = None,
    parts: Mapping[str, Sequence[Sequence[int]]] | None = None,
    rare_items: str = "drop",
) -> Corpus:
    """A corpus of exactly these histories (item indices from 4 on), as `prepare` would write it.

    `parts` are the histories of the users of a task, by part; with `labels` of them, or `targets` (of 5).
    """
    (folder / "cache").mkdir(parents=True)
    sequences, catalogue = Sequences.from_rows(histories), tiny_catalogue(items)
    np.save(folder / "cache" / "items.npy", sequences.items)
    np.save(folder / "cache" / "offsets.npy", sequences.offsets)
    np.save(folder / "cache" / "user_hashes.npy", id_hash([f"user-{i}" for i in range(len(sequences))]))
    catalogue.write(folder / "catalogue.parquet")
    kind = "classification" if labels is not None else "ranking"
    if parts is not None:
        _write_job(folder / "tasks" / "job", kind, parts, labels, targets)
    manifest = {
        "kind": "corpus",
        "format_version": 2,
        "fingerprint": fingerprint(
            {"items": torch.from_numpy(sequences.items), "o": torch.from_numpy(sequences.offsets)}
        ),
        "catalogue_fingerprint": catalogue.fingerprint,
        "users": len(sequences),
        "rare_items": rare_items,
        "tasks": [{"name": "job", "kind": kind}] if parts is not None else [],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Corpus.open(folder)


def _write_job(
    folder: Path,
    kind: str,
    parts: Mapping[str, Sequence[Sequence[int]]],
    labels: Mapping[str, Sequence[int]] | None,
    targets: Mapping[str, Sequence[Sequence[int]]] | None,
) -> None:
    folder.mkdir(parents=True)
    (folder / "task.json").write_text(json.dumps({"kind": kind, "class_names": ["no", "yes"]}))
    tiny_catalogue(5, first=0).write(folder / "targets.parquet")
    for part, rows in parts.items():
        columns: dict[str, Any] = {"user_id": [f"{part}-{i}" for i in range(len(rows))], "sequence": ragged(rows)}
        if labels is not None:
            columns["label"] = pa.array(labels[part], pa.int64())
        else:
            assert targets is not None
            columns["targets"] = ragged(targets[part])
        pq.write_table(pa.table(columns), folder / f"{part}.parquet")


# ---------------------------------------------------------------- runs that stop


class Stopped(Exception):  # noqa: N818 - a kill, as far as the run can tell
    """What a test stops a run with."""


@dataclass
class StopAt(Callback):
    """Raises at the n-th time that a hook is called; before the resume point of that step or epoch is written."""

    hook: str
    n: int
    calls: list[str] = field(default_factory=list)

    def __hash__(self) -> int:
        return id(self)

    def _count(self, hook: str) -> None:
        self.calls.append(hook)
        if hook == self.hook and self.calls.count(hook) == self.n:
            raise Stopped

    def on_train_batch_start(self, *_: Any) -> None:
        self._count("batch start")

    def on_train_batch_end(self, *_: Any) -> None:
        self._count("batch end")

    def on_validation_start(self, *_: Any) -> None:
        self._count("validation start")

    def on_validation_end(self, *_: Any) -> None:
        self._count("validation end")

    def on_train_epoch_start(self, *_: Any) -> None:
        self._count("epoch start")

    def on_train_epoch_end(self, *_: Any) -> None:
        self._count("epoch end")

    def on_train_end(self, *_: Any) -> None:
        self._count("end")


HOOKS = ("batch start", "batch end", "validation start", "validation end", "epoch start", "epoch end", "end")


def plain(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """A curve without what no two runs share."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in curve]
