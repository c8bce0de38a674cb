"""More targets for a ranking bundle: each gets a vector and a bias, and of those it had no byte is changed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from peterrec.arguments import checked
from peterrec.artifacts.bundle_io import Bundle, save_bundle
from peterrec.artifacts.hub import artifact_folder
from peterrec.data.arrow_arrays import single_array
from peterrec.data.catalogue import Catalogue
from peterrec.data.corpus import Corpus, Task
from peterrec.data.hashing import id_hash
from peterrec.data.item_content import read_item_ids
from peterrec.data.sequences import IntArray, Sequences
from peterrec.errors import DataError, TaskError
from peterrec.model import UserModel
from peterrec.nn.eraser import Eraser
from peterrec.nn.heads import ItemHead
from peterrec.sequence_model import attach_bundle, with_separate_bundles
from peterrec.storage import check_output
from peterrec.training.new_items import predicted_outputs
from peterrec.training.ridge_probe import RidgeProbe

logger = logging.getLogger(__name__)


@checked
def grow_targets(
    backbone: str | Path | UserModel,
    corpus: str | Path | Corpus,
    task: str,
    bundle: str | Path | Bundle,
    out: str | Path,
    *,
    retired: Any = None,
    overwrite: bool = False,
) -> Bundle:
    """Add the targets of a task to a ranking bundle that it lacks, and write the larger bundle to `out`.

    A ridge regression says which users have which target, old or new, by what the bundle's head reads of them; what the
    head has for old targets is predicted from that, by another regression, and then so for new ones. Old targets keep
    their order, their scores and every byte; patch and readout are the same.

    Args:
        backbone: a folder written by `pretrain` or `grow`, `hf://organization/name`, or a loaded model.
        corpus: a folder written by `prepare` with the backbone's catalogue, or an opened corpus, with the task.
        task: name of a ranking task of the corpus, whose train users have new targets.
        bundle: folder of a ranking bundle of the backbone, or a bundle.
        out: folder of the bundle to write.
        retired: items that are to be recommended no more: Parquet, CSV or a DataFrame with a column `item_id`. In
            histories they are read as before.
        overwrite: whether a bundle that is there may be replaced.

    Returns:
        The bundle, as it was written; `metrics` has `grown_targets`: how many were added.

    Raises:
        TaskError: the task or the bundle is no ranking one, or there is no task of that name.
        DataError: the task has no target that the bundle lacks, and none is retired; all are; or `retired` cannot be
            read.
        FingerprintError: backbone, corpus and bundle do not belong together.
        ArtifactError: `out` exists and `overwrite` is false, or something cannot be read.
        StorageError: the disk is full or the place is not writable.
    """
    check_output(Path(out), overwrite=overwrite, kind="bundle")
    if not isinstance(backbone, UserModel):
        backbone = UserModel.from_pretrained(artifact_folder(backbone, "backbone"))
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    backbone.pretrained.check_corpus(corpus)
    model, spec = with_separate_bundles(backbone), corpus.task(task)
    key = attach_bundle(model, bundle)
    loaded = model.bundle(key)
    if loaded.targets is None or spec.targets is None:
        name, kind = (loaded.name, loaded.kind) if loaded.targets is None else (task, spec.kind)
        raise TaskError(f"{name!r} is of kind {kind}: it has no targets", remedy="name a ranking task and a bundle")
    targets = _extended(loaded.targets, spec.targets)
    added, stays = len(targets) - len(loaded.targets), _places_that_stay(targets, retired)
    if not added and len(stays) == len(targets):
        raise DataError(
            f"task {task!r} has no target that the bundle lacks" + ("" if retired is None else ", and none is retired"),
            remedy="lower min_item_events of the task, or prepare a later log",
            path=corpus.path,
        )
    head = cast(ItemHead, loaded.head)
    if added:
        head = _larger_head(model, key, spec, targets)
    head = _head_of(head.weight.detach()[stays], head.bias.detach()[stays])
    grown = replace(
        loaded,
        head=head,
        targets=targets.take(stays),
        trained=loaded.trained | {"head": sum(parameter.numel() for parameter in head.parameters())},
        metrics=loaded.metrics | {"grown_targets": loaded.metrics.get("grown_targets", 0) + added},
    )
    logger.info(f"added {added:,} targets to {len(loaded.targets):,}, and retired {len(targets) - len(stays):,}")
    save_bundle(Path(out), grown, overwrite=overwrite)
    return grown


def _extended(targets: Catalogue, later: Catalogue) -> Catalogue:
    new = np.flatnonzero(~targets.knows(later.ids))
    return targets.extended(single_array(later.ids.take(pa.array(new))), later.counts[new])


def _places_that_stay(targets: Catalogue, retired: Any) -> IntArray:
    """Return the positions of targets that are not retired, ascending.

    Raises:
        DataError: none is left, or the table cannot be read.
    """
    if retired is None:
        return np.arange(len(targets))
    leaves = np.isin(np.arange(len(targets)), np.asarray(targets.encode(read_item_ids(retired))))
    if leaves.all():
        raise DataError("all targets would be retired", remedy="leave some in, or unload the bundle")
    return np.flatnonzero(~leaves)


def _larger_head(model: UserModel, bundle: str, task: Task, targets: Catalogue) -> ItemHead:
    """Return a head with what that of a bundle has, and rows for the targets after those."""
    loaded, train = model.bundle(bundle), task.part("train")
    assert train.targets is not None
    assert task.targets is not None
    vectors = model.representations(train.sequences, bundle)
    items = Sequences(
        np.asarray(targets.encode(task.targets.ids))[train.targets.items].astype(np.int32), train.targets.offsets
    )
    probe = RidgeProbe.fit_by_cross_validation(vectors, items, len(targets), id_hash(train.user_ids.to_pylist()))
    counts = np.bincount(items.items, minlength=len(targets))
    features = StandardScaler().fit_transform(np.column_stack([probe.weight, probe.bias, np.log1p(counts)]))
    head = cast(ItemHead, loaded.head)
    old = torch.cat([head.weight, head.bias.unsqueeze(1)], dim=1).detach().cpu().double()
    added = torch.from_numpy(predicted_outputs(features, old.numpy(), np.sqrt(counts[: len(old)]))).to(head.weight)
    larger = _head_of(torch.cat([head.weight.detach(), added[:, :-1]]), torch.cat([head.bias.detach(), added[:, -1]]))
    if loaded.eraser is not None:
        _erase_new_rows(larger, len(old), loaded.eraser)
    return larger


@torch.no_grad()
def _erase_new_rows(head: ItemHead, old: int, eraser: Eraser) -> None:
    """Put an eraser into the rows of a head behind the old ones, which have it already and stay bit for bit."""
    new = _head_of(head.weight[old:], head.bias[old:])
    eraser.to(new.weight.device).fold_into(new)
    head.weight[old:], head.bias[old:] = new.weight, new.bias


def _head_of(weight: Tensor, bias: Tensor) -> ItemHead:
    head = ItemHead(weight.shape[1], len(bias), torch.Generator())
    head.load_state_dict({"weight": weight, "bias": bias})
    return head.eval().requires_grad_(False)
